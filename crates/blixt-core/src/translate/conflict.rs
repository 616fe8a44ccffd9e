//! Listeners that want the same port: within a Gateway with its ListenerSets, and between Gateways that share
//! an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::gateway::GatewayState;
use super::listener::ListenerState;
use super::refusal::Refusal;
use crate::config::{Endpoint, Protocol};
use crate::snapshot::Snapshot;

/// What clients can dial, and who answers.
#[derive(Default)]
pub struct Claims {
    /// Index of the listener that serves each endpoint; of several of layer 7 that share it, the first.
    pub listeners: BTreeMap<Endpoint, usize>,
    /// Every address that a Gateway holds.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of them that the machine does not have itself.
    pub owned: BTreeSet<IpAddr>,
}

/// `GatewaySpec.listeners`, "Distinct Listeners": those that share a port and cannot be told apart are all
/// conflicted, none is picked as the winner. `ListenerSetSpec.listeners`: of listeners of different owners,
/// the later in precedence loses.
pub fn mark_conflicts(listeners: &mut [ListenerState<'_>]) {
    let mut by_port: BTreeMap<(usize, u16, Protocol), Vec<usize>> = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        if let Some(transport) = transport(listener) {
            by_port.entry((listener.gateway, listener.spec.port, transport)).or_default().push(index);
        }
    }
    for group in by_port.values().filter(|group| group.len() > 1) {
        for (index, conflict) in conflicts(listeners, group) {
            listeners[index].conflict = Some(conflict);
        }
    }
}

/// The conflicts among the listeners of a port, which are in the order of precedence of their owners. One that lost
/// against an earlier owner stands in nobody's way.
fn conflicts(listeners: &[ListenerState<'_>], group: &[usize]) -> Vec<(usize, Refusal)> {
    let mut conflicts = Vec::new();
    let mut standing: Vec<usize> = Vec::new();
    for own in group.chunk_by(|a, b| listeners[*a].set == listeners[*b].set) {
        let lost = |index: &usize| {
            let conflict =
                standing.iter().find_map(|other| conflict(&listeners[*index], &listeners[*other]))?;
            Some((*index, conflict))
        };
        let before: Vec<(usize, Refusal)> = own.iter().filter_map(lost).collect();
        let left: Vec<usize> =
            own.iter().copied().filter(|index| before.iter().all(|(lost, _)| lost != index)).collect();
        conflicts.extend(before);
        for index in &left {
            let others = left.iter().filter(|other| *other != index);
            let found =
                others.map(|other| &listeners[*other]).find_map(|other| conflict(&listeners[*index], other));
            conflicts.extend(found.map(|conflict| (*index, conflict)));
        }
        standing.extend(left);
    }
    conflicts
}

/// What a listener's packets are. Of protocols that only other implementations know, nothing can be said.
fn transport(listener: &ListenerState<'_>) -> Option<Protocol> {
    match listener.spec.protocol.as_str() {
        "TCP" | "HTTP" | "HTTPS" | "TLS" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Why a listener cannot stand beside another one of its port. Two of layer 7 differ by their hostnames; beside TCP or
/// UDP nothing tells them apart.
fn conflict(listener: &ListenerState<'_>, other: &ListenerState<'_>) -> Option<Refusal> {
    let same_protocol = listener.spec.protocol == other.spec.protocol;
    let port = listener.spec.port;
    if is_layer_4(listener) || is_layer_4(other) {
        let within_sets = listener.set.is_some() && same_protocol;
        return Some(Refusal::new(
            if within_sets { "ListenerConflict" } else { "ProtocolConflict" },
            format!(
                "port {port} is also that of listener {} ({}): give each a port of its own",
                other.name(),
                other.spec.protocol
            ),
        ));
    }
    let hostname = |listener: &ListenerState<'_>| listener.spec.hostname.clone().unwrap_or_default();
    let both = listener.layer_7 && other.layer_7 && same_protocol && hostname(listener) == hostname(other);
    both.then(|| {
        let name = match hostname(listener) {
            name if name.is_empty() => "no hostname".to_owned(),
            name => format!("hostname {name}"),
        };
        Refusal::new(
            "HostnameConflict",
            format!("listener {} has port {port} and {name} too: give each its own", other.name()),
        )
    })
}

fn is_layer_4(listener: &ListenerState<'_>) -> bool {
    listener.protocol.is_some() && !listener.layer_7
}

/// Several Gateways may share an address while their listeners differ in port or protocol
/// (`GatewaySpec.listeners`, "Compatible Listeners"); else the older Gateway keeps what it has, and the
/// listener of the younger is `PortUnavailable`.
pub fn claim_endpoints(
    snapshot: &Snapshot,
    gateways: &[GatewayState<'_>],
    listeners: &mut [ListenerState<'_>],
) -> Claims {
    let mut claims = Claims::default();
    for state in gateways.iter().filter(|state| state.refusal.is_none()) {
        claims.addresses.extend(&state.addresses);
    }
    claims.owned = claims.addresses.difference(&snapshot.machine.addresses).copied().collect();
    for index in 0..listeners.len() {
        if !listeners[index].is_valid() {
            continue;
        }
        let endpoints = listeners[index].endpoints(&gateways[listeners[index].gateway]);
        let shares = |other: usize| {
            let (listener, other) = (&listeners[index], &listeners[other]);
            listener.layer_7 && other.layer_7 && listener.gateway == other.gateway
        };
        let taken = endpoints.iter().find_map(|endpoint| {
            let other = *claims.listeners.get(endpoint)?;
            (!shares(other)).then_some((endpoint, other))
        });
        if let Some((endpoint, other)) = taken {
            let message = format!(
                "{endpoint} is served by listener {} of {}, which takes precedence: use another port or address",
                listeners[other].name(),
                gateways[listeners[other].gateway].key
            );
            listeners[index].refusal = Some(Refusal::new("PortUnavailable", message));
            continue;
        }
        for endpoint in endpoints {
            claims.listeners.entry(endpoint).or_insert(index);
        }
    }
    claims
}
