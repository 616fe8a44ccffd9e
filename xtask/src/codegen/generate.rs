//! Reads the CRDs and writes what is committed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::rust_types::Types;

/// The release that the CRDs must be of.
const BUNDLE: &str = "v1.6.1";
const BUNDLE_ANNOTATION: &str = "/metadata/annotations/gateway.networking.k8s.io~1bundle-version";

/// The CRDs that Blixt reads, and what the Rust type of their `spec` is called.
const CRDS: [(&str, &str); 7] = [
    ("gatewayclasses", "GatewayClassSpec"),
    ("gateways", "GatewaySpec"),
    ("listenersets", "ListenerSetSpec"),
    ("tcproutes", "L4RouteSpec"),
    ("udproutes", "L4RouteSpec"),
    ("referencegrants", "ReferenceGrantSpec"),
    ("httproutes", "HttpRouteSpec"),
];

/// Fields of HTTPRoutes that Blixt cannot honour, whatever is in them: only whether they are set is looked at.
const OPAQUE: [&[&str]; 5] = [
    &["rules", "filters"],
    &["rules", "timeouts"],
    &["rules", "backendRefs", "filters"],
    &["rules", "matches", "headers"],
    &["rules", "matches", "queryParams"],
];

const API: &str = "crates/blixt-core/src/api";
const CRD_OUT: &str = "deploy/crds/blixt.dev_blixtclasses.yaml";

/// Writes everything below `root` from the CRDs in `crds`.
pub fn run(root: &Path, crds: &Path) -> Result<()> {
    let mut types = Types::default();
    for (plural, spec_type) in CRDS {
        let path = crds.join(format!("gateway.networking.k8s.io_{plural}.yaml"));
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: give the directory config/crd/standard of Gateway API {BUNDLE}",
                path.display()
            )
        })?;
        let mut crd: Value =
            serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
        check_release(&crd, &path)?;
        if plural == "httproutes" {
            make_opaque(&mut crd);
        }
        let schema = schema_of(&crd).with_context(|| format!("{} has no served schema", path.display()))?;
        types.add_root(spec_type, &schema["schema"]["properties"]["spec"])?;
        let kind = schema["kind"].as_str().unwrap_or_default().to_lowercase();
        write(&root.join(API).join(format!("schemas/{kind}.json")), &serde_json::to_string(&schema)?)?;
    }
    write(&root.join(API).join("gateway_api.rs"), &rust_source(&types))?;
    let class = blixt_class();
    write(&root.join(API).join("schemas/blixtclass.json"), &serde_json::to_string(&schema_of(&class)?)?)?;
    write(&root.join(CRD_OUT), &format!("{CRD_HEAD}{}", serde_saphyr::to_string(&class)?))
}

fn check_release(crd: &Value, path: &Path) -> Result<()> {
    let release = crd.pointer(BUNDLE_ANNOTATION).and_then(Value::as_str).unwrap_or("none");
    if release != BUNDLE {
        bail!("{} is of release {release}: give the CRDs of {BUNDLE}", path.display());
    }
    Ok(())
}

fn make_opaque(crd: &mut Value) {
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        for path in OPAQUE {
            let mut field = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            for name in path {
                let of = if field["items"].is_object() { &mut field["items"] } else { field };
                field = &mut of["properties"][name];
            }
            let anything = json!({ "x-kubernetes-preserve-unknown-fields": true });
            *field = match field["type"].as_str() {
                Some("array") => json!({ "type": "array", "items": anything }),
                _ => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
            };
        }
    }
}

