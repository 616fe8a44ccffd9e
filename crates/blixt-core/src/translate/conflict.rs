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
    /// Index of the listener that serves each endpoint.
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
        let conflicts: Vec<Option<Refusal>> =
            group.iter().map(|index| conflict(listeners, &listeners[*index], *index, group)).collect();
        for (index, conflict) in group.iter().zip(conflicts) {
            listeners[*index].conflict = conflict;
        }
    }
}

/// What a listener's packets are. Of protocols that only other implementations know, nothing can be said.
fn transport(listener: &ListenerState<'_>) -> Option<Protocol> {
    match listener.spec.protocol.as_str() {
        "TCP" | "HTTP" | "HTTPS" | "TLS" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// The conflict of one listener with the others of its port, which are in their order of precedence.
fn conflict(
    listeners: &[ListenerState<'_>],
    listener: &ListenerState<'_>,
    index: usize,
    group: &[usize],
) -> Option<Refusal> {
    let other =
        group.iter().filter(|other| **other != index).map(|other| &listeners[*other]).find(|other| {
            let first = other.set <= listener.set;
            // Two of layer 7 differ by their hostnames; beside TCP or UDP nothing tells them apart.
            first && (other.protocol.is_some() || listener.protocol.is_some())
        })?;
    let within_set = listener.set.is_some() && listener.spec.protocol == other.spec.protocol;
    let reason = if within_set { "ListenerConflict" } else { "ProtocolConflict" };
    let message = format!(
        "port {} is also that of listener {} ({}): give each a port of its own",
        listener.spec.port,
        other.name(),
        other.spec.protocol
    );
    Some(Refusal::new(reason, message))
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
        let taken = endpoints.iter().find_map(|endpoint| Some((endpoint, *claims.listeners.get(endpoint)?)));
        if let Some((endpoint, other)) = taken {
            let message = format!(
                "{endpoint} is served by listener {} of {}, which takes precedence: use another port or address",
                listeners[other].name(),
                gateways[listeners[other].gateway].key
            );
            listeners[index].refusal = Some(Refusal::new("PortUnavailable", message));
            continue;
        }
        claims.listeners.extend(endpoints.into_iter().map(|endpoint| (endpoint, index)));
    }
    claims
}
