//! Listeners of Gateways and of the ListenerSets that they let in.

use std::net::IpAddr;

use smol_str::SmolStr;

use super::gateway::GatewayState;
use super::listener_set::SetState;
use super::namespaces::{self, NamespaceRule};
use super::programmed::{Outcome, Programmed};
use super::refusal::Refusal;
use crate::api::{Kind, Listener, ObjectKey, RouteGroupKind, RouteNamespacesFrom};
use crate::config::{Endpoint, Protocol};
use crate::status::{Condition, ConditionStatus, ListenerStatus};

/// One listener.
pub struct ListenerState<'a> {
    /// The Gateway or ListenerSet that it is written in.
    pub owner: &'a ObjectKey,
    /// As it is written there.
    pub spec: &'a Listener,
    /// Index of its Gateway.
    pub gateway: usize,
    /// Index of its ListenerSet, if it is of one.
    pub set: Option<usize>,
    /// What Blixt balances there.
    pub protocol: Option<Protocol>,
    /// Why it is not accepted.
    pub refusal: Option<Refusal>,
    /// Why it and another listener exclude each other.
    pub conflict: Option<Refusal>,
    /// Kinds of routes that it takes.
    pub kinds: Vec<RouteGroupKind>,
    kinds_refusal: Option<Refusal>,
    /// Namespaces of routes that it takes.
    pub namespaces: NamespaceRule<'a>,
    /// Indexes of the routes that are attached to it, oldest first.
    pub routes: Vec<usize>,
}

/// Every listener: by Gateway, oldest first, the Gateway's own before those of its sets.
pub fn listeners<'a>(gateways: &[GatewayState<'a>], sets: &[SetState<'a>]) -> Vec<ListenerState<'a>> {
    let mut sets_of: Vec<Vec<usize>> = gateways.iter().map(|_| Vec::new()).collect();
    for (index, set) in sets.iter().enumerate().filter(|(_, set)| set.refusal.is_none()) {
        sets_of[set.gateway].push(index);
    }
    let mut listeners = Vec::new();
    for (index, gateway) in gateways.iter().enumerate() {
        let own = gateway.gateway.spec.listeners.iter();
        listeners.extend(own.map(|spec| listener(gateway, gateway.key, spec, index, None)));
        for set in &sets_of[index] {
            let of_set = sets[*set].set.spec.listeners.iter();
            listeners.extend(of_set.map(|spec| listener(gateway, sets[*set].key, spec, index, Some(*set))));
        }
    }
    listeners
}

fn listener<'a>(
    state: &GatewayState<'a>,
    owner: &'a ObjectKey,
    spec: &'a Listener,
    gateway: usize,
    set: Option<usize>,
) -> ListenerState<'a> {
    let protocol = match spec.protocol.as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    };
    let (kinds, kinds_refusal) = kinds(spec, protocol);
    let parent_refusal =
        state.refusal.as_ref().map(|_| Refusal::new("Invalid", "the Gateway is not accepted"));
    ListenerState {
        owner,
        spec,
        gateway,
        set,
        protocol,
        refusal: protocol_refusal(spec, protocol)
            .or(parent_refusal)
            .or_else(|| layer_7_field_refusal(spec))
            .or_else(|| selector_refusal(spec)),
        conflict: None,
        kinds,
        kinds_refusal,
        namespaces: match spec.allowed_routes.namespaces.from {
            RouteNamespacesFrom::All => NamespaceRule::All,
            RouteNamespacesFrom::Same => NamespaceRule::Same,
            RouteNamespacesFrom::Selector => {
                namespaces::selected(spec.allowed_routes.namespaces.selector.as_ref())
            }
        },
        routes: Vec::new(),
    }
}

/// `ListenerReasonUnsupportedProtocol`: the protocol type is not supported.
fn protocol_refusal(spec: &Listener, protocol: Option<Protocol>) -> Option<Refusal> {
    protocol.is_none().then(|| {
        Refusal::new(
            "UnsupportedProtocol",
            format!("protocol {} is not balanced at layer 4: use TCP or UDP", spec.protocol),
        )
    })
}

