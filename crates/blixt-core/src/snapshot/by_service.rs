//! Which routes and EndpointSlices a Service has, so that a change of one Service need not look at all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::api::{EndpointSlice, Kind, L4Route, Object, ObjectKey};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of a Service.
pub type ServiceName = (SmolStr, SmolStr);

/// The routes that refer to a Service and its EndpointSlices, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ByService(BTreeMap<ServiceName, Vec<Arc<ObjectKey>>>);

impl ByService {
    pub fn add(&mut self, key: &Arc<ObjectKey>, object: &Object) {
        for service in services_of(object) {
            let keys = self.0.entry(service).or_default();
            if let Err(place) = keys.binary_search(key) {
                keys.insert(place, Arc::clone(key));
            }
        }
    }

    pub fn remove(&mut self, key: &ObjectKey, object: &Object) {
        for service in services_of(object) {
            let Some(keys) = self.0.get_mut(&service) else { continue };
            if let Ok(place) = keys.binary_search_by(|known| (**known).cmp(key)) {
                keys.remove(place);
            }
            if keys.is_empty() {
                self.0.remove(&service);
            }
        }
    }

    pub fn routes(&self, service: &ServiceName) -> impl Iterator<Item = &ObjectKey> {
        self.keys(service).filter(|key| key.kind != Kind::EndpointSlice)
    }

    pub fn slices(&self, service: &ServiceName) -> impl Iterator<Item = &ObjectKey> {
        self.keys(service).filter(|key| key.kind == Kind::EndpointSlice)
    }

    pub fn pack(&mut self) {
        super::pack(&mut self.0);
    }

    fn keys(&self, service: &ServiceName) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(service).into_iter().flatten().map(|key| &**key)
    }
}

/// The Service that a slice is of.
pub fn of_slice(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.get(SERVICE_NAME)?;
    Some((slice.metadata.namespace.clone(), name.into()))
}

/// The Services that a route refers to.
pub fn of_route(route: &L4Route) -> impl Iterator<Item = ServiceName> {
    let references = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    references.map(|reference| {
        let namespace = reference.namespace.as_ref().unwrap_or(&route.metadata.namespace);
        (namespace.clone(), reference.name.clone())
    })
}

fn services_of(object: &Object) -> Vec<ServiceName> {
    match object {
        Object::L4Route(route) => of_route(route).collect(),
        Object::EndpointSlice(slice) => of_slice(slice).into_iter().collect(),
        _ => Vec::new(),
    }
}
