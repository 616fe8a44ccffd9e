//! Rust types from OpenAPI schemas: one struct for each shape, however often it occurs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};

use anyhow::{Result, bail};
use serde_json::Value;

/// Names for shapes whose property alone would not say enough, by `parent property.property`.
const NAMES: [(&str, &str); 23] = [
    ("spec.parametersRef", "ObjectReference"),
    ("spec.allowedListeners", "AllowedListeners"),
    ("infrastructure.parametersRef", "LocalObjectReference"),
    ("listeners.allowedRoutes", "AllowedRoutes"),
    ("tls.backend", "BackendTls"),
    ("frontend.default", "FrontendTlsDefault"),
    ("frontend.perPort", "FrontendTlsPort"),
    ("allowedListeners.namespaces", "ListenerNamespaces"),
    ("allowedRoutes.namespaces", "RouteNamespaces"),
    ("allowedRoutes.kinds", "RouteGroupKind"),
    ("spec.addresses", "GatewayAddress"),
    ("spec.rules", "L4RouteRule"),
    ("spec.tls", "GatewayTls"),
    ("spec.parentRefs", "ParentReference"),
    ("spec.parentRef", "ParentGatewayReference"),
    ("spec.from", "ReferenceGrantFrom"),
    ("spec.to", "ReferenceGrantTo"),
    ("tls.frontend", "FrontendTls"),
    ("listeners.tls", "ListenerTls"),
    ("httpRoute.rules", "HttpRouteRule"),
    ("rules.matches", "HttpRouteMatch"),
    ("matches.path", "HttpPathMatch"),
    ("path.HttpPathMatchType", "HttpPathMatchType"),
];

/// Every type so far, in the order of their first use.
#[derive(Default)]
pub struct Types {
    /// Shape (as canonical JSON) to name.
    names: BTreeMap<String, String>,
    source: Vec<String>,
}

impl Types {
    /// Adds the type of a `spec` and everything in it.
    pub fn add_root(&mut self, name: &str, schema: &Value) -> Result<()> {
        let shape = shape(schema);
        match self.names.get(&shape) {
            Some(known) if known == name => return Ok(()),
            Some(known) => bail!("{name} has the shape of {known}: give both one name"),
            None if self.names.values().any(|known| known == name) => {
                bail!("{name} has two shapes: give each a name of its own")
            }
            None => {}
        }
        let property = if name == "HttpRouteSpec" { "httpRoute" } else { "spec" };
        self.add_struct(name.to_owned(), property, schema, shape)
    }

