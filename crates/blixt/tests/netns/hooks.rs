//! Where programs are attached, which ones, and what is so when they cannot be.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use blixt_lab::{Busy, Churn, Family, Lab, Offload, Protocol, Server, address, programs, tally};
use blixt_loader::{Dataplane, Options};

use crate::balancing::everything;
use crate::changes::assert_unharmed;
use crate::manifests::{Endpoint, Manifests, PORT, State, TARGET};
use crate::world::{Hook, World, at, until, vip};

on_both_hooks!(
    only_the_programs_of_the_hook_in_use_are_loaded,
    the_first_backend_on_this_machine_answers_from_its_first_request_on,
    the_first_backend_on_this_machine_answers_from_the_first_request_after_a_restart_on,
    a_machine_that_does_not_forward_balances_with_the_process_and_without,
);

/// Between two datagrams: short against the time that attaching takes.
const PAUSE: Duration = Duration::from_millis(1);

fn only_the_programs_of_the_hook_in_use_are_loaded(hook: Hook) {
    let mut world = World::usual(hook);
    let held = world.process().programs().unwrap();
    let listed = programs().unwrap();
    let names: BTreeSet<&str> = held.iter().filter_map(|id| listed.get(id)).map(String::as_str).collect();
    let expected: &[&str] = match hook {
        Hook::Tc => &["blixt_ingress"],
        Hook::Xdp => &["blixt_ingress", "blixt_xdp"],
    };
    assert!(names.iter().eq(expected), "{names:?}");
}

fn the_first_backend_on_this_machine_answers_from_its_first_request_on(hook: Hook) {
    let (mut world, _local) = beside_a_server_on_the_balancer(hook);
    let churn = churn(&world);
    balance_the_local_one_too(&mut world);
    until_it_answers(&world, "local");
    assert_all_answered(churn);
}

fn the_first_backend_on_this_machine_answers_from_the_first_request_after_a_restart_on(hook: Hook) {
    let (mut world, _local) = beside_a_server_on_the_balancer(hook);
    assert!(!world.status()["hooks"].to_string().contains("\"egress\":true"), "a program for no replies");
    world.process().kill().unwrap();
    balance_the_local_one_too(&mut world);
    let churn = churn(&world);
    world.start();
    until_it_answers(&world, "local");
    assert_all_answered(churn);
}

/// The usual world, and a server on the balancer that is no backend yet.
fn beside_a_server_on_the_balancer(hook: Hook) -> (World, Server) {
    let world = World::usual(hook);
    let own = local_addresses();
    let lines = format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad", own[0], own[1]);
    world.lab.balancer.ip(&lines).unwrap();
    let sockets = own.map(|address| at(address, TARGET));
    let local = Server::start(&world.lab.balancer, "local", &sockets).unwrap();
    (world, local)
}

fn balance_the_local_one_too(world: &mut World) {
    world.change(|manifests| {
        let endpoints = local_addresses().map(|address| Endpoint { address, state: State::Ready });
        manifests.services[0].endpoints.extend(endpoints);
    });
}

fn local_addresses() -> [IpAddr; 2] {
    Family::ALL.map(|family| address(family, 1, 77))
}

fn a_machine_that_does_not_forward_balances_with_the_process_and_without(hook: Hook) {
    let mut world = World::idle(hook, Manifests::usual());
    let balancer = world.lab.balancer.clone();
    balancer.sysctl("net/ipv4/ip_forward", "0").unwrap();
    balancer.sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();
    let tally = tally(&world.lab.client, Protocol::Tcp, at(address(Family::V4, 1, Lab::OTHER), TARGET), 1);
    assert_eq!(tally.answered(), 0, "it forwards");
    world.start();
    assert_served(&world, "while the process is there");
    let busy = Family::ALL.map(|family| Busy::start(&world.lab.client, vip(family), 10, PAUSE * 10).unwrap());
    world.process().kill().unwrap();
    // As if the next hops had not been renewed for long.
    balancer.run(|| {
        let mut dataplane =
            Dataplane::open(&Options { hop_life: Duration::ZERO, ..Options::default() }).unwrap();
        dataplane.renew_hops().unwrap();
    });
    thread::sleep(Duration::from_secs(2));
    assert_served(&world, "when its next hops have run out");
    for busy in busy {
        assert_unharmed(&busy.finish());
    }
}

#[test]
fn xdp_serves_wires_whose_other_ends_have_no_program() {
    let mut manifests = Manifests::usual();
    let free = Family::ALL.map(|family| address(family, 0, 100));
    manifests.gateways[0].addresses.extend(free);
    let mut world = World::with(Hook::Xdp, manifests);
    let others = std::iter::once(&world.lab.client).chain(&world.lab.backends).cloned().collect::<Vec<_>>();
    assert_served(&world, "as on a wire");
    world.lab.take_xdp_off();
    for (gro, when) in [(false, "nothing at the other end"), (true, "GRO at the other end")] {
        for other in &others {
            other.offload("eth0", Offload::Receive, gro).unwrap();
        }
        until("the change is seen", || world.dial(Protocol::Udp, Family::V4, 1).answered() == 1);
        assert_served(&world, when);
        // What XDP would send back by itself: answers to neighbours, and refusals.
        world.lab.client.ip("neigh flush dev eth0").unwrap();
        for address in free {
            let tally = tally(&world.lab.client, Protocol::Tcp, at(address, PORT), 5);
            assert_eq!(tally.answered(), 5, "{when}: {address}: {tally:?}");
            let tally = self::tally(&world.lab.client, Protocol::Tcp, at(address, PORT + 1), 5);
            assert_eq!(tally.refused(), 5, "{when}: {address}: {tally:?}");
        }
    }
    let hooks = world.status()["hooks"].to_string();
    assert!(hooks.contains("\"xdp\"") && !hooks.contains("\"tc\""), "{hooks}");
}

fn assert_served(world: &World, when: &str) {
    for (protocol, family) in everything() {
        let tally = world.dial(protocol, family, 20);
        assert_eq!(tally.answered(), 20, "{when}: {protocol} {family:?}: {tally:?}");
    }
}

/// Datagrams to both families all the time.
fn churn(world: &World) -> Vec<Churn> {
    let families = Family::ALL.into_iter().cycle().take(4);
    families.map(|family| Churn::start(&world.lab.client, Protocol::Udp, vip(family), PAUSE)).collect()
}

fn assert_all_answered(churn: Vec<Churn>) {
    let attempts: Vec<_> = churn.into_iter().flat_map(Churn::finish).collect();
    let failed: Vec<_> = attempts.iter().filter(|attempt| attempt.result.is_err()).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), attempts.len());
}

fn until_it_answers(world: &World, backend: &str) {
    for family in Family::ALL {
        until("it answers", || world.dial(Protocol::Udp, family, 5).of(backend) > 0);
    }
}
