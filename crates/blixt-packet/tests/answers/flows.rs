//! Connections: there and back, the source port, halves that were lost, backends that change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::{Segment, TCP, UDP, frame, ip, ip_with, tcp, udp};
use blixt_packet::abi::{BACKEND_GONE, BACKEND_SERVING, Link, V4, V6, WAY_LOCAL, WAY_NAT, WAY_TRANSPARENT};
use blixt_packet::flow::{CONFIRMED, REPLIED};
use blixt_packet::state::Route;
use blixt_packet::{DropReason, Verdict};

use crate::world::{
    BACKEND_PORT, BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, FRONTEND_PORT, Family, INNER_MAC, OUR_MAC, World,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;
const CLIENT_PORT: u16 = 4242;

/// What an IP packet says, if all of its sums are right: source, destination, ports, hops.
type Said = (IpAddr, IpAddr, [u16; 2], u8);

fn said(frame: &[u8]) -> Said {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination, hops) = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (IpAddr::from(header.source), IpAddr::from(header.destination), header.time_to_live)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (IpAddr::from(header.source), IpAddr::from(header.destination), header.hop_limit)
        }
        other => panic!("no IP packet: {other:?}"),
    };
    let ports = match packet.transport.unwrap() {
        TransportSlice::Tcp(segment) => {
            let [from, to] = [segment.source_port(), segment.destination_port()];
            let header = Segment {
                ports: [from, to],
                sequence: segment.sequence_number(),
                acknowledgement: segment.acknowledgment_number(),
                flags: segment.slice()[13],
                window: segment.window_size(),
            };
            assert_eq!(segment.slice(), tcp(source, destination, header, segment.payload()));
            [from, to]
        }
        TransportSlice::Udp(datagram) => {
            let ports = [datagram.source_port(), datagram.destination_port()];
            assert_eq!(datagram.slice(), udp(source, destination, ports, datagram.payload()));
            ports
        }
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    (source, destination, ports, hops)
}

fn segment(source: IpAddr, destination: IpAddr, ports: [u16; 2], flags: u8) -> Vec<u8> {
    let segment = Segment { ports, flags, window: 1000, ..Segment::default() };
    ip(source, destination, TCP, 64, &tcp(source, destination, segment, b"hi"))
}

fn request(net: &Net, flags: u8) -> Vec<u8> {
    segment(net.client, net.frontend, [CLIENT_PORT, FRONTEND_PORT], flags)
}

fn reply(net: &Net, to: IpAddr, port: u16, flags: u8) -> Vec<u8> {
    segment(net.backend, to, [BACKEND_PORT, port], flags)
}

fn datagram(source: IpAddr, destination: IpAddr, ports: [u16; 2]) -> Vec<u8> {
    ip(source, destination, UDP, 64, &udp(source, destination, ports, b"hi"))
}

/// The source port that a request leaves with.
fn port_of(world: &World, packet: &[u8]) -> u16 {
    let (verdict, frame) = world.client_sends(packet);
    assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
    said(&frame).2[0]
}

fn remove<A: Family>(world: &World, of_requests: bool) {
    A::tables(world).flows.borrow_mut().retain(|_, flow| (flow.flags & 1 == 1) != of_requests);
}

fn forget(world: &World, of_requests: bool) {
    remove::<V4>(world, of_requests);
    remove::<V6>(world, of_requests);
}

fn flows(world: &World) -> usize {
    world.v4.flows.borrow().len() + world.v6.flows.borrow().len()
}

