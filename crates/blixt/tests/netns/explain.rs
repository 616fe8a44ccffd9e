//! `blixt explain` of the running instance, held against what then happens.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use blixt_lab::{Answer, Connection, Family, Lab, Protocol, address, connect_from, exchange_on};
use serde_json::{Value, json};

use crate::balancing::everything;
use crate::manifests::TARGET;
use crate::world::{Hook, World, at, until, vip};

on_both_hooks!(
    a_packet_goes_where_it_was_said_to_go_and_is_then_said_to_have_gone_there,
    what_is_not_balanced_is_explained_as_it_is_treated,
    a_change_is_explained_as_soon_as_it_is_in_force,
);

/// The first of the ports that packets are sent from.
const FIRST: u16 = 20_001;

fn a_packet_goes_where_it_was_said_to_go_and_is_then_said_to_have_gone_there(hook: Hook) {
    let world = World::usual(hook);
    for (protocol, family) in everything() {
        let mut backends = BTreeSet::new();
        for port in FIRST..FIRST + 12 {
            let from = at(address(family, 0, Lab::OTHER), port);
            let packet = format!("{protocol} {from} > {}", vip(family));
            let before = explain(&world, &packet);
            assert_eq!((&before["verdict"], &before["flow"]), (&json!("sent"), &Value::Null), "{before}");
            assert_eq!(before["frontend"]["endpoint"], format!("{}/{protocol}", vip(family)), "{before}");
            assert_eq!(before["frontend"]["route"]["name"], format!("{protocol}-80"), "{before}");

            let (answer, _open) = send(&world, protocol, from, vip(family));
            let network: u8 = answer.backend.strip_prefix("backend-").unwrap().parse().unwrap();
            let backend = at(address(family, network, Lab::OTHER), TARGET);
            assert_eq!(before["backend"]["endpoint"], format!("{backend}/{protocol}"), "{before}");
            assert_eq!(before["rewritten"], format!("{protocol} {} > {backend}", answer.seen), "{before}");
            backends.insert(answer.backend);

            let after = explain(&world, &packet);
            assert_eq!(after["flow"]["request"], true, "{after}");
            assert_eq!(after["backend"]["endpoint"], before["backend"]["endpoint"], "{after}");
            let reply = explain(&world, &format!("{protocol} {backend} > {}", answer.seen));
            assert_eq!(reply["flow"]["request"], false, "{reply}");
            assert_eq!(reply["rewritten"], format!("{protocol} {} > {from}", vip(family)), "{reply}");
        }
        assert!(backends.len() > 1, "{protocol} {family:?}: all twelve went to {backends:?}");
    }
}

fn what_is_not_balanced_is_explained_as_it_is_treated(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        let from = at(address(family, 0, Lab::OTHER), FIRST);
        let nobodys = at(vip(family).ip(), 81);
        assert_eq!(explain(&world, &format!("tcp {from} > {nobodys}"))["verdict"], "refused");
        assert!(connect_from(&world.lab.client, Some(from), nobodys).is_err());
        let routed = at(address(family, 2, Lab::OTHER), TARGET);
        assert_eq!(explain(&world, &format!("tcp {from} > {routed}"))["verdict"], "passed");
        assert_eq!(send(&world, Protocol::Tcp, from, routed).0.seen, from);
    }
    let words = world.blixt(&["explain", &format!("udp 10.0.0.2:4242 > {}", vip(Family::V4))]);
    let words = String::from_utf8(words.stdout).unwrap();
    for line in
        ["frontend  10.99.0.1:80/udp, listener default/lab/udp-80", "way       full NAT", "verdict   sent"]
    {
        assert!(words.contains(line), "no {line:?} in:\n{words}");
    }
    let nonsense = world.blixt(&["explain", "tcp somewhere"]);
    assert_eq!(nonsense.status.code(), Some(1));
}

fn a_change_is_explained_as_soon_as_it_is_in_force(hook: Hook) {
    let mut world = World::usual(hook);
    world.change(|manifests| {
        manifests.remove(1);
        manifests.remove(3);
    });
    until("only backend-2 is left", || {
        (FIRST..FIRST + 20).all(|port| {
            let from = at(address(Family::V4, 0, Lab::OTHER), port);
            let said = explain(&world, &format!("tcp {from} > {}", vip(Family::V4)));
            said["backend"]["endpoint"] == format!("10.0.2.2:{TARGET}/tcp")
        })
    });
    let tally = world.dial(Protocol::Tcp, Family::V4, 20);
    assert_eq!(tally.of("backend-2"), 20, "{tally:?}");
}

/// What `blixt explain -o json` says.
fn explain(world: &World, packet: &str) -> Value {
    let output = world.blixt(&["explain", "-o", "json", packet]);
    assert!(output.status.success(), "{packet}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Who answers, and the connection, if it is one.
fn send(world: &World, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> (Answer, Option<Connection>) {
    match protocol {
        Protocol::Tcp => {
            let connection = connect_from(&world.lab.client, Some(from), to)
                .unwrap_or_else(|failure| panic!("{from} to {to}: {failure}"));
            (connection.answer.clone(), Some(connection))
        }
        Protocol::Udp => {
            let socket = world.lab.client.run(|| UdpSocket::bind(from)).unwrap();
            (exchange_on(&socket, to, b"hello").unwrap(), None)
        }
    }
}
