//! Bars that are known to be missed, each with a measured explanation: a page of the documentation, which the output repeats.
//!
//! ```text
//! ## What a line is called
//!
//! Why it misses its bar, in figures.
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::line::Line;

/// Explanations, by what their lines are called.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Misses(BTreeMap<String, String>);

/// The page, beside those that benchmarks write; this one is written by people.
const PAGE: &str = "misses.md";

impl Misses {
    /// Those of the page in the directory where results are written; none where there is no page.
    pub fn beside_results(directory: &Path) -> Result<Self, Error> {
        let page = directory.join(PAGE);
        match fs::read_to_string(&page) {
            Ok(text) => Ok(Self::read(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::new(error.kind(), format!("{}: {error}", page.display()))),
        }
    }

    /// The sections of a page. One without a word explains nothing.
    pub fn read(text: &str) -> Self {
        let sections = text.split("\n## ").skip(1).filter_map(|section| {
            let (what, why) = section.split_once('\n')?;
            let why = why.trim();
            (!why.is_empty()).then(|| (what.trim().to_owned(), why.to_owned()))
        });
        Self(sections.collect())
    }

    /// Why a line misses its bar, if it does and that is known.
    pub fn why(&self, line: &Line) -> Option<&str> {
        if line.is_held() { None } else { self.0.get(line.what).map(String::as_str) }
    }

    /// Whether each line holds its bar, or misses it for a known reason.
    pub fn excuse(&self, lines: &[Line]) -> bool {
        lines.iter().all(|line| line.is_held() || self.why(line).is_some())
    }

    /// Every line that misses its bar, with the reason.
    pub fn said(&self, lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines.iter().filter(|line| !line.is_held()) {
            let why = self.why(line).unwrap_or("nobody has explained it yet");
            let _ = writeln!(text, "MISSED: {}\n{why}\n", line.what);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Bar;

    const TEXT: &str =
        "# Bars that are missed\n\nWhat this is.\n\n## a\n\nIt costs 3 ns.\nAnd 4.\n\n## b\n\n## c\nWhy.\n";

    fn line(what: &'static str, measured: f64) -> Line {
        Line { what, unit: "x", bar: Bar::AtMost(2.0), stretch: None, rounds: vec![measured], parts: vec![] }
    }

    #[test]
    fn a_miss_is_excused_by_a_section_of_its_name_that_says_something() {
        let misses = Misses::read(TEXT);
        assert_eq!(misses.why(&line("a", 3.0)), Some("It costs 3 ns.\nAnd 4."));
        assert_eq!(misses.why(&line("a", 1.0)), None);
        for (what, is_excused) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            assert_eq!(misses.excuse(&[line("z", 1.0), line(what, 3.0)]), is_excused, "{what}");
        }
    }

    #[test]
    fn the_output_names_every_miss_and_repeats_its_reason() {
        let said = Misses::read(TEXT).said(&[line("a", 3.0), line("c", 1.0), line("d", 3.0)]);
        assert_eq!(said, "MISSED: a\nIt costs 3 ns.\nAnd 4.\n\nMISSED: d\nnobody has explained it yet\n\n");
    }
}
