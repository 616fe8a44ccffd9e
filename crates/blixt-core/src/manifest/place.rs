//! Where the fields of a document stand in its text.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::Problem;
use super::yaml::{self, Chunk};
use crate::schema::Failure;

/// A document, and where its fields stand: found out only when something is wrong.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) chunk: Chunk<'a>,
    lines: OnceCell<BTreeMap<String, u32>>,
    /// Of a `List`, the pointer of each item by the line that it begins on.
    items: OnceCell<BTreeMap<u32, String>>,
}

impl<'a> Place<'a> {
    pub(super) fn new(chunk: Chunk<'a>) -> Self {
        Self { chunk, lines: OnceCell::new(), items: OnceCell::new() }
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

    /// The pointer of the object that begins on a line: the document itself, or an item of it.
    fn root(&self, begin: u32) -> Option<&str> {
        if self.line("") == begin {
            return Some("");
        }
        let items = self.items.get_or_init(|| {
            let is_item =
                |pointer: &str| pointer.strip_prefix("/items/").is_some_and(|index| !index.contains('/'));
            let items = self.lines().iter().filter(|(pointer, _)| is_item(pointer));
            items.map(|(pointer, line)| (self.chunk.line + line - 1, pointer.clone())).collect()
        });
        items.get(&begin).map(String::as_str)
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
#[derive(Debug)]
pub struct FieldLines<'a> {
    places: Vec<Place<'a>>,
}

impl<'a> FieldLines<'a> {
    /// Of the text of a file.
    pub fn new(text: &'a str) -> Self {
        let chunks = yaml::chunks(text.strip_prefix('\u{feff}').unwrap_or(text));
        Self { places: chunks.into_iter().map(Place::new).collect() }
    }

    /// The line of a field, such as `spec.listeners[0].port`, of the object that begins on line `begin`; nothing if
    /// it is not written down there.
    pub fn line(&self, begin: u32, field: &str) -> Option<u32> {
        let next = self.places.partition_point(|place| place.chunk.line <= begin);
        let place = self.places.get(next.checked_sub(1)?)?;
        place.exact_line(&format!("{}{}", place.root(begin)?, pointer(field)))
    }
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
