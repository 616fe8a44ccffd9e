//! A change of endpoints alone: only the pools of the routes that refer to their Services are translated anew.
//!
//! EndpointSlices change all the time, and decide neither what is listened on nor which route serves where. The rest of
//! the Config stays as it is, and the result is that of translating everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;

use super::backend::{Resolved, Resolver};
use super::endpoint::{self, Own, Slices};
use crate::api::{L4Route, Object, ObjectKey};
use crate::config::{Config, Endpoint, RouteName};
use crate::snapshot::Snapshot;

/// With more Services than this, all is translated.
const FEW: usize = 256;

/// What changed in a Snapshot since it was translated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Touched {
    /// EndpointSlices of some Services, by namespace and name; of none: nothing that matters.
    Services(BTreeSet<(SmolStr, SmolStr)>),
    /// More than that.
    Everything,
}

impl Touched {
    /// Adds the change of one object: from what it was to what it is, if it was or is there.
    pub fn add(&mut self, before: Option<&Object>, after: Option<&Object>) {
        for object in [before, after].into_iter().flatten() {
            let Self::Services(services) = self else { return };
            match object {
                Object::EndpointSlice(slice) if services.len() < FEW => services.extend(
                    endpoint::service(slice).map(|name| (slice.metadata.namespace.clone(), name.into())),
                ),
                _ => *self = Self::Everything,
            }
        }
    }

    /// Adds another change.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Services(services), Self::Services(others)) if services.len() + others.len() <= FEW => {
                services.extend(others);
            }
            _ => *self = Self::Everything,
        }
    }

    /// Nothing changed.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Services(services) if services.is_empty())
    }
}

impl Default for Touched {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}

/// The Config of a Snapshot that differs only in EndpointSlices of `services` from the one that led to `last`.
pub fn retranslate(snapshot: &Snapshot, last: &Config, services: &BTreeSet<(SmolStr, SmolStr)>) -> Config {
    let is_touched = refers_to(services);
    let routes: Vec<(&ObjectKey, &L4Route)> = snapshot
        .routes
        .iter()
        .filter(|(_, route)| is_touched(route))
        .map(|(key, route)| (&**key, &**route))
        .collect();
    // A route may refer to other Services too, whose slices count as much.
    let wanted: FxHashSet<(&str, &str)> = routes.iter().flat_map(|(_, route)| services_of(route)).collect();

    let is_frontend = |endpoint: &Endpoint| last.frontends.contains_key(endpoint);
    let addresses = last.addresses.difference(&snapshot.machine.addresses).copied().collect();
    let own = Own { is_frontend: &is_frontend, addresses: &addresses };
    let slices = Slices::new(snapshot, |namespace, name| wanted.contains(&(namespace, name)));
    let resolver = Resolver::new(snapshot, own, slices);
    let resolved: FxHashMap<(&str, &str, &str), Resolved> = routes
        .iter()
        .map(|(key, route)| ((key.kind.name(), &*key.namespace, &*key.name), resolver.resolve(route)))
        .collect();

    let mut config = last.clone();
    for (endpoint, frontend) in &mut config.frontends {
        let Some(RouteName { kind, namespace, name }) = &frontend.route else { continue };
        if let Some(resolved) = resolved.get(&(&**kind, &**namespace, &**name)) {
            let pool = resolved.pool(endpoint.address.into());
            if pool != frontend.pool {
                Arc::make_mut(frontend).pool = pool;
            }
        }
    }
    config
}

/// Tells whether a route refers to one of these Services.
pub fn refers_to(services: &BTreeSet<(SmolStr, SmolStr)>) -> impl Fn(&L4Route) -> bool {
    let services: FxHashSet<(&str, &str)> = services.iter().map(|(own, name)| (&**own, &**name)).collect();
    move |route| services_of(route).any(|service| services.contains(&service))
}

/// The Services that a route refers to, by namespace and name.
fn services_of(route: &L4Route) -> impl Iterator<Item = (&str, &str)> {
    let references = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    references.map(|reference| {
        (reference.namespace.as_deref().unwrap_or(&route.metadata.namespace), reference.name.as_str())
    })
}
