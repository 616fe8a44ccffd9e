//! One thing that is wrong with a value, in words that name the way out.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// One thing that is wrong with a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The field, as a JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub next: String,
}

impl Failure {
    /// A failure at a place.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into(), next: next.into() }
    }

    /// The same of a value that is a step further inside.
    pub fn below(self, step: impl std::fmt::Display) -> Self {
        Self { pointer: format!("/{step}{}", self.pointer), ..self }
    }

    /// The same without what was found in the field, for objects whose values nobody may see.
    pub fn without_value(self) -> Self {
        if self.pointer.is_empty() || self.message.starts_with("unknown field") {
            return self;
        }
        Self { message: "it is not of the kind that belongs there".into(), ..self }
    }

    /// What a schema found, in our words; several unknown fields are several failures.
    pub fn of(error: &ValidationError<'_>) -> Vec<Self> {
        let pointer = error.instance_path().as_str().to_owned();
        let one = |message: String, next: &str| vec![Self::new(pointer.clone(), message, next)];
        let found = short(error.instance());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
                .iter()
                .map(|name| {
                    let step = name.replace('~', "~0").replace('/', "~1");
                    Self::new(
                        format!("{pointer}/{step}"),
                        format!("unknown field {name}"),
                        "remove it, or correct its spelling",
                    )
                })
                .collect(),
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                vec![Self::new(format!("{pointer}/{name}"), format!("{name} is missing"), "add it")]
            }
            ValidationErrorKind::Type { .. } => one(error.to_string(), "give a value of that type"),
            ValidationErrorKind::Enum { options } => {
                let options: Vec<String> = options.as_array().into_iter().flatten().map(short).collect();
                one(
                    format!("{found} is none of the known values"),
                    &format!("use one of {}", options.join(", ")),
                )
            }
            ValidationErrorKind::Maximum { limit } => {
                one(format!("{found} is too large"), &format!("give at most {limit}"))
            }
            ValidationErrorKind::Minimum { limit } => {
                one(format!("{found} is too small"), &format!("give at least {limit}"))
            }
            ValidationErrorKind::MaxItems { limit } => {
                one("too many entries".into(), &format!("keep at most {limit}"))
            }
            ValidationErrorKind::MinItems { limit } => {
                one("too few entries".into(), &format!("give at least {limit}"))
            }
            ValidationErrorKind::MaxLength { limit } => {
                one(format!("{found} is too long"), &format!("keep to {limit} characters"))
            }
            ValidationErrorKind::MinLength { limit } => {
                one(format!("{found} is too short"), &format!("give at least {limit} characters"))
            }
            ValidationErrorKind::Pattern { pattern } => one(
                format!("{found} has characters or a form that are not allowed"),
                &format!("match {pattern}"),
            ),
            ValidationErrorKind::OneOfNotValid { .. } | ValidationErrorKind::AnyOf { .. }
                if error.instance().get("type").is_some_and(|kind| kind == "IPAddress") =>
            {
                let address = short(&error.instance()["value"]);
                vec![Self::new(
                    format!("{pointer}/value"),
                    format!("{address} is no IP address"),
                    "give an IPv4 or IPv6 address",
                )]
            }
            _ => one(error.to_string(), "compare it with the reference of the Gateway API"),
        }
    }
}

/// A value as it would be written, cut where it gets long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
