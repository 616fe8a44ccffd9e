//! YAML (or JSON) to objects: split into documents, parsed with positions, checked against the schemas, made typed.
//!
//! A document that is wrong does not spoil its neighbours. Nothing here reads a file: the caller knows
//! the names, and joins them to the lines.

mod document;
mod place;
mod problem;
mod yaml;

use std::ops::Range;

pub use document::parse;
pub use place::FieldLines;
pub use problem::Problem;

pub use crate::schema::typed;

use crate::api::{Object, ObjectKey};

/// One YAML document, or one item of a `List`.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// The line that it starts on, from 1.
    pub line: u32,
    /// The bytes of the text that it was read from; items of one `List` share them.
    pub span: Range<usize>,
    /// Who it is, if that much could be read.
    pub key: Option<ObjectKey>,
    /// What came of it.
    pub content: Content,
}

/// What came of a document.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// A valid object.
    Object(Object),
    /// An object of a kind that Blixt does not read, shown as `ConfigMap default/name`.
    Skipped(String),
    /// It is not valid: every reason that was found, at least one.
    Invalid(Vec<Problem>),
}
