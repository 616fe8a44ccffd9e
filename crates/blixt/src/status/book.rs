//! The statuses of all objects as they are told, with the time when each condition became what it is.
//!
//! Pure: time is a parameter. `lastTransitionTime` changes only with a condition's `status`.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use blixt_core::api::{ObjectKey, ParentReference};
use blixt_core::status::{ConditionStatus, Status, Statuses, parent_part};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What was told of every object, and since when: not the statuses themselves, of which there may be many.
#[derive(Debug, Default)]
pub struct Book {
    told: BTreeMap<ObjectKey, Told>,
}

/// What was told of an object.
#[derive(Debug, Default)]
struct Told {
    /// Of the status; 0 where only times are known.
    hash: u64,
    since: Box<[Since]>,
}

/// What entering new statuses changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Objects whose status is different, new or gone.
    pub objects: BTreeSet<ObjectKey>,
    /// Conditions whose `status` changed, and new ones that are not `True`.
    pub transitions: Vec<Transition>,
}

/// A condition that turned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The object.
    pub object: ObjectKey,
    /// The part of it: empty, `listener NAME` or `parent NAME`.
    pub part: String,
    /// The condition's type.
    pub condition: String,
    /// Its new status.
    pub status: &'static str,
    /// Why.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Since when a condition has its status. Which condition is told by a hash: there are many of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Since {
    condition: u64,
    status: ConditionStatus,
    time: Timestamp,
}

impl Book {
    /// Enters everything that is to be told now: what is missing is gone.
    pub fn enter(&mut self, statuses: &Statuses, now: Timestamp) -> Changes {
        let mut changes = self.enter_some(statuses, now);
        self.told.retain(|key, _| {
            let stays = statuses.contains_key(key);
            if !stays {
                changes.objects.insert(key.clone());
            }
            stays
        });
        changes
    }

    /// Enters what is to be told now of some objects.
    pub fn enter_some(&mut self, statuses: &Statuses, now: Timestamp) -> Changes {
        let mut changes = Changes::default();
        for (key, status) in statuses {
            let hash = status_hash(status);
            if self.told.get(key).is_none_or(|told| told.hash != hash) {
                self.enter_one(key, status, hash, now, &mut changes);
            }
        }
        changes
    }

    /// Every object that something was told of.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectKey> {
        self.told.keys()
    }

    /// Something was told of this object.
    pub fn is_told(&self, key: &ObjectKey) -> bool {
        self.told.contains_key(key)
    }

    /// A status that was entered, as the API has it, times included.
    pub fn status(&self, key: &ObjectKey, status: &Status) -> Value {
        let mut value = serde_json::to_value(status).unwrap_or_default();
        let since = self.told.get(key).map(|told| &*told.since).unwrap_or_default();
        // The order of conditions in the value is that of `all_conditions`.
        let mut times = status.all_conditions().into_iter().map(|(part, condition)| {
            let id = condition_id(&part, &condition.condition_type);
            since.iter().find(|since| since.condition == id).map(|since| since.time)
        });
        set_times(&mut value, &mut times);
        value
    }

    /// Takes times from a status that was told before.
    pub fn remember(&mut self, key: ObjectKey, status: &Value) {
        let mut since = Vec::new();
        let mut note = |part: &str, owner: &Value| {
            let conditions = owner.get("conditions").and_then(Value::as_array);
            since
                .extend(conditions.into_iter().flatten().filter_map(|condition| remembered(part, condition)));
        };
        note("", status);
        for listener in status.get("listeners").and_then(Value::as_array).into_iter().flatten() {
            note(&format!("listener {}", text(listener, "name")), listener);
        }
        for parent in status.get("parents").and_then(Value::as_array).into_iter().flatten() {
            if let Some(reference) =
                parent.get("parentRef").and_then(|value| ParentReference::deserialize(value).ok())
            {
                note(&parent_part(&reference), parent);
            }
        }
        self.told.insert(key, Told { hash: 0, since: since.into() });
    }

    fn enter_one(
        &mut self,
        key: &ObjectKey,
        status: &Status,
        hash: u64,
        now: Timestamp,
        changes: &mut Changes,
    ) {
        changes.objects.insert(key.clone());
        let before = self.told.remove(key).unwrap_or_default().since;
        let mut after = Vec::new();
        for (part, condition) in status.all_conditions() {
            let id = condition_id(&part, &condition.condition_type);
            let known = before.iter().find(|since| since.condition == id);
            let turned = known.is_none_or(|known| known.status != condition.status);
            let is_news = known.is_some() || condition.is_trouble();
            if turned && is_news {
                changes.transitions.push(Transition {
                    object: key.clone(),
                    part,
                    condition: condition.condition_type.to_string(),
                    status: status_name(condition.status),
                    reason: condition.reason.to_string(),
                    message: condition.message.to_string(),
                });
            }
            let time = known.filter(|_| !turned).map_or(now, |known| known.time);
            after.push(Since { condition: id, status: condition.status, time });
        }
        self.told.insert(key.clone(), Told { hash, since: after.into() });
    }
}

/// As the API spells it.
pub fn status_name(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

/// Every condition of a status that times are set in: the object's own and those of its parents.
pub fn conditions(status: &Value) -> Vec<Value> {
    let own = status.get("conditions").and_then(Value::as_array);
    let parents = status.get("parents").and_then(Value::as_array);
    let of_parents = parents.into_iter().flatten().filter_map(|parent| parent.get("conditions")?.as_array());
    own.into_iter().chain(of_parents).flatten().cloned().collect()
}

/// Never 0.
/// Equal statuses have equal hashes; never 0.
pub fn status_hash(status: &Status) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.hash(&mut hasher);
    hasher.finish().max(1)
}

