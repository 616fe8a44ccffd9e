//! backendRefs: from a route's rule to shares of connections.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::Note;
use super::attachment::AttachedRoute;
use super::endpoint::{self, Endpoints, Own};
use super::grant::Grants;
use super::refusal::{Refusal, some};
use crate::api::{BackendRef, Kind, L4Route, ObjectKey, PortProtocol, Service, ServicePort, ServiceSpec};
use crate::config::{Backend, Pool, Share};
use crate::snapshot::Snapshot;
use crate::tables::Family;

/// Everything that backendRefs refer to.
pub struct Resolver<'a> {
    snapshot: &'a Snapshot,
    own: Own<'a>,
    grants: Grants<'a>,
}

/// The backends of a route, of both families.
#[derive(Default)]
pub struct Resolved {
    shares: Vec<(u32, Vec<Backend>)>,
    draining: Vec<Backend>,
    /// Why some backendRefs get no connections, by the first of them.
    pub refusal: Option<Refusal>,
    /// Endpoints that cannot be backends, with the reason.
    pub refused: Vec<String>,
    /// Why there may be no endpoints.
    pub hints: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Of a Snapshot.
    pub fn new(snapshot: &'a Snapshot, own: Own<'a>) -> Self {
        Self { snapshot, own, grants: Grants::new(snapshot) }
    }

    /// `TCPRouteRule.backendRefs`: the share of an invalid one is refused, as its weight says.
    pub fn resolve(&self, route: &L4Route) -> Resolved {
        let mut resolved = Resolved::default();
        let mut faults: Vec<Refusal> = Vec::new();
        for (rule, reference) in route.spec.rules.iter().enumerate().flat_map(|(index, rule)| {
            rule.backend_refs.iter().enumerate().map(move |(place, reference)| ((index, place), reference))
        }) {
            let endpoints = match self.endpoints(route, reference) {
                Ok(endpoints) => endpoints,
                Err(refusal) => {
                    let message =
                        format!("spec.rules[{}].backendRefs[{}]: {}", rule.0, rule.1, refusal.message);
                    faults.push(Refusal { message, ..refusal });
                    Endpoints::default()
                }
            };
            resolved.add(reference.weight, endpoints);
        }
        resolved.refusal = faults.first().map(|first| {
            let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
            Refusal::new(first.reason, some(&messages, "; "))
        });
        resolved
    }

    fn endpoints(&self, route: &L4Route, reference: &BackendRef) -> Result<Endpoints, Refusal> {
        kind_refusal(reference)?;
        let namespace = reference.namespace.as_ref().unwrap_or(&route.metadata.namespace);
        self.permitted(route, namespace, reference)?;
        let service = self.service(namespace, reference)?;
        let port = service_port(service, route, reference)?;
        let name = (namespace.clone(), reference.name.clone());
        Ok(endpoint::endpoints(self.snapshot, self.own, &name, port, route.protocol()))
    }

    /// `RouteReasonRefNotPermitted`: asked before existence, so that nothing is told about other namespaces.
    fn permitted(&self, route: &L4Route, namespace: &str, reference: &BackendRef) -> Result<(), Refusal> {
        let from = (route.kind, route.metadata.namespace.as_str());
        if self.grants.permit(from, (Kind::Service, namespace, &reference.name)) {
            return Ok(());
        }
        Err(Refusal::new(
            "RefNotPermitted",
            format!(
                "no ReferenceGrant in namespace {namespace} lets {} of namespace {} refer to Service {}: add one there",
                route.kind, route.metadata.namespace, reference.name
            ),
        ))
    }

    /// `RouteReasonBackendNotFound`: the Service does not exist. One of type ExternalName is no backend: the API
    /// advises against it (CVE-2021-25740).
    fn service(&self, namespace: &str, reference: &BackendRef) -> Result<&'a Service, Refusal> {
        let key =
            ObjectKey { kind: Kind::Service, namespace: namespace.into(), name: reference.name.clone() };
        let Some(service) = self.snapshot.services.get(&key) else {
            return Err(Refusal::new("BackendNotFound", self.snapshot.absence(&key)));
        };
        if service.spec.service_type.as_deref() == Some("ExternalName") {
            return Err(Refusal::new(
                "UnsupportedValue",
                format!(
                    "{key} is of type ExternalName, which may lead anywhere: use endpoints with addresses"
                ),
            ));
        }
        Ok(service)
    }

    /// What Services ask for that Blixt does not do.
    pub fn notes(&self, routes: &[AttachedRoute<'_>]) -> Vec<Note> {
        let asking: BTreeMap<&ObjectKey, Vec<(&'static str, &'static str)>> = self
            .snapshot
            .services
            .iter()
            .map(|(key, service)| (&**key, unheeded(&service.spec)))
            .filter(|(_, unheeded)| !unheeded.is_empty())
            .collect();
        if asking.is_empty() {
            return Vec::new();
        }
        let mut used: BTreeSet<ObjectKey> = BTreeSet::new();
        for route in routes {
            for reference in route.route.spec.rules.iter().flat_map(|rule| &rule.backend_refs) {
                let namespace = reference.namespace.as_ref().unwrap_or(&route.route.metadata.namespace);
                let key = ObjectKey {
                    kind: Kind::Service,
                    namespace: namespace.clone(),
                    name: reference.name.clone(),
                };
                if asking.contains_key(&key) {
                    used.insert(key);
                }
            }
        }
        let notes = |key: &ObjectKey| {
            let object = key.clone();
            let unheeded = asking[key].clone();
            unheeded.into_iter().map(move |(field, message)| Note {
                object: object.clone(),
                field,
                is_error: false,
                message: message.to_owned(),
            })
        };
        used.iter().flat_map(notes).collect()
    }
}

