//! ICMP errors about packets that were sent on: the embedded packet is translated with them.

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::{Segment, TCP, UDP, frame, icmp, icmp_number, ip, tcp, udp};
use blixt_packet::abi::{BACKEND_GONE, Link, WAY_LOCAL, WAY_NAT, WAY_TRANSPARENT};
use blixt_packet::{DropReason, Verdict};
use std::net::IpAddr;

use crate::world::{BACKEND_MAC, BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, INNER_MAC, OUR_MAC, World};

/// From, to, ports.
type Way = (IpAddr, IpAddr, [u16; 2]);

/// A packet that goes a way, whole.
fn packet((source, destination, ports): Way, protocol: u8) -> Vec<u8> {
    let segment = Segment { ports, sequence: 99, flags: 2, ..Segment::default() };
    let body = if protocol == TCP {
        tcp(source, destination, segment, b"embedded")
    } else {
        udp(source, destination, ports, b"embedded")
    };
    ip(source, destination, protocol, 60, &body)
}

/// The errors of a family that are worth sending on.
fn kinds(net: &Net) -> &'static [(u8, u8)] {
    if net.client.is_ipv4() {
        &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]
    } else {
        &[(1, 4), (2, 0), (3, 0), (4, 1)]
    }
}

/// An error of `from` about a packet that went `about`, of which the first `length` bytes come back.
fn error(from: IpAddr, hops: u8, kind: (u8, u8), about: Way, protocol: u8, length: usize) -> Vec<u8> {
    let packet = packet(about, protocol);
    let embedded = &packet[..length.min(packet.len())];
    let to = about.0;
    let body = icmp(from, to, kind.0, kind.1, [0, 0, 5, 100], embedded);
    ip(from, to, icmp_number(from), hops, &body)
}

/// As the client, the backend (and both) name a connection, in the direction of the request.
fn ways(net: &Net, way: u8) -> (Way, Way) {
    let source = if way == WAY_NAT { net.source } else { net.client };
    ((net.client, net.frontend, [4242, 80]), (source, net.backend, [4242, 8080]))
}

fn turned((source, destination, [from, to]): Way) -> Way {
    (destination, source, [to, from])
}

/// A balancer that has seen the first packet of a connection.
fn world(net: &Net, way: u8, protocol: u8) -> World {
    let world = World::new(way);
    let (verdict, _) = world.client_sends(&packet(ways(net, way).0, protocol));
    assert!(matches!(verdict, Verdict::Send(_) | Verdict::Deliver));
    world
}

fn each(test: impl Fn(&Net, u8, (u8, u8), usize)) {
    for net in nets() {
        let header = if net.client.is_ipv4() { 20 } else { 40 };
        for protocol in [TCP, UDP] {
            for kind in kinds(&net) {
                for length in [header + 8, header + 20, 500] {
                    test(&net, protocol, *kind, length);
                }
            }
        }
    }
}

#[test]
fn an_error_from_the_way_to_the_backend_reaches_the_client_in_its_own_terms() {
    for way in [WAY_NAT, WAY_TRANSPARENT] {
        each(|net, protocol, kind, length| {
            let (outer, inner) = ways(net, way);
            let world = world(net, way, protocol);
            let error_in = error(net.router, 60, kind, inner, protocol, length);
            let frame_in = frame(INNER_MAC, BACKEND_MAC, &error_in);
            assert_eq!(world.xdp(BACKEND_SIDE, frame_in.clone()), (Verdict::Pass, frame_in));
            let (verdict, sent) = world.backend_sends(&error_in);
            assert_eq!(verdict, Verdict::Send(Link::new(CLIENT_SIDE, 0)));
            let expected = error(net.router, 59, kind, outer, protocol, length);
            assert_eq!(sent, frame(CLIENT_MAC, OUR_MAC, &expected));
        });
    }
}

#[test]
fn an_error_of_the_backend_itself_comes_from_the_frontend() {
    for way in [WAY_NAT, WAY_TRANSPARENT] {
        each(|net, protocol, kind, length| {
            let (outer, inner) = ways(net, way);
            let world = world(net, way, protocol);
            let (verdict, sent) = world.backend_sends(&error(net.backend, 60, kind, inner, protocol, length));
            assert_eq!(verdict, Verdict::Send(Link::new(CLIENT_SIDE, 0)));
            let expected = error(net.frontend, 59, kind, outer, protocol, length);
            assert_eq!(sent, frame(CLIENT_MAC, OUR_MAC, &expected));
        });
    }
}

#[test]
fn an_error_of_the_client_reaches_the_backend_in_its_own_terms() {
    for way in [WAY_NAT, WAY_TRANSPARENT] {
        each(|net, protocol, kind, length| {
            let (outer, inner) = ways(net, way);
            let world = world(net, way, protocol);
            let (verdict, sent) =
                world.client_sends(&error(net.client, 60, kind, turned(outer), protocol, length));
            assert_eq!(verdict, Verdict::Send(Link::new(BACKEND_SIDE, 0)));
            let expected = error(inner.0, 59, kind, turned(inner), protocol, length);
            assert_eq!(sent, frame(BACKEND_MAC, INNER_MAC, &expected));
        });
    }
}

