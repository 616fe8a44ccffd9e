//! Everything that `translate` looks at: the objects of one moment, and a few facts about the machine.

mod by_service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::{
    BlixtClass, EndpointSlice, Gateway, GatewayClass, Kind, L4Route, ListenerSet, Namespace, Object,
    ObjectKey, ReferenceGrant, Secret, Service,
};

use by_service::ByService;
pub use by_service::{SERVICE_NAME, ServiceName, of_slice};

/// The objects of one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Every BlixtClass.
    pub blixt_classes: BTreeMap<Arc<ObjectKey>, Arc<BlixtClass>>,
    /// Every GatewayClass, of any controller.
    pub gateway_classes: BTreeMap<Arc<ObjectKey>, Arc<GatewayClass>>,
    /// Every Gateway, of any class.
    pub gateways: BTreeMap<Arc<ObjectKey>, Arc<Gateway>>,
    /// Every ListenerSet.
    pub listener_sets: BTreeMap<Arc<ObjectKey>, Arc<ListenerSet>>,
    /// Every TCPRoute, UDPRoute and HTTPRoute.
    pub(crate) routes: BTreeMap<Arc<ObjectKey>, Arc<L4Route>>,
    /// Every ReferenceGrant.
    pub reference_grants: BTreeMap<Arc<ObjectKey>, Arc<ReferenceGrant>>,
    /// Every Namespace. One that is missing has no labels, save its name.
    pub namespaces: BTreeMap<Arc<ObjectKey>, Arc<Namespace>>,
    /// Every Secret: what is wrong with it as a certificate, and nothing of what is in it.
    pub secrets: BTreeMap<Arc<ObjectKey>, Arc<Secret>>,
    /// Every Service.
    pub services: BTreeMap<Arc<ObjectKey>, Arc<Service>>,
    /// Every EndpointSlice.
    pub(crate) endpoint_slices: BTreeMap<Arc<ObjectKey>, Arc<EndpointSlice>>,
    /// Follows the two.
    by_service: ByService,
    /// Objects that are written down, but so that they cannot be used, and of which no earlier state is known.
    pub broken: BTreeSet<ObjectKey>,
    /// They are a cluster's: an address that a Gateway takes is taken at every node, so only those of pools are given.
    pub is_cluster: bool,
    /// In a cluster, the addresses of its nodes, and whose each is.
    pub node_addresses: BTreeMap<IpAddr, String>,
    /// What the machine is called on the network.
    pub machine: Machine,
    /// The addresses that Gateways were given from pools before, so that they keep them: in a cluster, what the
    /// status of each says.
    pub assigned: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
    /// Addresses that a Gateway had until lately, so that nobody gets them from a pool: packets to it may be under way.
    /// How long they rest is the caller's to decide.
    pub resting: BTreeSet<IpAddr>,
}

/// Facts about a standalone machine; in a cluster all of it is empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// Its primary address of each family: what a Gateway gets that asks for none and has no pool.
    pub default_addresses: Vec<IpAddr>,
    /// Every address that it has itself.
    pub addresses: BTreeSet<IpAddr>,
}

impl Snapshot {
    /// Nothing of a cluster yet.
    pub fn of_cluster() -> Self {
        Self { is_cluster: true, ..Self::default() }
    }

    /// Every EndpointSlice.
    pub fn endpoint_slices(&self) -> &BTreeMap<Arc<ObjectKey>, Arc<EndpointSlice>> {
        &self.endpoint_slices
    }

    /// The routes that refer to a Service.
    pub(crate) fn routes_to(&self, service: &ServiceName) -> impl Iterator<Item = (&ObjectKey, &L4Route)> {
        self.by_service.routes(service).filter_map(|key| Some((key, &**self.routes.get(key)?)))
    }

    /// The EndpointSlices of a Service.
    pub(crate) fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = &EndpointSlice> {
        self.by_service.slices(service).filter_map(|key| Some(&**self.endpoint_slices.get(key)?))
    }

    /// Why an object that another one refers to is missing, and what to do about it.
    pub fn absence(&self, key: &ObjectKey) -> String {
        if self.broken.contains(key) {
            return format!("{key} cannot be used as it is written: correct it");
        }
        if self.is_cluster && key.kind == Kind::Secret {
            // The controller is shown no others, and these only if it may read Secrets.
            return format!(
                "there is no {key} of type kubernetes.io/tls that the controller may read: create it, and let the \
                 chart's secrets.read be true"
            );
        }
        format!("there is no {key}: create it, or name one that exists")
    }

    /// Adds an object, or replaces the one of its name.
    pub fn insert(&mut self, object: Object) {
        self.insert_as(Arc::new(object.key()), object);
    }