#[test]
fn one_cpu_begins_only_so_many_flows_in_a_window_or_a_burst_and_those_that_it_has_go_on() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        world.settings.new_flows = 1;
        let from = |port| {
            let body = udp(net.client, net.frontend, [port, FRONTEND_PORT], b"");
            ip(net.client, net.frontend, UDP, 60, &body)
        };
        let sent = Verdict::Send(Link::new(BACKEND_SIDE, 0));
        let flood = Verdict::Drop(DropReason::Flood);
        let check = |window, begin: &[u16], next| {
            world.window.set(window);
            begin.iter().for_each(|port| assert_eq!(world.client_sends(&from(*port)).0, sent, "{port}"));
            assert_eq!(world.client_sends(&from(next)).0, flood);
            assert_eq!(world.client_sends(&request(&net, SYN)).0, flood);
            assert_eq!(world.client_sends(&from(begin[0])).0, sent);
        };
        check(100, &[1, 2, 3, 4], 5);
        check(101, &[5], 6);
        check(103, &[6, 7], 8);
        check(1000, &[8, 9, 10, 11], 12);
        assert_eq!(world.connections.get(), 11);

        // The last share of a burst is not for SYNs.
        world.window.set(2000);
        [12, 13, 14].iter().for_each(|port| assert_eq!(world.client_sends(&from(*port)).0, sent));
        assert_eq!(world.client_sends(&request(&net, SYN)).0, flood);
        assert_eq!(world.client_sends(&from(15)).0, sent);
    }
}

#[test]
fn a_budget_of_new_flows_that_shrank_is_there_again_after_a_burst() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        let from = |port| datagram(net.client, net.frontend, [port, FRONTEND_PORT]);
        world.settings.new_flows = 100;
        let sent = Verdict::Send(Link::new(BACKEND_SIDE, 0));
        (1..=400).for_each(|port| assert_eq!(world.client_sends(&from(port)).0, sent));
        assert_eq!(world.client_sends(&from(401)).0, Verdict::Drop(DropReason::Flood));
        world.settings.new_flows = 1;
        world.window.set(4);
        assert_eq!(world.client_sends(&from(401)).0, sent);
    }
}

#[test]
fn a_stale_hop_is_gone_by_device_where_the_kernel_forwards_nothing_itself() {
    for net in nets() {
        for (deadline, route, expected) in [
            (100, Route::Forbidden, Verdict::Send(Link::new(BACKEND_SIDE, 0))),
            (99, Route::Forbidden, Verdict::Neighbour(BACKEND_SIDE)),
            (0, Route::Forbidden, Verdict::Neighbour(BACKEND_SIDE)),
            (99, Route::Device(9), Verdict::Neighbour(9)),
            (99, Route::Unknown, Verdict::Drop(DropReason::NoWay)),
        ] {
            let world = World::new(WAY_NAT);
            world.deadline.set(deadline);
            world.route.set(route);
            let syn = segment(net.client, net.frontend, [CLIENT_PORT, FRONTEND_PORT], SYN);
            let (verdict, _) = world.client_sends(&syn);
            assert_eq!(verdict, expected, "deadline {deadline}, {route:?}");
        }
    }
}

#[test]
fn full_nat_there_and_back_is_the_identity() {
    for net in nets() {
        for make in [datagram, |from, to, ports| segment(from, to, ports, SYN)] {
            let world = World::new(WAY_NAT);
            let (_, there) =
                world.client_sends(&make(net.client, net.frontend, [CLIENT_PORT, FRONTEND_PORT]));
            assert_eq!(said(&there), (net.source, net.backend, [CLIENT_PORT, BACKEND_PORT], 63));
            let (_, back) = world.backend_sends(&make(net.backend, net.source, [BACKEND_PORT, CLIENT_PORT]));
            assert_eq!(said(&back), (net.frontend, net.client, [FRONTEND_PORT, CLIENT_PORT], 63));
        }
    }
}

#[test]
fn what_xdp_cannot_send_is_left_as_it_is_to_the_program_behind_it() {
    for net in nets() {
        for way in [WAY_NAT, WAY_LOCAL] {
            let world = World::new(way);
            let packet = frame(OUR_MAC, CLIENT_MAC, &request(&net, SYN));
            for _ in 0..2 {
                assert_eq!(world.xdp(CLIENT_SIDE, packet.clone()), (Verdict::Pass, packet.clone()));
            }
            let (verdict, there) = world.forward(CLIENT_SIDE, packet.clone());
            assert_ne!(verdict, Verdict::Pass);
            assert_eq!(said(&there).1, net.backend);
            let (verdict, _) = world.xdp(BACKEND_SIDE, frame(INNER_MAC, CLIENT_MAC, &request(&net, SYN)));
            assert_eq!(verdict == Verdict::Pass, way == WAY_LOCAL);
        }
    }
}

