//! What a valid object of each kind looks like: the committed schemas, compiled once, and the way from a JSON
//! value to a typed object.
//!
//! As an API server does it: nulls that mean nothing are dropped, defaults filled in, unknown fields
//! refused, then the schema, the keys of lists and the CEL rules are checked.

mod defaults;
mod failure;
mod rule;
mod shortcut;

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

pub use failure::Failure;

use crate::api::{Kind, L4Route, Metadata, Object, Resource, SecretSpec};
use rule::Rule;

/// The schema of one kind.
pub struct KindSchema {
    /// The kind.
    pub kind: Kind,
    versions: Vec<String>,
    schema: Value,
    validator: jsonschema::Validator,
    rules: Vec<Rule>,
}

const SCHEMAS: [(Kind, &str); 12] = [
    (Kind::BlixtClass, include_str!("api/schemas/blixtclass.json")),
    (Kind::GatewayClass, include_str!("api/schemas/gatewayclass.json")),
    (Kind::Gateway, include_str!("api/schemas/gateway.json")),
    (Kind::ListenerSet, include_str!("api/schemas/listenerset.json")),
    (Kind::TcpRoute, include_str!("api/schemas/tcproute.json")),
    (Kind::UdpRoute, include_str!("api/schemas/udproute.json")),
    (Kind::HttpRoute, include_str!("api/schemas/httproute.json")),
    (Kind::ReferenceGrant, include_str!("api/schemas/referencegrant.json")),
    (Kind::Namespace, include_str!("api/schemas/namespace.json")),
    (Kind::Secret, include_str!("api/schemas/secret.json")),
    (Kind::Service, include_str!("api/schemas/service.json")),
    (Kind::EndpointSlice, include_str!("api/schemas/endpointslice.json")),
];
const METADATA: &str = include_str!("api/schemas/metadata.json");

/// Compiled when the first object of the kind is met.
static KINDS: [OnceLock<KindSchema>; SCHEMAS.len()] = [const { OnceLock::new() }; SCHEMAS.len()];

impl KindSchema {
    /// The schema of a kind that Blixt reads.
    pub fn find(group: &str, kind: &str) -> Option<&'static Self> {
        let known = |(known, _): &(Kind, &str)| known.name() == kind && known.group() == group;
        let index = SCHEMAS.iter().position(known)?;
        let (kind, text) = SCHEMAS[index];
        Some(KINDS[index].get_or_init(|| Self::compile(kind, text)))
    }

    /// What is wrong with a version that is not served.
    pub fn version_failure(&self, version: &str) -> Option<Failure> {
        if self.versions.iter().any(|served| served == version) {
            return None;
        }
        let group = self.kind.group();
        let newest = self.versions.first().map_or("v1", String::as_str);
        let full = if group.is_empty() { newest.to_owned() } else { format!("{group}/{newest}") };
        Some(Failure::new(
            "/apiVersion",
            format!("version {version} of {} is not served", self.kind),
            format!("write apiVersion: {full}"),
        ))
    }

    /// The object, or everything that is wrong with it.
    pub fn object(&self, mut fields: Map<String, Value>) -> Result<Object, Vec<Failure>> {
        // Statuses are Blixt's to write, not to read.
        fields.remove("status");
        let mut value = Value::Object(fields);
        defaults::complete(&self.schema, &mut value);
        if !self.validator.is_valid(&value) {
            let failures = self.validator.iter_errors(&value).flat_map(|error| Failure::of(&error));
            let hidden = self.kind == Kind::Secret;
            return Err(failures
                .map(|failure| if hidden { failure.without_value() } else { failure })
                .collect());
        }
        let mut failures = defaults::repeated_keys(&self.schema, &value);
        failures.extend(self.rules.iter().flat_map(|rule| rule.check(&value)));
        if !failures.is_empty() {
            return Err(failures);
        }
        typed(self.kind, value).map_err(|error| {
            vec![Failure::new("", error.to_string(), "compare it with the reference of the Gateway API")]
        })
    }

    fn compile(kind: Kind, text: &str) -> Self {
        let file: Value = serde_json::from_str(text).expect("the committed schemas are JSON");
        let metadata: Value = serde_json::from_str(METADATA).expect("the committed schemas are JSON");
        let mut schema = file["schema"].clone();
        schema["properties"]["apiVersion"] = json!({ "type": "string" });
        schema["properties"]["kind"] = json!({ "type": "string" });
        schema["properties"]["metadata"] = metadata;
        if !kind.namespaced() {
            let properties = &mut schema["properties"]["metadata"]["properties"];
            properties
                .as_object_mut()
                .expect("the committed schema of metadata has properties")
                .remove("namespace");
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        schema["required"] = required.into_iter().chain(["metadata".into()]).collect();
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&defaults::closed(&schema))
            .expect("the committed schemas compile, a test says so");
        let versions = file["versions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Self {
            kind,
            versions: versions.map(str::to_owned).collect(),
            rules: rule::rules_of(&schema),
            schema,
            validator,
        }
    }
}