#[test]
fn an_error_for_a_backend_on_this_machine_is_delivered_by_the_stack() {
    each(|net, protocol, kind, length| {
        let (outer, inner) = ways(net, WAY_LOCAL);
        let world = world(net, WAY_LOCAL, protocol);
        let (verdict, delivered) =
            world.client_sends(&error(net.router, 60, kind, turned(outer), protocol, length));
        assert_eq!(verdict, Verdict::Deliver);
        let expected = error(net.router, 60, kind, turned(inner), protocol, length);
        assert_eq!(delivered, frame(OUR_MAC, CLIENT_MAC, &expected));
    });
}

#[test]
fn an_error_of_a_backend_on_this_machine_is_translated_as_it_leaves() {
    each(|net, protocol, kind, length| {
        let (outer, inner) = ways(net, WAY_LOCAL);
        let world = world(net, WAY_LOCAL, protocol);
        let backend_sends = error(net.backend, 60, kind, inner, protocol, length);
        let (verdict, untouched) = world.backend_sends(&backend_sends);
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(untouched, frame(INNER_MAC, BACKEND_MAC, &backend_sends));
        let (verdict, left) = world.leaving(&backend_sends);
        assert_eq!(verdict, Verdict::Deliver);
        let expected = error(net.frontend, 60, kind, outer, protocol, length);
        assert_eq!(left, frame(CLIENT_MAC, OUR_MAC, &expected));
    });
}

#[test]
fn an_error_about_no_flow_is_the_hosts_unless_only_blixt_owns_the_address() {
    each(|net, protocol, kind, length| {
        let world = World::new(WAY_NAT);
        let about_host = (net.source, net.backend, [22, 4242]);
        let host = error(net.backend, 60, kind, about_host, protocol, length);
        assert_eq!(world.backend_sends(&host), (Verdict::Pass, frame(INNER_MAC, BACKEND_MAC, &host)));
        assert_eq!(world.leaving(&host).0, Verdict::Pass);
        let about_owned = (net.owned, net.client, [80, 4242]);
        let owned = error(net.client, 60, kind, about_owned, protocol, length);
        assert_eq!(world.client_sends(&owned).0, Verdict::Drop(DropReason::IcmpUnrelated));
    });
}

#[test]
fn an_error_that_goes_elsewhere_than_its_packet_came_from_is_made_up() {
    for net in nets() {
        let world = world(&net, WAY_NAT, UDP);
        let embedded = packet(ways(&net, WAY_NAT).1, UDP);
        let (kind, code) = kinds(&net)[0];
        let body = icmp(net.router, net.owned, kind, code, [0; 4], &embedded);
        let error = ip(net.router, net.owned, icmp_number(net.client), 60, &body);
        assert_eq!(world.backend_sends(&error).0, Verdict::Drop(DropReason::IcmpUnrelated));
    }
}

#[test]
fn an_error_cut_short_of_the_ports_is_dropped_if_only_blixt_owns_the_address() {
    for net in nets() {
        let world = World::new(WAY_NAT);
        let header = if net.client.is_ipv4() { 20 } else { 40 };
        let about = (net.owned, net.client, [80, 4242]);
        for (length, reason) in [(header + 7, DropReason::BadLength), (header - 1, DropReason::Truncated)] {
            let error = error(net.client, 60, kinds(&net)[0], about, UDP, length);
            assert_eq!(world.client_sends(&error).0, Verdict::Drop(reason));
        }
    }
}

#[test]
fn an_error_about_a_backend_that_is_gone_goes_nowhere() {
    for net in nets() {
        let mut world = world(&net, WAY_NAT, UDP);
        world.v4.backends[1].state = BACKEND_GONE;
        world.v6.backends[1].state = BACKEND_GONE;
        let (_, inner) = ways(&net, WAY_NAT);
        let error = error(net.router, 60, kinds(&net)[0], inner, UDP, 500);
        assert_eq!(world.backend_sends(&error).0, Verdict::Drop(DropReason::BackendGone));
    }
}

#[test]
fn an_error_is_never_answered_with_an_error() {
    for net in nets() {
        let world = world(&net, WAY_NAT, UDP);
        let (_, inner) = ways(&net, WAY_NAT);
        let error = error(net.router, 1, kinds(&net)[0], inner, UDP, 500);
        assert_eq!(world.backend_sends(&error).0, Verdict::Drop(DropReason::TtlExceeded));
    }
}

#[test]
fn a_datagram_without_a_sum_keeps_none_in_an_error() {
    let [net, _] = nets();
    let world = world(&net, WAY_NAT, UDP);
    let (outer, inner) = ways(&net, WAY_NAT);
    let without = |way| {
        let mut packet = packet(way, UDP);
        packet[26..28].fill(0);
        packet
    };
    let body = icmp(net.router, net.source, 3, 4, [0, 0, 5, 100], &without(inner));
    let (_, sent) = world.backend_sends(&ip(net.router, net.source, 1, 60, &body));
    let body = icmp(net.router, net.client, 3, 4, [0, 0, 5, 100], &without(outer));
    assert_eq!(sent, frame(CLIENT_MAC, OUR_MAC, &ip(net.router, net.client, 1, 59, &body)));
}
