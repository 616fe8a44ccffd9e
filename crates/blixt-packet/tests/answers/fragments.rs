//! Fragments: the first part lends its ports to the others.

use std::collections::BTreeSet;

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::{Segment, TCP, UDP, frame, part, renumbered, tcp, udp};
use blixt_packet::abi::{Link, V4, WAY_LOCAL, WAY_NAT};
use blixt_packet::fragment::translated_id;
use blixt_packet::{DropReason, Verdict};

use crate::world::{BACKEND_MAC, BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, INNER_MAC, OUR_MAC, World};

const REQUEST: [u16; 2] = [4242, 80];

/// The bytes of a datagram of the client.
fn datagram(net: &Net) -> Vec<u8> {
    udp(net.client, net.frontend, REQUEST, &[3; 2992])
}

#[test]
fn every_part_of_a_datagram_reaches_the_same_backend() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let sent = datagram(&net);
        let expected = udp(net.source, net.backend, [4242, 8080], &[3; 2992]);
        for (offset, range, more) in [(0, 0..1400, true), (2800, 2800..3000, false), (1400, 1400..2800, true)]
        {
            let (verdict, bytes) = world.client_sends(&part(
                net.client,
                net.frontend,
                UDP,
                60,
                offset,
                more,
                &sent[range.clone()],
            ));
            assert_eq!(verdict, Verdict::Send(Link::new(BACKEND_SIDE, 0)));
            let part = renumbered(
                net.client,
                part(net.source, net.backend, UDP, 59, offset, more, &expected[range]),
            );
            assert_eq!(bytes, frame(BACKEND_MAC, INNER_MAC, &part));
        }
    }
}

#[test]
fn every_part_of_a_reply_reaches_the_client() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let first = part(net.client, net.frontend, UDP, 60, 0, true, &datagram(&net)[..1400]);
        assert!(matches!(world.client_sends(&first).0, Verdict::Send(_)));
        let sent = udp(net.backend, net.source, [8080, 4242], &[4; 1992]);
        let expected = udp(net.frontend, net.client, [80, 4242], &[4; 1992]);
        for (offset, range, more) in [(0, 0..1400, true), (1400, 1400..2000, false)] {
            let (verdict, bytes) = world.backend_sends(&part(
                net.backend,
                net.source,
                UDP,
                60,
                offset,
                more,
                &sent[range.clone()],
            ));
            assert_eq!(verdict, Verdict::Send(Link::new(CLIENT_SIDE, 0)));
            let part = renumbered(
                net.backend,
                part(net.frontend, net.client, UDP, 59, offset, more, &expected[range]),
            );
            assert_eq!(bytes, frame(CLIENT_MAC, OUR_MAC, &part));
        }
    }
}

#[test]
fn every_part_of_a_reply_of_this_machine_is_translated_as_it_leaves() {
    for net in nets() {
        let world = World::new(WAY_LOCAL);
        let first = part(net.client, net.frontend, UDP, 60, 0, true, &datagram(&net)[..1400]);
        assert_eq!(world.client_sends(&first).0, Verdict::Deliver);
        let sent = udp(net.backend, net.client, [8080, 4242], &[4; 1992]);
        let expected = udp(net.frontend, net.client, [80, 4242], &[4; 1992]);
        for (offset, range, more) in [(0, 0..1400, true), (1400, 1400..2000, false)] {
            let (verdict, bytes) =
                world.leaving(&part(net.backend, net.client, UDP, 64, offset, more, &sent[range.clone()]));
            assert_eq!(verdict, Verdict::Deliver);
            let part = renumbered(
                net.backend,
                part(net.frontend, net.client, UDP, 64, offset, more, &expected[range]),
            );
            assert_eq!(bytes, frame(CLIENT_MAC, OUR_MAC, &part));
        }
    }
}

