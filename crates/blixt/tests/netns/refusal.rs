//! What is refused, at once and aloud; and what is not Blixt's to refuse.

use blixt_lab::{Family, Lab, Protocol, Server, address, connect, exchange, tally};

use crate::balancing::everything;
use crate::manifests::{Listener, Manifests, Route, State, owned};
use crate::world::{Hook, World, at};

on_both_hooks!(
    a_listener_without_ready_backends_refuses_and_leaves_nobody_waiting,
    the_share_of_a_missing_service_is_refused_and_the_rest_served,
    a_listener_without_route_refuses,
    a_port_that_no_listener_owns_is_refused_even_if_the_host_listens,
    the_hosts_own_ports_stay_the_hosts_on_its_own_address,
);

fn a_listener_without_ready_backends_refuses_and_leaves_nobody_waiting(hook: Hook) {
    let mut manifests = Manifests::usual();
    for endpoint in &mut manifests.services[0].endpoints {
        endpoint.state = State::NotReady;
    }
    let world = World::with(hook, manifests);
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 5);
        assert_eq!(tally.refused(), 5, "{protocol} {family:?}: {tally:?}");
    }
}

fn the_share_of_a_missing_service_is_refused_and_the_rest_served(hook: Hook) {
    let mut manifests = Manifests::usual();
    for route in &mut manifests.routes {
        route.backends = vec![("web".to_owned(), Some(1)), ("missing".to_owned(), Some(1))];
    }
    let world = World::with(hook, manifests);
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 200);
        assert_eq!(tally.answered() + tally.refused(), 200, "{protocol} {family:?}: {tally:?}");
        // Five standard deviations of 200 fair choices are 35.
        assert!((65..=135).contains(&tally.refused()), "{protocol} {family:?}: {tally:?}");
    }
}

fn a_listener_without_route_refuses(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.routes.clear();
    let world = World::with(hook, manifests);
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 3);
        assert_eq!(tally.refused(), 3, "{protocol} {family:?}: {tally:?}");
    }
}

fn a_port_that_no_listener_owns_is_refused_even_if_the_host_listens(hook: Hook) {
    let world = World::usual(hook);
    let any = ["0.0.0.0:2222", "[::]:2222"].map(|text| text.parse().unwrap());
    let _host = Server::start(&world.lab.balancer, "host", &any).unwrap();
    for (protocol, family) in everything() {
        let tally = tally(&world.lab.client, protocol, at(owned(family), 2222), 5);
        assert_eq!(tally.refused(), 5, "{protocol} {family:?}: {tally:?}");
    }
}

fn the_hosts_own_ports_stay_the_hosts_on_its_own_address(hook: Hook) {
    // The Gateway has the balancer's own address, and only its TCP port 80.
    let own = Family::ALL.map(|family| address(family, 0, Lab::BALANCER));
    let mut manifests = Manifests::usual();
    let listener = Listener { protocol: Protocol::Tcp, port: 80 };
    manifests.gateways[0].addresses = own.to_vec();
    manifests.gateways[0].listeners = vec![listener];
    manifests.routes = vec![Route::new("lab", listener, &["web"])];
    let world = World::with(hook, manifests);
    let ports = own.into_iter().flat_map(|address| [22, 81].map(|port| at(address, port)));
    let _host = Server::start(&world.lab.balancer, "host", &ports.collect::<Vec<_>>()).unwrap();
    for address in own {
        for _ in 0..5 {
            let balanced = connect(&world.lab.client, at(address, 80)).unwrap().answer.backend;
            assert!(balanced.starts_with("backend-"), "{address}: {balanced}");
            assert_eq!(connect(&world.lab.client, at(address, 22)).unwrap().answer.backend, "host");
            assert_eq!(exchange(&world.lab.client, at(address, 81), b"hi").unwrap().backend, "host");
        }
        // UDP on the listener's number is the host's, and nobody serves it there.
        let tally = tally(&world.lab.client, Protocol::Udp, at(address, 80), 3);
        assert_eq!(tally.refused(), 3, "{address}: {tally:?}");
        // The host's own connections come home.
        let backend = at(
            blixt_lab::address(if address.is_ipv4() { Family::V4 } else { Family::V6 }, 1, Lab::OTHER),
            8080,
        );
        assert_eq!(connect(&world.lab.balancer, backend).unwrap().answer.backend, "backend-1");
    }
}
