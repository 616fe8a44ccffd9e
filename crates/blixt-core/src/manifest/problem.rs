//! What is wrong with a manifest, so that its author finds the place and the way out.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Problem {
    /// The line of the field, from 1.
    pub line: u32,
    /// The object, as far as it could be read: `Gateway default/web`, or `document` where nothing could.
    pub object: String,
    /// The field, as a path: `spec.listeners[0].port`; empty for the document as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub next: String,
}

/// `line 7: Gateway default/web: spec.listeners[0].port: 70000 is too large: give a port from 1 to 65535`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: ", self.line, self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.message)?;
        if self.next.is_empty() { Ok(()) } else { write!(f, ": {}", self.next) }
    }
}
