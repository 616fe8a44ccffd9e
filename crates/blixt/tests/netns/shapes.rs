//! Packets of odd shapes are delivered: fragments, options, extension headers, VLAN tags, large segments.

use std::io::Write;
use std::thread;

use blixt_lab::{Family, Lab, PacketSocket, address, connect, exchange_on};

use crate::balancing::{echo_of, udp_socket};
use crate::frames::{Oddity, TAG_AT, WAIT, ask, datagram, udp_of};
use crate::world::{Hook, World, at, vip};

on_both_hooks!(
    datagrams_in_fragments_are_delivered_both_ways,
    ipv4_options_of_all_lengths_are_delivered,
    ipv6_extension_headers_are_delivered,
    tagged_frames_are_answered_with_the_same_tag,
    frames_for_others_that_a_promiscuous_interface_shows_are_not_forwarded,
);

fn datagrams_in_fragments_are_delivered_both_ways(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        for length in [1473, 3000, 9000] {
            for _ in 0..5 {
                let socket = udp_socket(&world, family);
                let answer = exchange_on(&socket, vip(family), &vec![0x42; length]);
                assert!(answer.is_ok(), "{family:?}, {length} bytes: {answer:?}");
                // Whole ones of the same flow go to the same backend.
                let whole = exchange_on(&socket, vip(family), b"short").unwrap();
                assert_eq!(answer.unwrap().backend, whole.backend, "{family:?}, {length} bytes");
            }
        }
    }
}

fn ipv4_options_of_all_lengths_are_delivered(hook: Hook) {
    let world = World::usual(hook);
    let to = vip(Family::V4);
    for length in (4..=40).step_by(4) {
        let from = at(address(Family::V4, 0, Lab::OTHER), 4300 + length as u16);
        let frame = datagram(&world, from, to, b"options", Oddity::Options(length));
        let (_, payload) =
            ask(&world, &frame, from, to).unwrap_or_else(|| panic!("{length} bytes of options"));
        assert!(
            payload.starts_with(b"backend-") && payload.ends_with(b"options"),
            "{length} bytes of options"
        );
    }
}

fn ipv6_extension_headers_are_delivered(hook: Hook) {
    let world = World::usual(hook);
    let (from, to) = (at(address(Family::V6, 0, Lab::OTHER), 4400), vip(Family::V6));
    let frame = datagram(&world, from, to, b"extensions", Oddity::Extensions);
    let (_, payload) = ask(&world, &frame, from, to).expect("no answer");
    assert!(payload.starts_with(b"backend-") && payload.ends_with(b"extensions"));
}

fn tagged_frames_are_answered_with_the_same_tag(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        let (from, to) = (at(address(family, 0, Lab::OTHER), 4500), vip(family));
        let frame = datagram(&world, from, to, b"tagged", Oddity::Vlan(42));
        let (answer, payload) =
            ask(&world, &frame, from, to).unwrap_or_else(|| panic!("{family:?}: no answer"));
        assert!(payload.starts_with(b"backend-") && payload.ends_with(b"tagged"), "{family:?}");
        assert_eq!(answer[TAG_AT..TAG_AT + 4], [0x81, 0x00, 0, 42], "{family:?}");
    }
}

fn frames_for_others_that_a_promiscuous_interface_shows_are_not_forwarded(hook: Hook) {
    let world = World::usual(hook);
    world.lab.balancer.ip(&format!("link set {} promisc on", Lab::device(0))).unwrap();
    let client = PacketSocket::open(&world.lab.client, "eth0").unwrap();
    for (family, port) in Family::ALL.into_iter().zip([4600, 4700]) {
        let (from, to) = (at(address(family, 0, Lab::OTHER), port), vip(family));
        let frame = datagram(&world, from, to, b"seen", Oddity::None);
        for (mac, port) in OTHERS.into_iter().zip(port + 1..) {
            let from = at(from.ip(), port);
            let mut frame = datagram(&world, from, to, b"overheard", Oddity::None);
            frame[..6].copy_from_slice(&mac);
            client.send(&frame).unwrap();
        }
        client.send(&frame).unwrap();
        // Frames of one sender arrive in their order: an answer to the ones before would be there by now.
        let is_answer = |frame: &[u8]| udp_of(frame).is_some_and(|(source, _, _)| source == to);
        let answer = client.receive_if(WAIT, is_answer).unwrap().expect("no answer");
        let (_, asked, payload) = udp_of(&answer).unwrap();
        assert!(asked == from && payload.ends_with(b"seen"), "{family:?}: {asked} was answered");
    }
    assert_eq!(world.metric("blixt_route_connections_total", &[]), 2);
}

/// Another machine's MAC address, everybody's, and a group's.
const OTHERS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]];

#[test]
fn large_segments_cross_the_tc_hook_whole() {
    let world = World::usual(Hook::Tc);
    for family in Family::ALL {
        let mut connection = connect(&world.lab.client, vip(family)).unwrap();
        let network: usize = connection.answer.backend.trim_start_matches("backend-").parse().unwrap();
        let backend = PacketSocket::open(&world.lab.backends[network - 1], "eth0").unwrap();
        let writer = thread::spawn(move || connection.stream.write_all(&[0x5a; 400_000]));
        // Ten segments in one: far more than the MTU, so nobody cut it on the way.
        let large = backend.receive_if(WAIT, |frame| frame.len() > 15_000).unwrap();
        assert!(large.is_some(), "{family:?}: no large segment arrived");
        drop(backend);
        // The server echoes into a connection that nobody reads; the end of the test resets it.
        drop(writer);
        echo_of(&world, family, 1 << 20);
    }
}