#[test]
fn transparent_keeps_the_clients_address() {
    for net in nets() {
        let world = World::new(WAY_TRANSPARENT);
        let (_, there) = world.client_sends(&request(&net, SYN));
        assert_eq!(said(&there), (net.client, net.backend, [CLIENT_PORT, BACKEND_PORT], 63));
        let (_, back) = world.backend_sends(&reply(&net, net.client, CLIENT_PORT, SYN | ACK));
        assert_eq!(said(&back), (net.frontend, net.client, [FRONTEND_PORT, CLIENT_PORT], 63));
    }
}

#[test]
fn a_local_backends_reply_is_translated_where_it_leaves_and_not_before() {
    for net in nets() {
        let world = World::new(WAY_LOCAL);
        let (verdict, there) = world.client_sends(&request(&net, SYN));
        assert_eq!(verdict, Verdict::Deliver);
        assert_eq!(said(&there), (net.client, net.backend, [CLIENT_PORT, BACKEND_PORT], 64));
        let answer = reply(&net, net.client, CLIENT_PORT, SYN | ACK);
        assert_eq!(world.backend_sends(&answer).0, Verdict::Pass);
        let (verdict, back) = world.leaving(&answer);
        assert_eq!(verdict, Verdict::Deliver);
        assert_eq!(said(&back), (net.frontend, net.client, [FRONTEND_PORT, CLIENT_PORT], 64));
    }
}

#[test]
fn options_and_extension_headers_are_delivered() {
    for net in nets() {
        let between: &[u8] = match net.client {
            IpAddr::V4(_) => &[1, 1, 1, 0, 1, 1, 1, 0],
            IpAddr::V6(_) => &[60, TCP, 0, 1, 4, 0, 0, 0, 0],
        };
        let header =
            Segment { ports: [CLIENT_PORT, FRONTEND_PORT], flags: SYN, window: 9, ..Segment::default() };
        let body = tcp(net.client, net.frontend, header, b"hi");
        let (verdict, frame) =
            World::new(WAY_NAT).client_sends(&ip_with(net.client, net.frontend, TCP, 64, between, &body));
        assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
        assert_eq!(said(&frame), (net.source, net.backend, [CLIENT_PORT, BACKEND_PORT], 63));
    }
}

#[test]
fn a_taken_source_port_gives_way_to_one_of_the_range_and_the_last_one_to_a_reason() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        (world.settings.first_port, world.settings.last_port) = (20_000, 20_000);
        let from = |client| segment(client, net.frontend, [CLIENT_PORT, FRONTEND_PORT], SYN);
        assert_eq!(port_of(&world, &from(net.client)), CLIENT_PORT);
        assert_eq!(port_of(&world, &from(net.router)), 20_000);
        confirm(&world);
        let (verdict, _) = world.client_sends(&from(net.owned));
        assert_eq!(verdict, Verdict::Drop(DropReason::PortsExhausted));
    }
}

#[test]
fn of_two_clients_that_take_one_port_over_at_once_only_one_gets_it() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        (world.settings.first_port, world.settings.last_port) = (20_000, 20_000);
        let from = |client| segment(client, net.frontend, [CLIENT_PORT, FRONTEND_PORT], SYN);
        assert_eq!(port_of(&world, &from(net.client)), CLIENT_PORT);
        world.now.set(world.now.get() + world.settings.syn_idle + 1);
        world.meanwhile.replace(Some(from(net.router)));
        assert_eq!(port_of(&world, &from(net.other_client)), 20_000);
        assert!(world.meanwhile.take().is_none());
        for (port, client) in [(CLIENT_PORT, net.router), (20_000, net.other_client)] {
            let (_, back) = world.backend_sends(&reply(&net, net.source, port, SYN | ACK));
            assert_eq!(said(&back).1, client, "of port {port}");
        }
        assert_eq!(flows(&world), 4, "nothing but the two connections is left");
    }
}

