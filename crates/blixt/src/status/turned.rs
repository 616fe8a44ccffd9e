//! Conditions that turned, in the log.

use std::collections::BTreeMap;

use super::book::Transition;

/// More conditions than this that turn at once are counted in the log, not listed.
const MANY: usize = 50;

/// Every condition that turned; where very many did, how many of each.
pub fn log_transitions(transitions: &[Transition]) {
    if transitions.len() <= MANY {
        for turned in transitions {
            tracing::info!(
                object = %turned.object, part = turned.part, condition = turned.condition,
                status = turned.status, reason = turned.reason, message = turned.message, "status"
            );
        }
        return;
    }
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for Transition { object, condition, status, reason, .. } in transitions {
        *counts.entry((object.kind, condition, *status, reason)).or_default() += 1;
    }
    for ((kind, condition, status, reason), count) in counts {
        tracing::info!(%kind, condition, status, reason, count, "status of many; see `blixt status`");
    }
}
