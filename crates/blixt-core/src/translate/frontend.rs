//! The Config: what is served at each endpoint that a listener claimed.

use std::sync::Arc;

use smol_str::SmolStr;

use super::attachment::AttachedRoute;
use super::backend::Resolved;
use super::conflict::Claims;
use super::gateway::GatewayState;
use super::listener::ListenerState;
use crate::config::{Config, Frontend, Pool, RouteName};

/// The Config. The oldest route of a listener serves it; without a route it refuses every connection.
pub fn config(
    claims: &Claims,
    gateways: &[GatewayState<'_>],
    listeners: &[ListenerState<'_>],
    routes: &[AttachedRoute<'_>],
    resolved: &[Option<Resolved>],
) -> Config {
    let frontends = claims.listeners.iter().map(|(endpoint, index)| {
        let listener = &listeners[*index];
        let oldest = listener.server;
        let settings = gateways[listener.gateway].settings;
        let frontend = Frontend {
            listener: listener.name().into(),
            route: oldest.map(|route| route_name(&routes[route])),
            forwarding: settings.map(|settings| settings.forwarding).unwrap_or_default(),
            pool: oldest
                .and_then(|route| resolved[route].as_ref())
                .map_or_else(Pool::default, |resolved| resolved.pool(endpoint.address.into())),
        };
        (*endpoint, Arc::new(frontend))
    });
    Config { frontends: frontends.collect(), addresses: claims.addresses.clone() }
}

fn route_name(route: &AttachedRoute<'_>) -> RouteName {
    RouteName {
        kind: SmolStr::new_static(route.key.kind.name()),
        namespace: route.key.namespace.clone(),
        name: route.key.name.clone(),
    }
}