/// The fields of a Service that would change who gets a connection, and that Blixt leaves alone.
fn unheeded(spec: &ServiceSpec) -> Vec<(&'static str, &'static str)> {
    let is = |value: &Option<SmolStr>, wanted: &str| value.as_deref() == Some(wanted);
    let every = "Blixt sends connections to every endpoint, wherever it is: remove it";
    let gateways = "Blixt serves at the addresses of Gateways only: name it in `spec.addresses` of one, and remove it here";
    [
        (
            is(&spec.session_affinity, "ClientIP"),
            "spec.sessionAffinity",
            "Blixt spreads connections by their addresses and ports, not by client: remove it",
        ),
        (
            !spec.load_balancer_source_ranges.is_empty(),
            "spec.loadBalancerSourceRanges",
            "Blixt lets every client in: keep the others out in front of it, and remove it",
        ),
        (is(&spec.external_traffic_policy, "Local"), "spec.externalTrafficPolicy", every),
        (is(&spec.internal_traffic_policy, "Local"), "spec.internalTrafficPolicy", every),
        (spec.traffic_distribution.is_some(), "spec.trafficDistribution", every),
        (!spec.external_ips.is_empty(), "spec.externalIPs", gateways),
        (spec.load_balancer_ip.is_some(), "spec.loadBalancerIP", gateways),
    ]
    .into_iter()
    .filter_map(|(asked, field, message)| asked.then_some((field, message)))
    .collect()
}

/// `RouteReasonInvalidKind`: only Services are backends.
fn kind_refusal(reference: &BackendRef) -> Result<(), Refusal> {
    if (reference.group.as_str(), reference.kind.as_str()) == (Kind::Service.group(), Kind::Service.name()) {
        return Ok(());
    }
    let group = if reference.group.is_empty() { "the core group" } else { &reference.group };
    Err(Refusal::new(
        "InvalidKind",
        format!("{} of {group} is no backend: refer to a Service of the core group", reference.kind),
    ))
}

/// `BackendObjectReference.port` is the Service's port; one that it does not have leads nowhere, and one of
/// another protocol is `RouteReasonUnsupportedProtocol`. Any `appProtocol` passes: layer 4 carries it unseen.
fn service_port<'a>(
    service: &'a Service,
    route: &L4Route,
    reference: &BackendRef,
) -> Result<&'a ServicePort, Refusal> {
    let name = service.metadata.full_name();
    let Some(number) = reference.port else {
        return Err(Refusal::new(
            "BackendNotFound",
            format!("port is missing: name a port of Service {name}"),
        ));
    };
    let mut ports = service.spec.ports.iter().filter(|port| port.port == number).peekable();
    let Some(first) = ports.peek() else {
        let known: Vec<String> = service.spec.ports.iter().map(|port| port.port.to_string()).collect();
        return Err(Refusal::new(
            "BackendNotFound",
            format!("Service {name} has no port {number}: it has {}", some(&known, ", ")),
        ));
    };
    let other = first.protocol;
    ports.find(|port| port.protocol == route.protocol()).ok_or_else(|| {
        let protocol = match other {
            PortProtocol::Tcp => "TCP",
            PortProtocol::Udp => "UDP",
            PortProtocol::Sctp => "SCTP",
        };
        Refusal::new(
            "UnsupportedProtocol",
            format!("port {number} of Service {name} is {protocol}, which a {} cannot use", route.kind),
        )
    })
}

impl Resolved {
    /// `BackendRef.weight`: 0 gets no connections, and the ones that are there go on.
    fn add(&mut self, weight: u32, endpoints: Endpoints) {
        self.refused.extend(endpoints.refused);
        self.hints.extend(endpoints.hints);
        self.draining.extend(endpoints.draining);
        if weight == 0 {
            self.draining.extend(endpoints.serving);
        } else {
            self.shares.push((weight, endpoints.serving));
        }
    }

    /// The backends of one address family.
    pub fn pool(&self, family: Family) -> Pool {
        let of_family = |backend: &&Backend| Family::from(backend.address) == family;
        let shares: Vec<Share> = self
            .shares
            .iter()
            .map(|(weight, backends)| Share {
                weight: *weight,
                backends: each_once(backends.iter().filter(of_family)),
            })
            .collect();
        let serves =
            |backend: &Backend| shares.iter().any(|share| share.backends.binary_search(backend).is_ok());
        let draining = each_once(self.draining.iter().filter(of_family).filter(|backend| !serves(backend)));
        Pool { shares, draining }
    }

    /// Whether connections to an address of this family find a backend.
    pub fn serves(&self, family: Family) -> bool {
        self.shares
            .iter()
            .flat_map(|(_, backends)| backends)
            .any(|backend| Family::from(backend.address) == family)
    }
}

fn each_once<'a>(backends: impl Iterator<Item = &'a Backend>) -> Box<[Backend]> {
    let mut backends: Vec<Backend> = backends.cloned().collect();
    backends.sort_unstable();
    backends.dedup();
    backends.into()
}
