//! RST and ICMP errors of our own.

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::{Segment, TCP, UDP, frame, icmp, icmp_number, ip, ip_with, part, sum, tcp, udp};
use blixt_core::simulation::Buffer;
use blixt_packet::abi::{BACKEND_GONE, WAY_NAT, WAY_TRANSPARENT};
use blixt_packet::{DropReason, Verdict};

use crate::world::{BACKEND_MAC, CLIENT_MAC, CLIENT_SIDE, INNER_MAC, OUR_MAC, World, buffer};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const PORTS: [u16; 2] = [4242, 81];

/// What comes out when a frame from the client says this to the address that only Blixt owns.
fn refused(net: &Net, segment: Segment, payload: &[u8]) -> (Verdict, Vec<u8>) {
    let segment = Segment { ports: PORTS, ..segment };
    World::new(WAY_NAT).client_sends(&ip(
        net.client,
        net.owned,
        TCP,
        60,
        &tcp(net.client, net.owned, segment, payload),
    ))
}

/// The RST that the client gets.
fn reset(net: &Net, segment: Segment) -> Vec<u8> {
    let segment = Segment { ports: [81, 4242], ..segment };
    frame(CLIENT_MAC, OUR_MAC, &ip(net.owned, net.client, TCP, 64, &tcp(net.owned, net.client, segment, &[])))
}

fn answered(reason: DropReason) -> Verdict {
    Verdict::Answer(Some(reason))
}

#[test]
fn a_syn_to_a_port_that_nobody_owns_gets_a_rst_that_acknowledges_it() {
    for net in nets() {
        let (verdict, answer) =
            refused(&net, Segment { sequence: 0xffff_ffff, flags: SYN, ..Segment::default() }, b"");
        assert_eq!(verdict, answered(DropReason::Refused));
        assert_eq!(answer, reset(&net, Segment { flags: RST | ACK, ..Segment::default() }));
    }
}

#[test]
fn a_segment_without_ack_gets_a_rst_behind_its_data() {
    for net in nets() {
        let (_, answer) =
            refused(&net, Segment { sequence: 1000, flags: SYN | FIN, ..Segment::default() }, b"odd");
        let expected = Segment { acknowledgement: 1005, flags: RST | ACK, ..Segment::default() };
        assert_eq!(answer, reset(&net, expected));
    }
}

#[test]
fn a_segment_with_ack_gets_a_rst_where_its_sender_waits() {
    for net in nets() {
        let segment = Segment { sequence: 7, acknowledgement: 9000, flags: ACK, ..Segment::default() };
        let (verdict, answer) = refused(&net, segment, b"data");
        assert_eq!(verdict, answered(DropReason::Refused));
        assert_eq!(answer, reset(&net, Segment { sequence: 9000, flags: RST, ..Segment::default() }));
    }
}

#[test]
fn a_rst_is_never_answered() {
    for net in nets() {
        let (verdict, _) = refused(&net, Segment { flags: RST | ACK, ..Segment::default() }, b"");
        assert_eq!(verdict, Verdict::Drop(DropReason::Refused));
    }
}

#[test]
fn a_rst_has_neither_options_nor_extension_headers_nor_tag_of_its_own() {
    for net in nets() {
        let segment = Segment { ports: PORTS, sequence: 41, flags: SYN, ..Segment::default() };
        let body = tcp(net.client, net.owned, segment, b"");
        let between: &[u8] =
            if net.client.is_ipv4() { &[1, 1, 1, 0] } else { &[0, TCP, 0, 1, 4, 0, 0, 0, 0] };
        let mut input = frame(OUR_MAC, CLIENT_MAC, &ip_with(net.client, net.owned, TCP, 60, between, &body));
        input.splice(12..12, [0x81, 0, 0, 42]);
        let (verdict, answer) = World::new(WAY_NAT).forward(CLIENT_SIDE, input);
        assert_eq!(verdict, answered(DropReason::Refused));
        let mut expected =
            reset(&net, Segment { acknowledgement: 42, flags: RST | ACK, ..Segment::default() });
        expected.splice(12..12, [0x81, 0, 0, 42]);
        assert_eq!(answer, expected);
    }
}