#[test]
fn who_takes_a_port_over_ends_the_connection_that_held_it_and_not_a_newer_one_of_its_client() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        (world.settings.first_port, world.settings.last_port) = (20_000, 20_000);
        let from = |client, flags| segment(client, net.frontend, [CLIENT_PORT, FRONTEND_PORT], flags);
        assert_eq!(port_of(&world, &from(net.client, SYN)), CLIENT_PORT);
        assert_eq!(port_of(&world, &from(net.router, SYN)), 20_000);
        world.now.set(world.now.get() + 3);
        // Of the router's connection the reply half is left; a newer one of the same tuple holds another port.
        world.settings.first_port = 20_001;
        world.settings.last_port = 20_001;
        forget_request(&world, &net);
        assert_eq!(port_of(&world, &from(net.router, SYN)), 20_001);
        let (_, back) = world.backend_sends(&reply(&net, net.source, 20_001, SYN | ACK));
        assert_eq!(said(&back).1, net.router);
        assert_eq!(port_of(&world, &from(net.router, ACK)), 20_001);
        (world.settings.first_port, world.settings.last_port) = (20_000, 20_000);
        let _ = world.backend_sends(&reply(&net, net.source, CLIENT_PORT, SYN | ACK));
        port_of(&world, &from(net.client, ACK));
        assert_eq!(port_of(&world, &from(net.other_client, SYN)), 20_000);
        assert_eq!(port_of(&world, &from(net.router, ACK)), 20_001, "the living connection was ended");
        let (_, back) = world.backend_sends(&reply(&net, net.source, 20_001, ACK));
        assert_eq!(said(&back).1, net.router);
    }
}

/// The request half of the router's connection is evicted.
fn forget_request(world: &World, net: &Net) {
    fn retain<A: Family>(world: &World, source: IpAddr) {
        A::tables(world).flows.borrow_mut().retain(|key, _| key.source != A::of(source));
    }
    match net.router {
        IpAddr::V4(_) => retain::<V4>(world, net.router),
        IpAddr::V6(_) => retain::<V6>(world, net.router),
    }
}

#[test]
fn every_port_of_the_range_is_found_before_there_is_none() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        (world.settings.first_port, world.settings.last_port) = (20_000, 20_007);
        let send = |client, port| segment(client, net.frontend, [port, FRONTEND_PORT], SYN);
        let ports = CLIENT_PORT..CLIENT_PORT + 3;
        for port in ports.clone() {
            assert_eq!(port_of(&world, &send(net.client, port)), port);
        }
        let others = [net.router, net.owned, net.other_client];
        let mut others = ports.flat_map(|port| others.map(|client| send(client, port)));
        let taken: BTreeSet<u16> = others.by_ref().take(8).map(|packet| port_of(&world, &packet)).collect();
        assert!(taken.iter().copied().eq(20_000..=20_007), "{taken:?}");
        let one_more = others.next().unwrap();
        confirm(&world);
        assert_eq!(world.client_sends(&one_more).0, Verdict::Drop(DropReason::PortsExhausted));
    }
}

/// Every connection was answered, and its client has gone on.
fn confirm(world: &World) {
    world.v4.flows.borrow_mut().values_mut().for_each(|flow| flow.state |= REPLIED | CONFIRMED);
    world.v6.flows.borrow_mut().values_mut().for_each(|flow| flow.state |= REPLIED | CONFIRMED);
}

#[test]
fn a_segment_in_the_middle_is_sent_on_but_is_no_new_connection() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        port_of(&world, &request(&net, ACK));
        assert_eq!(world.connections.get(), 0);
        let (_, back) = world.backend_sends(&reply(&net, net.source, CLIENT_PORT, ACK));
        assert_eq!(said(&back).1, net.client);
        assert_eq!(port_of(&world, &request(&net, SYN)), CLIENT_PORT);
        assert_eq!(world.connections.get(), 1, "the client begins anew");
        port_of(&world, &request(&net, SYN));
        assert_eq!(world.connections.get(), 1, "the same SYN once more");
    }
}