    fn add_struct(&mut self, name: String, property: &str, schema: &Value, shape: String) -> Result<()> {
        self.names.insert(shape, name.clone());
        let place = self.source.len();
        self.source.push(String::new());
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut source = format!(
            "#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]\npub struct {name} {{\n"
        );
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let typed = self.type_of(&name, property, field, schema)?;
            let snake = snake_case(field);
            let present = required.contains(&field.as_str()) || !schema["default"].is_null();
            let (attribute, typed) = match () {
                () if present => (String::new(), typed),
                () if typed.starts_with("Box<[") => {
                    ("default, skip_serializing_if = \"<[_]>::is_empty\"".into(), typed)
                }
                () if typed.starts_with("BTreeMap<") => {
                    ("default, skip_serializing_if = \"BTreeMap::is_empty\"".into(), typed)
                }
                () => {
                    ("default, skip_serializing_if = \"Option::is_none\"".into(), format!("Option<{typed}>"))
                }
            };
            let rename = if snake == *field { String::new() } else { format!("rename = \"{field}\"") };
            let attributes: Vec<String> = [rename, attribute].into_iter().filter(|a| !a.is_empty()).collect();
            if !attributes.is_empty() {
                writeln!(source, "    #[serde({})]", attributes.join(", "))?;
            }
            let snake = if snake == "type" { "r#type".to_owned() } else { snake };
            writeln!(source, "    pub {snake}: {typed},")?;
        }
        source.push_str("}\n");
        self.source[place] = source;
        Ok(())
    }

    fn type_of(&mut self, parent: &str, property: &str, field: &str, schema: &Value) -> Result<String> {
        Ok(match schema["type"].as_str() {
            _ if schema["x-kubernetes-preserve-unknown-fields"] == true => "Value".into(),
            Some("string") if schema["enum"].is_array() => self.enum_of(parent, property, field, schema)?,
            Some("string") => "SmolStr".into(),
            Some("boolean") => "bool".into(),
            Some("integer") => integer(schema).into(),
            Some("array") => format!("Box<[{}]>", self.type_of(parent, property, field, &schema["items"])?),
            Some("object") if schema["additionalProperties"].is_object() => {
                format!(
                    "BTreeMap<SmolStr, {}>",
                    self.type_of(parent, property, field, &schema["additionalProperties"])?
                )
            }
            Some("object") => self.name_of(parent, property, field, schema, Self::add_struct)?,
            other => bail!("{parent}.{field} is of type {other:?}, which the generator does not know"),
        })
    }

    fn enum_of(&mut self, parent: &str, property: &str, field: &str, schema: &Value) -> Result<String> {
        let parent_name = format!("{parent}{}", pascal_case(field));
        self.name_of(parent, property, &parent_name, schema, |types, name, _, schema, shape| {
            types.names.insert(shape, name.clone());
            let mut source = format!(
                "#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]\npub enum {name} {{\n"
            );
            for value in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                writeln!(source, "    {value},")?;
            }
            source.push_str("}\n");
            types.source.push(source);
            Ok(())
        })
    }

    fn name_of(
        &mut self,
        parent: &str,
        property: &str,
        field: &str,
        schema: &Value,
        add: impl FnOnce(&mut Self, String, &str, &Value, String) -> Result<()>,
    ) -> Result<String> {
        let shape = shape(schema);
        if let Some(name) = self.names.get(&shape) {
            return Ok(name.clone());
        }
        let path = format!("{property}.{field}");
        let plain = NAMES
            .iter()
            .find(|(known, _)| *known == path)
            .map_or_else(|| pascal_case(singular(field)), |(_, name)| (*name).into());
        let taken = self.names.values().any(|name| *name == plain);
        let name = if taken { format!("{parent}{plain}") } else { plain };
        add(self, name.clone(), field, schema, shape)?;
        Ok(name)
    }
}

impl Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source.join("\n"))
    }
}

/// What makes two schemas one Rust type: fields, their types, which may be absent, and the values of enums.
fn shape(schema: &Value) -> String {
    let mut out = String::new();
    write_shape(schema, &mut out);
    out
}

fn write_shape(schema: &Value, out: &mut String) {
    out.push_str(match schema["type"].as_str() {
        Some("integer") => integer(schema),
        Some(other) => other,
        None => "any",
    });
    if let Some(values) = schema["enum"].as_array() {
        out.push_str(&Value::from(values.clone()).to_string());
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let required =
            schema["required"].as_array().is_some_and(|names| names.contains(&name.as_str().into()));
        out.push_str(&format!("({name}{}:", if required || !field["default"].is_null() { "" } else { "?" }));
        write_shape(field, out);
        out.push(')');
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            out.push('[');
            write_shape(&schema[inner], out);
            out.push(']');
        }
    }
}

/// The smallest unsigned type that holds the schema's range, else the signed one of its format.
fn integer(schema: &Value) -> &'static str {
    let minimum = schema["minimum"].as_i64();
    let maximum = schema["maximum"].as_i64();
    match (minimum, maximum) {
        (Some(0..), Some(..=65_535)) => "u16",
        (Some(0..), Some(_)) => "u32",
        _ if schema["format"] == "int64" => "i64",
        _ => "i32",
    }
}

fn singular(name: &str) -> &str {
    match name {
        "addresses" => "address",
        _ => name.strip_suffix('s').filter(|_| !name.ends_with("ls")).unwrap_or(name),
    }
}

fn pascal_case(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (index, char) in name.chars().enumerate() {
        let after_lower = index > 0 && name.as_bytes()[index - 1].is_ascii_lowercase();
        if char.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        out.push(char.to_ascii_lowercase());
    }
    out
}
