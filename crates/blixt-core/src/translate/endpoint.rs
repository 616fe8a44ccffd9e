//! The endpoints of a Service: who takes connections, who only keeps them, who cannot be used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::address;
use crate::api::{AddressType, EndpointConditions, EndpointSlice, ServicePort, SliceEndpoint};
use crate::config::{Backend, Endpoint, Protocol};
use crate::snapshot::Snapshot;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// EndpointSlices by namespace and name of their Service.
pub struct Slices<'a>(BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>);

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

impl<'a> Slices<'a> {
    /// Those of a Snapshot whose Service, by namespace and name, is `wanted`.
    pub fn new(snapshot: &'a Snapshot, wanted: impl Fn(&str, &str) -> bool) -> Self {
        let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for (key, slice) in &snapshot.endpoint_slices {
            if let Some(service) = service(slice).filter(|service| wanted(&key.namespace, service)) {
                slices.entry((&key.namespace, service)).or_default().push(slice);
            }
        }
        Self(slices)
    }

    /// The endpoints of a port of a Service. Those that terminate and still serve take connections only while
    /// no other of their family does: a Service has slices of each, which change one after the other.
    pub fn endpoints(
        &self,
        own: Own<'_>,
        (namespace, service): (&str, &str),
        port: &ServicePort,
        protocol: Protocol,
    ) -> Endpoints {
        let mut found = Endpoints::default();
        let mut leaving = Vec::new();
        let slices = self.0.get(&(namespace, service));
        if slices.is_none() {
            found.hints.push(format!(
                "no EndpointSlice of namespace {namespace} has the label {SERVICE_NAME}: {service}"
            ));
        }
        for slice in slices.into_iter().flatten() {
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
        let families: BTreeSet<bool> =
            found.serving.iter().map(|backend| backend.address.is_ipv4()).collect();
        for backend in leaving {
            let is_served = families.contains(&backend.address.is_ipv4());
            let list = if is_served { &mut found.draining } else { &mut found.serving };
            list.push(backend);
        }
        found
    }
}

/// The name of the Service that a slice is of.
pub fn service(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.get(SERVICE_NAME)
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