    /// The same under a key that is its own, shared with whoever else knows the object by it.
    pub fn insert_as(&mut self, key: Arc<ObjectKey>, object: Object) {
        self.leave_services(&key);
        self.by_service.add(&key, &object);
        match object {
            Object::BlixtClass(object) => drop(self.blixt_classes.insert(key, object)),
            Object::GatewayClass(object) => drop(self.gateway_classes.insert(key, object)),
            Object::Gateway(object) => drop(self.gateways.insert(key, object)),
            Object::ListenerSet(object) => drop(self.listener_sets.insert(key, object)),
            Object::L4Route(object) => drop(self.routes.insert(key, object)),
            Object::ReferenceGrant(object) => drop(self.reference_grants.insert(key, object)),
            Object::Namespace(object) => drop(self.namespaces.insert(key, object)),
            Object::Secret(object) => drop(self.secrets.insert(key, object)),
            Object::Service(object) => drop(self.services.insert(key, object)),
            Object::EndpointSlice(object) => drop(self.endpoint_slices.insert(key, object)),
        }
    }

    /// An object, if it is there.
    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        Some(match key.kind {
            Kind::BlixtClass => Object::BlixtClass(self.blixt_classes.get(key)?.clone()),
            Kind::GatewayClass => Object::GatewayClass(self.gateway_classes.get(key)?.clone()),
            Kind::Gateway => Object::Gateway(self.gateways.get(key)?.clone()),
            Kind::ListenerSet => Object::ListenerSet(self.listener_sets.get(key)?.clone()),
            Kind::TcpRoute | Kind::UdpRoute | Kind::HttpRoute => {
                Object::L4Route(self.routes.get(key)?.clone())
            }
            Kind::ReferenceGrant => Object::ReferenceGrant(self.reference_grants.get(key)?.clone()),
            Kind::Namespace => Object::Namespace(self.namespaces.get(key)?.clone()),
            Kind::Secret => Object::Secret(self.secrets.get(key)?.clone()),
            Kind::Service => Object::Service(self.services.get(key)?.clone()),
            Kind::EndpointSlice => Object::EndpointSlice(self.endpoint_slices.get(key)?.clone()),
        })
    }

    /// Removes an object, if it is there.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.leave_services(key);
        match key.kind {
            Kind::BlixtClass => drop(self.blixt_classes.remove(key)),
            Kind::GatewayClass => drop(self.gateway_classes.remove(key)),
            Kind::Gateway => drop(self.gateways.remove(key)),
            Kind::ListenerSet => drop(self.listener_sets.remove(key)),
            Kind::TcpRoute | Kind::UdpRoute | Kind::HttpRoute => drop(self.routes.remove(key)),
            Kind::ReferenceGrant => drop(self.reference_grants.remove(key)),
            Kind::Namespace => drop(self.namespaces.remove(key)),
            Kind::Secret => drop(self.secrets.remove(key)),
            Kind::Service => drop(self.services.remove(key)),
            Kind::EndpointSlice => drop(self.endpoint_slices.remove(key)),
        }
    }

    /// Makes the trees of many objects smaller: those that grew entry by entry are half empty.
    pub fn pack(&mut self) {
        pack(&mut self.routes);
        pack(&mut self.services);
        pack(&mut self.endpoint_slices);
        self.by_service.pack();
    }

    fn leave_services(&mut self, key: &ObjectKey) {
        if let Some(object) = self.get(key) {
            self.by_service.remove(key, &object);
        }
    }
}

/// Builds a tree anew that grew entry by entry, and is half empty.
pub fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Content};

    /// Whatever comes, changes and goes: the index is that of the objects that are there.
    #[test]
    fn routes_and_slices_are_found_by_their_services() {
        let route = |service: &str| {
            let spec = format!(
                "{{parentRefs: [{{name: gw}}], rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}"
            );
            object("TCPRoute", "gateway.networking.k8s.io/v1", "route", "{}", &format!("spec: {spec}"))
        };
        let slice = |name: &str, service: &str| {
            let labels = format!("{{{SERVICE_NAME}: {service}}}");
            object("EndpointSlice", "discovery.k8s.io/v1", name, &labels, "addressType: IPv4\nendpoints: []")
        };
        let web = ("default".into(), "web".into());
        let mut grown = Snapshot::default();
        for (objects, routes, slices) in [
            (vec![slice("b", "web"), route("web"), slice("a", "web")], 1, vec!["a", "b"]),
            (vec![slice("b", "web"), route("other")], 0, vec!["a", "b"]),
            (vec![slice("b", "other"), route("web")], 1, vec!["a"]),
        ] {
            objects.iter().for_each(|object| grown.insert(object.clone()));
            assert_eq!(grown.routes_to(&web).count(), routes);
            let found = grown.slices_of(&web).map(|slice| slice.metadata.name.as_str());
            assert_eq!(found.collect::<Vec<_>>(), slices);
        }
        let keys: Vec<_> = grown.routes.keys().chain(grown.endpoint_slices.keys()).cloned().collect();
        keys.iter().for_each(|key| grown.remove(key));
        assert_eq!(grown, Snapshot::default());
    }

    fn object(kind: &str, version: &str, name: &str, labels: &str, rest: &str) -> Object {
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default, labels: {labels}}}\n{rest}\n"
        );
        match manifest::parse(&text).remove(0).content {
            Content::Object(object) => object,
            other => panic!("{other:?}"),
        }
    }
}
