//! New connections and datagrams: who gets them, and what the backend sees.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::thread;

use blixt_lab::{
    Answer, Connection, Family, Lab, Protocol, Server, address, connect, connect_from, exchange_on,
};

use crate::manifests::{Endpoint, Manifests, Service, State, TARGET};
use crate::world::{Hook, World, at, until, vip};

on_both_hooks!(
    every_backend_gets_connections_over_both_protocols_and_families,
    shares_follow_the_weights,
    a_weight_of_zero_gets_nothing,
    a_udp_flow_stays_with_its_backend,
    full_nat_shows_the_balancers_address_and_keeps_the_clients_port,
    two_clients_with_the_same_port_do_not_meet_in_full_nat,
    transparent_forwarding_keeps_the_clients_address,
    a_backend_on_the_balancer_itself_sees_the_clients_address,
    a_port_can_be_used_again_right_after_a_close,
    a_connection_that_is_closed_on_one_side_still_delivers_the_rest,
    one_mebibyte_comes_back_as_it_was_sent,
    what_is_not_blixts_passes_untouched,
    connections_packets_and_refusals_are_counted_by_route_and_reason,
    status_shows_hooks_and_the_way_of_each_backend,
);

fn every_backend_gets_connections_over_both_protocols_and_families(hook: Hook) {
    let world = World::usual(hook);
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 60);
        let names: Vec<_> = tally.answers.keys().map(String::as_str).collect();
        assert_eq!(names, ["backend-1", "backend-2", "backend-3"], "{protocol} {family:?}: {tally:?}");
        assert_eq!(tally.answered(), 60, "{protocol} {family:?}: {tally:?}");
    }
}

fn shares_follow_the_weights(hook: Hook) {
    let world = World::with(hook, Manifests::weighted([Some(5), Some(3), None]));
    let count = 450;
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, count);
        assert_eq!(tally.answered(), count as u64, "{protocol} {family:?}: {tally:?}");
        for (backend, share) in [("backend-1", 5.0 / 9.0), ("backend-2", 3.0 / 9.0), ("backend-3", 1.0 / 9.0)]
        {
            let expected = share * count as f64;
            // Five standard deviations of as many independent choices: wrong once in a million runs.
            let tolerance = 5.0 * (expected * (1.0 - share)).sqrt();
            let off = (tally.of(backend) as f64 - expected).abs();
            assert!(off < tolerance, "{protocol} {family:?}: {backend} is off by {off}: {tally:?}");
        }
    }
}

fn a_weight_of_zero_gets_nothing(hook: Hook) {
    let world = World::with(hook, Manifests::weighted([Some(1), Some(0), Some(1)]));
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 60);
        assert_eq!((tally.answered(), tally.of("backend-2")), (60, 0), "{protocol} {family:?}: {tally:?}");
    }
}

fn a_udp_flow_stays_with_its_backend(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        for _ in 0..8 {
            let socket = udp_socket(&world, family);
            let answers = (0..20).map(|_| exchange_on(&socket, vip(family), b"same").unwrap().backend);
            assert_eq!(answers.collect::<BTreeSet<_>>().len(), 1, "{family:?}");
        }
    }
}

fn full_nat_shows_the_balancers_address_and_keeps_the_clients_port(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        let mine = at(address(family, 0, Lab::OTHER), 4242);
        let answer = connect_from(&world.lab.client, Some(mine), vip(family)).unwrap().answer;
        let network = answer.backend.trim_start_matches("backend-").parse().unwrap();
        assert_eq!(answer.seen, at(address(family, network, Lab::BALANCER), 4242));
    }
}

fn two_clients_with_the_same_port_do_not_meet_in_full_nat(hook: Hook) {
    let world = World::with(hook, {
        let mut manifests = Manifests::usual();
        manifests.services = vec![Service::new("web", &[1])];
        manifests
    });
    // A second address of the client machine is a second client.
    for family in Family::ALL {
        let second = address(family, 0, 3);
        let prefix = if family == Family::V4 { 24 } else { 64 };
        world.lab.client.ip(&format!("addr add {second}/{prefix} dev eth0 nodad")).unwrap();
        let mut connections: Vec<_> = [address(family, 0, Lab::OTHER), second]
            .map(|mine| connect_from(&world.lab.client, Some(at(mine, 4242)), vip(family)).unwrap())
            .into();
        let ports: BTreeSet<_> = connections.iter().map(|connection| connection.answer.seen.port()).collect();
        assert_eq!(ports.len(), 2, "{family:?}: the backend sees {ports:?}");
        for (number, connection) in connections.iter_mut().enumerate() {
            let sent = [number as u8; 100];
            connection.stream.write_all(&sent).unwrap();
            let mut echo = [0xff; 100];
            connection.stream.read_exact(&mut echo).unwrap();
            assert_eq!(echo, sent, "{family:?}");
        }
    }
}

