//! `forward` on the host beside the model.

use std::time::Duration;

use blixt_core::tables::{BackendState, Tables};
use blixt_model::{Host, Plan, fuzz, replay_corpus};
use blixt_packet::abi::Settings;

/// Frames that are judged where nobody says how many.
const CASES: u64 = 1_000_000;
/// Frames among which a flaw must be found.
const FLAWED: u64 = 200_000;

#[test]
fn the_host_does_with_packets_what_the_model_does() {
    let mut host = Host::default();
    fuzz(&mut host, &Plan::from_environment(CASES)).unwrap_or_else(|report| panic!("{report}"));
}

#[test]
fn every_story_that_is_kept_goes_the_models_way_on_the_host() {
    let played = replay_corpus(&mut Host::default()).unwrap_or_else(|report| panic!("{report}"));
    assert!(played > 0);
}

#[test]
fn a_ring_that_is_off_by_one_slot_is_found_out() {
    check(|tables, _| {
        for ring in tables.rings.values_mut() {
            let mut slots: Vec<_> = ring.slots.iter().flat_map(|slots| slots.iter().copied()).collect();
            slots.rotate_left(1);
            ring.slots = Some(slots.into());
        }
    });
}

#[test]
fn a_timeout_that_is_off_by_one_second_is_found_out() {
    check(|_, settings| settings.udp_idle = Settings::DEFAULT.udp_idle - 1);
    check(|_, settings| settings.syn_idle = Settings::DEFAULT.syn_idle - 1);
    check(|_, settings| settings.closed_idle = Settings::DEFAULT.closed_idle - 1);
}

#[test]
fn a_backend_that_is_thought_to_serve_while_it_drains_is_found_out() {
    check(|tables, _| {
        for backend in tables.backends.values_mut().filter(|entry| entry.state == BackendState::Draining) {
            backend.state = BackendState::Serving;
        }
    });
}

/// The report is of few steps, and says how to see it again.
fn check(flaw: fn(&mut Tables, &mut Settings)) {
    let plan = Plan { seed: 1, cases: FLAWED, time: Duration::MAX, tells: false };
    let report = fuzz(&mut Host::flawed(flaw), &plan).expect_err("nothing was found");
    let steps = report.lines().filter(|line| line.starts_with("enters ") || line.starts_with("leaves "));
    assert!(steps.count() <= 5, "{report}");
    assert!(report.contains("again: cargo xtask fuzz --only host --seed "), "{report}");
}
