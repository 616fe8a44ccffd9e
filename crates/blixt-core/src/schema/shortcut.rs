//! Cheap proofs that a rule holds, for the rules that common objects meet.
//!
//! Several rules compare each entry of a list with each other: with 64 listeners that is thousands of steps of an
//! interpreter. A shortcut only ever says "surely"; whatever it is not sure of goes to the interpreter.

use std::collections::BTreeSet;

use serde_json::Value;

/// Says "surely", or nothing.
pub type Shortcut = fn(&Value) -> bool;

/// How to be sure, by the beginning of a rule.
const SHORTCUTS: [(&str, Shortcut); 12] = [
    ("self.all(l1, self.exists_one(l2, l1.name == l2.name))", |list| distinct(list, "name")),
    ("self.all(l1, self.exists_one(l2, l1.port == l2.port && ", |list| distinct(list, "port")),
    ("self.all(l1, !has(l1.port) || self.exists_one(l2, has(l2.port) && ", |list| distinct(list, "port")),
    ("self.all(p1, self.all(p2, ", is_single),
    ("self.all(p1, self.exists_one(p2, ", is_single),
    ("(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true", |reference| {
        reference.get("port").is_some()
    }),
    ("self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)", |list| without(list, "tls")),
    ("self.all(l, (l.protocol == 'HTTPS' && has(l.tls)) ? ", |list| without(list, "tls")),
    ("self.all(l, (l.protocol == 'TLS' ? ", |list| {
        entries(list).all(|entry| entry["protocol"].as_str().is_some_and(|protocol| protocol != "TLS"))
    }),
    ("self.all(l, l.protocol in ['TCP', 'UDP']  ? (!has(l.hostname) || ", |list| without(list, "hostname")),
    ("self.all(a1, a1.type == 'IPAddress' && has(a1.value) ? self.exists_one(a2, ", is_single),
    ("self.all(a1, a1.type == 'Hostname'  && has(a1.value) ? self.exists_one(a2, ", is_single),
];

/// The shortcut of a rule, if there is one.
pub fn shortcut(source: &str) -> Option<Shortcut> {
    SHORTCUTS.iter().find(|(start, _)| source.starts_with(start)).map(|(_, surely_holds)| *surely_holds)
}

/// Every entry has the field, and no two the same: none is like another.
fn distinct(list: &Value, field: &str) -> bool {
    let mut seen = BTreeSet::new();
    entries(list).all(|entry| match &entry[field] {
        Value::String(text) => seen.insert((0, text.as_str())),
        Value::Number(number) => number.as_u64().is_some_and(|number| seen.insert((number, ""))),
        _ => false,
    })
}

/// No entry has the field.
fn without(list: &Value, field: &str) -> bool {
    entries(list).all(|entry| entry.get(field).is_none())
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// One entry is like itself.
fn is_single(list: &Value) -> bool {
    list.as_array().is_some_and(|list| list.len() <= 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shortcut_belongs_to_a_rule_of_the_schemas() {
        let schemas = [
            include_str!("../api/schemas/gateway.json"),
            include_str!("../api/schemas/listenerset.json"),
            include_str!("../api/schemas/tcproute.json"),
        ];
        for (start, _) in SHORTCUTS {
            assert!(schemas.iter().any(|schema| schema.contains(start)), "no rule begins with {start}");
        }
    }

    #[test]
    fn a_shortcut_is_sure_only_of_what_holds() {
        let unsure = [
            (SHORTCUTS[0].0, json!([{ "name": "a" }, { "name": "a" }])),
            (SHORTCUTS[1].0, json!([{ "port": 80, "protocol": "TCP" }, { "port": 80, "protocol": "UDP" }])),
            (SHORTCUTS[1].0, json!([{ "port": 80 }, { "port": -1 }])),
            (SHORTCUTS[2].0, json!([{ "port": 80 }, {}])),
            (SHORTCUTS[3].0, json!([{ "name": "a" }, { "name": "b" }])),
            (SHORTCUTS[5].0, json!({ "group": "", "kind": "Service", "name": "web" })),
            (SHORTCUTS[6].0, json!([{ "protocol": "TCP" }, { "protocol": "TCP", "tls": {} }])),
            (SHORTCUTS[7].0, json!([{ "protocol": "HTTPS", "tls": { "mode": "Passthrough" } }])),
            (SHORTCUTS[8].0, json!([{ "protocol": "TCP" }, { "protocol": "TLS" }])),
            (SHORTCUTS[9].0, json!([{ "protocol": "TCP", "hostname": "a.example" }])),
            (
                SHORTCUTS[10].0,
                json!([{ "type": "IPAddress", "value": "a" }, { "type": "IPAddress", "value": "a" }]),
            ),
            (
                SHORTCUTS[11].0,
                json!([{ "type": "Hostname", "value": "a" }, { "type": "Hostname", "value": "a" }]),
            ),
        ];
        for (source, value) in unsure {
            assert!(!shortcut(source).expect("a shortcut")(&value), "{source}: {value}");
        }
        assert!(shortcut(SHORTCUTS[1].0).expect("a shortcut")(&json!([{ "port": 80 }, { "port": 81 }])));
        let plain = json!([{ "name": "a", "protocol": "TCP", "port": 80 }, { "name": "b", "protocol": "UDP", "port": 80 }]);
        for (source, surely_holds) in &SHORTCUTS[6..10] {
            assert!(surely_holds(&plain), "{source}");
        }
        assert!(shortcut("self == oldSelf").is_none());
    }
}
