//! Why something is not so: a reason of the API and a sentence for people.

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
