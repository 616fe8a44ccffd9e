//! Which routes attach to which listeners.

use std::collections::BTreeMap;

use super::Note;
use super::gateway::GatewayState;
use super::listener::ListenerState;
use super::listener_set::SetState;
use super::refusal::{Refusal, some};
use crate::api::{Kind, L4Route, ObjectKey, ParentReference};
use crate::snapshot::Snapshot;

/// A route, and how its parents took it.
pub struct AttachedRoute<'a> {
    /// Who it is.
    pub key: &'a ObjectKey,
    /// The object.
    pub route: &'a L4Route,
    /// One for each parentRef that leads to a Gateway of ours.
    pub parents: Vec<Parent<'a>>,
}

/// How one parent took a route.
pub struct Parent<'a> {
    /// As the route has it.
    pub reference: &'a ParentReference,
    /// Indexes of the listeners that it is attached to, at least one, or why there is none.
    pub listeners: Result<Vec<usize>, Refusal>,
}

/// Attaches every route, oldest first: by creation time, then by namespace and name.
pub fn attach<'a>(
    snapshot: &'a Snapshot,
    gateways: &[GatewayState<'a>],
    sets: &[SetState<'a>],
    listeners: &mut [ListenerState<'a>],
    notes: &mut Vec<Note>,
) -> Vec<AttachedRoute<'a>> {
    let parents = Parents::new(gateways, sets, listeners);
    let mut routes: Vec<AttachedRoute<'a>> = Vec::new();
    let mut by_age: Vec<(&ObjectKey, &L4Route)> =
        snapshot.routes.iter().map(|(key, route)| (&**key, route.as_ref())).collect();
    by_age.sort_by_key(|(key, route)| (route.metadata.age(), key.kind));
    for (key, route) in by_age {
        let found: Vec<Parent<'_>> = route
            .spec
            .parent_refs
            .iter()
            .filter_map(|reference| {
                let own = parents.listeners(snapshot, route, reference, notes)?;
                Some(Parent {
                    reference,
                    listeners: own.and_then(|own| attached(snapshot, listeners, own, route, reference)),
                })
            })
            .collect();
        if route.spec.parent_refs.is_empty() {
            notes.push(Note {
                object: key.clone(),
                field: "spec.parentRefs",
                is_error: true,
                message: "it names no parent, so nothing serves it: name a Gateway or a ListenerSet".into(),
            });
        }
        for listener in found.iter().filter_map(|parent| parent.listeners.as_ref().ok()).flatten() {
            let attached = &mut listeners[*listener].routes;
            if attached.last() != Some(&routes.len()) {
                attached.push(routes.len());
            }
        }
        if !found.is_empty() {
            routes.push(AttachedRoute { key, route, parents: found });
        }
    }
    routes
}

/// What parentRefs can lead to.
struct Parents<'a> {
    /// Their listeners, or why they have none to offer.
    known: BTreeMap<&'a ObjectKey, Result<Vec<usize>, Refusal>>,
}

