//! What a guest said, as values, and as tables. Pure.

use std::collections::BTreeMap;

use super::guest::{END, LEFT};
use super::kernel::numbers;
use crate::outcome::{Outcome, Outcomes, Prefixes};

/// What one kernel made of the tests.
#[derive(Debug, Default)]
pub struct Results {
    /// Of every test.
    pub outcomes: Outcomes,
    /// By the program's name.
    pub verified: BTreeMap<String, Verified>,
    /// Cases of the packet table that held, and all of them, by hook.
    pub cases: BTreeMap<String, (usize, usize)>,
    /// How programs are attached to the TC hook, `tcx` or `clsact`.
    pub attached: Option<String>,
    /// What is left behind in the guest, each a line for people.
    pub left: Vec<String>,
    /// It got to its end.
    pub is_done: bool,
}

/// What the verifier made of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Instructions that it looked at.
    pub instructions: u32,
    /// How long the kernel took to take the program in.
    pub milliseconds: u32,
}

/// The kernel programs.
const PROGRAMS: [&str; 3] = ["blixt_ingress", "blixt_egress", "blixt_xdp"];
/// The hooks that the packet table is for.
const HOOKS: [&str; 2] = ["TC", "XDP"];
/// What the names of tests with real connections begin with.
const TRAFFIC: &str = "blixt::netns::";

impl Results {
    /// Takes a line of what the guest says.
    pub fn take(&mut self, line: &str, prefixes: &Prefixes) {
        self.outcomes.take(line, prefixes);
        if line == END {
            self.is_done = true;
        } else if let Some(thing) = line.strip_prefix(LEFT) {
            self.left.push(format!("left behind: {}", thing.trim()));
        } else if let Some(program) = line.strip_prefix("verified: ") {
            self.verified.extend(verified(program));
        } else if let Some(cases) = line.strip_prefix("packet table: ") {
            self.cases.extend(held(cases));
        } else if let Some(attached) = line.strip_prefix("attached by: ") {
            self.attached = Some(attached.to_owned());
        }
    }

    /// All that is wrong; nothing: the kernel is fit for Blixt.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.faults();
        failures.extend(self.gaps());
        failures
    }

    /// What went wrong, of whatever ran.
    pub fn faults(&self) -> Vec<String> {
        let failed = self.outcomes.failed().map(|name| format!("test failed: {name}"));
        let broken =
            self.outcomes.broken.iter().map(|program| format!("ended before its last test: {program}"));
        let mut faults: Vec<String> = failed.chain(broken).chain(self.left.iter().cloned()).collect();
        if !self.is_done {
            faults.push("the guest ended before its end".to_owned());
        }
        faults
    }

    /// What must run and hold, and did not.
    fn gaps(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for program in PROGRAMS {
            if !self.verified.contains_key(program) {
                failures.push(format!("{program}: was not loaded"));
            }
        }
        for hook in HOOKS {
            match self.cases.get(hook) {
                Some((held, all)) if held == all && *all > 0 => {}
                Some((held, all)) => {
                    failures.push(format!("packet table, {hook}: {held} of {all} cases hold"))
                }
                None => failures.push(format!("packet table, {hook}: did not run")),
            }
        }
        if self.passed(TRAFFIC).1 == 0 {
            failures.push("no test with real connections ran".to_owned());
        }
        failures
    }

    /// Tests that passed and all that ran, of those with a prefix.
    fn passed(&self, prefix: &str) -> (usize, usize) {
        let ran = self.outcomes.tests.iter().filter(|(name, _)| name.starts_with(prefix));
        let (passed, failed): (Vec<_>, Vec<_>) = ran.partition(|(_, outcome)| **outcome == Outcome::Passed);
        (passed.len(), passed.len() + failed.len())
    }
}

/// `blixt_xdp, 66500 instructions, 210 ms`.
fn verified(line: &str) -> Option<(String, Verified)> {
    let [program, instructions, time] = line.split(", ").collect::<Vec<_>>()[..] else { return None };
    let verified = Verified {
        instructions: instructions.strip_suffix(" instructions")?.parse().ok()?,
        milliseconds: time.strip_suffix(" ms")?.parse().ok()?,
    };
    Some((program.to_owned(), verified))
}

/// `XDP, 120 of 121 cases hold`.
fn held(line: &str) -> Option<(String, (usize, usize))> {
    let (hook, cases) = line.split_once(", ")?;
    let (held, all) = cases.strip_suffix(" cases hold")?.split_once(" of ")?;
    Some((hook.to_owned(), (held.parse().ok()?, all.parse().ok()?)))
}

/// What each column of a [`table`] is.
const HEAD: [&str; 9] = [
    "Kernel",
    "TC ingress",
    "TC egress",
    "XDP",
    "TC by",
    "Packet table, TC",
    "Packet table, XDP",
    "Loader",
    "Traffic",
];

/// One kernel's line of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row(pub Vec<String>);

