//! A change of endpoints alone: only the pools of the routes that refer to their Services are translated anew.
//!
//! EndpointSlices change all the time, and decide neither what is listened on nor which route serves where. The rest of
//! the Config stays as it is, and the result is that of translating everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::backend::{Resolved, Resolver};
use super::endpoint::Own;
use crate::api::Object;
use crate::config::{Config, Endpoint, RouteName};
use crate::snapshot::{ServiceName, Snapshot, of_slice};

/// With more Services than this, all is translated.
const FEW: usize = 256;

/// What changed in a Snapshot since it was translated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Touched {
    /// EndpointSlices of some Services; of none: nothing that matters.
    Services(BTreeSet<ServiceName>),
    /// More than that.
    Everything,
}

impl Touched {
    /// Adds the change of one object: from what it was to what it is, if it was or is there.
    pub fn add(&mut self, before: Option<&Object>, after: Option<&Object>) {
        for object in [before, after].into_iter().flatten() {
            let Self::Services(services) = self else { return };
            match object {
                Object::EndpointSlice(slice) if services.len() < FEW => services.extend(of_slice(slice)),
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
pub fn retranslate(snapshot: &Snapshot, last: &Config, services: &BTreeSet<ServiceName>) -> Config {
    let is_frontend = |endpoint: &Endpoint| last.frontends.contains_key(endpoint);
    let addresses = last.addresses.difference(&snapshot.machine.addresses).copied().collect();
    let resolver = Resolver::new(snapshot, Own { is_frontend: &is_frontend, addresses: &addresses });
    // The name comes first: it tells most routes apart.
    let resolved: BTreeMap<(&str, &str, &str), Resolved> = services
        .iter()
        .flat_map(|service| snapshot.routes_to(service))
        .map(|(key, route)| ((&*key.name, &*key.namespace, key.kind.name()), resolver.resolve(route)))
        .collect();

    let mut config = last.clone();
    for (endpoint, frontend) in &mut config.frontends {
        let Some(RouteName { kind, namespace, name }) = &frontend.route else { continue };
        if let Some(resolved) = resolved.get(&(&**name, &**namespace, &**kind)) {
            let pool = resolved.pool(endpoint.address.into());
            if pool != frontend.pool {
                Arc::make_mut(frontend).pool = pool;
            }
        }
    }
    config
}
