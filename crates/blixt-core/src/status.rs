//! What is told about objects, in the shape of the API. Times are the writer's: it sets `lastTransitionTime`
//! where a condition's `status` changed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{Kind, ObjectKey, ParentReference, RouteGroupKind};

/// Our `controllerName`.
pub const CONTROLLER_NAME: &str = "gateway.networking.k8s.io/blixt";

/// The status of each object that Blixt answers for.
pub type Statuses = BTreeMap<ObjectKey, Status>;

/// A status, by the kind of its object.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// Of a GatewayClass.
    GatewayClass(GatewayClassStatus),
    /// Of a Gateway.
    Gateway(GatewayStatus),
    /// Of a ListenerSet.
    ListenerSet(ListenerSetStatus),
    /// Of a TCPRoute or a UDPRoute.
    Route(RouteStatus),
}

/// The status of a GatewayClass.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassStatus {
    /// `Accepted`, `SupportedVersion`.
    pub conditions: Vec<Condition>,
    /// By name.
    pub supported_features: Vec<SupportedFeature>,
}

/// A feature of the conformance suite.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SupportedFeature {
    /// Its name there.
    pub name: Cow<'static, str>,
}

/// The status of a Gateway.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Addresses that it serves on.
    #[serde(default)]
    pub addresses: Vec<StatusAddress>,
    /// `Accepted`, `Programmed`.
    pub conditions: Vec<Condition>,
    /// One for each listener of its spec.
    pub listeners: Vec<ListenerStatus>,
    /// ListenerSets that are attached.
    pub attached_listener_sets: u32,
}

/// An address that is bound to a Gateway.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StatusAddress {
    /// `IPAddress`.
    #[serde(rename = "type")]
    pub address_type: Cow<'static, str>,
    /// The address.
    pub value: String,
}

/// The status of a ListenerSet.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ListenerSetStatus {
    /// `Accepted`, `Programmed`.
    pub conditions: Vec<Condition>,
    /// One for each of its listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}

/// The status of a listener of a Gateway or a ListenerSet.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Kinds of routes that it takes.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// Routes that are attached to it, serving or not.
    pub attached_routes: u32,
    /// `Accepted`, `Conflicted`, `Programmed`, `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}

/// The status of a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RouteStatus {
    /// One for each parentRef that leads to a Gateway of ours.
    pub parents: Vec<RouteParentStatus>,
}

/// How a route stands with one of its parents.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// As the route's spec has it.
    pub parent_ref: ParentReference,
    /// [`CONTROLLER_NAME`].
    pub controller_name: Cow<'static, str>,
    /// `Accepted`, `ResolvedRefs`, `blixt.dev/Serving` and, where there are any, `blixt.dev/EndpointsRefused`.
    pub conditions: Vec<Condition>,
}

/// One statement about an object.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub condition_type: Cow<'static, str>,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// One word.
    pub reason: Cow<'static, str>,
    /// A sentence for people.
    pub message: Cow<'static, str>,
    /// The generation of the object that it speaks of.
    #[serde(default)]
    pub observed_generation: i64,
}

/// Whether something is so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// It is not known yet.
    Unknown,
}