impl<'a> Parents<'a> {
    fn new(gateways: &[GatewayState<'a>], sets: &[SetState<'a>], listeners: &[ListenerState<'a>]) -> Self {
        let mut known: BTreeMap<&ObjectKey, Result<Vec<usize>, Refusal>> = BTreeMap::new();
        for gateway in gateways {
            known.insert(gateway.key, Ok(Vec::new()));
        }
        for set in sets {
            let refusal = set.refusal.as_ref().map(|refusal| set_refusal(set, refusal));
            known.insert(set.key, refusal.map_or_else(|| Ok(Vec::new()), Err));
        }
        for (index, listener) in listeners.iter().enumerate() {
            if let Some(Ok(own)) = known.get_mut(listener.owner) {
                own.push(index);
            }
        }
        Self { known }
    }

    /// The listeners of a parent; nothing if it is not ours to answer for.
    fn listeners(
        &self,
        snapshot: &Snapshot,
        route: &L4Route,
        reference: &ParentReference,
        notes: &mut Vec<Note>,
    ) -> Option<Result<&[usize], Refusal>> {
        let note = |message| Note {
            object: ObjectKey {
                kind: route.kind,
                namespace: route.metadata.namespace.clone(),
                name: route.metadata.name.clone(),
            },
            field: "spec.parentRefs",
            is_error: true,
            message,
        };
        let Some(key) = parent_key(route, reference) else {
            // An HTTPRoute may well be for a mesh or for somebody else's kind of parent.
            if route.kind != Kind::HttpRoute {
                notes.push(note(format!(
                    "{} is no parent that Blixt serves: name a Gateway or a ListenerSet",
                    reference.kind
                )));
            }
            return None;
        };
        if let Some(listeners) = self.known.get(&key) {
            return Some(listeners.as_ref().map(Vec::as_slice).map_err(Clone::clone));
        }
        if !snapshot.gateways.contains_key(&key) && !snapshot.listener_sets.contains_key(&key) {
            notes.push(note(snapshot.absence(&key)));
        }
        None
    }
}

/// A route cannot attach to a ListenerSet that its Gateway does not take in.
fn set_refusal(set: &SetState<'_>, refusal: &Refusal) -> Refusal {
    Refusal::new("NoMatchingParent", format!("{} is not attached to a Gateway: {}", set.key, refusal.message))
}

/// `ParentReference`: a Gateway or a ListenerSet, by default of the route's own namespace.
fn parent_key(route: &L4Route, reference: &ParentReference) -> Option<ObjectKey> {
    let kind = [Kind::Gateway, Kind::ListenerSet]
        .into_iter()
        .find(|kind| kind.name() == reference.kind && kind.group() == reference.group)?;
    let namespace = reference.namespace.as_ref().unwrap_or(&route.metadata.namespace);
    Some(ObjectKey { kind, namespace: namespace.clone(), name: reference.name.clone() })
}

/// `RouteReasonNoMatchingParent`: sectionName or port match no listener. `RouteReasonNotAllowedByListeners`: some
/// match, and none lets the route in. One that does is enough. `RouteReasonUnsupportedValue`: it asks for what layer 4
/// cannot do.
fn attached(
    snapshot: &Snapshot,
    listeners: &[ListenerState<'_>],
    own: &[usize],
    route: &L4Route,
    reference: &ParentReference,
) -> Result<Vec<usize>, Refusal> {
    let named: Vec<usize> =
        own.iter().copied().filter(|index| is_named(&listeners[*index], reference)).collect();
    if named.is_empty() {
        let port = reference.port.map(|port| format!(" port {port}")).unwrap_or_default();
        let section = reference.section_name.as_ref().map(|name| format!(" name {name}")).unwrap_or_default();
        return Err(Refusal::new(
            "NoMatchingParent",
            format!(
                "no listener of {} {} has{section}{port}: correct the parentRef",
                reference.kind, reference.name
            ),
        ));
    }
    let faults: Vec<Option<String>> =
        named.iter().map(|index| not_allowed(snapshot, &listeners[*index], route)).collect();
    let allowed: Vec<usize> =
        named.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(index, _)| *index).collect();
    if allowed.is_empty() {
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        return Err(Refusal::new("NotAllowedByListeners", some(&faults, "; ")));
    }
    if let Some(fault) = &route.beyond_layer_4 {
        return Err(Refusal::new("UnsupportedValue", &**fault));
    }
    Ok(allowed)
}

/// `ParentReference.sectionName` and `.port`: both must match if both are set.
fn is_named(listener: &ListenerState<'_>, reference: &ParentReference) -> bool {
    let section = reference.section_name.as_deref().filter(|name| !name.is_empty());
    section.is_none_or(|name| name == listener.spec.name)
        && reference.port.is_none_or(|port| port == listener.spec.port)
}

/// `AllowedRoutes`: the kind and the namespace of the route.
fn not_allowed(snapshot: &Snapshot, listener: &ListenerState<'_>, route: &L4Route) -> Option<String> {
    let kind = route.kind;
    let takes_kind =
        listener.kinds.iter().any(|known| known.kind == kind.name() && known.group == kind.group());
    if !takes_kind {
        return Some(format!("listener {} ({}) takes no {kind}", listener.spec.name, listener.spec.protocol));
    }
    let namespace = &route.metadata.namespace;
    let takes_namespace = listener.namespaces.allows(snapshot, &listener.owner.namespace, namespace);
    (!takes_namespace)
        .then(|| format!("listener {} takes no routes of namespace {namespace}", listener.spec.name))
}
