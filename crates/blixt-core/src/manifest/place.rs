//! Where the fields of a document stand in its text.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::Problem;
use super::yaml::{self, Chunk};
use crate::schema::Failure;

/// A document, and where its fields stand: found out only when something is wrong.
pub(super) struct Place<'a> {
    pub(super) chunk: &'a Chunk<'a>,
    lines: OnceCell<BTreeMap<String, u32>>,
}

impl<'a> Place<'a> {
    pub(super) fn new(chunk: &'a Chunk<'a>) -> Self {
        Self { chunk, lines: OnceCell::new() }
    }

    /// The line of a field, or of the nearest field around it that is written down.
    pub(super) fn line(&self, pointer: &str) -> u32 {
        let mut pointer = pointer;
        loop {
            if let Some(line) = self.exact_line(pointer) {
                return line;
            }
            let Some(end) = pointer.rfind('/') else { return self.chunk.line };
            pointer = &pointer[..end];
        }
    }

    /// The line of a field that is written down.
    fn exact_line(&self, pointer: &str) -> Option<u32> {
        Some(self.chunk.line + self.lines().get(pointer)? - 1)
    }

    fn lines(&self) -> &BTreeMap<String, u32> {
        self.lines.get_or_init(|| yaml::lines(self.chunk.text))
    }

    pub(super) fn problem(&self, root: &str, object: &str, failure: Failure) -> Problem {
        let line = self.line(&format!("{root}{}", failure.pointer));
        problem(line, object, &field_path(&failure.pointer), failure.message, failure.next)
    }
}

pub(super) fn problem(
    line: u32,
    object: &str,
    field: &str,
    message: impl Into<String>,
    next: impl Into<String>,
) -> Problem {
    Problem { line, object: object.into(), field: field.into(), message: message.into(), next: next.into() }
}

/// Where the fields of the objects in one text stand.
pub struct FieldLines<'a> {
    chunks: Vec<Chunk<'a>>,
}

impl<'a> FieldLines<'a> {
    /// Of the text of a file.
    pub fn new(text: &'a str) -> Self {
        Self { chunks: yaml::chunks(text.strip_prefix('\u{feff}').unwrap_or(text)) }
    }

    /// The line of a field, such as `spec.listeners[0].port`, of the object that begins on line `begin`; nothing if
    /// it is not written down there.
    pub fn line(&self, begin: u32, field: &str) -> Option<u32> {
        let next = self.chunks.partition_point(|chunk| chunk.line <= begin);
        let place = Place::new(self.chunks.get(next.checked_sub(1)?)?);
        let root = if place.line("") == begin { Some(String::new()) } else { item(&place, begin) };
        place.exact_line(&format!("{}{}", root?, pointer(field)))
    }
}

/// Of a `List`, the item that begins on a line.
fn item(place: &Place<'_>, begin: u32) -> Option<String> {
    let is_item = |pointer: &&String| {
        let index = pointer.strip_prefix("/items/");
        index.is_some_and(|index| !index.contains('/')) && place.exact_line(pointer) == Some(begin)
    };
    place.lines().keys().find(is_item).cloned()
}

/// `/spec/listeners/0/port` as people write it: `spec.listeners[0].port`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for step in pointer.split('/').skip(1) {
        if step.bytes().all(|byte| byte.is_ascii_digit()) && !step.is_empty() {
            path.push_str(&format!("[{step}]"));
            continue;
        }
        let step = step.replace("~1", "/").replace("~0", "~");
        if step.contains(['.', '/']) {
            path.push_str(&format!("[{step}]"));
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(&step);
        }
    }
    path
}

/// The other way round: `spec.listeners[0].port` is `/spec/listeners/0/port`.
fn pointer(field: &str) -> String {
    let mut pointer = String::new();
    let mut rest = field;
    while !rest.is_empty() {
        let bracketed = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'));
        let step;
        (step, rest) = bracketed.unwrap_or_else(|| {
            let plain = rest.strip_prefix('.').unwrap_or(rest);
            plain.split_at(plain.find(['.', '[']).unwrap_or(plain.len()))
        });
        pointer.push('/');
        pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# two documents
apiVersion: v1
kind: Service
metadata:
  labels:
    example.com/of: nobody
spec:
  ports:
    - port: 80
    - port: 81
---
apiVersion: v1
kind: List
items:
  - kind: Service
    spec: { ports: [] }
  - kind: Service
    spec:
      sessionAffinity: ClientIP
";

    #[test]
    fn fields_of_documents_and_of_items_of_lists_are_found() {
        let lines = FieldLines::new(TEXT);
        for (begin, field, expected) in [
            (2, "spec.ports[1].port", Some(10)),
            (2, "metadata.labels[example.com/of]", Some(6)),
            (2, "spec.type", None),
            (17, "spec.sessionAffinity", Some(19)),
            (15, "spec.sessionAffinity", None),
            (15, "spec.ports", Some(16)),
            (1, "spec", None),
        ] {
            assert_eq!(lines.line(begin, field), expected, "{begin}: {field}");
        }
    }

    #[test]
    fn a_path_and_its_pointer_are_the_same_field() {
        for pointer_text in ["", "/spec/listeners/0/port", "/metadata/labels/a.b~1c", "/items/3"] {
            assert_eq!(pointer(&field_path(pointer_text)), pointer_text);
        }
    }
}
