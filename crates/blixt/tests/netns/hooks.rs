//! Where programs are attached, which ones, and what is so when they cannot be.

use std::collections::BTreeSet;
use std::time::Duration;

use blixt_lab::{Churn, Family, Protocol, Server, address, programs};

use crate::manifests::{Endpoint, Manifests, State, TARGET};
use crate::world::{Hook, World, at, until, vip};

on_both_hooks!(
    only_the_programs_of_the_hook_in_use_are_loaded,
    the_first_backend_on_this_machine_answers_from_its_first_request_on,
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
    let mut world = World::usual(hook);
    let own = Family::ALL.map(|family| address(family, 1, 77));
    let lines = format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad", own[0], own[1]);
    world.lab.balancer.ip(&lines).unwrap();
    let _local =
        Server::start(&world.lab.balancer, "local", &own.map(|address| at(address, TARGET))).unwrap();
    let with_local = |world: &mut World| {
        world.change(|manifests| {
            let endpoints = own.map(|address| Endpoint { address, state: State::Ready });
            manifests.services[0].endpoints.extend(endpoints);
        });
    };
    let churn = churn(&world);
    with_local(&mut world);
    until_it_answers(&world, "local");
    assert_all_answered(churn);
    // After a restart too.
    world.change(|manifests| *manifests = Manifests::usual());
    until("its devices have no program for replies", || {
        !world.status()["hooks"].to_string().contains("\"egress\":true")
    });
    world.process().kill().unwrap();
    with_local(&mut world);
    let churn = self::churn(&world);
    world.start();
    until_it_answers(&world, "local");
    assert_all_answered(churn);
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
