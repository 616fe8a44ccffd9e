//! Gateways of our classes: whether they are accepted, and their status.

use std::collections::BTreeSet;
use std::net::IpAddr;

use smol_str::SmolStr;

use super::Note;
use super::class::{Class, Classes, Settings};
use super::listener::{self, ListenerState};
use super::listener_set::SetState;
use super::namespaces;
use super::programmed::{Outcome, Programmed};
use super::refusal::{Refusal, some};
use crate::api::{Gateway, Kind, ListenerNamespacesFrom, ObjectKey};
use crate::config::Endpoint;
use crate::snapshot::Snapshot;
use crate::status::{Condition, ConditionStatus, GatewayStatus, Status, StatusAddress, Statuses};

/// A Gateway of ours.
pub struct GatewayState<'a> {
    /// Who it is.
    pub key: &'a ObjectKey,
    /// The object.
    pub gateway: &'a Gateway,
    /// What its class says; absent if that is not accepted.
    pub settings: Option<&'a Settings>,
    /// Why it is not accepted.
    pub refusal: Option<Refusal>,
    /// The addresses that it serves on.
    pub addresses: Vec<IpAddr>,
    /// Why it does not have all the addresses that it should.
    pub address_refusal: Option<Refusal>,
}

/// The Gateways of our classes, oldest first.
pub fn gateways<'a>(
    snapshot: &'a Snapshot,
    classes: &'a Classes<'a>,
    notes: &mut Vec<Note>,
) -> Vec<GatewayState<'a>> {
    let mut gateways = Vec::new();
    for (key, gateway) in &snapshot.gateways {
        let Some(class) = classes.get(gateway.spec.gateway_class_name.as_str()) else {
            notes.extend(missing_class(snapshot, key, gateway));
            continue;
        };
        notes.extend(selector_note(key, gateway));
        gateways.push(GatewayState {
            key,
            gateway,
            settings: class.settings.as_ref().ok(),
            refusal: refusal(class, gateway),
            addresses: Vec::new(),
            address_refusal: None,
        });
    }
    gateways.sort_by_key(|state| state.gateway.metadata.age());
    gateways
}

/// A Gateway without a class is nobody's, so nobody may write its status.
fn missing_class(snapshot: &Snapshot, key: &ObjectKey, gateway: &Gateway) -> Option<Note> {
    let class = ObjectKey {
        kind: Kind::GatewayClass,
        namespace: SmolStr::default(),
        name: gateway.spec.gateway_class_name.clone(),
    };
    (!snapshot.gateway_classes.contains_key(&class)).then(|| Note {
        object: key.clone(),
        field: "spec.gatewayClassName",
        is_error: true,
        message: snapshot.absence(&class),
    })
}

/// A selector of `spec.allowedListeners` that makes no sense lets no ListenerSet in, and the API has no condition for
/// it. The Gateway's own listeners go on.
fn selector_note(key: &ObjectKey, gateway: &Gateway) -> Option<Note> {
    let namespaces = &gateway.spec.allowed_listeners.as_ref()?.namespaces;
    if namespaces.from != ListenerNamespacesFrom::Selector {
        return None;
    }
    let fault = match &namespaces.selector {
        Some(selector) => namespaces::selector_fault(selector)?,
        None => "selector is missing: give one, or choose another from".into(),
    };
    Some(Note {
        object: key.clone(),
        field: "spec.allowedListeners.namespaces",
        is_error: true,
        message: format!("{fault}; until then no ListenerSet is let in"),
    })
}

/// Why a Gateway is not accepted, as far as its own fields say it.
fn refusal(class: &Class<'_>, gateway: &Gateway) -> Option<Refusal> {
    class_refusal(class, gateway)
        .or_else(|| parameters_refusal(gateway))
        .or_else(|| tls_refusal(gateway))
        .or_else(|| address_type_refusal(gateway))
}

/// A Gateway of a class that is not accepted cannot be configured: `InvalidParameters`.
fn class_refusal(class: &Class<'_>, gateway: &Gateway) -> Option<Refusal> {
    let refusal = class.settings.as_ref().err()?;
    let name = &gateway.spec.gateway_class_name;
    Some(Refusal::new(refusal.reason, format!("GatewayClass {name} is not accepted: {}", refusal.message)))
}

/// `GatewayInfrastructure.parametersRef`: unsupported kinds SHOULD be rejected with `InvalidParameters`.
fn parameters_refusal(gateway: &Gateway) -> Option<Refusal> {
    let reference = gateway.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
    Some(Refusal::new(
        "InvalidParameters",
        format!(
            "spec.infrastructure.parametersRef names {} {}: Blixt takes settings from the class only, remove it",
            reference.kind, reference.name
        ),
    ))
}

/// `GatewaySpec.tls` asks for TLS that Blixt, at layer 4, neither terminates nor starts.
fn tls_refusal(gateway: &Gateway) -> Option<Refusal> {
    gateway.spec.tls.as_ref()?;
    Some(Refusal::new("Invalid", "spec.tls is set: Blixt neither terminates nor starts TLS, remove it"))
}

