//! Which field of an object a condition speaks of, and where it is written. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use blixt_core::api::{Kind, Listener, Object, ObjectKey};
use blixt_core::manifest::FieldLines;
use blixt_core::status::{Condition, parent_part};

use crate::source::Loaded;
use crate::source::store::Store;

/// Where the fields of what was read are written.
pub struct Places<'a> {
    /// The objects.
    pub store: &'a Store,
    lines: BTreeMap<&'a Path, FieldLines<'a>>,
}

impl<'a> Places<'a> {
    /// Of files that were read.
    pub fn new(loaded: &'a Loaded) -> Self {
        let Loaded { store, texts } = loaded;
        Self {
            store,
            lines: texts.iter().map(|(path, text)| (path.as_path(), FieldLines::new(text))).collect(),
        }
    }

    /// The line of a field, or of the nearest one around it that is written down.
    pub fn line(&self, key: &ObjectKey, field: &str) -> Option<u32> {
        let mut field = field;
        loop {
            if let Some(line) = self.exact_line(key, field) {
                return Some(line);
            }
            field = &field[..field.rfind(['.', '['])?];
        }
    }

    /// The field that a condition speaks of: that of the part which it belongs to, or one in it that its message begins
    /// with. Empty for the object as a whole.
    pub fn field(&self, key: &ObjectKey, part: &str, condition: &Condition) -> String {
        let of_part = self.part(key, part).unwrap_or_default();
        let first = condition.message.split(' ').next().unwrap_or_default().trim_end_matches(':');
        if first.starts_with("spec.") {
            return first.to_owned();
        }
        if part.is_empty() && condition.reason.contains("Address") {
            return "spec.addresses".to_owned();
        }
        let within = format!("{of_part}.{first}");
        if !of_part.is_empty() && self.exact_line(key, &within).is_some() { within } else { of_part }
    }

    fn exact_line(&self, key: &ObjectKey, field: &str) -> Option<u32> {
        let origin = self.store.origin(key)?;
        self.lines.get(&*origin.file)?.line(origin.line, field)
    }

    /// The field of a listener or of a parentRef, by what the status calls it.
    fn part(&self, key: &ObjectKey, part: &str) -> Option<String> {
        let snapshot = &self.store.snapshot;
        if let Some(name) = part.strip_prefix("listener ") {
            let listeners: &[Listener] = match key.kind {
                Kind::Gateway => &snapshot.gateways.get(key)?.spec.listeners,
                _ => &snapshot.listener_sets.get(key)?.spec.listeners,
            };
            let index = listeners.iter().position(|listener| listener.name == name)?;
            return Some(format!("spec.listeners[{index}]"));
        }
        let Object::L4Route(route) = snapshot.get(key)? else { return None };
        let references = &route.spec.parent_refs;
        let index = references.iter().position(|reference| parent_part(reference) == part)?;
        Some(format!("spec.parentRefs[{index}]"))
    }
}
