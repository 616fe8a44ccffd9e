//! Statuses as the API server has them: what of them is ours, and what is to be written.

use blixt_core::api::{Kind, ObjectKey};
use blixt_core::status::{CONTROLLER_NAME, Status, Statuses};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::objects::Observed;
use super::watch::resource;
use crate::status::book::{Book, Transition};

/// Something to write: a status by server-side apply.
#[derive(Clone, PartialEq, Debug)]
pub struct Write {
    /// Whose status.
    pub key: ObjectKey,
    /// The object that is applied, as JSON: of ten thousand routes that wait, the text is a tenth of the values.
    pub body: Box<str>,
    /// What turned by it.
    pub transitions: Vec<Transition>,
}

/// The part of an object's status that is ours.
pub fn own(kind: Kind, observed: &Observed) -> Option<Status> {
    let mut value: Value = serde_json::from_str(observed.status.as_deref()?).ok()?;
    if let Some(Value::Array(parents)) = value.get_mut("parents") {
        parents.retain(is_ours);
    }
    fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
        serde_json::from_value(value).ok()
    }
    match kind {
        Kind::GatewayClass => read(value).map(Status::GatewayClass),
        Kind::Gateway => read(value).map(Status::Gateway),
        Kind::ListenerSet => read(value).map(Status::ListenerSet),
        _ => read(value).map(Status::Route),
    }
}

/// What is to be written so that an object says `status`. Times stay where a condition stays; parents of other controllers
/// stay as they are.
pub fn write(key: &ObjectKey, status: &Status, observed: &Observed, now: Timestamp) -> Write {
    let before: Value =
        observed.status.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut book = Book::default();
    book.remember(key.clone(), &with_own_parents(&before));
    let changes = book.enter_some(&Statuses::from([(key.clone(), status.clone())]), now);
    let mut value = book.status(key, status);
    if let Some(Value::Array(parents)) = value.get_mut("parents") {
        parents.extend(foreign_parents(&before));
    }
    Write { key: key.clone(), body: body(key, observed, value), transitions: changes.transitions }
}

/// What is to be written of a route that has no parent of ours any more, if it says otherwise.
pub fn withdrawal(key: &ObjectKey, observed: &Observed) -> Option<Write> {
    let text = observed.status.as_deref().filter(|text| text.contains(CONTROLLER_NAME))?;
    let before: Value = serde_json::from_str(text).ok()?;
    let parents = before.get("parents")?.as_array()?;
    parents.iter().any(is_ours).then(|| {
        let foreign: Vec<Value> = foreign_parents(&before).collect();
        Write {
            key: key.clone(),
            body: body(key, observed, json!({ "parents": foreign })),
            transitions: Vec::new(),
        }
    })
}

fn body(key: &ObjectKey, observed: &Observed, status: Value) -> Box<str> {
    let resource = resource(key.kind);
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), key.name.as_str().into());
    if !key.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), key.namespace.as_str().into());
    }
    // The list of a route's parents is one value that several controllers write: none may miss what another one wrote.
    if status.get("parents").is_some() {
        metadata.insert("resourceVersion".to_owned(), observed.resource_version.as_str().into());
    }
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "status": status,
    })
    .to_string()
    .into()
}

fn is_ours(parent: &Value) -> bool {
    parent.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME)
}

fn foreign_parents(status: &Value) -> impl Iterator<Item = Value> {
    let parents = status.get("parents").and_then(Value::as_array);
    parents.into_iter().flatten().filter(|parent| !is_ours(parent)).cloned()
}

fn with_own_parents(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(Value::Array(parents)) = status.get_mut("parents") {
        parents.retain(is_ours);
    }
    status
}

#[cfg(test)]
impl Write {
    /// The object that is applied.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.body).expect("it was written as JSON")
    }
}

#[cfg(test)]
mod tests {
    use blixt_core::status::{Condition, ConditionStatus, GatewayStatus, RouteParentStatus, RouteStatus};

    use super::*;

    fn key(kind: Kind) -> ObjectKey {
        ObjectKey { kind, namespace: "default".into(), name: "web".into() }
    }

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn condition(status: ConditionStatus) -> Condition {
        Condition::new("Accepted", status, "Accepted", "a message", 3)
    }

    fn route(status: ConditionStatus) -> Status {
        let parent_ref = serde_json::from_value(json!({
            "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "lab"
        }))
        .unwrap();
        Status::Route(RouteStatus {
            parents: vec![RouteParentStatus {
                parent_ref,
                controller_name: CONTROLLER_NAME.into(),
                conditions: vec![condition(status)],
            }],
        })
    }

    fn observed(status: &Value) -> Observed {
        Observed { resource_version: "42".to_owned(), status: Some(status.to_string().into()) }
    }

    fn foreign() -> Value {
        json!({"parentRef": {"name": "other"}, "controllerName": "example.com/other", "conditions": []})
    }

    #[test]
    fn what_was_written_reads_as_what_was_told() {
        let nothing = Observed { resource_version: "1".to_owned(), status: None };
        for (kind, status) in [
            (Kind::TcpRoute, route(ConditionStatus::True)),
            (
                Kind::Gateway,
                Status::Gateway(GatewayStatus {
                    conditions: vec![condition(ConditionStatus::False)],
                    ..GatewayStatus::default()
                }),
            ),
        ] {
            let write = write(&key(kind), &status, &nothing, now());
            assert_eq!(own(kind, &observed(&write.value()["status"])), Some(status));
        }
    }

    #[test]
    fn entries_of_other_controllers_stay_and_nothing_is_missed_that_they_write_meanwhile() {
        let before = observed(&json!({"parents": [foreign()]}));
        let body = write(&key(Kind::TcpRoute), &route(ConditionStatus::True), &before, now()).value();
        assert_eq!(body["status"]["parents"].as_array().unwrap().len(), 2);
        assert_eq!(body["status"]["parents"][1], foreign());
        assert_eq!(body["metadata"]["resourceVersion"], "42");
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let first = write(
            &key(Kind::TcpRoute),
            &route(ConditionStatus::True),
            &Observed { resource_version: "1".to_owned(), status: None },
            "2025-01-01T00:00:00Z".parse().unwrap(),
        );
        let before = observed(&first.value()["status"]);
        for (status, time) in [
            (ConditionStatus::True, "2025-01-01T00:00:00Z"),
            (ConditionStatus::False, "2026-01-31T12:00:00Z"),
        ] {
            let body = write(&key(Kind::TcpRoute), &route(status), &before, now()).value();
            assert_eq!(body["status"]["parents"][0]["conditions"][0]["lastTransitionTime"], time);
        }
    }

    #[test]
    fn a_route_that_left_keeps_only_what_others_say() {
        let body = write(
            &key(Kind::UdpRoute),
            &route(ConditionStatus::True),
            &observed(&json!({"parents": [foreign()]})),
            now(),
        )
        .value();
        let withdrawn = withdrawal(&key(Kind::UdpRoute), &observed(&body["status"])).unwrap();
        assert_eq!(withdrawn.value()["status"], json!({"parents": [foreign()]}));
        assert_eq!(withdrawal(&key(Kind::UdpRoute), &observed(&withdrawn.value()["status"])), None);
    }
}