fn transparent_forwarding_keeps_the_clients_address(hook: Hook) {
    let world = World::with(hook, Manifests { forwarding: "Transparent", ..Manifests::usual() });
    for (protocol, family) in everything() {
        let answers = (0..20).map(|_| ask(&world, protocol, family));
        let backends: BTreeSet<_> = answers
            .map(|answer| {
                assert_eq!(answer.seen.ip(), address(family, 0, Lab::OTHER), "{protocol}");
                answer.backend
            })
            .collect();
        assert_eq!(backends.len(), 3, "{protocol} {family:?}: only {backends:?} answered");
    }
}

fn a_backend_on_the_balancer_itself_sees_the_clients_address(hook: Hook) {
    let mut world = World::idle(hook, Manifests::usual());
    // An address of the balancer beside those that its routes use.
    let own = Family::ALL.map(|family| address(family, 1, 77));
    world
        .lab
        .balancer
        .ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad", own[0], own[1]))
        .unwrap();
    let sockets = own.map(|address| at(address, TARGET));
    let _local = Server::start(&world.lab.balancer, "local", &sockets).unwrap();
    let endpoints = own.map(|address| Endpoint { address, state: State::Ready });
    world.change(|manifests| manifests.services[0].endpoints.extend(endpoints));
    world.start();
    for (protocol, family) in everything() {
        let answers: Vec<_> = (0..60).map(|_| ask(&world, protocol, family)).collect();
        let local: Vec<_> = answers.iter().filter(|answer| answer.backend == "local").collect();
        assert!(!local.is_empty(), "{protocol} {family:?}: the local backend got nothing");
        for answer in local {
            assert_eq!(answer.seen.ip(), address(family, 0, Lab::OTHER), "{protocol}");
        }
        let others: BTreeSet<_> = answers.iter().map(|answer| answer.backend.as_str()).collect();
        assert_eq!(others.len(), 4, "{protocol} {family:?}: only {others:?} answered");
    }
    // Much data, both ways, through the stack and the egress hook.
    for family in Family::ALL {
        let mut connection = loop {
            let connection = connect(&world.lab.client, vip(family)).unwrap();
            if connection.answer.backend == "local" {
                break connection;
            }
        };
        let sent = noise(300_000);
        let mut writer = connection.stream.try_clone().unwrap();
        let echo = thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut echo = Vec::new();
            connection.stream.read_to_end(&mut echo).unwrap();
            echo
        });
        assert!(echo == sent, "{family:?}: {} bytes came back", echo.len());
    }
}

fn a_port_can_be_used_again_right_after_a_close(hook: Hook) {
    let world = World::usual(hook);
    // The client forgets its closed connections at once; the balancer must cope.
    world.lab.client.sysctl("net/ipv4/tcp_max_tw_buckets", "0").unwrap();
    for family in Family::ALL {
        let mine = at(address(family, 0, Lab::OTHER), 4243);
        for round in 0..20 {
            let mut connection = connect_from(&world.lab.client, Some(mine), vip(family))
                .unwrap_or_else(|failure| panic!("{family:?}, round {round}: {failure}"));
            connection.stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            connection.stream.read_to_end(&mut rest).unwrap();
        }
    }
}

fn a_connection_that_is_closed_on_one_side_still_delivers_the_rest(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        let mut connection = connect(&world.lab.client, vip(family)).unwrap();
        let sent = noise(20_000);
        connection.stream.write_all(&sent).unwrap();
        connection.stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        connection.stream.read_to_end(&mut rest).unwrap();
        assert!(rest == sent, "{family:?}: {} bytes came back", rest.len());
    }
}

fn one_mebibyte_comes_back_as_it_was_sent(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        echo_of(&world, family, 1 << 20);
    }
}

