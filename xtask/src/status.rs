//! The status table of the README, made from the results of a test run. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::outcome::{Outcome, Outcomes};
use crate::proof::Proofs;

/// What stands before and after the table.
const MARKERS: [&str; 2] =
    ["<!-- status: written by `cargo xtask test --write-status` -->", "<!-- end of status -->"];

/// The README with its table made anew; nothing if the markers are missing.
pub fn rewrite(readme: &str, proofs: &Proofs, outcomes: &Outcomes) -> Option<String> {
    let start = readme.find(MARKERS[0])? + MARKERS[0].len();
    let end = start + readme[start..].find(MARKERS[1])?;
    Some(format!("{}\n{}{}", &readme[..start], table(proofs, outcomes), &readme[end..]))
}

/// One row for each section of `docs/tests.md`, in its order.
fn table(proofs: &Proofs, outcomes: &Outcomes) -> String {
    let mut rows: Vec<(&str, BTreeMap<&str, bool>)> = Vec::new();
    let mut held: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for statement in &proofs.proved {
        if !rows.iter().any(|(section, _)| *section == statement.section) {
            rows.push((&statement.section, BTreeMap::new()));
        }
        let passed = |test: &String| outcomes.tests.get(test) == Some(&Outcome::Passed);
        let tests = rows.iter_mut().find(|(section, _)| *section == statement.section);
        tests.into_iter().for_each(|(_, tests)| {
            tests.extend(statement.tests.iter().map(|test| (test.as_str(), passed(test))));
        });
        let held = held.entry(&statement.section).or_default();
        held[0] += usize::from(statement.tests.iter().all(passed));
        held[1] += 1;
    }
    let mut text = String::from("\n| Subject | Statements proved | Tests passed |\n|---|---|---|\n");
    for (section, tests) in &rows {
        let [proved, all] = held[section];
        let passed = tests.values().filter(|passed| **passed).count();
        writeln!(text, "| {section} | {proved} of {all} | {passed} of {} |", tests.len())
            .expect("a String takes all");
    }
    let open = proofs.open.len();
    writeln!(text, "\nStatements without a test: {open} (see [docs/tests.md](docs/tests.md)).\n")
        .expect("a String takes all");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::parse;

    #[test]
    fn the_table_counts_statements_and_tests_by_section_and_leaves_the_rest_alone() {
        let proofs = "## Packets\n| a | `x::a` |\n| b | `x::a`, `x::b` |\n## Not yet proved\n- c\n";
        let proofs = parse(proofs).expect("a sound file");
        let mut outcomes = Outcomes::default();
        outcomes.tests.insert("x::a".to_owned(), Outcome::Passed);
        outcomes.tests.insert("x::b".to_owned(), Outcome::Failed);
        let readme = format!("before\n{}\nold\n{}\nafter\n", MARKERS[0], MARKERS[1]);
        let table = "\n| Subject | Statements proved | Tests passed |\n|---|---|---|\n| Packets | 1 of 2 | 1 of 2 |\n\n\
                     Statements without a test: 1 (see [docs/tests.md](docs/tests.md)).\n\n";
        let expected = format!("before\n{}\n{table}{}\nafter\n", MARKERS[0], MARKERS[1]);
        let once = rewrite(&readme, &proofs, &outcomes).expect("the markers are there");
        assert_eq!(once, expected);
        assert_eq!(rewrite(&once, &proofs, &outcomes), Some(expected));
    }

    #[test]
    fn a_readme_without_markers_is_not_touched() {
        assert_eq!(rewrite("no markers", &Proofs::default(), &Outcomes::default()), None);
    }
}
