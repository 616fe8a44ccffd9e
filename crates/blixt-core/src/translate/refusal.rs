//! Why something is not so: a reason of the API and a sentence for people.

use std::borrow::Borrow;

/// Why something is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// A reason that the Gateway API knows, where it knows one.
    pub reason: &'static str,
    /// What is wrong, with what, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Messages have an end: the first few entries of a list, and how many there are more.
pub fn some<T: Borrow<str>>(entries: &[T], separator: &str) -> String {
    const SHOWN: usize = 12;
    let shown = entries[..entries.len().min(SHOWN)].join(separator);
    match entries.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}
