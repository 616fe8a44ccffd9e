//! ListenerSets that name a Gateway of ours: whether it lets them in, and their status.

use std::collections::BTreeMap;

use super::Note;
use super::gateway::GatewayState;
use super::listener::{self, ListenerState};
use super::namespaces::{self, NamespaceRule};
use super::programmed::{Outcome, Programmed};
use super::refusal::Refusal;
use crate::api::{Kind, ListenerNamespacesFrom, ListenerSet, ObjectKey};
use crate::config::Endpoint;
use crate::snapshot::Snapshot;
use crate::status::{Condition, ConditionStatus, ListenerSetStatus, Status, Statuses};

/// A ListenerSet whose parent is a Gateway of ours.
pub struct SetState<'a> {
    /// Who it is.
    pub key: &'a ObjectKey,
    /// The object.
    pub set: &'a ListenerSet,
    /// Index of its Gateway.
    pub gateway: usize,
    /// Why its listeners do not join the Gateway's.
    pub refusal: Option<Refusal>,
}

/// The ListenerSets of our Gateways, in their order of precedence: by creation time, then by name.
pub fn listener_sets<'a>(
    snapshot: &'a Snapshot,
    gateways: &[GatewayState<'a>],
    notes: &mut Vec<Note>,
) -> Vec<SetState<'a>> {
    let by_key: BTreeMap<&ObjectKey, usize> =
        gateways.iter().enumerate().map(|(index, state)| (state.key, index)).collect();
    let mut sets = Vec::new();
    for (key, set) in &snapshot.listener_sets {
        let Some(parent) = parent(set) else {
            notes.push(Note {
                object: ObjectKey::clone(key),
                field: "spec.parentRef",
                is_error: true,
                message: "it names no Gateway: only a Gateway can be the parent of a ListenerSet".into(),
            });
            continue;
        };
        if let Some(index) = by_key.get(&parent) {
            let refusal = refusal(snapshot, &gateways[*index], set);
            sets.push(SetState { key, set, gateway: *index, refusal });
        } else if !snapshot.gateways.contains_key(&parent) {
            notes.push(Note {
                object: ObjectKey::clone(key),
                field: "spec.parentRef",
                is_error: true,
                message: snapshot.absence(&parent),
            });
        }
    }
    sets.sort_by_key(|state| state.set.metadata.age());
    sets
}

/// `ListenerSetSpec.parentRef`: a Gateway, by default of the set's own namespace.
fn parent(set: &ListenerSet) -> Option<ObjectKey> {
    let reference = &set.spec.parent_ref;
    let gateway = reference.kind == Kind::Gateway.name() && reference.group == Kind::Gateway.group();
    gateway.then(|| ObjectKey {
        kind: Kind::Gateway,
        namespace: reference.namespace.clone().unwrap_or_else(|| set.metadata.namespace.clone()),
        name: reference.name.clone(),
    })
}

/// `ParentNotAccepted` for a set of a refused Gateway, `NotAllowed` for one that the Gateway does not let in.
fn refusal(snapshot: &Snapshot, state: &GatewayState<'_>, set: &ListenerSet) -> Option<Refusal> {
    if state.refusal.is_some() {
        return Some(Refusal::new("ParentNotAccepted", format!("{} is not accepted", state.key)));
    }
    let allowed = allowance(state).allows(snapshot, &state.key.namespace, &set.metadata.namespace);
    (!allowed).then(|| {
        Refusal::new(
            "NotAllowed",
            format!(
                "spec.allowedListeners of {} lets no ListenerSet of namespace {} in: change it there",
                state.key, set.metadata.namespace
            ),
        )
    })
}

/// `AllowedListeners`: without a word, a Gateway allows no ListenerSet.
fn allowance<'a>(state: &GatewayState<'a>) -> NamespaceRule<'a> {
    let Some(allowed) = &state.gateway.spec.allowed_listeners else { return NamespaceRule::None };
    match allowed.namespaces.from {
        ListenerNamespacesFrom::All => NamespaceRule::All,
        ListenerNamespacesFrom::Same => NamespaceRule::Same,
        ListenerNamespacesFrom::None => NamespaceRule::None,
        ListenerNamespacesFrom::Selector => namespaces::selected(allowed.namespaces.selector.as_ref()),
    }
}

/// The status of each ListenerSet.
pub fn statuses(
    gateways: &[GatewayState<'_>],
    sets: &[SetState<'_>],
    listeners: &[ListenerState<'_>],
    programmed: &Programmed<'_>,
) -> Statuses {
    let mut own: Vec<Vec<&ListenerState<'_>>> = sets.iter().map(|_| Vec::new()).collect();
    for listener in listeners {
        if let Some(set) = listener.set {
            own[set].push(listener);
        }
    }
    sets.iter()
        .zip(own)
        .map(|(set, own)| {
            let status = status(set, &gateways[set.gateway], &own, programmed);
            (set.key.clone(), Status::ListenerSet(status))
        })
        .collect()
}

fn status(
    set: &SetState<'_>,
    gateway: &GatewayState<'_>,
    listeners: &[&ListenerState<'_>],
    programmed: &Programmed<'_>,
) -> ListenerSetStatus {
    let generation = set.set.metadata.generation;
    let accepted = listener::owner_accepted(set.refusal.as_ref(), listeners, generation);
    let outcome = outcome(set, gateway, listeners, &accepted, programmed);
    ListenerSetStatus {
        conditions: vec![accepted, outcome],
        listeners: listeners
            .iter()
            .map(|listener| listener::status(listener, gateway, generation, programmed))
            .collect(),
    }
}

/// `Programmed` of a ListenerSet: as its Gateway's, for its own listeners.
fn outcome(
    set: &SetState<'_>,
    gateway: &GatewayState<'_>,
    listeners: &[&ListenerState<'_>],
    accepted: &Condition,
    programmed: &Programmed<'_>,
) -> Condition {
    let generation = accepted.observed_generation;
    let condition =
        |status, reason, message: String| Condition::new("Programmed", status, reason, message, generation);
    match &set.refusal {
        Some(refusal) if refusal.reason == "ParentNotAccepted" => {
            return condition(ConditionStatus::False, "ParentNotProgrammed", refusal.message.clone());
        }
        Some(refusal) => return condition(ConditionStatus::False, refusal.reason, refusal.message.clone()),
        None => {}
    }
    if accepted.status == ConditionStatus::False {
        return condition(ConditionStatus::False, "ListenersNotValid", "no listener is valid".into());
    }
    if let Some(refusal) = &gateway.address_refusal {
        let message = format!("{}: {}", gateway.key, refusal.message);
        return condition(ConditionStatus::False, "ParentNotProgrammed", message);
    }
    let endpoints: Vec<Endpoint> = listeners
        .iter()
        .filter(|listener| listener.is_valid())
        .flat_map(|listener| listener.endpoints(gateway))
        .collect();
    match programmed.outcome(&endpoints) {
        Outcome::Pending => condition(
            ConditionStatus::Unknown,
            "Pending",
            "the data plane has not reported on every listener yet".into(),
        ),
        Outcome::Failed(message) => condition(ConditionStatus::False, "Invalid", message),
        Outcome::Done(_) => condition(
            ConditionStatus::True,
            "Programmed",
            "the data plane serves every valid listener".into(),
        ),
    }
}