impl Status {
    /// The object's own conditions; a route has none, only its parents do.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::GatewayClass(status) => &status.conditions,
            Self::Gateway(status) => &status.conditions,
            Self::ListenerSet(status) => &status.conditions,
            Self::Route(_) => &[],
        }
    }

    /// Every condition, to change it.
    pub fn all_conditions_mut(&mut self) -> Vec<&mut Condition> {
        let (own, listeners) = match self {
            Self::GatewayClass(status) => (&mut status.conditions, &mut [][..]),
            Self::Gateway(status) => (&mut status.conditions, &mut status.listeners[..]),
            Self::ListenerSet(status) => (&mut status.conditions, &mut status.listeners[..]),
            Self::Route(status) => {
                return status.parents.iter_mut().flat_map(|parent| &mut parent.conditions).collect();
            }
        };
        own.iter_mut().chain(listeners.iter_mut().flat_map(|listener| &mut listener.conditions)).collect()
    }

    /// Every condition, with the part of the object that it belongs to: empty for the object itself, else
    /// `listener NAME` or what [`parent_part`] says.
    pub fn all_conditions(&self) -> Vec<(String, &Condition)> {
        let listeners = match self {
            Self::Gateway(status) => status.listeners.as_slice(),
            Self::ListenerSet(status) => status.listeners.as_slice(),
            _ => &[],
        };
        let parents = match self {
            Self::Route(status) => status.parents.as_slice(),
            _ => &[],
        };
        let own = self.conditions().iter().map(|condition| (String::new(), condition));
        let of_listeners = listeners.iter().flat_map(|listener| {
            listener.conditions.iter().map(|condition| (format!("listener {}", listener.name), condition))
        });
        let of_parents = parents.iter().flat_map(|parent| {
            let part = parent_part(&parent.parent_ref);
            parent.conditions.iter().map(move |condition| (part.clone(), condition))
        });
        own.chain(of_listeners).chain(of_parents).collect()
    }
}

/// The part of a route that a parent is: `parent NAME`, with whatever else tells it from the route's other parents.
pub fn parent_part(reference: &ParentReference) -> String {
    let ParentReference { group: _, kind, name, namespace, port, section_name } = reference;
    let kind = if kind == Kind::Gateway.name() { String::new() } else { format!("{kind} ") };
    let namespace = namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let section = section_name.as_ref().map(|section| format!("/{section}")).unwrap_or_default();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("parent {kind}{namespace}{name}{section}{port}")
}

/// `metav1.Condition` has messages of at most 32768 characters: the API server refuses a status with a longer one, all
/// of it.
const LONGEST_MESSAGE: usize = 32_768;

impl Condition {
    /// A condition of one generation of an object. A message that is too long is cut.
    pub fn new(
        condition_type: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
        observed_generation: i64,
    ) -> Self {
        Self {
            condition_type: condition_type.into(),
            status,
            reason: reason.into(),
            message: cut(message.into()),
            observed_generation,
        }
    }

    /// Whether an operator should look at it: something that should be so is not, or the other way round.
    pub fn is_trouble(&self) -> bool {
        let bad_if_true = matches!(
            self.condition_type.as_ref(),
            "Conflicted" | "blixt.dev/EndpointsRefused" | "PartiallyInvalid"
        );
        match self.status {
            ConditionStatus::True => {
                bad_if_true || (self.condition_type == "Accepted" && self.reason == "ListenersNotValid")
            }
            ConditionStatus::False => !bad_if_true,
            ConditionStatus::Unknown => false,
        }
    }
}

/// A message as the API server takes it. Counted in bytes, of which there are at least as many as characters.
fn cut(message: Cow<'static, str>) -> Cow<'static, str> {
    const MORE: &str = "... and more";
    if message.len() <= LONGEST_MESSAGE {
        return message;
    }
    let kept = &message[..message.floor_char_boundary(LONGEST_MESSAGE - MORE.len())];
    format!("{kept}{MORE}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_no_longer_than_the_api_takes() {
        let message = |text: String| {
            Condition::new("Accepted", ConditionStatus::True, "Accepted", text, 1).message.into_owned()
        };
        let longest = "x".repeat(LONGEST_MESSAGE);
        assert_eq!(message(longest.clone()), longest);
        assert_eq!(message(longest + "x"), "x".repeat(LONGEST_MESSAGE - 12) + "... and more");
        // A character is cut off whole.
        let cut = message("ä".repeat(LONGEST_MESSAGE) + "x");
        assert_eq!(cut, "ä".repeat((LONGEST_MESSAGE - 12) / 2) + "... and more");
        let cut = message("x".to_owned() + &"ä".repeat(LONGEST_MESSAGE));
        assert_eq!(cut.len(), LONGEST_MESSAGE - 1);
    }
}
