//! YAML text to JSON values: documents are cut at their markers first, so that a syntax error stays in its
//! document. Lines of fields are found by a second pass, and only if somebody asks.

use std::collections::BTreeMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Number, Value};

/// Deepest nesting: the Gateway API needs about 10.
const MAX_DEPTH: usize = 64;

/// Values that aliases may copy into one document: enough for any hand, too few for a bomb.
const MAX_COPIES: usize = 10_000;

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Chunk<'a> {
    /// Its text, without the marker.
    pub text: &'a str,
    /// Where in the whole text it is.
    pub span: Range<usize>,
    /// The line of the whole text on which it starts, from 1.
    pub line: u32,
}

/// Why a document is not YAML that Blixt reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyntaxError {
    /// Line in the document, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Cuts a text at its document markers. Chunks that hold nothing but comments are left out.
pub fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut empty = true;
    let mut at = 0;
    for (line_number, line) in (1..).zip(text.split_inclusive('\n')) {
        let marker = ["---", "..."].iter().any(|marker| line.starts_with(marker))
            && line[3..].chars().next().is_none_or(char::is_whitespace);
        if marker {
            if !empty {
                chunks.push(Chunk { text: &text[start..at], span: start..at, line: start_line });
            }
            start = at + 3;
            start_line = line_number;
            empty = line[3..].trim_start().is_empty() || line[3..].trim_start().starts_with('#');
        } else if !line.trim().is_empty()
            && !line.starts_with(['#', '%'])
            && !line.trim_start().starts_with('#')
        {
            empty = false;
        }
        at += line.len();
    }
    if !empty {
        chunks.push(Chunk { text: &text[start..], span: start..text.len(), line: start_line });
    }
    chunks
}

/// Parses one document. Says as well on which of its lines, from 1, the value begins.
pub fn value(text: &str) -> Result<(Value, u32), SyntaxError> {
    Composer::new(text, None).document().map(|(value, begin, _)| (value, begin))
}

/// The line in the document of each field, by JSON pointer; of a mapping's entry it is the line of its key.
pub fn lines(text: &str) -> BTreeMap<String, u32> {
    Composer::new(text, Some(BTreeMap::new())).document().map(|(_, _, lines)| lines).unwrap_or_default()
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, (Value, usize)>,
    copies: usize,
    nodes: usize,
    lines: Option<BTreeMap<String, u32>>,
    path: String,
}

impl<'a> Composer<'a> {
    fn new(text: &'a str, lines: Option<BTreeMap<String, u32>>) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            anchors: BTreeMap::new(),
            copies: 0,
            nodes: 0,
            lines,
            path: String::new(),
        }
    }

    fn document(mut self) -> Result<(Value, u32, BTreeMap<String, u32>), SyntaxError> {
        let (mut value, mut begin) = (Value::Null, 1);
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => return Ok((value, begin, self.lines.unwrap_or_default())),
                event => (value, begin) = (self.node(event, span, 0)?, line_of(span)),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Value, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(lines) = &mut self.lines {
            lines.entry(self.path.clone()).or_insert(line_of(span));
        }
        let before = self.nodes;
        self.nodes += 1;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
                    return Err(error(span, format!("the tag {tag} means nothing here")));
                }
                (
                    if style == ScalarStyle::Plain { plain(&text) } else { Value::String(text.into_owned()) },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span),
            other => return Err(error(span, format!("unexpected {other:?}"))),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), self.nodes - before));
        }
        Ok(value)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => {
                    let length = self.enter(|| items.len().to_string());
                    items.push(self.node(event, span, depth + 1)?);
                    self.path.truncate(length);
                }
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut fields = Map::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Object(fields)),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(error(span, "a key must be a plain word".into())),
            };
            let length = self.enter(|| key.replace('~', "~0").replace('/', "~1"));
            if let Some(lines) = &mut self.lines {
                lines.insert(self.path.clone(), line_of(span));
            }
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            self.path.truncate(length);
            if key == "<<" {
                return Err(error(
                    span,
                    "merge keys (<<) are not part of YAML 1.2: write the fields out".into(),
                ));
            }
            if fields.contains_key(&key) {
                return Err(error(span, format!("the key {key} is there twice: keep one")));
            }
            fields.insert(key, value);
        }
    }

    /// A copy of what an anchor names. Copies are counted by their size, so nested ones cannot explode.
    fn alias(&mut self, anchor: usize, span: Span) -> Result<Value, SyntaxError> {
        let Some((value, size)) = self.anchors.get(&anchor) else {
            return Err(error(span, "an alias inside of what it names".into()));
        };
        self.copies += size;
        self.nodes += size;
        if self.copies > MAX_COPIES {
            return Err(error(span, format!("aliases copy more than {MAX_COPIES} values: write them out")));
        }
        Ok(value.clone())
    }

    /// Appends a step to the path if lines are wanted; gives the length to go back to.
    fn enter(&mut self, step: impl FnOnce() -> String) -> usize {
        let length = self.path.len();
        if self.lines.is_some() {
            self.path.push('/');
            self.path.push_str(&step());
        }
        length
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }
}

