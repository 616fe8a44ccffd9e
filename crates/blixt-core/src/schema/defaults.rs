//! The parts of Kubernetes' schemas that plain JSON Schema does not do: defaults, dropped nulls, closed
//! objects, keys of lists.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Failure;

/// Drops nulls that the schema does not know, fills in defaults, from the outside in.
pub fn complete(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(properties) = schema["properties"].as_object() {
                fields.retain(|name, value| {
                    !value.is_null() || properties.get(name).is_none_or(|schema| schema["nullable"] == true)
                });
                for (name, schema) in properties {
                    match fields.get_mut(name) {
                        Some(value) => complete(schema, value),
                        None => {
                            if let Some(default) = schema.get("default") {
                                let mut value = default.clone();
                                complete(schema, &mut value);
                                fields.insert(name.clone(), value);
                            }
                        }
                    }
                }
            } else if schema["additionalProperties"].is_object() {
                fields.values_mut().for_each(|value| complete(&schema["additionalProperties"], value));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| complete(&schema["items"], item)),
        _ => {}
    }
}

/// The schema with unknown fields refused, and nullable fields allowed to be null, as JSON Schema says it.
pub fn closed(schema: &Value) -> Value {
    let mut out = schema.clone();
    if let Some(properties) = out["properties"].as_object_mut() {
        properties.values_mut().for_each(|schema| *schema = closed(schema));
        if out["additionalProperties"].is_null() {
            out["additionalProperties"] = json!(false);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if out[inner].is_object() {
            out[inner] = closed(&out[inner]);
        } else if out[inner].is_null() {
            out.as_object_mut().expect("a schema is an object").remove(inner);
        }
    }
    if out["nullable"] == true {
        out["type"] = json!([out["type"], "null"]);
    }
    let fields = out.as_object_mut().expect("a schema is an object");
    fields.retain(|name, value| {
        !value.is_null() && !name.starts_with("x-kubernetes") && name != "nullable" && name != "default"
    });
    out
}

/// Entries of a list that share the key by which the API tells them apart.
pub fn repeated_keys(schema: &Value, value: &Value) -> Vec<Failure> {
    let mut failures = Vec::new();
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else { return failures };
            for (name, value) in fields {
                if let (Some(schema), true) = (properties.get(name), value.is_array() || value.is_object()) {
                    let inside = repeated_keys(schema, value).into_iter();
                    failures.extend(inside.map(|failure| failure.below(name)));
                }
            }
        }
        Value::Array(items) => {
            let keys: Vec<&str> = match schema["x-kubernetes-list-map-keys"].as_array() {
                Some(keys) => keys.iter().filter_map(Value::as_str).collect(),
                None => Vec::new(),
            };
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let key: Vec<String> = keys.iter().map(|key| item[*key].to_string()).collect();
                if !keys.is_empty() && !seen.insert(key.clone()) {
                    failures.push(Failure::new(
                        format!("/{index}/{}", keys[0]),
                        format!("another entry has the same {}, {}", keys.join(" and "), key.join(" and ")),
                        "give each entry its own",
                    ));
                }
                let inside = repeated_keys(&schema["items"], item).into_iter();
                failures.extend(inside.map(|failure| failure.below(index)));
            }
        }
        _ => {}
    }
    failures
}
