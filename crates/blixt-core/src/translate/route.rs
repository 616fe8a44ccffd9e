//! The status of routes: one entry for each parent of ours.

use super::attachment::{AttachedRoute, Parent};
use super::backend::Resolved;
use super::gateway::GatewayState;
use super::listener::ListenerState;
use super::programmed::{Outcome, Programmed};
use super::refusal::some;
use crate::api::{Kind, Metadata};
use crate::config::Endpoint;
use crate::status::{
    CONTROLLER_NAME, Condition, ConditionStatus, RouteParentStatus, RouteStatus, Status, Statuses,
};
use crate::tables::Family;

/// Everything that a route's status follows from.
struct Context<'a> {
    gateways: &'a [GatewayState<'a>],
    listeners: &'a [ListenerState<'a>],
    routes: &'a [AttachedRoute<'a>],
    programmed: &'a Programmed<'a>,
}

/// The status of each route that has a parent of ours and whose backends are known.
pub fn statuses(
    gateways: &[GatewayState<'_>],
    listeners: &[ListenerState<'_>],
    routes: &[AttachedRoute<'_>],
    resolved: &[Option<Resolved>],
    programmed: &Programmed<'_>,
) -> Statuses {
    let context = Context { gateways, listeners, routes, programmed };
    routes
        .iter()
        .zip(resolved)
        .enumerate()
        .filter_map(|(index, (route, resolved))| Some((index, route, resolved.as_ref()?)))
        .map(|(index, route, resolved)| {
            let parents = route.parents.iter().map(|parent| RouteParentStatus {
                parent_ref: parent.reference.clone(),
                controller_name: CONTROLLER_NAME.into(),
                conditions: conditions(&context, index, parent, resolved),
            });
            (route.key.clone(), Status::Route(RouteStatus { parents: parents.collect() }))
        })
        .collect()
}

fn conditions(
    context: &Context<'_>,
    index: usize,
    parent: &Parent<'_>,
    resolved: &Resolved,
) -> Vec<Condition> {
    let metadata = &context.routes[index].route.metadata;
    let mut conditions = vec![
        accepted(context, index, parent, metadata),
        resolved_refs(resolved, metadata),
        serving(context, index, parent, resolved, metadata),
    ];
    conditions.extend(endpoints_refused(resolved, metadata));
    conditions
}

/// `Accepted` of a route: True if at least one listener takes it, also if an older route serves there.
fn accepted(context: &Context<'_>, index: usize, parent: &Parent<'_>, metadata: &Metadata) -> Condition {
    let generation = metadata.generation;
    match &parent.listeners {
        Err(refusal) => Condition::new(
            "Accepted",
            ConditionStatus::False,
            refusal.reason,
            refusal.message.clone(),
            generation,
        ),
        Ok(listeners) => {
            let older = older_routes(context, index, listeners);
            let taken = match context.routes[index].route.kind {
                Kind::HttpRoute => {
                    "a listener takes the route and balances it as opaque TCP: hostnames are not looked at and TLS \
                     is not terminated"
                }
                _ => "a listener takes the route",
            };
            if older.is_empty() {
                return Condition::new("Accepted", ConditionStatus::True, "Accepted", taken, generation);
            }
            let message = format!("{taken}, but {}", some(&older, "; "));
            Condition::new("Accepted", ConditionStatus::True, "Accepted", message, generation)
        }
    }
}

/// `ResolvedRefs` of a route.
fn resolved_refs(resolved: &Resolved, metadata: &Metadata) -> Condition {
    match &resolved.refusal {
        Some(refusal) => Condition::new(
            "ResolvedRefs",
            ConditionStatus::False,
            refusal.reason,
            refusal.message.clone(),
            metadata.generation,
        ),
        None => Condition::new(
            "ResolvedRefs",
            ConditionStatus::True,
            "ResolvedRefs",
            "every backendRef is resolved",
            metadata.generation,
        ),
    }
}

/// `blixt.dev/Serving`, Blixt's own: whether the next connection gets to a backend of this route.
fn serving(
    context: &Context<'_>,
    index: usize,
    parent: &Parent<'_>,
    resolved: &Resolved,
    metadata: &Metadata,
) -> Condition {
    let condition = |status, reason, message: String| {
        Condition::new("blixt.dev/Serving", status, reason, message, metadata.generation)
    };
    let Ok(listeners) = &parent.listeners else {
        return condition(ConditionStatus::False, "NotAccepted", "no listener takes the route".into());
    };
    let older = older_routes(context, index, listeners);
    if older.len() == listeners.len() {
        return condition(ConditionStatus::False, "OlderRouteServes", some(&older, "; "));
    }
    let endpoints: Vec<Endpoint> = listeners
        .iter()
        .map(|listener| &context.listeners[*listener])
        .filter(|listener| listener.server == Some(index) && listener.is_valid())
        .flat_map(|listener| listener.endpoints(&context.gateways[listener.gateway]))
        .collect();
    if endpoints.is_empty() {
        let message = "no listener that takes the route is valid and has an address".into();
        return condition(ConditionStatus::False, "ListenerNotReady", message);
    }
    let refusing: Vec<String> = endpoints
        .iter()
        .filter(|endpoint| !resolved.serves(Family::from(endpoint.address)))
        .map(ToString::to_string)
        .collect();
    let hints =
        if resolved.hints.is_empty() { String::new() } else { format!(": {}", some(&resolved.hints, "; ")) };
    if refusing.len() == endpoints.len() {
        let message = format!("no endpoint takes connections, all are refused{hints}");
        return condition(ConditionStatus::False, "NoReadyEndpoints", message);
    }
    match context.programmed.outcome(&endpoints) {
        Outcome::Pending => {
            condition(ConditionStatus::Unknown, "Pending", "the data plane has not reported yet".into())
        }
        Outcome::Failed(message) => condition(ConditionStatus::False, "NotProgrammed", message),
        Outcome::Done(done) if refusing.is_empty() && older.is_empty() => {
            condition(ConditionStatus::True, "Serving", done.say("connections get to backends"))
        }
        Outcome::Done(_) => {
            let mut but = Vec::new();
            if !older.is_empty() {
                but.push(some(&older, "; "));
            }
            if !refusing.is_empty() {
                but.push(format!(
                    "{} refuses connections: no endpoint of that family takes any{hints}",
                    some(&refusing, ", ")
                ));
            }
            condition(
                ConditionStatus::True,
                "Serving",
                format!("connections get to backends, but {}", but.join("; ")),
            )
        }
    }
}

/// `blixt.dev/EndpointsRefused`, Blixt's own, only there when true: endpoints that cannot be backends.
fn endpoints_refused(resolved: &Resolved, metadata: &Metadata) -> Option<Condition> {
    (!resolved.refused.is_empty()).then(|| {
        Condition::new(
            "blixt.dev/EndpointsRefused",
            ConditionStatus::True,
            "UnusableAddress",
            some(&resolved.refused, "; "),
            metadata.generation,
        )
    })
}

/// The listeners that another route serves, said for people: of the routes of a listener the oldest serves it
/// alone; of the same age, the first by namespace and name.
fn older_routes(context: &Context<'_>, index: usize, listeners: &[usize]) -> Vec<String> {
    listeners
        .iter()
        .map(|listener| &context.listeners[*listener])
        .filter_map(|listener| {
            let server = listener.server.filter(|server| *server != index)?;
            Some(format!(
                "{} takes precedence and serves listener {}",
                context.routes[server].key, listener.spec.name
            ))
        })
        .collect()
}