fn what_is_not_blixts_passes_untouched(hook: Hook) {
    let world = World::usual(hook);
    for network in 1..=3 {
        for family in Family::ALL {
            let to = at(address(family, network, Lab::OTHER), TARGET);
            let routed = connect(&world.lab.client, to).unwrap().answer;
            assert_eq!(routed.backend, format!("backend-{network}"));
            assert_eq!(routed.seen.ip(), address(family, 0, Lab::OTHER));
            let answer = exchange_on(&udp_socket(&world, family), to, b"routed").unwrap();
            assert_eq!(answer.seen.ip(), address(family, 0, Lab::OTHER));
        }
    }
}

fn connections_packets_and_refusals_are_counted_by_route_and_reason(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.routes[1].backends = vec![("missing".to_owned(), None)];
    let world = World::with(hook, manifests);
    for family in Family::ALL {
        assert_eq!(world.dial(Protocol::Tcp, family, 10).answered(), 10);
        assert_eq!(world.dial(Protocol::Udp, family, 5).refused(), 5);
    }
    let tcp = [r#"kind="TCPRoute""#, r#"name="tcp-80""#];
    until("20 connections are counted", || world.metric("blixt_route_connections_total", &tcp) == 20);
    for direction in [r#"direction="request""#, r#"direction="reply""#] {
        let labels = [tcp[0], tcp[1], direction];
        // A handshake, a greeting and an end: at least four packets each way, none shorter than 40 bytes.
        let packets = world.metric("blixt_route_packets_total", &labels);
        assert!(packets >= 20 * 3, "{direction}: {packets} packets");
        assert!(world.metric("blixt_route_bytes_total", &labels) >= packets * 40, "{direction}");
    }
    let udp = [r#"kind="UDPRoute""#, r#"name="udp-80""#];
    until("10 refusals are counted", || world.metric("blixt_route_refused_total", &udp) == 10);
    assert_eq!(world.metric("blixt_backend_connections_total", &[r#"/tcp""#]), 20);
    assert_eq!(world.metric("blixt_dropped_packets_total", &[r#"reason="refused""#]), 10);
}

fn status_shows_hooks_and_the_way_of_each_backend(hook: Hook) {
    let world = World::with(hook, Manifests { forwarding: "Transparent", ..Manifests::usual() });
    let status = world.status().to_string();
    for expected in ["10.0.1.2", "fd00:0:0:3::2", "backend1", "client", "Programmed"] {
        assert!(status.contains(expected), "no {expected} in {status}");
    }
    let wide = world.blixt(&["status", "-o", "wide"]);
    let wide = String::from_utf8_lossy(&wide.stdout).to_lowercase();
    assert!(wide.contains("transparent"), "{wide}");
    let name = if hook == Hook::Tc { "tc" } else { "xdp" };
    assert!(wide.contains(name), "{wide}");
}

/// Sends that many bytes on one connection and checks that they come back.
pub fn echo_of(world: &World, family: Family, bytes: usize) {
    echo_on(&mut connect(&world.lab.client, vip(family)).unwrap(), bytes);
}

/// Sends that many bytes on a connection and checks that they come back.
pub fn echo_on(connection: &mut Connection, bytes: usize) {
    let sent = noise(bytes);
    let mut writer = connection.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).unwrap());
        let mut echo = vec![0; sent.len()];
        connection.stream.read_exact(&mut echo).unwrap();
        assert!(echo == sent, "the echo of {} differs", connection.answer.backend);
    });
}

/// Both protocols over both families.
pub fn everything() -> impl Iterator<Item = (Protocol, Family)> {
    Protocol::ALL
        .into_iter()
        .flat_map(|protocol| Family::ALL.into_iter().map(move |family| (protocol, family)))
}

/// One new connection or datagram to the Gateway's address.
pub fn ask(world: &World, protocol: Protocol, family: Family) -> Answer {
    match protocol {
        Protocol::Tcp => connect(&world.lab.client, vip(family)).unwrap().answer,
        Protocol::Udp => exchange_on(&udp_socket(world, family), vip(family), b"hello").unwrap(),
    }
}

/// A datagram socket of the client's.
pub fn udp_socket(world: &World, family: Family) -> UdpSocket {
    let mine = at(address(family, 0, Lab::OTHER), 0);
    world.lab.client.run(|| UdpSocket::bind(mine)).unwrap()
}

/// Bytes without a pattern that a shifted copy would share.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