#[test]
fn a_rst_of_a_packet_with_an_unfinished_sum_has_an_unfinished_sum() {
    for net in nets() {
        let segment = Segment { ports: PORTS, sequence: 41, flags: SYN, ..Segment::default() };
        let mut bytes = frame(
            OUR_MAC,
            CLIENT_MAC,
            &ip(net.client, net.owned, TCP, 60, &tcp(net.client, net.owned, segment, &[])),
        );
        let transport = bytes.len() - 20;
        unfinish(&net, &mut bytes, transport, TCP);
        let (verdict, mut answer) = World::new(WAY_NAT).run(partial(bytes));
        assert_eq!(verdict, answered(DropReason::Refused));
        finish(&mut answer, transport, 16);
        assert_eq!(
            answer,
            reset(&net, Segment { acknowledgement: 42, flags: RST | ACK, ..Segment::default() })
        );
    }
}

#[test]
fn a_datagram_to_a_port_that_nobody_owns_gets_port_unreachable() {
    for net in nets() {
        for length in [0, 1, 700] {
            let packet =
                ip(net.client, net.owned, UDP, 60, &udp(net.client, net.owned, PORTS, &vec![7; length]));
            let (verdict, answer) = World::new(WAY_NAT).client_sends(&packet);
            assert_eq!(verdict, answered(DropReason::Refused));
            let headers = packet.len() - length;
            assert_eq!(answer, port_unreachable(&net, &packet[..headers]));
        }
    }
}

#[test]
fn an_icmp_error_about_an_unfinished_sum_is_right_once_that_is_finished() {
    for net in nets() {
        let packet = ip(net.client, net.owned, UDP, 60, &udp(net.client, net.owned, PORTS, b"payload"));
        let mut bytes = frame(OUR_MAC, CLIENT_MAC, &packet);
        let transport = bytes.len() - 15;
        unfinish(&net, &mut bytes, transport, UDP);
        let (verdict, mut answer) = World::new(WAY_NAT).run(partial(bytes));
        assert_eq!(verdict, answered(DropReason::Refused));
        let at = answer.len() - 8;
        finish(&mut answer, at, 6);
        let embedded = if net.client.is_ipv4() { 42 } else { 62 };
        assert_eq!(answer, port_unreachable(&net, &answer[embedded..]));
    }
}

#[test]
fn the_last_hop_is_never_used_up_by_a_packet_that_goes_on() {
    for net in nets() {
        let packet =
            ip(net.client, net.frontend, UDP, 1, &udp(net.client, net.frontend, [4242, 80], b"late"));
        let (verdict, answer) = World::new(WAY_NAT).client_sends(&packet);
        assert_eq!(verdict, answered(DropReason::TtlExceeded));
        let kind = if net.client.is_ipv4() { 11 } else { 3 };
        let error = icmp(net.frontend, net.client, kind, 0, [0; 4], &packet[..packet.len() - 4]);
        let expected = ip(net.frontend, net.client, icmp_number(net.client), 64, &error);
        assert_eq!(answer, frame(CLIENT_MAC, OUR_MAC, &expected));
    }
}

#[test]
fn the_sender_of_a_packet_too_big_for_the_hop_learns_what_fits() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        world.mtu.set(1400);
        let segment = Segment { ports: [4242, 80], flags: SYN, ..Segment::default() };
        let packet =
            ip(net.client, net.frontend, TCP, 60, &tcp(net.client, net.frontend, segment, &[1; 1381]));
        let (verdict, answer) = world.client_sends(&packet);
        assert_eq!(verdict, answered(DropReason::TooBig));
        let (kind, code) = if net.client.is_ipv4() { (3, 4) } else { (2, 0) };
        let embedded = &packet[..packet.len() - 1381];
        let error = icmp(net.frontend, net.client, kind, code, [0, 0, 5, 120], embedded);
        let expected = ip(net.frontend, net.client, icmp_number(net.client), 64, &error);
        assert_eq!(answer, frame(CLIENT_MAC, OUR_MAC, &expected));
    }
}

#[test]
fn a_backend_hears_of_its_own_replies_from_the_frontend_where_it_knows_the_client() {
    for net in nets() {
        let world = World::new(WAY_TRANSPARENT);
        let request =
            ip(net.client, net.frontend, UDP, 60, &udp(net.client, net.frontend, [4242, 80], b"ask"));
        assert!(matches!(world.client_sends(&request).0, Verdict::Send(_)));
        let reply = ip(net.backend, net.client, UDP, 1, &udp(net.backend, net.client, [8080, 4242], b""));
        let (verdict, answer) = world.backend_sends(&reply);
        assert_eq!(verdict, answered(DropReason::TtlExceeded));
        let kind = if net.client.is_ipv4() { 11 } else { 3 };
        let error = icmp(net.frontend, net.backend, kind, 0, [0; 4], &reply);
        let expected = ip(net.frontend, net.backend, icmp_number(net.client), 64, &error);
        assert_eq!(answer, frame(BACKEND_MAC, INNER_MAC, &expected));
    }
}

