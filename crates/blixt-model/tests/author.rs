//! What stories are about.

use std::collections::BTreeMap;

use blixt_model::{Author, Host, Outcome};
use blixt_packet::DropReason;

/// Stories that must be enough to meet everything.
const STORIES: u64 = 4000;

#[test]
fn stories_meet_every_decision_and_every_reason() {
    let mut met = BTreeMap::new();
    for seed in 0..STORIES {
        let story = Author::new(seed, &Host::default()).write();
        for outcome in story.outcomes.iter().flatten() {
            *met.entry(name(outcome)).or_insert(0) += 1;
        }
    }
    let decisions = ["pass", "deliver", "send", "answer", "reset at ingress", "reset at egress"];
    let reasons = DropReason::ALL.iter().filter(|reason| **reason != DropReason::TableFull);
    let missing: Vec<&str> = decisions
        .into_iter()
        .chain(reasons.map(|reason| reason.label()))
        .filter(|name| !met.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "no story has {missing:?}; met: {met:#?}");
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Deliver(_) => "deliver",
        Outcome::Send(..) => "send",
        Outcome::Answer(None, _) => "answer",
        Outcome::Reset(Some(_), _) => "reset at ingress",
        Outcome::Reset(None, _) => "reset at egress",
        Outcome::Answer(Some(reason), _) | Outcome::Drop(reason) => reason.label(),
    }
}
