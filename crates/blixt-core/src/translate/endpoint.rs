//! The endpoints of a Service: who takes connections, who only keeps them, who cannot be used.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::address;
use crate::api::{AddressType, EndpointConditions, EndpointSlice, ServicePort, SliceEndpoint};
use crate::config::{Backend, Endpoint, Protocol};
use crate::snapshot::{SERVICE_NAME, ServiceName, Snapshot};

/// The endpoints of one port of a Service.
#[derive(Default)]
pub struct Endpoints {
    /// They take connections.
    pub serving: Vec<Backend>,
    /// They keep the TCP connections that they have.
    pub draining: Vec<Backend>,
    /// Those that cannot be backends, with the reason.
    pub refused: Vec<String>,
    /// Why nobody may be here, for an author who wonders.
    pub hints: Vec<String>,
}

/// What is Blixt's own, so that packets sent there would come back.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    /// Whether a listener claimed an endpoint.
    pub is_frontend: &'a dyn Fn(&Endpoint) -> bool,
    /// Addresses that Gateways hold and the machine does not have itself.
    pub addresses: &'a BTreeSet<IpAddr>,
}

/// How an endpoint is to be treated.
enum Phase {
    Ready,
    LeavingButServing,
    NotReady,
}

/// The endpoints of a port of a Service. Those that terminate and still serve take connections only while
/// no other of their family does: a Service has slices of each, which change one after the other.
pub fn endpoints(
    snapshot: &Snapshot,
    own: Own<'_>,
    service: &ServiceName,
    port: &ServicePort,
    protocol: Protocol,
) -> Endpoints {
    let mut found = Endpoints::default();
    let mut leaving = Vec::new();
    let mut slices = snapshot.slices_of(service).peekable();
    if slices.peek().is_none() {
        let (namespace, name) = service;
        found
            .hints
            .push(format!("no EndpointSlice of namespace {namespace} has the label {SERVICE_NAME}: {name}"));
    }
    for slice in slices {
        let Some(number) = target_port(slice, port, protocol) else {
            found.hints.push(format!(
                "EndpointSlice {} has no {} port named {:?}",
                slice.metadata.full_name(),
                protocol.to_string().to_uppercase(),
                port.name
            ));
            continue;
        };
        for endpoint in &slice.spec.endpoints {
            let list = match phase(endpoint.conditions) {
                Phase::Ready => &mut found.serving,
                Phase::LeavingButServing => &mut leaving,
                Phase::NotReady => &mut found.draining,
            };
            for text in &endpoint.addresses {
                match backend_address(own, slice.spec.address_type, text, number, protocol) {
                    Ok(address) => list.push(backend(endpoint, address, number)),
                    Err(fault) => found
                        .refused
                        .push(format!("{text} of EndpointSlice {} {fault}", slice.metadata.full_name())),
                }
            }
        }
    }
    let families: BTreeSet<bool> = found.serving.iter().map(|backend| backend.address.is_ipv4()).collect();
    for backend in leaving {
        let is_served = families.contains(&backend.address.is_ipv4());
        let list = if is_served { &mut found.draining } else { &mut found.serving };
        list.push(backend);
    }
    found
}

/// A slice names its ports as the Service does; the number is that of the target.
fn target_port(slice: &EndpointSlice, port: &ServicePort, protocol: Protocol) -> Option<u16> {
    slice.spec.ports.iter().find(|other| other.name == port.name && other.protocol == protocol)?.port
}

/// `EndpointConditions`: unknown readiness is readiness; `serving` is `ready` without regard to termination.
fn phase(conditions: EndpointConditions) -> Phase {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    let terminating = conditions.terminating.unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) if !terminating => Phase::Ready,
        (_, true) => Phase::LeavingButServing,
        _ => Phase::NotReady,
    }
}

/// An address that packets can be sent to: not one of this machine only, not one that leads back to Blixt.
fn backend_address(
    own: Own<'_>,
    address_type: AddressType,
    text: &str,
    port: u16,
    protocol: Protocol,
) -> Result<IpAddr, String> {
    let address: IpAddr = match address_type {
        AddressType::Fqdn => return Err("is a name, which Blixt does not look up: give addresses".into()),
        AddressType::IPv4 | AddressType::IPv6 => text.parse().map_err(|_| "is no IP address".to_owned())?,
    };
    if address.is_ipv4() != (address_type == AddressType::IPv4) {
        return Err("is not of the slice's addressType".into());
    }
    if let Some(fault) = address::unusable(address) {
        return Err(format!("{fault}, which no packet from another machine can be sent to"));
    }
    let endpoint = Endpoint { address, port, protocol };
    if (own.is_frontend)(&endpoint) {
        return Err(format!("leads back to the balancer: {endpoint} is a frontend"));
    }
    if own.addresses.contains(&address) {
        return Err("is the address of a Gateway, where only Blixt answers".into());
    }
    Ok(address)
}

fn backend(endpoint: &SliceEndpoint, address: IpAddr, port: u16) -> Backend {
    Backend { address, port, node: endpoint.node_name.clone() }
}
