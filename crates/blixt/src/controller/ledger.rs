//! What each object was told last, so that nothing is written twice and nothing at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use blixt_core::api::{Kind, ObjectKey};
use blixt_core::status::{ConditionStatus, Status, Statuses};
use jiff::Timestamp;

use super::objects::Observed;
use super::told::{self, Write};
use crate::status::book::status_hash;

/// Observed objects by key.
pub type ObservedObjects = BTreeMap<Arc<ObjectKey>, Arc<Observed>>;

/// Hashes of what was told.
#[derive(Debug, Default)]
pub struct Ledger {
    told: BTreeMap<ObjectKey, u64>,
}

/// What is to be written now.
#[derive(Debug, Default)]
pub struct Due {
    /// The writes.
    pub writes: Vec<Write>,
    /// More will be due when nodes have acknowledged what they were sent.
    pub is_held: bool,
}

impl Ledger {
    /// What of `statuses` the API server does not have yet. With `is_all`, objects that are missing there have none of ours.
    /// With `hold`, what depends on nodes that may answer any moment waits for them: a condition must not turn for as
    /// long as a message is under way.
    pub fn due(
        &mut self,
        statuses: &Statuses,
        is_all: bool,
        hold: bool,
        observed: &ObservedObjects,
        now: Timestamp,
    ) -> Due {
        let mut due = Due::default();
        for (key, status) in statuses {
            let hash = status_hash(status);
            if self.told.get(key) == Some(&hash) {
                continue;
            }
            if hold && is_pending(status) {
                due.is_held = true;
                continue;
            }
            let Some(observed) = observed.get(key) else { continue };
            let own = told::own(key.kind, observed);
            // Each leader counts anew: for its number alone nothing is written that says the same.
            let is_new = !self.told.contains_key(key);
            let says_the_same = own.as_ref() == Some(status)
                || is_new
                    && own.is_some_and(|own| without_generations(own) == without_generations(status.clone()));
            if !says_the_same {
                due.writes.push(told::write(key, status, observed, now));
            }
            self.told.insert(key.clone(), hash);
        }
        if is_all {
            self.told.retain(|key, _| statuses.contains_key(key));
            let routes =
                observed.iter().filter(|(key, _)| is_route(key.kind) && !statuses.contains_key(&***key));
            due.writes.extend(routes.filter_map(|(key, observed)| told::withdrawal(key, observed)));
        }
        due
    }

    /// What the API server has of an object is what it was told.
    pub fn agrees(&self, key: &ObjectKey, observed: &Observed) -> bool {
        let hash = told::own(key.kind, observed).map(|status| status_hash(&status));
        hash.is_some() && self.told.get(key).copied() == hash
    }

    /// Something was told of this object.
    pub fn is_told(&self, key: &ObjectKey) -> bool {
        self.told.contains_key(key)
    }

    /// Forgets what these were told: it is compared with what the API server has next time.
    pub fn distrust(&mut self, keys: &BTreeSet<ObjectKey>) {
        self.told.retain(|key, _| !keys.contains(key));
    }
}

/// Something of it is not known yet.
fn is_pending(status: &Status) -> bool {
    let conditions = status.all_conditions();
    conditions
        .iter()
        .any(|(_, condition)| condition.status == ConditionStatus::Unknown && condition.reason == "Pending")
}

/// A status whose messages leave out the number of the Config.
fn without_generations(mut status: Status) -> Status {
    const NUMBER: &str = " at generation ";
    for condition in status.all_conditions_mut() {
        let Some((before, after)) = condition.message.split_once(NUMBER) else { continue };
        let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        condition.message = format!("{before}{after}").into();
    }
    status
}

fn is_route(kind: Kind) -> bool {
    kind.name().ends_with("Route")
}

#[cfg(test)]
mod tests {
    use blixt_core::status::{Condition, GatewayStatus};

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: "web".into() }
    }

    fn status(status: ConditionStatus) -> Status {
        let reason = if status == ConditionStatus::Unknown { "Pending" } else { "Programmed" };
        let conditions = vec![Condition::new("Programmed", status, reason, "", 1)];
        Status::Gateway(GatewayStatus { conditions, ..GatewayStatus::default() })
    }

    fn observed(text: Option<String>) -> ObservedObjects {
        let observed = Observed { resource_version: "1".to_owned(), status: text.map(Into::into) };
        [(Arc::new(key()), Arc::new(observed))].into()
    }

    fn due(ledger: &mut Ledger, status: Status, hold: bool, observed: &ObservedObjects) -> Due {
        ledger.due(&[(key(), status)].into(), true, hold, observed, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn nothing_is_written_twice() {
        let mut ledger = Ledger::default();
        let observed = observed(None);
        assert_eq!(due(&mut ledger, status(ConditionStatus::True), true, &observed).writes.len(), 1);
        assert_eq!(due(&mut ledger, status(ConditionStatus::True), true, &observed).writes, []);
        assert_eq!(due(&mut ledger, status(ConditionStatus::False), true, &observed).writes.len(), 1);
    }

    #[test]
    fn what_the_api_server_has_already_is_not_written_by_a_new_leader() {
        let first = due(&mut Ledger::default(), status(ConditionStatus::True), true, &observed(None));
        let written = observed(Some(first.writes[0].value()["status"].to_string()));
        let mut ledger = Ledger::default();
        assert_eq!(due(&mut ledger, status(ConditionStatus::True), true, &written).writes, []);
        assert!(ledger.agrees(&key(), &written[&key()]));
    }

    #[test]
    fn a_condition_does_not_turn_while_an_acknowledgement_is_under_way() {
        let mut ledger = Ledger::default();
        let observed = observed(None);
        let held = due(&mut ledger, status(ConditionStatus::Unknown), true, &observed);
        assert!(held.is_held && held.writes.is_empty());
        assert_eq!(due(&mut ledger, status(ConditionStatus::Unknown), false, &observed).writes.len(), 1);
    }

    #[test]
    fn what_somebody_else_overwrote_is_written_again() {
        let mut ledger = Ledger::default();
        let first = due(&mut ledger, status(ConditionStatus::True), true, &observed(None));
        let mut body = first.writes[0].value()["status"].clone();
        body["conditions"][0]["status"] = "False".into();
        let spoilt = observed(Some(body.to_string()));
        assert!(!ledger.agrees(&key(), &spoilt[&key()]));
        ledger.distrust(&[key()].into());
        assert_eq!(due(&mut ledger, status(ConditionStatus::True), true, &spoilt).writes.len(), 1);
    }

    #[test]
    fn a_new_leader_writes_nothing_for_its_number_alone() {
        let served = |generation: &str| {
            let message = format!("served: 2/2 nodes at generation {generation}; not ready: node3");
            let conditions =
                vec![Condition::new("Programmed", ConditionStatus::True, "Programmed", message, 1)];
            Status::Gateway(GatewayStatus { conditions, ..GatewayStatus::default() })
        };
        let first = due(&mut Ledger::default(), served("7"), true, &observed(None));
        let written = observed(Some(first.writes[0].value()["status"].to_string()));
        let mut ledger = Ledger::default();
        assert_eq!(due(&mut ledger, served("1001"), true, &written).writes, []);
        assert_eq!(due(&mut ledger, served("1001"), true, &written).writes, []);
        // What changes under it is told.
        assert_eq!(due(&mut ledger, served("1002"), true, &written).writes.len(), 1);
    }
}