/// What validation needs of a CRD: descriptions and status left out, one schema for all served versions.
fn schema_of(crd: &Value) -> Result<Value> {
    let spec = &crd["spec"];
    let served: Vec<&Value> = spec["versions"]
        .as_array()
        .context("spec.versions is missing")?
        .iter()
        .filter(|version| version["served"] == true)
        .collect();
    let mut schemas = served.iter().map(|version| pruned(&version["schema"]["openAPIV3Schema"]));
    let schema = schemas.next().context("no version is served")?;
    if schemas.any(|other| other != schema) {
        bail!(
            "the served versions of {} differ: one type cannot stand for all of them",
            spec["names"]["kind"]
        );
    }
    let group = spec["group"].as_str().unwrap_or_default();
    Ok(json!({
        "source": if group == "blixt.dev" { "generated from the Rust type BlixtClassSpec".to_owned() }
            else { format!("Gateway API {BUNDLE}, standard channel, The Kubernetes Authors, Apache-2.0") },
        "group": group,
        "kind": spec["names"]["kind"],
        "versions": served.iter().map(|version| version["name"].clone()).collect::<Vec<_>>(),
        "namespaced": spec["scope"] == "Namespaced",
        "schema": { "type": "object", "required": schema["required"],
            "properties": { "spec": schema["properties"]["spec"] } },
    }))
}

/// A schema without the texts for people. `properties` holds names, so a property may be called `description`.
fn pruned(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(name, _)| *name != "description")
                .map(|(name, value)| match (name.as_str(), value) {
                    ("properties", Value::Object(properties)) => (
                        name.clone(),
                        Value::Object(
                            properties.iter().map(|(name, value)| (name.clone(), pruned(value))).collect(),
                        ),
                    ),
                    _ => (name.clone(), pruned(value)),
                })
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => items.iter().map(pruned).collect(),
        other => other.clone(),
    }
}

fn rust_source(types: &Types) -> String {
    format!(
        "//! Generated by `cargo xtask codegen` from the CRDs of Gateway API {BUNDLE}, standard channel (The\n\
         //! Kubernetes Authors, Apache-2.0), without their descriptions: do not edit. The fields are the API's own,\n\
         //! documented in the Gateway API reference. A field with a default is always there: defaults are filled\n\
         //! in before an object becomes one of these types.\n\n\
         #![expect(missing_docs, reason = \"upstream's descriptions are left out on purpose\")]\n\n\
         use std::collections::BTreeMap;\n\nuse serde::{{Deserialize, Serialize}};\nuse serde_json::Value;\nuse smol_str::SmolStr;\n\n{types}"
    )
}

const CRD_HEAD: &str =
    "# Generated by `cargo xtask codegen` from the Rust type BlixtClassSpec: do not edit.\n";

/// The CRD of BlixtClass.
fn blixt_class() -> Value {
    let settings = schemars::generate::SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let schema =
        settings.into_generator().into_root_schema_for::<blixt_core::api::BlixtClassSpec>().to_value();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "blixtclasses.blixt.dev" },
        "spec": {
            "group": "blixt.dev",
            "scope": "Cluster",
            "names": { "kind": "BlixtClass", "listKind": "BlixtClassList", "plural": "blixtclasses",
                "singular": "blixtclass" },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "additionalPrinterColumns": [
                    { "name": "L7 listeners", "type": "string", "jsonPath": ".spec.l7Listeners" },
                    { "name": "Forwarding", "type": "string", "jsonPath": ".spec.forwarding" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "Settings of Blixt, named by the parametersRef of a GatewayClass.",
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": structural(&schema),
                    },
                } },
            }],
        },
    })
}

/// What schemars says of a Rust type, in the dialect of CRDs: no titles, no formats that CRDs do not know,
/// enums of described constants as one list.
fn structural(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("title", _) => {}
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter().map(|(name, value)| (name.clone(), structural(value)));
                out.insert(name.clone(), Value::Object(properties.collect()));
            }
            ("oneOf", Value::Array(choices)) => {
                let names = choices.iter().flat_map(|choice| choice["enum"].as_array().into_iter().flatten());
                out.insert("type".into(), "string".into());
                out.insert("enum".into(), names.cloned().collect());
            }
            ("items", value) => {
                out.insert(name.clone(), structural(value));
            }
            _ => {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let text = format!("{}\n", text.trim_end());
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
