//! Listeners of Gateways and of the ListenerSets that they let in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use smol_str::SmolStr;

use super::certificate;
use super::gateway::GatewayState;
use super::grant::Grants;
use super::listener_set::SetState;
use super::namespaces::{self, NamespaceRule};
use super::programmed::{Outcome, Programmed};
use super::refusal::{Refusal, some};
use crate::api::{Kind, L7Listeners, Listener, ObjectKey, RouteGroupKind, RouteNamespacesFrom};
use crate::config::{Endpoint, Protocol};
use crate::snapshot::Snapshot;
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
    /// It is of HTTP or HTTPS, balanced as opaque TCP.
    pub layer_7: bool,
    /// Why it is not accepted.
    pub refusal: Option<Refusal>,
    /// Why it and another listener exclude each other.
    pub conflict: Option<Refusal>,
    /// Kinds of routes that it takes.
    pub kinds: Vec<RouteGroupKind>,
    kinds_refusal: Option<Refusal>,
    certificate_refusal: Option<Refusal>,
    /// Namespaces of routes that it takes.
    pub namespaces: NamespaceRule<'a>,
    /// Indexes of the routes that are attached to it, oldest first.
    pub routes: Vec<usize>,
    /// The one of the routes, its own or those of listeners that share its port, that serves its port.
    pub server: Option<usize>,
}

/// Every listener: by Gateway, oldest first, the Gateway's own before those of its sets.
pub fn listeners<'a>(
    snapshot: &'a Snapshot,
    gateways: &[GatewayState<'a>],
    sets: &[SetState<'a>],
) -> Vec<ListenerState<'a>> {
    let grants = Grants::new(snapshot);
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
    for listener in listeners.iter_mut().filter(|listener| listener.layer_7) {
        listener.certificate_refusal = certificate::refusal(snapshot, &grants, listener.owner, listener.spec);
    }
    listeners
}

/// Of the routes of a listener the oldest serves it alone. Listeners of layer 7 that share a port are one port to
/// clients, so one route serves them all.
pub fn choose_servers(listeners: &mut [ListenerState<'_>]) {
    let mut shared: BTreeMap<(usize, u16), usize> = BTreeMap::new();
    for listener in listeners.iter_mut() {
        listener.server = listener.routes.first().copied();
        if let Some(server) = listener.server.filter(|_| listener.layer_7 && listener.is_valid()) {
            let oldest = shared.entry((listener.gateway, listener.spec.port)).or_insert(server);
            *oldest = server.min(*oldest);
        }
    }
    for listener in listeners.iter_mut().filter(|listener| listener.layer_7 && listener.is_valid()) {
        listener.server = shared.get(&(listener.gateway, listener.spec.port)).copied();
    }
}

fn listener<'a>(
    state: &GatewayState<'a>,
    owner: &'a ObjectKey,
    spec: &'a Listener,
    gateway: usize,
    set: Option<usize>,
) -> ListenerState<'a> {
    let takes_layer_7 =
        state.settings.is_some_and(|settings| settings.l7_listeners == L7Listeners::Passthrough);
    let (kind, protocol) = match spec.protocol.as_str() {
        "TCP" => (Some(Kind::TcpRoute), Some(Protocol::Tcp)),
        "UDP" => (Some(Kind::UdpRoute), Some(Protocol::Udp)),
        "HTTP" | "HTTPS" if takes_layer_7 => (Some(Kind::HttpRoute), Some(Protocol::Tcp)),
        _ => (None, None),
    };
    let layer_7 = kind == Some(Kind::HttpRoute);
    let (kinds, kinds_refusal) = kinds(spec, kind);
    let parent_refusal =
        state.refusal.as_ref().map(|_| Refusal::new("Invalid", "the Gateway is not accepted"));
    ListenerState {
        owner,
        spec,
        gateway,
        set,
        protocol,
        layer_7,
        refusal: protocol_refusal(spec, protocol)
            .or(parent_refusal)
            .or_else(|| if layer_7 { None } else { layer_7_field_refusal(spec) })
            .or_else(|| selector_refusal(spec)),
        conflict: None,
        kinds,
        kinds_refusal,
        certificate_refusal: None,
        namespaces: match spec.allowed_routes.namespaces.from {
            RouteNamespacesFrom::All => NamespaceRule::All,
            RouteNamespacesFrom::Same => NamespaceRule::Same,
            RouteNamespacesFrom::Selector => {
                namespaces::selected(spec.allowed_routes.namespaces.selector.as_ref())
            }
        },
        routes: Vec::new(),
        server: None,
    }
}