/// `ListenerReasonUnsupportedValue`: hostnames and TLS mean nothing to TCP and UDP.
fn layer_7_field_refusal(spec: &Listener) -> Option<Refusal> {
    let field = if spec.hostname.as_ref().is_some_and(|hostname| !hostname.is_empty()) {
        "hostname"
    } else if spec.tls.is_some() {
        "tls"
    } else {
        return None;
    };
    Some(Refusal::new(
        "UnsupportedValue",
        format!("{field} is set: a {} listener has none, remove it", spec.protocol),
    ))
}

/// `RouteNamespaces.selector` MUST be there with `from: Selector`, and must make sense.
fn selector_refusal(spec: &Listener) -> Option<Refusal> {
    let namespaces = &spec.allowed_routes.namespaces;
    if namespaces.from != RouteNamespacesFrom::Selector {
        return None;
    }
    let fault = match &namespaces.selector {
        None => Some("from is Selector, and there is no selector: add one".to_owned()),
        Some(selector) => namespaces::selector_fault(selector),
    };
    fault.map(|fault| Refusal::new("UnsupportedValue", format!("allowedRoutes.namespaces: {fault}")))
}

/// `AllowedRoutes.kinds`: by default the kind of the protocol. Kinds that do not fit are left out of
/// `supportedKinds`, and `ResolvedRefs` says `InvalidRouteKinds`.
fn kinds(spec: &Listener, protocol: Option<Protocol>) -> (Vec<RouteGroupKind>, Option<Refusal>) {
    let Some(protocol) = protocol else { return (Vec::new(), None) };
    let kind = match protocol {
        Protocol::Tcp => Kind::TcpRoute,
        Protocol::Udp => Kind::UdpRoute,
    };
    let own =
        RouteGroupKind { group: SmolStr::new_static(kind.group()), kind: SmolStr::new_static(kind.name()) };
    let asked = &spec.allowed_routes.kinds;
    if asked.is_empty() {
        return (vec![own], None);
    }
    let wrong: Vec<String> = asked
        .iter()
        .filter(|kind| **kind != own)
        .map(|kind| format!("{}/{}", kind.group, kind.kind))
        .collect();
    let supported = if asked.contains(&own) { vec![own] } else { Vec::new() };
    let refusal = (!wrong.is_empty()).then(|| {
        Refusal::new(
            "InvalidRouteKinds",
            format!(
                "allowedRoutes.kinds: a {} listener takes no {}: remove it",
                spec.protocol,
                wrong.join(", ")
            ),
        )
    });
    (supported, refusal)
}

impl ListenerState<'_> {
    /// Whether it can serve: accepted, without conflict, and some kind of route fits.
    pub fn is_valid(&self) -> bool {
        self.refusal.is_none() && self.conflict.is_none() && !self.kinds.is_empty()
    }

    /// What clients dial.
    pub fn endpoints(&self, gateway: &GatewayState<'_>) -> Vec<Endpoint> {
        let Some(protocol) = self.protocol else { return Vec::new() };
        let endpoint = |address: &IpAddr| Endpoint { address: *address, port: self.spec.port, protocol };
        gateway.addresses.iter().map(endpoint).collect()
    }

    /// Its full name, for people.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.owner.namespace, self.owner.name, self.spec.name)
    }
}