/// `GatewayReasonUnsupportedAddress`: an address of a type that is not supported.
fn address_type_refusal(gateway: &Gateway) -> Option<Refusal> {
    let (index, address) =
        gateway.spec.addresses.iter().enumerate().find(|(_, address)| address.r#type != "IPAddress")?;
    Some(Refusal::new(
        "UnsupportedAddress",
        format!("spec.addresses[{index}].type is {}: Blixt knows IPAddress", address.r#type),
    ))
}

/// The status of each Gateway.
pub fn statuses(
    gateways: &[GatewayState<'_>],
    sets: &[SetState<'_>],
    listeners: &[ListenerState<'_>],
    programmed: &Programmed<'_>,
) -> Statuses {
    let mut own: Vec<Vec<&ListenerState<'_>>> = gateways.iter().map(|_| Vec::new()).collect();
    let mut of_sets = own.clone();
    let mut attached_sets = vec![0; gateways.len()];
    for listener in listeners {
        let of_gateway = if listener.set.is_none() { &mut own } else { &mut of_sets };
        of_gateway[listener.gateway].push(listener);
    }
    let with_valid_listener: BTreeSet<usize> =
        listeners.iter().filter(|listener| listener.is_valid()).filter_map(|listener| listener.set).collect();
    for set in with_valid_listener {
        attached_sets[sets[set].gateway] += 1;
    }
    gateways
        .iter()
        .zip(own)
        .zip(of_sets)
        .zip(attached_sets)
        .map(|(((state, own), of_sets), attached_sets)| {
            let status = status(state, &own, &of_sets, attached_sets, programmed);
            (state.key.clone(), Status::Gateway(status))
        })
        .collect()
}

fn status(
    state: &GatewayState<'_>,
    listeners: &[&ListenerState<'_>],
    of_sets: &[&ListenerState<'_>],
    attached_listener_sets: u32,
    programmed: &Programmed<'_>,
) -> GatewayStatus {
    let generation = state.gateway.metadata.generation;
    let accepted = listener::owner_accepted(state.refusal.as_ref(), listeners, generation);
    let outcome = outcome(state, listeners, &accepted, programmed);
    let serving = serving(&[listeners, of_sets].concat(), &outcome);
    let addresses = if state.refusal.is_some() { &[][..] } else { &state.addresses };
    GatewayStatus {
        addresses: addresses
            .iter()
            .map(|address| StatusAddress { address_type: "IPAddress".into(), value: address.to_string() })
            .collect(),
        conditions: vec![accepted, outcome, serving],
        listeners: listeners
            .iter()
            .map(|listener| listener::status(listener, state, generation, programmed))
            .collect(),
        attached_listener_sets,
    }
}

/// `Programmed`: the addresses are there, and the data plane has every valid listener.
fn outcome(
    state: &GatewayState<'_>,
    listeners: &[&ListenerState<'_>],
    accepted: &Condition,
    programmed: &Programmed<'_>,
) -> Condition {
    let generation = accepted.observed_generation;
    let condition =
        |status, reason, message: String| Condition::new("Programmed", status, reason, message, generation);
    if accepted.status == ConditionStatus::False {
        return condition(ConditionStatus::False, "Invalid", "the Gateway is not accepted".into());
    }
    if let Some(refusal) = &state.address_refusal {
        return condition(ConditionStatus::False, refusal.reason, refusal.message.clone());
    }
    let endpoints: Vec<Endpoint> = listeners
        .iter()
        .filter(|listener| listener.is_valid())
        .flat_map(|listener| listener.endpoints(state))
        .collect();
    match programmed.outcome(&endpoints) {
        Outcome::Pending => condition(
            ConditionStatus::Unknown,
            "Pending",
            "the data plane has not reported on every listener yet".into(),
        ),
        Outcome::Failed(message) => condition(ConditionStatus::False, "NoResources", message),
        Outcome::Done(done) => condition(
            ConditionStatus::True,
            "Programmed",
            done.say("the data plane serves every valid listener"),
        ),
    }
}

/// `blixt.dev/Serving`, Blixt's own: whether the next connection follows this generation, to a route.
fn serving(listeners: &[&ListenerState<'_>], programmed: &Condition) -> Condition {
    let condition = |status, reason, message: String| {
        Condition::new("blixt.dev/Serving", status, reason, message, programmed.observed_generation)
    };
    match programmed.status {
        ConditionStatus::Unknown => {
            return condition(ConditionStatus::Unknown, "Pending", programmed.message.to_string());
        }
        ConditionStatus::False => {
            return condition(ConditionStatus::False, "NotProgrammed", programmed.message.to_string());
        }
        ConditionStatus::True => {}
    }
    let (served, idle): (Vec<&&ListenerState<'_>>, Vec<_>) = listeners
        .iter()
        .filter(|listener| listener.is_valid())
        .partition(|listener| !listener.routes.is_empty());
    let names = idle.iter().map(|listener| listener.spec.name.as_str()).collect::<Vec<_>>();
    if served.is_empty() {
        let message = "no route serves a listener: connections are refused";
        return condition(ConditionStatus::False, "NoRoute", message.into());
    }
    let message = if idle.is_empty() {
        "a route serves every valid listener".to_owned()
    } else {
        format!("routes serve, but none serves {}: connections there are refused", some(&names, ", "))
    };
    condition(ConditionStatus::True, "Serving", message)
}