#[test]
fn a_part_whose_first_one_is_unknown_is_dropped_only_where_blixt_alone_owns_the_address() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let owned = part(net.client, net.owned, UDP, 60, 1400, false, b"rest");
        assert_eq!(world.client_sends(&owned).0, Verdict::Drop(DropReason::FragmentUnknown));
        for destination in [net.frontend, net.source] {
            let host = part(net.client, destination, UDP, 60, 1400, false, b"rest");
            assert_eq!(world.client_sends(&host), (Verdict::Pass, frame(OUR_MAC, CLIENT_MAC, &host)));
        }
    }
}

#[test]
fn the_hosts_own_fragments_pass_untouched_and_leave_nothing_behind() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let body = udp(net.client, net.source, [4242, 53], &[1; 1992]);
        for (offset, range, more) in [(0, 0..1400, true), (1400, 1400..2000, false)] {
            let part = part(net.client, net.source, UDP, 60, offset, more, &body[range]);
            assert_eq!(world.client_sends(&part), (Verdict::Pass, frame(OUR_MAC, CLIENT_MAC, &part)));
        }
        assert!(world.v4.fragments.borrow().is_empty());
        assert!(world.v6.fragments.borrow().is_empty());
    }
}

#[test]
fn a_part_over_the_first_one_is_dropped() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let segment = Segment { ports: REQUEST, flags: 2, ..Segment::default() };
        let body = tcp(net.client, net.frontend, segment, &[1; 20]);
        let first = part(net.client, net.frontend, TCP, 60, 0, true, &body);
        assert!(matches!(world.client_sends(&first).0, Verdict::Send(_)));
        for (offset, reason) in
            [(8, Some(DropReason::FragmentOverlap)), (32, Some(DropReason::FragmentOverlap)), (40, None)]
        {
            let later = part(net.client, net.frontend, TCP, 60, offset, false, b"over");
            assert_eq!(world.client_sends(&later).0.reason(), reason, "at {offset}");
        }
    }
}

#[test]
fn a_first_part_without_its_transport_header_is_not_honest() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let mut bytes = frame(OUR_MAC, CLIENT_MAC, &part(net.client, net.owned, UDP, 60, 0, true, &[]));
        bytes.extend(udp(net.client, net.owned, REQUEST, b""));
        assert_eq!(world.forward(CLIENT_SIDE, bytes).0, Verdict::Drop(DropReason::FragmentOverlap));
        let body = tcp(net.client, net.owned, Segment { flags: 2, ..Segment::default() }, b"");
        let short = part(net.client, net.owned, TCP, 60, 0, true, &body[..16]);
        assert!(matches!(world.client_sends(&short).0, Verdict::Drop(_)));
    }
}

#[test]
fn a_first_part_is_forgotten_after_30_seconds() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let sent = datagram(&net);
        let part = |offset, more, range: std::ops::Range<usize>| {
            part(net.client, net.frontend, UDP, 60, offset, more, &sent[range])
        };
        assert!(matches!(world.client_sends(&part(0, true, 0..1400)).0, Verdict::Send(_)));
        world.now.set(130);
        assert!(matches!(world.client_sends(&part(1400, true, 1400..2800)).0, Verdict::Send(_)));
        world.now.set(131);
        assert_eq!(world.client_sends(&part(2800, false, 2800..3000)).0, Verdict::Pass);
    }
}

#[test]
fn senders_that_number_alike_no_longer_do_and_each_keeps_its_numbers_apart() {
    let address = |host: u8| V4([u32::from_ne_bytes([10, 0, 0, host])]);
    // 50 datagrams of each sender, counted from 1: 12 800 draws of 65 536 numbers make 11 600 different ones.
    let numbers: BTreeSet<u16> =
        (0..=255).flat_map(|host| (1..=50).map(move |id| translated_id(id, address(host)))).collect();
    assert!(numbers.len() > 10_000, "only {} numbers for 12 800 datagrams", numbers.len());
    let own: BTreeSet<u16> = (0..=u16::MAX).map(|id| translated_id(id, address(1))).collect();
    assert_eq!(own.len(), 65_536);
}