/// `ListenerReasonUnsupportedProtocol`: the protocol type is not supported.
fn protocol_refusal(spec: &Listener, protocol: Option<Protocol>) -> Option<Refusal> {
    protocol.is_none().then(|| {
        let class = match spec.protocol.as_str() {
            "HTTP" | "HTTPS" => ", or a class whose BlixtClass says l7Listeners: Passthrough",
            _ => "",
        };
        Refusal::new(
            "UnsupportedProtocol",
            format!("protocol {} is not balanced at layer 4: use TCP or UDP{class}", spec.protocol),
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
fn kinds(spec: &Listener, kind: Option<Kind>) -> (Vec<RouteGroupKind>, Option<Refusal>) {
    let Some(kind) = kind else { return (Vec::new(), None) };
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
                "allowedRoutes.kinds: a listener of protocol {} takes no {}: remove it",
                spec.protocol,
                wrong.join(", ")
            ),
        )
    });
    (supported, refusal)
}

impl ListenerState<'_> {
    /// Whether it can serve: accepted, without conflict, some kind of route fits, and its certificates are there.
    pub fn is_valid(&self) -> bool {
        self.refusal.is_none()
            && self.conflict.is_none()
            && !self.kinds.is_empty()
            && self.certificate_refusal.is_none()
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
        .then(|| format!("not valid: {}; see the status of each listener", some(&invalid, ", ")))
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

/// `Accepted` of a listener. One that conflicts is not accepted, for the same reason.
fn accepted(listener: &ListenerState<'_>, generation: i64) -> Condition {
    let refused = |refusal: &Refusal, reason| {
        Condition::new("Accepted", ConditionStatus::False, reason, refusal.message.clone(), generation)
    };
    match (&listener.refusal, &listener.conflict) {
        (Some(refusal), _) => refused(refusal, refusal.reason),
        (None, Some(conflict)) => refused(conflict, conflict.reason),
        (None, None) => {
            let message = match listener.spec.protocol.as_str() {
                "HTTP" => "the listener is accepted and balanced as opaque TCP: hostnames are not looked at",
                "HTTPS" => {
                    "the listener is accepted and balanced as opaque TCP: hostnames are not looked at and TLS is \
                     not terminated"
                }
                _ => "the listener is accepted",
            };
            Condition::new("Accepted", ConditionStatus::True, "Accepted", message, generation)
        }
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
    if let (None, Some(conflict)) = (&listener.refusal, &listener.conflict) {
        return condition(ConditionStatus::False, conflict.reason, conflict.message.clone());
    }
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
        Outcome::Done(done) if done.warnings.is_empty() => {
            condition(ConditionStatus::True, "Programmed", "the data plane serves it".into())
        }
        Outcome::Done(done) => condition(
            ConditionStatus::True,
            "Programmed",
            format!("the data plane serves it; warning: {}", some(&done.warnings, "; ")),
        ),
    }
}

/// `ResolvedRefs` of a listener: the kinds of its routes, and its certificates.
fn resolved_refs(listener: &ListenerState<'_>, generation: i64) -> Condition {
    match listener.kinds_refusal.as_ref().or(listener.certificate_refusal.as_ref()) {
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