/// The core schema of YAML 1.2: what has no quotes may be null, a truth value or a number.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return Value::String(text.to_owned());
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(Number::from(number));
    }
    let float = text.chars().all(|char| char.is_ascii_digit() || "+-.eE".contains(char));
    float.then(|| text.parse::<f64>().ok().and_then(Number::from_f64)).flatten()
}

fn scan_error(error: &ScanError) -> SyntaxError {
    SyntaxError {
        line: u32::try_from(error.marker().line()).unwrap_or(u32::MAX),
        message: error.info().to_owned(),
    }
}

fn error(span: Span, message: String) -> SyntaxError {
    SyntaxError { line: line_of(span), message }
}

fn line_of(span: Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_cut_at_its_markers_and_comments_are_no_documents() {
        let text = "# only a comment\n---\na: 1\n--- # note\n\n---\nb: '--- x'\n...\n# end\n";
        let found: Vec<(u32, Value)> =
            chunks(text).iter().map(|chunk| (chunk.line, value(chunk.text).expect("yaml").0)).collect();
        assert_eq!(found, [(2, json!({"a": 1})), (6, json!({"b": "--- x"}))]);
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = "[yes, 'true', true, 010, 0x10, 1.5, ~, 1.2.3, 2026-01-01T00:00:00Z, 12e03, -7]";
        assert_eq!(
            value(text).expect("yaml").0,
            json!(["yes", "true", true, 10, 16, 1.5, null, "1.2.3", "2026-01-01T00:00:00Z", 12_000.0, -7])
        );
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let found = lines("\na:\n  - b: 1\n    c: 2\n  - x/y: 3\n");
        let expected = [("/a", 2), ("/a/0", 3), ("/a/0/b", 3), ("/a/0/c", 4), ("/a/1", 5), ("/a/1/x~1y", 5)];
        for (path, line) in expected {
            assert_eq!(found.get(path), Some(&line), "{path}");
        }
    }

    #[test]
    fn a_value_begins_where_its_lines_say() {
        for text in [
            "a: 1\n",
            "\n# note\n\na: 1\n",
            "- 1\n",
            "\n{a: 1}",
            "# note\n&x {a: 1}",
            "!!map\na: 1",
            " # note\n \"a\": 1",
        ] {
            let (_, begin) = value(text).expect("yaml");
            assert_eq!(lines(text).get(""), Some(&begin), "{text:?}");
        }
    }

    #[test]
    fn bombs_of_aliases_and_of_nesting_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let copies = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{copies}]\n"));
        }
        assert!(value(&bomb).expect_err("a bomb").message.contains("aliases copy more than"));
        assert!(value(&"[".repeat(200)).is_err());
        assert!(value(&"- ".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a-c:{}\\[\\]&*!|>'\"#%@, \n\t~.0-9]{0,200}") {
            for chunk in chunks(&text) {
                let _ = value(chunk.text);
                let _ = lines(chunk.text);
            }
        }
    }
}