/// The object of a kind, which whoever gives it has validated.
pub fn typed(kind: Kind, mut value: Value) -> Result<Object, serde_json::Error> {
    Ok(match kind {
        Kind::BlixtClass => Object::BlixtClass(Arc::new(resource(value)?)),
        Kind::GatewayClass => Object::GatewayClass(Arc::new(resource(value)?)),
        Kind::Gateway => Object::Gateway(Arc::new(resource(value)?)),
        Kind::ListenerSet => Object::ListenerSet(Arc::new(resource(value)?)),
        Kind::TcpRoute => Object::L4Route(Arc::new(L4Route::tcp(resource(value)?))),
        Kind::UdpRoute => Object::L4Route(Arc::new(L4Route::udp(resource(value)?))),
        Kind::HttpRoute => Object::L4Route(Arc::new(L4Route::http(resource(value)?))),
        Kind::ReferenceGrant => Object::ReferenceGrant(Arc::new(resource(value)?)),
        Kind::Namespace => Object::Namespace(Arc::new(resource(value)?)),
        Kind::Secret => {
            let metadata = serde_json::from_value(value["metadata"].take())?;
            Object::Secret(Arc::new(Resource { metadata, spec: SecretSpec::of_manifest(&value) }))
        }
        Kind::Service => Object::Service(Arc::new(resource(value)?)),
        Kind::EndpointSlice => {
            let metadata = serde_json::from_value(value["metadata"].clone())?;
            Object::EndpointSlice(Arc::new(Resource { metadata, spec: serde_json::from_value(value)? }))
        }
    })
}

/// An absent spec is an empty one: the schema says where that is allowed.
fn resource<S: serde::de::DeserializeOwned>(mut value: Value) -> Result<Resource<S>, serde_json::Error> {
    let metadata: Metadata = serde_json::from_value(value["metadata"].take())?;
    let spec = match value["spec"].take() {
        Value::Null => json!({}),
        spec => spec,
    };
    Ok(Resource { metadata, spec: serde_json::from_value(spec)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_compiles_and_is_found_by_its_group() {
        for kind in Kind::ALL {
            let schema = KindSchema::find(kind.group(), kind.name()).expect("each kind has a schema");
            assert_eq!(schema.kind, kind);
            assert!(!schema.versions.is_empty(), "{kind} has no version");
            assert!(
                KindSchema::find("example.com", kind.name()).is_none(),
                "{kind} of another group is found"
            );
        }
    }

    /// A rule that compares with the object's last version (`oldSelf`) cannot be decided from a file. When a new
    /// release of the API brings another such rule, it is to be known here.
    #[test]
    fn all_rules_but_one_are_evaluated() {
        let count = |text: &str, needle: &str| text.matches(needle).count();
        let written: usize = SCHEMAS.iter().map(|(_, text)| count(text, "\"rule\":")).sum();
        let transitions: Vec<Kind> =
            SCHEMAS.iter().filter(|(_, text)| text.contains("oldSelf")).map(|(kind, _)| *kind).collect();
        let schemas = Kind::ALL.iter().filter_map(|kind| KindSchema::find(kind.group(), kind.name()));
        let evaluated: usize = schemas.map(|schema| schema.rules.len()).sum();
        assert_eq!(transitions, [Kind::GatewayClass]);
        assert_eq!(evaluated, written - 1);
        assert_eq!(evaluated, 50);
    }
}