#[test]
fn a_segment_whose_backend_is_gone_gets_a_rst_from_the_frontend() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        let send = |world: &World, segment| {
            let segment = Segment { ports: [4242, 80], ..segment };
            world.client_sends(&ip(
                net.client,
                net.frontend,
                TCP,
                60,
                &tcp(net.client, net.frontend, segment, b""),
            ))
        };
        let (verdict, _) = send(&world, Segment { flags: SYN, ..Segment::default() });
        assert!(matches!(verdict, Verdict::Send(_)));
        world.v4.backends[1].state = BACKEND_GONE;
        world.v6.backends[1].state = BACKEND_GONE;
        let (verdict, answer) =
            send(&world, Segment { sequence: 1, acknowledgement: 5, flags: ACK, ..Segment::default() });
        assert_eq!(verdict, answered(DropReason::BackendGone));
        let expected = Segment { ports: [80, 4242], sequence: 5, flags: RST, ..Segment::default() };
        let body = tcp(net.frontend, net.client, expected, &[]);
        let expected = ip(net.frontend, net.client, TCP, 64, &body);
        assert_eq!(answer, frame(CLIENT_MAC, OUR_MAC, &expected));
    }
}

#[test]
fn what_came_to_many_or_without_its_head_is_not_answered() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let body = udp(net.client, net.owned, PORTS, b"payload");
        let mut to_all = frame(OUR_MAC, CLIENT_MAC, &ip(net.client, net.owned, UDP, 60, &body));
        to_all[0] |= 1;
        assert_eq!(world.forward(CLIENT_SIDE, to_all).0, Verdict::Pass);
        let later = part(net.client, net.owned, UDP, 60, 1480, false, b"rest");
        assert_eq!(world.client_sends(&later).0, Verdict::Drop(DropReason::FragmentUnknown));
        let group = if net.client.is_ipv4() { "224.0.0.9" } else { "ff02::9" }.parse().unwrap();
        let from_many = ip(group, net.owned, UDP, 60, &udp(group, net.owned, PORTS, b""));
        assert!(matches!(world.client_sends(&from_many).0, Verdict::Drop(_)));
    }
}

#[test]
fn one_cpu_answers_only_so_often_a_second() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        world.settings.answers = 2;
        let packet = ip(net.client, net.owned, UDP, 60, &udp(net.client, net.owned, PORTS, b""));
        for _ in 0..2 {
            assert_eq!(world.client_sends(&packet).0, answered(DropReason::Refused));
        }
        assert_eq!(world.client_sends(&packet).0, Verdict::Drop(DropReason::AnswerLimited));
        world.now.set(101);
        assert_eq!(world.client_sends(&packet).0, answered(DropReason::Refused));
    }
}

fn port_unreachable(net: &Net, embedded: &[u8]) -> Vec<u8> {
    let (kind, code) = if net.client.is_ipv4() { (3, 3) } else { (1, 4) };
    let error = icmp(net.owned, net.client, kind, code, [0; 4], embedded);
    frame(CLIENT_MAC, OUR_MAC, &ip(net.owned, net.client, icmp_number(net.client), 64, &error))
}

fn partial(bytes: Vec<u8>) -> Buffer {
    Buffer { is_partial: true, ..buffer(CLIENT_SIDE, bytes) }
}

/// Puts what a local sender leaves there into the checksum field: the sum of the pseudo header.
fn unfinish(net: &Net, bytes: &mut [u8], transport: usize, protocol: u8) {
    let length = (bytes.len() - transport) as u16;
    let mut pseudo = Vec::new();
    for address in [net.client, net.owned] {
        match address {
            std::net::IpAddr::V4(address) => pseudo.extend(address.octets()),
            std::net::IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend([0, protocol]);
    pseudo.extend(length.to_be_bytes());
    let nobody = std::net::Ipv4Addr::UNSPECIFIED.into();
    let [a, b] = sum(nobody, nobody, 0, &pseudo);
    let at = transport + if protocol == TCP { 16 } else { 6 };
    bytes[at..at + 2].copy_from_slice(&[!a, !b]);
}

/// Does what the kernel does when such a packet leaves.
fn finish(bytes: &mut [u8], start: usize, offset: usize) {
    let nobody = std::net::Ipv4Addr::UNSPECIFIED.into();
    let sum = sum(nobody, nobody, 0, &bytes[start..]);
    bytes[start + offset..start + offset + 2].copy_from_slice(&sum);
}
