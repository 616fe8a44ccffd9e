//! Which namespaces a listener or a Gateway lets in, and what a selector selects.

use smol_str::SmolStr;

use crate::api::{Kind, MatchExpression, ObjectKey, Selector};
use crate::snapshot::Snapshot;

/// The label that every namespace has, its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Which namespaces are let in.
#[derive(Clone, Copy)]
pub enum NamespaceRule<'a> {
    /// Every one.
    All,
    /// The one of the object that says so.
    Same,
    /// None.
    None,
    /// Those whose labels match.
    Selector(&'a Selector),
}

/// `from: Selector` without a selector selects nothing: the API demands one there.
pub fn selected(selector: Option<&Selector>) -> NamespaceRule<'_> {
    selector.map_or(NamespaceRule::None, NamespaceRule::Selector)
}

impl NamespaceRule<'_> {
    /// Whether an object of `namespace` is let in by one of `own`.
    pub fn allows(&self, snapshot: &Snapshot, own: &str, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Same => own == namespace,
            Self::None => false,
            Self::Selector(selector) => selects(selector, |key| label(snapshot, namespace, key)),
        }
    }
}

/// What is wrong with a selector, which a schema cannot say.
pub fn selector_fault(selector: &Selector) -> Option<String> {
    selector.match_expressions.iter().enumerate().find_map(|(index, expression)| {
        let fault = match expression.operator.as_str() {
            "In" | "NotIn" if expression.values.is_empty() => "needs values",
            "Exists" | "DoesNotExist" if !expression.values.is_empty() => "takes no values",
            "In" | "NotIn" | "Exists" | "DoesNotExist" => return None,
            _ => "is unknown: use In, NotIn, Exists or DoesNotExist",
        };
        Some(format!("selector.matchExpressions[{index}].operator {} {fault}", expression.operator))
    })
}

/// `metav1.LabelSelector`: all of its requirements hold of what `label` says.
pub fn selects<'a>(selector: &Selector, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    selector.match_labels.iter().all(|(key, value)| label(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| holds(expression, label(&expression.key)))
}

fn holds(expression: &MatchExpression, value: Option<&str>) -> bool {
    let among = value.is_some_and(|value| expression.values.iter().any(|other| other == value));
    match expression.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

fn label<'a>(snapshot: &'a Snapshot, namespace: &'a str, label: &str) -> Option<&'a str> {
    if label == NAME_LABEL {
        return Some(namespace);
    }
    let key = ObjectKey { kind: Kind::Namespace, namespace: SmolStr::default(), name: namespace.into() };
    snapshot.namespaces.get(&key)?.metadata.labels.get(label)
}
