//! The CEL rules of the schemas (`x-kubernetes-validations`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value as Cel};
use serde_json::Value;

use super::Failure;
use super::shortcut::{Shortcut, shortcut};

/// A rule, and the fields that it speaks of.
pub struct Rule {
    /// From the root: names of fields, `[]` for each entry of a list.
    path: Vec<String>,
    message: String,
    program: Program,
    surely_holds: Option<Shortcut>,
}

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    environment
        .add_extension(cel::extensions::strings)
        .expect("the strings extension adds to the standard library");
    Arc::new(environment)
});

/// Every rule of a schema that can be decided from one version of an object: one that speaks of `oldSelf`
/// compares with the version before, which files do not keep.
pub fn rules_of(schema: &Value) -> Vec<Rule> {
    let mut rules = Vec::new();
    collect_rules(schema, &mut Vec::new(), &mut rules);
    rules
}

fn collect_rules(schema: &Value, path: &mut Vec<String>, rules: &mut Vec<Rule>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let source = rule["rule"].as_str().unwrap_or_default();
        if source.contains("oldSelf") {
            continue;
        }
        let program = ENVIRONMENT.compile(source).expect("the committed rules compile, a test says so");
        let message = rule["message"].as_str().unwrap_or(source).to_owned();
        rules.push(Rule { path: path.clone(), message, program, surely_holds: shortcut(source) });
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        collect_rules(schema, path, rules);
        path.pop();
    }
    if schema["items"].is_object() {
        path.push("[]".into());
        collect_rules(&schema["items"], path, rules);
        path.pop();
    }
}

impl Rule {
    /// Where in an object the rule does not hold.
    pub fn check(&self, object: &Value) -> Vec<Failure> {
        self.check_at(&self.path, object)
    }

    fn check_at(&self, path: &[String], value: &Value) -> Vec<Failure> {
        match (path.split_first(), value) {
            (None, value) => match self.holds(value) {
                Ok(()) => Vec::new(),
                Err(why) => {
                    let next = if why.is_empty() { "change it so that this holds" } else { &why };
                    vec![Failure::new("", self.message.clone(), next)]
                }
            },
            (Some((step, rest)), Value::Array(items)) if step == "[]" => {
                let below = |(index, item)| {
                    self.check_at(rest, item).into_iter().map(move |failure| failure.below(index))
                };
                items.iter().enumerate().flat_map(below).collect()
            }
            (Some((step, rest)), Value::Object(fields)) => {
                let inside = fields.get(step).map(|value| self.check_at(rest, value)).unwrap_or_default();
                inside.into_iter().map(|failure| failure.below(step)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// As with an API server, a rule that cannot be evaluated does not hold.
    fn holds(&self, value: &Value) -> Result<(), String> {
        if self.surely_holds.is_some_and(|surely_holds| surely_holds(value)) {
            return Ok(());
        }
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.add_variable_from_value("self", cel_value(value));
        match self.program.execute(&context) {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(_) => Err(String::new()),
            Err(error) => Err(format!("the rule cannot be evaluated: {error}")),
        }
    }
}

/// A value for CEL, with the one name of a field that is a reserved word there escaped as Kubernetes does it.
fn cel_value(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cel::Int(number),
            None => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(cel_value).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let name = if name == "namespace" { "__namespace__" } else { name };
                (Key::String(Arc::new(name.to_owned())), cel_value(value))
            });
            Cel::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) })
        }
    }
}
