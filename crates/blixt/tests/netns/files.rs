//! Files that are wrong, many, or replaced in odd ways.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use blixt_lab::{Failure, Family, Protocol, connect};

use crate::manifests::{Listener, Manifests, Route};
use crate::world::{Hook, World, at, slowness, until, until_within, vip};

#[test]
fn an_invalid_file_keeps_the_traffic_and_is_named_in_status() {
    let mut world = World::usual(Hook::Tc);
    let good = world.manifests.files();
    for name in
        ["gateway-lab.yaml", "service-web.yaml", "slice-web-v4.yaml", "route-tcp-80.yaml", "class.yaml"]
    {
        let wrong_type =
            good[name].replace("spec:", "spec: 7\nwas:").replace("endpoints:", "endpoints: 7\nwere:");
        let half = good[name].split_at(good[name].len() / 2).0;
        for broken in ["kind: [", "\u{0}\u{1}", &wrong_type, half] {
            world.write_file(name, broken);
            thread::sleep(SEEN);
            for family in Family::ALL {
                let tally = world.dial(Protocol::Tcp, family, 10);
                assert_eq!(tally.answered(), 10, "{family:?}: {tally:?} with {name} as {broken:?}");
            }
        }
        world.write_file(name, "kind: [");
        until("status tells of the file", || world.status()["problems"].to_string().contains(name));
    }
    // A restart does not make it worse.
    world.process().kill().unwrap();
    world.start();
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 10).answered(), 10);
    // And when the files are good again, changes are followed again.
    world.manifests.remove(1);
    for (name, content) in world.manifests.files() {
        world.write_file(&name, &content);
    }
    until("backend-1 gets nothing", || world.dial(Protocol::Tcp, Family::V4, 20).of("backend-1") == 0);
    until("status has no problem left", || world.status()["problems"] == serde_json::json!([]));
}

#[test]
fn a_changed_file_is_in_force_without_being_asked_for() {
    let mut world = World::usual(Hook::Tc);
    let port = Listener { protocol: Protocol::Tcp, port: 81 };
    let to = at(vip(Family::V4).ip(), 81);
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        world.change(|manifests| {
            manifests.gateways[0].listeners.push(port);
            manifests.routes.push(Route::new("lab", port, &["web"]));
        });
        until("the new listener serves", || connect(&world.lab.client, to).is_ok());
        quickest = quickest.min(begin.elapsed());
        world.change(|manifests| {
            manifests.gateways[0].listeners.pop();
            manifests.routes.pop();
        });
        // An attempt that is under way may still be reset.
        until("the old listener refuses", || {
            connect(&world.lab.client, to).is_err_and(|failure| failure == Failure::Refused)
        });
    }
    println!("the quickest change took {quickest:?}");
    assert!(quickest < SOON * slowness(), "the quickest change took {quickest:?}");
}

#[test]
fn ten_thousand_routes_in_one_file_are_served_to_the_last() {
    // The usual ones over IPv6 alone: the table of a family has room for 10 000 frontends.
    let mut manifests = Manifests::usual();
    manifests.gateways[0].addresses.retain(|address| address.is_ipv6());
    let world = World::with(Hook::Tc, manifests);
    let mut yaml = String::new();
    for number in 0..ROUTES {
        let (gateway, port) = (number / PER_GATEWAY, 10_000 + number % PER_GATEWAY);
        if number % PER_GATEWAY == 0 {
            yaml.push_str(&gateway_of(gateway, PER_GATEWAY));
        }
        yaml.push_str(&format!(
            "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: many-{number}, namespace: default}}
spec:
  parentRefs: [{{name: many-{gateway}, sectionName: tcp-{port}}}]
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
"
        ));
    }
    world.write_file("many.yaml", &yaml);
    let gateways = ROUTES / PER_GATEWAY;
    let last = at(
        format!("10.98.{}.{}", (gateways - 1) / 200, (gateways - 1) % 200 + 1).parse().unwrap(),
        10_000 + PER_GATEWAY as u16 - 1,
    );
    // Programs that were built for debugging read ten times as slowly.
    until_within(Duration::from_secs(90), "the last of the routes serves", || {
        connect(&world.lab.client, last).is_ok()
    });
    let first = at("10.98.0.1".parse().unwrap(), 10_000);
    for _ in 0..5 {
        assert!(connect(&world.lab.client, last).is_ok() && connect(&world.lab.client, first).is_ok());
    }
    fs::remove_file(world.directory().join("many.yaml")).unwrap();
    until_within(Duration::from_secs(90), "the last of the routes refuses", || {
        connect(&world.lab.client, last).is_err()
    });
    assert_eq!(world.dial(Protocol::Tcp, Family::V6, 10).answered(), 10);
}

/// How soon a change is in force at the least: `docs/performance` asks for much less, of a machine with nothing else to do. What
/// waits for a second on its way does so every time.
const SOON: Duration = Duration::from_millis(500);
/// Long enough for a change to be seen, and for harm to be done.
const SEEN: Duration = Duration::from_millis(400);
/// A file that a tool writes once for everybody.
const ROUTES: usize = 10_000;
/// A Gateway has at most 64 listeners.
const PER_GATEWAY: usize = 50;

fn gateway_of(number: usize, listeners: usize) -> String {
    let mut yaml = format!(
        "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: many-{number}, namespace: default}}
spec:
  gatewayClassName: blixt
  addresses: [{{type: IPAddress, value: 10.98.{}.{}}}]
  listeners:
",
        number / 200,
        number % 200 + 1
    );
    for port in 10_000..10_000 + listeners {
        yaml.push_str(&format!("  - {{name: tcp-{port}, protocol: TCP, port: {port}}}\n"));
    }
    yaml
}