fn condition_id(part: &str, condition_type: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (part, condition_type).hash(&mut hasher);
    hasher.finish()
}

fn remembered(part: &str, condition: &Value) -> Option<Since> {
    let status = match text(condition, "status") {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        "Unknown" => ConditionStatus::Unknown,
        _ => return None,
    };
    let time = text(condition, "lastTransitionTime").parse().ok()?;
    Some(Since { condition: condition_id(part, text(condition, "type")), status, time })
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Sets times in the order in which conditions are met: those of an object, then of its listeners or parents.
fn set_times(status: &mut Value, times: &mut impl Iterator<Item = Option<Timestamp>>) {
    set_own_times(status, times);
    for parts in ["listeners", "parents"] {
        for part in status.get_mut(parts).and_then(Value::as_array_mut).into_iter().flatten() {
            set_own_times(part, times);
        }
    }
}

fn set_own_times(owner: &mut Value, times: &mut impl Iterator<Item = Option<Timestamp>>) {
    let conditions = owner.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        set_time(condition, times.next().flatten());
    }
}

fn set_time(condition: &mut Map<String, Value>, time: Option<Timestamp>) {
    if let Some(time) = time {
        condition.insert("lastTransitionTime".to_owned(), json!(format!("{time:.0}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blixt_core::api::Kind;
    use blixt_core::status::{
        CONTROLLER_NAME, Condition, GatewayStatus, ListenerStatus, RouteParentStatus, RouteStatus,
    };

    fn key() -> ObjectKey {
        ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: "web".into() }
    }

    fn condition(status: ConditionStatus, message: &'static str) -> Condition {
        Condition::new("Programmed", status, "Reason", message, 1)
    }

    fn statuses(own: ConditionStatus, of_listener: ConditionStatus, message: &'static str) -> Statuses {
        let listener = ListenerStatus {
            name: "http".into(),
            conditions: vec![condition(of_listener, message)],
            ..ListenerStatus::default()
        };
        let gateway = GatewayStatus {
            conditions: vec![condition(own, message)],
            listeners: vec![listener],
            ..GatewayStatus::default()
        };
        Statuses::from([(key(), Status::Gateway(gateway))])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The times of the object's own condition and of its listener's.
    fn times(book: &Book) -> [String; 2] {
        use ConditionStatus::True;
        let status = book.status(&key(), &statuses(True, True, "")[&key()]);
        let of_listener = &status["listeners"][0]["conditions"][0];
        [&status["conditions"][0], of_listener]
            .map(|condition| condition["lastTransitionTime"].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_time_changes_with_the_status_and_with_nothing_else() {
        use ConditionStatus::{False, True};
        let mut book = Book::default();
        book.enter(&statuses(False, False, "not yet"), at(1));
        book.enter(&statuses(True, False, "half"), at(2));
        assert_eq!(times(&book), ["1970-01-01T00:00:02Z", "1970-01-01T00:00:01Z"]);
        let changes = book.enter(&statuses(True, False, "another message"), at(3));
        assert_eq!(times(&book), ["1970-01-01T00:00:02Z", "1970-01-01T00:00:01Z"]);
        assert_eq!(changes.objects.len(), 1);
        assert!(changes.transitions.is_empty());
    }

    #[test]
    fn equal_statuses_change_nothing() {
        let mut book = Book::default();
        book.enter(&statuses(ConditionStatus::True, ConditionStatus::True, ""), at(1));
        let changes = book.enter(&statuses(ConditionStatus::True, ConditionStatus::True, ""), at(2));
        assert!(changes.objects.is_empty());
    }

    #[test]
    fn times_that_were_told_before_are_kept_over_a_restart() {
        use ConditionStatus::{False, True};
        let mut before = Book::default();
        before.enter(&statuses(True, False, ""), at(1));
        let mut after = Book::default();
        after.remember(key(), &before.status(&key(), &statuses(True, False, "")[&key()]));
        after.enter(&statuses(True, True, ""), at(9));
        assert_eq!(times(&after), ["1970-01-01T00:00:01Z", "1970-01-01T00:00:09Z"]);
    }

    #[test]
    fn parents_of_one_name_in_two_namespaces_are_two() {
        use ConditionStatus::{False, True};
        let parent = |namespace: &str, status| RouteParentStatus {
            parent_ref: ParentReference {
                group: Kind::Gateway.group().into(),
                kind: Kind::Gateway.name().into(),
                name: "web".into(),
                namespace: Some(namespace.into()),
                port: None,
                section_name: None,
            },
            controller_name: CONTROLLER_NAME.into(),
            conditions: vec![condition(status, "")],
        };
        let of = |of_b| {
            let parents = vec![parent("a", True), parent("b", of_b)];
            Statuses::from([(key(), Status::Route(RouteStatus { parents }))])
        };
        let mut book = Book::default();
        book.enter(&of(False), at(1));
        let mut after = Book::default();
        after.remember(key(), &book.status(&key(), &of(False)[&key()]));
        assert!(after.enter(&of(False), at(2)).transitions.is_empty());
        let turned = after.enter(&of(True), at(3)).transitions;
        assert_eq!(turned.iter().map(|turned| turned.part.as_str()).collect::<Vec<_>>(), ["parent b/web"]);
    }

    #[test]
    fn an_object_that_is_gone_is_a_change() {
        let mut book = Book::default();
        book.enter(&statuses(ConditionStatus::True, ConditionStatus::True, ""), at(1));
        assert!(book.enter(&Statuses::new(), at(2)).objects.contains(&key()));
        book.enter(&statuses(ConditionStatus::True, ConditionStatus::True, ""), at(3));
        assert_eq!(times(&book), ["1970-01-01T00:00:03Z", "1970-01-01T00:00:03Z"], "another of its name");
    }
}
