//! One document to one object, or to several if it is a `List`.

use std::num::NonZero;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread::ScopedJoinHandle;

use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::place::{Place, problem};
use super::yaml::{self, Chunk};
use super::{Content, Document, Problem};
use crate::api::{Kind, ObjectKey};
use crate::schema::{Failure, KindSchema};

/// Largest text that is looked at, in bytes: 10 000 routes with their backends take about 20 MB.
const MAX_TEXT: usize = 256 << 20;

/// Bytes for which a thread is worth its while: some milliseconds of work.
const LEAST_SHARE: usize = 64 << 10;

/// Reads every document of a text, in their order.
pub fn parse(text: &str) -> Vec<Document> {
    if text.len() > MAX_TEXT {
        let message =
            format!("{} MiB of manifests in one text, more than {}", text.len() >> 20, MAX_TEXT >> 20);
        return vec![invalid(
            1,
            0..0,
            None,
            problem(1, "document", "", message, "split it into several files"),
        )];
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let chunks = yaml::chunks(text);
    let shares = shares(&chunks, text.len());
    if shares.len() <= 1 {
        return chunks.iter().flat_map(documents).collect();
    }
    // Documents do not depend on each other, and ten thousand routes take a second of one processor.
    std::thread::scope(|scope| {
        let parse =
            |share| move || -> Vec<Document> { <[Chunk<'_>]>::iter(share).flat_map(documents).collect() };
        let shares: Vec<_> = shares.into_iter().map(|share| scope.spawn(parse(share))).collect();
        let parsed =
            |share: ScopedJoinHandle<'_, _>| share.join().unwrap_or_else(|panic| resume_unwind(panic));
        shares.into_iter().flat_map(parsed).collect()
    })
}

/// A part for each processor, equal in bytes: one Gateway may be as long as a hundred routes.
fn shares<'a, 'b>(chunks: &'a [Chunk<'b>], length: usize) -> Vec<&'a [Chunk<'b>]> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = length.div_ceil(threads).max(LEAST_SHARE);
    chunks.chunk_by(|one, next| one.span.start / share == next.span.start / share).collect()
}

fn documents(chunk: &Chunk<'_>) -> Vec<Document> {
    let (value, begin) = match yaml::value(chunk.text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let line = chunk.line + error.line - 1;
            let key = guessed_key(chunk.text);
            let object = key.as_ref().map_or_else(|| "document".to_owned(), ToString::to_string);
            let problem = problem(line, &object, "", error.message, "correct the YAML there");
            return vec![invalid(chunk.line, chunk.span.clone(), key, problem)];
        }
    };
    let place = Place::new(chunk.clone());
    match value {
        Value::Null => Vec::new(),
        Value::Object(mut fields) if is_list(&fields) => {
            let Some(Value::Array(items)) = fields.remove("items") else { return Vec::new() };
            let items = items.into_iter().enumerate();
            let item = |(index, item)| {
                let root = format!("/items/{index}");
                document(item, &root, place.line(&root), &place)
            };
            items.map(item).collect()
        }
        value => vec![document(value, "", chunk.line + begin - 1, &place)],
    }
}

/// `kind: List`, or the typed list that `kubectl get -o yaml` gives.
fn is_list(fields: &Map<String, Value>) -> bool {
    fields.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
        && fields.get("items").is_some_and(Value::is_array)
}

/// The object that begins on a line.
fn document(value: Value, root: &str, line: u32, place: &Place<'_>) -> Document {
    let span = place.chunk.span.clone();
    let Value::Object(mut fields) = value else {
        let failure = Failure::new("", "it is not an object", "give apiVersion, kind, metadata and spec");
        return invalid(line, span, None, place.problem(root, "document", failure));
    };
    let (api_version, kind) = match (text(&fields, "apiVersion"), text(&fields, "kind")) {
        (Some(api_version), Some(kind)) => (api_version.to_owned(), kind.to_owned()),
        (api_version, _) => {
            let field = if api_version.is_none() { "apiVersion" } else { "kind" };
            let failure = Failure::new("", format!("{field} is missing"), "say what kind of object this is");
            let problem = Problem { field: field.into(), ..place.problem(root, "document", failure) };
            return invalid(line, span, None, problem);
        }
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(schema) = KindSchema::find(group, &kind) else {
        let content = Content::Skipped(shown(&kind, &fields));
        return Document { line, span, key: None, content };
    };
    set_namespace(schema.kind, &mut fields);
    let key = key(schema.kind, &fields);
    let object = key.as_ref().map_or_else(|| shown(&kind, &fields), ToString::to_string);
    let failures = match schema.version_failure(version) {
        Some(failure) => Err(vec![failure]),
        None => schema.object(fields),
    };
    let content = match failures {
        Ok(object) => Content::Object(object),
        Err(failures) => Content::Invalid(
            failures.into_iter().map(|failure| place.problem(root, &object, failure)).collect(),
        ),
    };
    Document { line, span, key, content }
}

fn set_namespace(kind: Kind, fields: &mut Map<String, Value>) {
    let Some(Value::Object(metadata)) = fields.get_mut("metadata") else { return };
    let absent = metadata.get("namespace").is_none_or(|namespace| namespace.is_null() || namespace == "");
    if absent {
        metadata.remove("namespace");
    }
    if kind.namespaced() && absent {
        metadata.insert("namespace".into(), "default".into());
    }
}

fn key(kind: Kind, fields: &Map<String, Value>) -> Option<ObjectKey> {
    let metadata = fields.get("metadata")?.as_object()?;
    let namespace = if kind.namespaced() { text(metadata, "namespace")? } else { "" };
    Some(ObjectKey { kind, namespace: namespace.into(), name: text(metadata, "name")?.into() })
}

/// Which object a document that is no YAML was meant to be, from the lines that people write it with: so its last
/// good state can be kept.
fn guessed_key(text: &str) -> Option<ObjectKey> {
    let after = |line: &str, name: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| SmolStr::new(value))
    };
    let lines = || text.lines().map(str::trim_end);
    let kind = lines().find_map(|line| after(line, "kind"))?;
    let group = lines().find_map(|line| after(line, "apiVersion"))?;
    let kind = KindSchema::find(group.split_once('/').map_or("", |(group, _)| group), &kind)?.kind;
    let metadata = || {
        lines()
            .skip_while(|line| *line != "metadata:")
            .skip(1)
            .take_while(|line| line.starts_with([' ', '\t']))
    };
    let field = |name| metadata().find_map(|line| after(line.trim_start(), name));
    let namespace = match kind.namespaced() {
        true => field("namespace").unwrap_or_else(|| "default".into()),
        false => SmolStr::default(),
    };
    Some(ObjectKey { kind, namespace, name: field("name")? })
}

fn shown(kind: &str, fields: &Map<String, Value>) -> String {
    let metadata = fields.get("metadata").and_then(Value::as_object);
    let of = |name| metadata.and_then(|metadata| text(metadata, name));
    match (of("namespace"), of("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        _ => kind.to_owned(),
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn invalid(line: u32, span: Range<usize>, key: Option<ObjectKey>, problem: Problem) -> Document {
    Document { line, span, key, content: Content::Invalid(vec![problem]) }
}
