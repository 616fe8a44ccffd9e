//! What holds for any bytes.

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::Segment;
use blixt_cases::packet::{TCP, UDP, frame, icmp, icmp_number, ip, tcp, udp};
use blixt_cases::sound::flaw;
use blixt_packet::Verdict;
use blixt_packet::abi::{WAY_LOCAL, WAY_NAT, WAY_TRANSPARENT};
use proptest::prelude::*;

use crate::world::{BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, OUR_MAC, World};

fn net() -> impl Strategy<Value = Net> {
    prop::sample::select(nets().to_vec())
}

fn way() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![WAY_NAT, WAY_TRANSPARENT, WAY_LOCAL])
}

/// A frame that is nearly one of those that matter, with some bytes changed and an end anywhere.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..80);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (net(), 0..6_usize, bytes, changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(net, shape, payload, changes, end, is_cut)| {
            let segment = Segment { ports: [4242, 80], flags: 2, ..Segment::default() };
            let inner = ip(net.source, net.backend, UDP, 9, &udp(net.source, net.backend, [1, 2], &payload));
            let protocol = icmp_number(net.client);
            let (error, echo) = if net.client.is_ipv4() { (3, 8) } else { (1, 128) };
            let (client, frontend, owned) = (net.client, net.frontend, net.owned);
            let packet = match shape {
                0 => ip(client, frontend, TCP, 9, &tcp(client, frontend, segment, &payload)),
                1 => ip(client, owned, UDP, 9, &udp(client, owned, [1, 2], &payload)),
                2 => ip(client, owned, protocol, 9, &icmp(client, owned, echo, 0, [0; 4], &payload)),
                3 => ip(client, owned, protocol, 9, &icmp(client, owned, error, 1, [0; 4], &inner)),
                4 => ip(client, owned, protocol, 255, &icmp(client, owned, 135, 0, [0; 4], &payload)),
                _ => ip(client, owned, TCP, 9, &tcp(client, owned, segment, &payload)),
            };
            let mut bytes = frame(OUR_MAC, CLIENT_MAC, &packet);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if is_cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), way in way()) {
        let world = World::new(way);
        let _ = world.forward(CLIENT_SIDE, bytes.clone());
        let _ = world.forward(BACKEND_SIDE, bytes.clone());
        let _ = world.leaving(&[&[0x45], &bytes[..]].concat());
    }

    #[test]
    fn damaged_packets_do_no_harm_and_answers_to_them_are_sound(bytes in damaged(), way in way()) {
        let world = World::new(way);
        let is_echo = bytes.get(34) == Some(&8) || bytes.get(54) == Some(&128);
        let (verdict, answer) = world.forward(CLIENT_SIDE, bytes);
        if let Verdict::Answer(_) = verdict {
            // An echo gives a wrong sum back as it came.
            prop_assert!(is_echo || flaw(&answer).is_none(), "{answer:02x?}");
        }
    }

    #[test]
    fn what_is_known_decides_how_soon_a_packet_passes_and_nothing_else(
        bytes in damaged(),
        way in way(),
        is_foreign in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if is_foreign && bytes.len() > 54 {
            // The last byte of the destination.
            let at = if bytes[12] == 8 { 33 } else { 53 };
            bytes[at] ^= 0x55;
        }
        let (exact, full) = (World::new(way), World::new(way));
        full.knows_all.set(true);
        prop_assert_eq!(exact.forward(CLIENT_SIDE, bytes.clone()), full.forward(CLIENT_SIDE, bytes.clone()));
        prop_assert_eq!(exact.forward(BACKEND_SIDE, bytes.clone()), full.forward(BACKEND_SIDE, bytes.clone()));
        if let Some(ip) = bytes.get(14..).filter(|ip| !ip.is_empty()) {
            prop_assert_eq!(exact.leaving(ip), full.leaving(ip));
        }
    }

    #[test]
    fn an_embedded_packet_is_what_it_was_after_there_and_back(
        net in net(),
        ports in any::<[u16; 2]>(),
        is_tcp in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        // An error about a request is turned into what the client sees; an error about what the client sees is turned into what
        // the backend would have sent: each is the other's mirror.
        let world = World::new(WAY_NAT);
        let protocol = if is_tcp { TCP } else { UDP };
        let [port, _] = ports;
        let body = |from, to, ports| if is_tcp {
            tcp(from, to, Segment { ports, flags: 2, ..Segment::default() }, &payload)
        } else {
            udp(from, to, ports, &payload)
        };
        let request = ip(net.client, net.frontend, protocol, 9, &body(net.client, net.frontend, [port, 80]));
        let (verdict, sent) = world.client_sends(&request);
        prop_assert!(matches!(verdict, Verdict::Send(_)));
        let kind = if net.client.is_ipv4() { 3 } else { 1 };
        let number = icmp_number(net.client);
        let error = icmp(net.backend, net.source, kind, 1, [0; 4], &sent[14..]);
        let (verdict, told) = world.backend_sends(&ip(net.backend, net.source, number, 9, &error));
        prop_assert!(matches!(verdict, Verdict::Send(_)));
        prop_assert_eq!(flaw(&told), None);
        let header = if net.client.is_ipv4() { 20 } else { 40 };
        let mut embedded = told[14 + header + 8..].to_vec();
        // The one hop that the request had gone when the backend saw it.
        prop_assert_eq!(embedded.len(), request.len());
        let hops = if header == 20 { 8 } else { 7 };
        prop_assert_eq!(embedded[hops], 8);
        embedded[hops] = 9;
        if header == 20 {
            embedded[10..12].copy_from_slice(&request[10..12]);
        }
        prop_assert_eq!(embedded, request);
    }
}
