//! What `cargo test` prints, as values. Pure.
//!
//! A test is named as Rust would: `crate::path::test`, and `crate::target::path::test` in a file of `tests/`.

use std::collections::BTreeMap;

/// What became of one test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It did not run.
    Ignored,
}

/// The outcomes of a whole run, taken line by line.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// By the test's name.
    pub tests: BTreeMap<String, Outcome>,
    /// Test programs that ended before they had told the outcome of every test.
    pub broken: Vec<String>,
    program: Option<Program>,
}

/// The test programs that cargo built: what their tests' names begin with, by the program's file.
pub type Prefixes = BTreeMap<String, String>;

#[derive(Debug)]
struct Program {
    title: String,
    prefix: String,
}

impl Outcomes {
    /// Takes one line of cargo's and the test programs' joint output.
    pub fn take(&mut self, line: &str, prefixes: &Prefixes) {
        if let Some(program) = started_program(line, prefixes) {
            self.end();
            self.program = Some(program);
        } else if line.starts_with("test result: ") {
            self.program = None;
        } else if let Some(program) = &self.program
            && let Some((name, outcome)) = test_line(line)
        {
            self.tests.insert(format!("{}::{name}", program.prefix), outcome);
        }
    }

    /// Says that no line follows.
    pub fn end(&mut self) {
        self.broken.extend(self.program.take().map(|program| program.title));
    }

    /// How many tests had this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.tests.values().filter(|other| **other == outcome).count()
    }

    /// The names of the tests that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter(|(_, outcome)| **outcome == Outcome::Failed).map(|(name, _)| name.as_str())
    }
}

/// What the names of a test program's tests begin with; `kind` is cargo's word for its target.
pub fn prefix(package: &str, kind: &str, target: &str) -> String {
    let package = package.replace('-', "_");
    if kind == "test" { format!("{package}::{}", target.replace('-', "_")) } else { package }
}

/// `     Running tests/run.rs (target/debug/deps/run-0123)`, or `   Doc-tests blixt_core`.
fn started_program(line: &str, prefixes: &Prefixes) -> Option<Program> {
    let line = line.trim_start();
    if let Some(library) = line.strip_prefix("Doc-tests ") {
        return Some(Program { title: line.to_owned(), prefix: format!("{}::doc", library.trim()) });
    }
    let (source, file) = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once(" (")?;
    let name = file.rsplit('/').next().unwrap_or(file);
    let prefix = prefixes.get(name).cloned().unwrap_or_else(|| name.to_owned());
    Some(Program { title: format!("{prefix} ({source})"), prefix })
}

/// `test path::name ... ok`.
fn test_line(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome.split([',', ' ']).next()? {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Ignored,
        _ => return None,
    };
    Some((name.trim_end_matches(" - should panic"), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "\
   Compiling blixt v0.1.0
     Running unittests src/lib.rs (target/debug/deps/blixt_core-0a)

running 3 tests
test diff::tests::equal_tables_need_nothing ... ok
test ring::tests::an_empty_ring_panics - should panic ... ok
test ring::tests::slow ... ignored, takes long
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/netns.rs (target/debug/deps/netns-0b)

running 1 test
test weights::are_kept ... FAILED

failures:

---- weights::are_kept stdout ----
test of something else ... is not an outcome

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests blixt_core

running 1 test
test crates/blixt-core/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn every_test_is_named_after_its_crate_and_file() {
        let outcomes = read(RUN);
        let expected = [
            ("blixt::netns::weights::are_kept", Outcome::Failed),
            ("blixt_core::diff::tests::equal_tables_need_nothing", Outcome::Passed),
            ("blixt_core::doc::crates/blixt-core/src/lib.rs - (line 3)", Outcome::Passed),
            ("blixt_core::ring::tests::an_empty_ring_panics", Outcome::Passed),
            ("blixt_core::ring::tests::slow", Outcome::Ignored),
        ];
        let tests: Vec<_> = outcomes.tests.iter().map(|(name, outcome)| (name.as_str(), *outcome)).collect();
        assert_eq!(tests, expected);
        assert_eq!(outcomes.failed().collect::<Vec<_>>(), ["blixt::netns::weights::are_kept"]);
        assert_eq!(outcomes.broken, [""; 0]);
    }

    #[test]
    fn a_program_that_dies_half_way_is_noticed() {
        let at = RUN.find("test weights").expect("the second program's first test");
        assert_eq!(read(&RUN[..at]).broken, ["blixt::netns (tests/netns.rs)"]);
        let first = RUN.find("test ring").expect("the first program's second test");
        let second = RUN.find("     Running tests").expect("the second program");
        assert_eq!(
            read(&format!("{}{}", &RUN[..first], &RUN[second..])).broken,
            ["blixt_core (unittests src/lib.rs)"]
        );
    }

    #[test]
    fn only_files_of_the_tests_directory_add_their_name() {
        assert_eq!(prefix("blixt-core", "lib", "blixt_core"), "blixt_core");
        assert_eq!(prefix("blixt", "bin", "blixt"), "blixt");
        assert_eq!(prefix("blixt-loader", "test", "read-back"), "blixt_loader::read_back");
    }

    fn read(text: &str) -> Outcomes {
        let prefixes = [("blixt_core-0a", "blixt_core"), ("netns-0b", "blixt::netns")];
        let prefixes = prefixes.map(|(file, prefix)| (file.to_owned(), prefix.to_owned())).into();
        let mut outcomes = Outcomes::default();
        text.lines().for_each(|line| outcomes.take(line, &prefixes));
        outcomes.end();
        outcomes
    }
}
