//! Changes faster than anybody makes them by hand.

use std::thread;
use std::time::{Duration, Instant};

use blixt_lab::{Attempt, Busy, Churn, Failure, Family, Protocol};

use crate::changes::{IN_FORCE, assert_unharmed, is_of, without};
use crate::manifests::{Listener, Manifests, Route, Service};
use crate::world::{Hook, World, until, vip};

on_both_hooks!(a_hundred_changes_a_second_harm_nothing_that_stays);

const CHANGES: u32 = 1000;
const EVERY: Duration = Duration::from_millis(10);
/// So many changes backend 2 is there, and so many it is not.
const TURN: u32 = 250;

fn a_hundred_changes_a_second_harm_nothing_that_stays(hook: Hook) {
    let mut usual = Manifests::usual();
    usual.services.push(Service::new("more", &[1, 3]));
    for route in &mut usual.routes {
        route.backends = vec![("web".to_owned(), Some(1)), ("more".to_owned(), Some(1))];
    }
    let mut world = World::with(hook, usual.clone());
    let client = &world.lab.client;
    let pause = Duration::from_millis(20);
    let busy = Family::ALL.map(|family| Busy::start(client, vip(family), 30, pause).unwrap());
    let churn =
        Family::ALL.map(|family| Churn::start(client, Protocol::Tcp, vip(family), Duration::from_millis(4)));

    let mut removed = Vec::new();
    let mut restored = Vec::new();
    let begin = Instant::now();
    for number in 1..=CHANGES {
        thread::sleep((begin + number * EVERY).saturating_duration_since(Instant::now()));
        world.change(|manifests| change(manifests, &usual, number));
        match (number % TURN, number / TURN % 2) {
            (0, 1) => removed.push(Instant::now()),
            (0, _) => restored.push(Instant::now()),
            _ => {}
        }
    }
    println!("{CHANGES} changes in {:?}", begin.elapsed());

    let attempts: Vec<Attempt> = churn.into_iter().flat_map(Churn::finish).collect();
    let busy: Vec<_> = busy.into_iter().flat_map(Busy::finish).collect();
    // The last one counts, whatever was before it.
    world.change(|manifests| {
        manifests.clone_from(&usual);
        manifests.remove(3);
    });
    until("the last change is in force", || without(&world, "backend-3"));
    assert_eq!(world.dial(Protocol::Tcp, Family::V4, 40).answered(), 40);

    let (gone, stayed): (Vec<_>, Vec<_>) = busy.into_iter().partition(|one| is_of(one, "backend-2"));
    assert!(!gone.is_empty(), "backend-2 had no connection to lose");
    assert_unharmed(&stayed);
    // A connection that was being made to the backend in that very moment may be reset with the rest.
    let harmed: Vec<_> = attempts.iter().filter(|attempt| attempt.result.is_err()).collect();
    assert!(harmed.iter().all(|attempt| attempt.result == Err(Failure::Reset)), "{harmed:?}");
    assert!(harmed.len() <= 2 * Family::ALL.len() * removed.len(), "{harmed:?}");
    for (removed, restored) in removed.iter().zip(&restored) {
        let is_late = |attempt: &&Attempt| attempt.at > *removed + IN_FORCE && attempt.at < *restored;
        let late: Vec<_> = attempts.iter().filter(is_late).collect();
        assert!(late.len() > 10, "only {} new connections after the removal", late.len());
        let wrong: Vec<_> = late
            .iter()
            .filter(|attempt| attempt.result.as_ref().is_ok_and(|answer| answer.backend == "backend-2"))
            .collect();
        assert!(wrong.is_empty(), "{} new connections to a removed backend", wrong.len());
    }
}

/// Each changes a weight; some a listener with its route, and some a backend.
fn change(manifests: &mut Manifests, usual: &Manifests, number: u32) {
    for route in &mut manifests.routes[..2] {
        route.backends[0].1 = Some(1 + number % 7);
    }
    let more = Listener { protocol: Protocol::Tcp, port: 9000 };
    match number % 20 {
        5 => {
            manifests.gateways[0].listeners.push(more);
            manifests.routes.push(Route::new("lab", more, &["web"]));
        }
        15 => {
            manifests.gateways[0].listeners.truncate(2);
            manifests.routes.truncate(2);
        }
        _ => {}
    }
    match (number % TURN, number / TURN % 2) {
        (0, 1) => manifests.remove(2),
        (0, _) => manifests.services.clone_from(&usual.services),
        _ => {}
    }
}
