//! `docs/tests.md`: which test proves which statement. Pure.
//!
//! Every row of a table is a statement and, in its last column, the tests that prove it, `a::{b, c}` for two of one
//! name; and golden files, told by their ending. A statement without a test stands as a list item under the
//! heading [`OPEN`], so that nothing looks proved that is not.

use crate::outcome::{Outcome, Outcomes};

/// The heading over what no test proves.
pub const OPEN: &str = "Not yet proved";

/// The directory of the golden files, from the root of the checkout.
pub const GOLDEN: &str = "crates/blixt-core/testdata";

/// The file, read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proofs {
    /// Statements with their tests.
    pub proved: Vec<Statement>,
    /// Statements without.
    pub open: Vec<String>,
}

/// What Blixt promises, and which tests prove it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// The heading that it stands under.
    pub section: String,
    /// The promise.
    pub text: String,
    /// Names of tests; never empty.
    pub tests: Vec<String>,
    /// Names of golden files that one of the tests reads.
    pub golden: Vec<String>,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// Reads the file. An error names the line.
pub fn parse(markdown: &str) -> Result<Proofs, String> {
    let mut proofs = Proofs::default();
    let mut section = "";
    for (line, text) in (1..).zip(markdown.lines()) {
        if let Some(heading) = text.strip_prefix('#') {
            section = heading.trim_start_matches('#').trim();
        } else if section == OPEN {
            proofs.open.extend(text.strip_prefix("- ").map(str::to_owned));
        } else if let Some((text, tests)) = row(text) {
            let (golden, tests): (Vec<_>, Vec<_>) = quoted(tests).partition(|name| name.ends_with(".yaml"));
            let tests: Vec<_> = tests.into_iter().flat_map(expand).collect();
            if tests.is_empty() {
                return Err(format!(
                    "line {line}: no test is named; a statement without one stands under `{OPEN}`"
                ));
            }
            proofs.proved.push(Statement {
                section: section.to_owned(),
                text: text.to_owned(),
                tests,
                golden: golden.into_iter().map(str::to_owned).collect(),
                line,
            });
        }
    }
    Ok(proofs)
}

/// Tests and golden files that the file names and that did not pass or are not there, each with what became of it.
pub fn unproved(proofs: &Proofs, outcomes: &Outcomes, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut unproved = Vec::new();
    for statement in &proofs.proved {
        for test in &statement.tests {
            let became = match outcomes.tests.get(test) {
                Some(Outcome::Passed) => continue,
                Some(Outcome::Failed) => "failed",
                Some(Outcome::Ignored) => "did not run",
                None => "does not exist",
            };
            unproved.push(format!("line {}: `{test}` {became}: {}", statement.line, statement.text));
        }
        for file in statement.golden.iter().filter(|file| !exists(file)) {
            unproved.push(format!("line {}: `{file}` does not exist: {}", statement.line, statement.text));
        }
    }
    unproved
}

/// First and last cell of a table's row; nothing for its head, which comes before a line of dashes.
fn row(line: &str) -> Option<(&str, &str)> {
    let cells = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let (text, tests) = cells.rsplit_once('|')?;
    let (text, tests) = (text.trim(), tests.trim());
    let ruler = text.chars().all(|letter| "-: |".contains(letter));
    (!ruler && tests != "Test").then_some((text, tests))
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `a::{b, c}` is `a::b` and `a::c`.
fn expand(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    let Some((choices, after)) = rest.split_once('}') else { return vec![name.to_owned()] };
    choices.split(',').flat_map(|choice| expand(&format!("{before}{}{after}", choice.trim()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# Tests

Words.

## Packets

| Statement | Test |
|---|---|
| UDP is sticky | `blixt::netns::udp`, `blixt_packet::flow::tests::udp` |
| Half-close works | `blixt::netns::half_close` |

## Not yet proved

- VLAN tags
";

    #[test]
    fn rows_are_statements_and_list_items_are_open() {
        let proofs = parse(FILE).expect("a sound file");
        let tests: Vec<_> = proofs.proved.iter().map(|statement| statement.tests.join(" ")).collect();
        assert_eq!(tests, ["blixt::netns::udp blixt_packet::flow::tests::udp", "blixt::netns::half_close"]);
        assert_eq!(proofs.proved[0].text, "UDP is sticky");
        assert_eq!(proofs.proved[0].section, "Packets");
        assert_eq!(proofs.proved[1].line, 10);
        assert_eq!(proofs.open, ["VLAN tags"]);
    }

    #[test]
    fn a_row_without_a_test_is_an_error_that_names_the_line() {
        let error = parse("| UDP is sticky | later |\n").expect_err("no test");
        assert!(error.starts_with("line 1: no test is named"), "{error}");
    }

    #[test]
    fn a_listed_test_must_exist_run_and_pass() {
        let proofs = parse(FILE).expect("a sound file");
        let mut outcomes = Outcomes::default();
        outcomes.tests.insert("blixt::netns::udp".to_owned(), Outcome::Passed);
        outcomes.tests.insert("blixt::netns::half_close".to_owned(), Outcome::Ignored);
        assert_eq!(
            unproved(&proofs, &outcomes, |_| true),
            [
                "line 9: `blixt_packet::flow::tests::udp` does not exist: UDP is sticky",
                "line 10: `blixt::netns::half_close` did not run: Half-close works",
            ]
        );
        outcomes.tests.insert("blixt_packet::flow::tests::udp".to_owned(), Outcome::Passed);
        outcomes.tests.insert("blixt::netns::half_close".to_owned(), Outcome::Failed);
        assert_eq!(
            unproved(&proofs, &outcomes, |_| true),
            ["line 10: `blixt::netns::half_close` failed: Half-close works"]
        );
    }

    #[test]
    fn braces_name_several_tests_at_once() {
        assert_eq!(expand("a::{b, c}::{tc, xdp}"), ["a::b::tc", "a::b::xdp", "a::c::tc", "a::c::xdp"]);
        assert_eq!(expand("a::b"), ["a::b"]);
    }

    #[test]
    fn a_golden_file_must_exist() {
        let proofs =
            parse("| Weights | `x::golden` (`weights.in.yaml`, `gone.in.yaml`) |\n").expect("a sound file");
        let mut outcomes = Outcomes::default();
        outcomes.tests.insert("x::golden".to_owned(), Outcome::Passed);
        assert_eq!(
            unproved(&proofs, &outcomes, |file| file == "weights.in.yaml"),
            ["line 1: `gone.in.yaml` does not exist: Weights"]
        );
    }
}