impl Row {
    /// One kernel's results.
    pub fn new(release: &str, results: &Results) -> Self {
        let mut cells = vec![release.to_owned()];
        cells.extend(PROGRAMS.map(|program| {
            let verified = results.verified.get(program);
            verified.map_or("not loaded".to_owned(), |verified| {
                format!("{} in {} ms", verified.instructions, verified.milliseconds)
            })
        }));
        cells.push(results.attached.clone().unwrap_or_else(|| "nothing".to_owned()));
        cells.extend(HOOKS.map(|hook| results.cases.get(hook).map_or("did not run".to_owned(), of)));
        cells.extend(["blixt_loader::", TRAFFIC].map(|prefix| of(&results.passed(prefix))));
        Self(cells)
    }

    /// The numbers of the kernel's release.
    pub fn version(&self) -> Vec<u32> {
        numbers(&self.0[0])
    }

    /// The first two of them.
    pub fn series(&self) -> Vec<u32> {
        self.version().into_iter().take(2).collect()
    }
}

/// A table in Markdown, whose columns stand below each other.
pub fn table(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned).to_vec();
    let lines: Vec<&Vec<String>> =
        std::iter::once(&head).chain(rows.iter().map(|Row(cells)| cells)).collect();
    let width = |column: usize| lines.iter().filter_map(|cells| cells.get(column)).map(String::len).max();
    let mut table = String::new();
    for (number, cells) in lines.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            table += &format!("| {cell:<width$} ", width = width(column).unwrap_or_default());
        }
        table += "|\n";
        if number == 0 {
            (0..cells.len()).for_each(|column| {
                table += &format!("|{}", "-".repeat(width(column).unwrap_or_default() + 2));
            });
            table += "|\n";
        }
    }
    table
}

/// The rows in a text with a [`table`].
pub fn rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let cells = line.strip_prefix("| ")?.strip_suffix('|')?.split(" | ");
        let row = Row(cells.map(|cell| cell.trim().to_owned()).collect());
        row.0[0].starts_with(|c: char| c.is_ascii_digit()).then_some(row)
    };
    text.lines().filter_map(row).collect()
}

fn of((passed, all): &(usize, usize)) -> String {
    format!("{passed} of {all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
     Running the packet table (/target/kernel-0a)
test cases::every_case_holds_in_tc ... ok
test cases::every_case_holds_in_xdp ... ok
packet table: TC, 12 of 12 cases hold
packet table: XDP, 11 of 11 cases hold
attached by: clsact
verified: blixt_ingress, 49300 instructions, 120 ms
verified: blixt_egress, 11100 instructions, 20 ms
verified: blixt_xdp, 66500 instructions, 210 ms
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
     Running connections (/target/netns-0b)
test balancing::shares::tc ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
==> the guest is done
";

    #[test]
    fn a_kernel_on_which_everything_holds_is_a_row_without_failures() {
        let results = read(SAID);
        assert_eq!(results.failures(), [""; 0]);
        let cells = ["6.1", "49300 in 120 ms", "11100 in 20 ms", "66500 in 210 ms", "clsact"];
        let cells = cells.into_iter().chain(["12 of 12", "11 of 11", "2 of 2", "1 of 1"]);
        let row = Row::new("6.1", &results);
        assert_eq!(row, Row(cells.map(str::to_owned).collect()));
        assert_eq!(rows(&table(std::slice::from_ref(&row))), [row]);
    }

    #[test]
    fn whatever_is_missing_or_wrong_is_a_failure() {
        for (line, instead, failure) in [
            ("attached by: clsact\n", "==> left behind: device x\n", "left behind: device x"),
            ("==> the guest is done\n", "", "the guest ended before its end"),
            ("verified: blixt_xdp, 66500 instructions, 210 ms\n", "", "blixt_xdp: was not loaded"),
            ("11 of 11", "10 of 11", "packet table, XDP: 10 of 11 cases hold"),
            ("packet table: TC, 12 of 12 cases hold\n", "", "packet table, TC: did not run"),
            ("test balancing::shares::tc ... ok\n", "", "no test with real connections ran"),
            (
                "test balancing::shares::tc ... ok",
                "test balancing::shares::tc ... FAILED",
                "test failed: blixt::netns::balancing::shares::tc",
            ),
            (
                "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
                "",
                "ended before its last test: blixt::netns (connections)",
            ),
        ] {
            assert_eq!(read(&SAID.replace(line, instead)).failures(), [failure]);
        }
    }

    fn read(said: &str) -> Results {
        let prefixes = [("kernel-0a", "blixt_loader::kernel"), ("netns-0b", "blixt::netns")];
        let prefixes = prefixes.map(|(file, prefix)| (file.to_owned(), prefix.to_owned())).into();
        let mut results = Results::default();
        said.lines().for_each(|line| results.take(line, &prefixes));
        results.outcomes.end();
        results
    }
}