#[test]
fn a_lost_half_is_found_again() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let other = segment(net.router, net.frontend, [CLIENT_PORT, FRONTEND_PORT], SYN);
        port_of(&world, &other);
        let port = port_of(&world, &request(&net, SYN));
        assert_ne!(port, CLIENT_PORT);
        assert_eq!(flows(&world), 4);

        forget(&world, true);
        assert_eq!(port_of(&world, &request(&net, ACK)), port);

        forget(&world, false);
        world.now.set(world.now.get() + 1);
        assert_eq!(port_of(&world, &request(&net, ACK)), port);
        let (_, back) = world.backend_sends(&reply(&net, net.source, port, ACK));
        assert_eq!(said(&back), (net.frontend, net.client, [FRONTEND_PORT, CLIENT_PORT], 63));
    }
}

#[test]
fn a_syn_begins_anew_where_both_sides_have_closed() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        port_of(&world, &request(&net, SYN));
        let _ = world.backend_sends(&reply(&net, net.source, CLIENT_PORT, SYN | ACK));
        port_of(&world, &request(&net, FIN | ACK));
        let _ = world.backend_sends(&reply(&net, net.source, CLIENT_PORT, FIN | ACK));
        let closed = |world: &World| {
            let v4: Vec<bool> = world.v4.flows.borrow().values().map(|flow| flow.is_closed()).collect();
            let v6: Vec<bool> = world.v6.flows.borrow().values().map(|flow| flow.is_closed()).collect();
            [v4, v6].concat()
        };
        assert_eq!(closed(&world), [true, true]);
        assert_eq!(port_of(&world, &request(&net, SYN)), CLIENT_PORT);
        assert_eq!(closed(&world), [false, false]);
    }
}

#[test]
fn after_its_flow_a_backend_reaches_no_client_by_its_own_address_until_they_talk_past_blixt() {
    for net in nets() {
        let world = World::new(WAY_TRANSPARENT);
        world.route.set(Route::Device(CLIENT_SIDE));
        let answer = |flags| world.backend_sends(&reply(&net, net.client, CLIENT_PORT, flags)).0;
        port_of(&world, &request(&net, SYN));
        assert!(matches!(answer(SYN | ACK), Verdict::Send(_)));
        port_of(&world, &request(&net, FIN | ACK));
        assert!(matches!(answer(FIN | ACK), Verdict::Send(_)));
        world.now.set(world.now.get() + world.settings.closed_idle + 1);
        assert_eq!(answer(FIN | ACK), Verdict::Drop(DropReason::NoFlow));
        // The client has dialled the backend itself, from the same port.
        assert_eq!([answer(SYN | ACK), answer(ACK)], [Verdict::Pass; 2]);

        port_of(&world, &datagram(net.client, net.frontend, [CLIENT_PORT, FRONTEND_PORT]));
        world.now.set(world.now.get() + world.settings.udp_idle + 1);
        let late = datagram(net.backend, net.client, [BACKEND_PORT, CLIENT_PORT]);
        assert_eq!(world.backend_sends(&late).0, Verdict::Drop(DropReason::NoFlow));
    }
}

#[test]
fn what_a_backend_sends_without_a_flow_is_the_stacks_where_it_may_translate_it_for_others() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        let sends =
            |world: &World, flags| world.backend_sends(&reply(&net, net.source, CLIENT_PORT, flags)).0;
        for flags in [SYN | ACK, ACK, FIN | ACK] {
            assert_eq!(sends(&world, flags), Verdict::Drop(DropReason::NoFlow));
        }
        world.settings.passes_strays = 1;
        for flags in [SYN | ACK, ACK, FIN | ACK] {
            assert_eq!(sends(&world, flags), Verdict::Pass);
        }
        // What has a flow is ours as before.
        port_of(&world, &request(&net, SYN));
        assert!(matches!(sends(&world, SYN | ACK), Verdict::Send(_)));
    }
}

#[test]
fn a_port_that_a_closed_connection_still_holds_is_left_to_whom_connection_tracking_gave_it() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        world.settings.passes_strays = 1;
        let port = port_of(&world, &request(&net, SYN));
        let sends = |world: &World, flags| world.backend_sends(&reply(&net, net.source, port, flags)).0;
        let goes_on = |world: &World, flags| {
            let (verdict, _) = world.client_sends(&request(&net, flags));
            assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
        };
        // An answer that comes twice is the client's.
        for flags in [SYN | ACK, SYN | ACK] {
            assert!(matches!(sends(&world, flags), Verdict::Send(_)));
        }
        goes_on(&world, ACK);
        goes_on(&world, FIN | ACK);
        assert!(matches!(sends(&world, FIN | ACK), Verdict::Send(_)));
        assert!(matches!(sends(&world, ACK), Verdict::Send(_)), "a late segment is the client's");
        for flags in [SYN | ACK, ACK, FIN | ACK] {
            assert_eq!(sends(&world, flags), Verdict::Pass);
        }
        assert_eq!(flows(&world), 0);
        // And the client begins anew as ever.
        goes_on(&world, SYN);
    }
}