/// `Accepted` of a Gateway or a ListenerSet: `ListenersNotValid` with True while at least one listener is valid, with False without any.
pub fn owner_accepted(
    refusal: Option<&Refusal>,
    listeners: &[&ListenerState<'_>],
    generation: i64,
) -> Condition {
    let condition =
        |status, reason, message: String| Condition::new("Accepted", status, reason, message, generation);
    if let Some(refusal) = refusal {
        return condition(ConditionStatus::False, refusal.reason, refusal.message.clone());
    }
    match invalid(listeners) {
        None => condition(ConditionStatus::True, "Accepted", "every listener is valid".into()),
        Some(message) if listeners.iter().any(|listener| listener.is_valid()) => {
            condition(ConditionStatus::True, "ListenersNotValid", message)
        }
        Some(message) => condition(ConditionStatus::False, "ListenersNotValid", message),
    }
}

/// What is wrong with listeners that are not valid, if any.
fn invalid(listeners: &[&ListenerState<'_>]) -> Option<String> {
    let invalid: Vec<&str> = listeners
        .iter()
        .filter(|listener| !listener.is_valid())
        .map(|listener| listener.spec.name.as_str())
        .collect();
    (!invalid.is_empty())
        .then(|| format!("not valid: {}; see the status of each listener", invalid.join(", ")))
}

/// The status of a listener.
pub fn status(
    listener: &ListenerState<'_>,
    gateway: &GatewayState<'_>,
    generation: i64,
    programmed: &Programmed<'_>,
) -> ListenerStatus {
    ListenerStatus {
        name: listener.spec.name.to_string(),
        supported_kinds: listener.kinds.clone(),
        attached_routes: u32::try_from(listener.routes.len()).unwrap_or(u32::MAX),
        conditions: vec![
            accepted(listener, generation),
            conflicted(listener, generation),
            outcome(listener, gateway, generation, programmed),
            resolved_refs(listener, generation),
        ],
    }
}

/// `Accepted` of a listener: a conflict makes its port unavailable.
fn accepted(listener: &ListenerState<'_>, generation: i64) -> Condition {
    let refused = |refusal: &Refusal, reason| {
        Condition::new("Accepted", ConditionStatus::False, reason, refusal.message.clone(), generation)
    };
    match (&listener.refusal, &listener.conflict) {
        (Some(refusal), _) => refused(refusal, refusal.reason),
        (None, Some(conflict)) => refused(conflict, "PortUnavailable"),
        (None, None) => Condition::new(
            "Accepted",
            ConditionStatus::True,
            "Accepted",
            "the listener is accepted",
            generation,
        ),
    }
}

/// `Conflicted` of a listener.
fn conflicted(listener: &ListenerState<'_>, generation: i64) -> Condition {
    match &listener.conflict {
        Some(conflict) => Condition::new(
            "Conflicted",
            ConditionStatus::True,
            conflict.reason,
            conflict.message.clone(),
            generation,
        ),
        None => Condition::new(
            "Conflicted",
            ConditionStatus::False,
            "NoConflicts",
            "no listener of the Gateway stands against it",
            generation,
        ),
    }
}

/// `Programmed` of a listener: the data plane serves it on every address.
fn outcome(
    listener: &ListenerState<'_>,
    gateway: &GatewayState<'_>,
    generation: i64,
    programmed: &Programmed<'_>,
) -> Condition {
    let condition =
        |status, reason, message: String| Condition::new("Programmed", status, reason, message, generation);
    if !listener.is_valid() {
        return condition(ConditionStatus::False, "Invalid", "the listener is not valid".into());
    }
    if gateway.addresses.is_empty() {
        return condition(ConditionStatus::False, "Pending", "the Gateway has no address".into());
    }
    match programmed.outcome(&listener.endpoints(gateway)) {
        Outcome::Pending => {
            condition(ConditionStatus::Unknown, "Pending", "the data plane has not reported yet".into())
        }
        Outcome::Failed(message) => condition(ConditionStatus::False, "Invalid", message),
        Outcome::Done(warnings) if warnings.is_empty() => {
            condition(ConditionStatus::True, "Programmed", "the data plane serves it".into())
        }
        Outcome::Done(warnings) => condition(
            ConditionStatus::True,
            "Programmed",
            format!("the data plane serves it; warning: {}", warnings.join("; ")),
        ),
    }
}

/// `ResolvedRefs` of a listener: at layer 4 its only references are the kinds of routes.
fn resolved_refs(listener: &ListenerState<'_>, generation: i64) -> Condition {
    match &listener.kinds_refusal {
        Some(refusal) => Condition::new(
            "ResolvedRefs",
            ConditionStatus::False,
            refusal.reason,
            refusal.message.clone(),
            generation,
        ),
        None => Condition::new(
            "ResolvedRefs",
            ConditionStatus::True,
            "ResolvedRefs",
            "every reference is resolved",
            generation,
        ),
    }
}
