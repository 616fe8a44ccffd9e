//! Files that are wrong, many, or replaced in odd ways.

use std::fs;
use std::time::{Duration, Instant};

use blixt_lab::{Family, Protocol, connect};

use crate::manifests::{Listener, Manifests, Route};
use crate::world::{Hook, World, at, until, vip};

#[test]
fn an_invalid_file_keeps_the_traffic_and_is_named_in_status() {
    let mut world = World::usual(Hook::Tc);
    for broken in
        ["kind: [", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: 7}\n", "\u{0}\u{1}"]
    {
        world.write_file("service-web.yaml", broken);
        world.write_file("gateway-lab.yaml", broken);
        until("status tells of the file", || world.status().to_string().contains("gateway-lab.yaml"));
        for family in Family::ALL {
            assert_eq!(world.dial(Protocol::Tcp, family, 10).answered(), 10, "{broken:?}");
        }
    }
    // A restart does not make it worse.
    world.process().kill().unwrap();
    world.start();
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 10).answered(), 10);
    // And when the files are good again, changes are followed again.
    world.change(|manifests| manifests.remove(1));
    world.write_file("service-web.yaml", &world.manifests.files()["service-web.yaml"]);
    world.write_file("gateway-lab.yaml", &world.manifests.files()["gateway-lab.yaml"]);
    until("backend-1 gets nothing", || world.dial(Protocol::Tcp, Family::V4, 20).of("backend-1") == 0);
    until("status has no problem left", || !world.status().to_string().contains("gateway-lab.yaml:"));
}

#[test]
fn a_changed_file_is_in_force_within_a_second() {
    let mut world = World::usual(Hook::Tc);
    let port = Listener { protocol: Protocol::Tcp, port: 81 };
    let to = at(vip(Family::V4).ip(), 81);
    for _ in 0..5 {
        world.change(|manifests| {
            manifests.gateways[0].listeners.push(port);
            manifests.routes.push(Route::new("lab", port, &["web"]));
        });
        let begin = Instant::now();
        until("the new listener serves", || connect(&world.lab.client, to).is_ok());
        assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());
        world.change(|manifests| {
            manifests.gateways[0].listeners.pop();
            manifests.routes.pop();
        });
        let begin = Instant::now();
        until("the old listener refuses", || connect(&world.lab.client, to).is_err());
        assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());
    }
}

#[test]
fn ten_thousand_routes_in_one_file_are_served_to_the_last() {
    let world = World::with(Hook::Tc, Manifests::usual());
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
    until("the last of the routes serves", || connect(&world.lab.client, last).is_ok());
    let first = at("10.98.0.1".parse().unwrap(), 10_000);
    for _ in 0..5 {
        assert!(connect(&world.lab.client, last).is_ok() && connect(&world.lab.client, first).is_ok());
    }
    fs::remove_file(world.directory().join("many.yaml")).unwrap();
    until("the last of the routes refuses", || connect(&world.lab.client, last).is_err());
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 10).answered(), 10);
}

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