#[test]
fn of_a_connection_that_lasts_it_is_noted_every_eight_seconds_that_it_is_in_use() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let port = port_of(&world, &request(&net, SYN));
        assert!(matches!(world.backend_sends(&reply(&net, net.source, port, SYN | ACK)).0, Verdict::Send(_)));
        let seen = |now| {
            world.now.set(now);
            assert!(matches!(world.client_sends(&request(&net, ACK)).0, Verdict::Send(_)));
            let v4 = world.v4.flows.borrow().values().map(|flow| flow.seen).collect::<Vec<_>>();
            let v6 = world.v6.flows.borrow().values().map(|flow| flow.seen).collect::<Vec<_>>();
            [v4, v6].concat()
        };
        assert_eq!([100, 107, 108, 109].map(seen), [100, 100, 108, 108].map(|when| vec![when; 2]));
    }
}

#[test]
fn a_reply_half_that_was_lost_is_back_once_its_backend_was_not_understood() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let port = port_of(&world, &request(&net, SYN));
        let answer = |flags| reply(&net, net.source, port, flags);
        assert!(matches!(world.backend_sends(&answer(SYN | ACK)).0, Verdict::Send(_)));
        let goes_on = || matches!(world.client_sends(&request(&net, ACK)).0, Verdict::Send(_));
        assert!(goes_on());
        // The client's port is kept, so that only the reply half has the backend as its sender.
        let is_reply = |ports: [u16; 2]| ports[0] == BACKEND_PORT.to_be();
        world.v4.flows.borrow_mut().retain(|key, _| !is_reply(key.ports));
        world.v6.flows.borrow_mut().retain(|key, _| !is_reply(key.ports));
        world.now.set(101);
        assert!(goes_on());
        assert_eq!(flows(&world), 1, "nobody has missed it yet");
        assert_eq!(world.backend_sends(&answer(ACK)).0, Verdict::Drop(DropReason::NoFlow));
        assert!(goes_on());
        assert_eq!(flows(&world), 2);
        assert!(matches!(world.backend_sends(&answer(ACK)).0, Verdict::Send(_)));
    }
}

#[test]
fn the_udp_of_a_backend_that_went_finds_whoever_takes_its_place() {
    for net in nets() {
        let mut world = World::new(WAY_NAT);
        let packet = datagram(net.client, net.frontend, [CLIENT_PORT, FRONTEND_PORT]);
        port_of(&world, &packet);
        for state in [BACKEND_GONE, BACKEND_SERVING] {
            world.v4.backends[1].state = state;
            world.v6.backends[1].state = state;
            let (verdict, _) = world.client_sends(&packet);
            assert_eq!(matches!(verdict, Verdict::Send(_)), state == BACKEND_SERVING, "{verdict:?}");
        }
    }
}

#[test]
fn what_cannot_be_right_is_dropped_for_its_reason_and_what_is_not_ours_passes() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let land = segment(net.frontend, net.frontend, [FRONTEND_PORT, FRONTEND_PORT], SYN);
        assert_eq!(world.client_sends(&land).0, Verdict::Drop(DropReason::BadAddress));
        let other = segment(net.client, net.router, [CLIENT_PORT, FRONTEND_PORT], SYN);
        assert_eq!(world.client_sends(&other).0, Verdict::Pass);
        let mut owned = segment(net.client, net.owned, [CLIENT_PORT, FRONTEND_PORT], SYN);
        owned.truncate(owned.len() - 4);
        assert_eq!(world.client_sends(&owned).0, Verdict::Drop(DropReason::Truncated));
        assert_eq!(flows(&world), 0);
    }
}
