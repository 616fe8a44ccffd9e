//! Whether a run of the suite is a success. Pure.
//!
//! The report alone does not say so: it is written before the tests that run at the same time as others have run, and counts them as
//! passed. So the exit status and the outcome of each test count as well.

use std::fmt;

use serde_json::Value;

/// A profile, and how many tests of it there are at least: fewer mean that features are not claimed any more.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// As the suite calls it.
    pub name: &'static str,
    core: u64,
    extended: u64,
}

/// What is run.
pub const PROFILES: [Profile; 2] = [
    Profile { name: "GATEWAY-TCP", core: 19, extended: 10 },
    Profile { name: "GATEWAY-UDP", core: 20, extended: 10 },
];

/// What came out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Tests that passed, each counted once however many profiles have it.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests of a profile that were skipped.
    pub skipped: u64,
    /// Why it is no success.
    pub complaints: Vec<String>,
    /// What the tests that failed said last.
    pub sayings: Vec<String>,
}

impl Verdict {
    /// Adds that of another run.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.complaints.extend(other.complaints);
        self.sayings.extend(other.sayings);
    }

    /// What is wrong without being one test's fault counts as one that failed.
    fn told(self) -> Self {
        Self { failed: self.failed.max(usize::from(!self.complaints.is_empty())), ..self }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Judges a run of tests by its exit status and what it printed.
pub fn of_tests(succeeded: bool, output: &str) -> Verdict {
    let failed = outcomes(output, "FAIL");
    let mut complaints: Vec<_> = failed.iter().map(|name| format!("failed: {name}")).collect();
    // A test that fails fails all that it is part of; and the set-up before any test can fail.
    if failed.is_empty() && output.lines().any(|line| line.trim_start().starts_with("--- FAIL")) {
        complaints.push("failed before any test of its own: see the log".to_owned());
    }
    if !succeeded {
        complaints.push("the exit status is not 0".to_owned());
    }
    let sayings = failed.iter().map(|name| sayings(output, name)).collect();
    Verdict { passed: outcomes(output, "PASS").len(), failed: failed.len(), skipped: 0, complaints, sayings }
        .told()
}

/// How much of what a test said is shown.
const SAID: usize = 25;

/// The last lines that a test said, and each of its parts that failed: what follows `=== RUN   TestL4/name/part`.
fn sayings(output: &str, name: &str) -> String {
    let of_it =
        |part: &&str| part.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut text = String::new();
    for part in parts(output, "FAIL").filter(of_it) {
        let mut speaks = false;
        let said: Vec<_> = output
            .lines()
            .filter(|line| {
                if let Some(event) = line.strip_prefix("=== ") {
                    let speaker = event.split_whitespace().nth(1).and_then(|name| name.split_once('/'));
                    speaks = speaker.is_some_and(|(_, speaker)| speaker == part);
                    return false;
                }
                speaks && !line.trim_start().starts_with("--- ")
            })
            .collect();
        text += &format!(
            "--- the end of what {part} said\n{}\n",
            said[said.len().saturating_sub(SAID)..].join("\n")
        );
    }
    text
}

/// Judges a run of the suite by its report as well; a whole run is held against [`PROFILES`].
pub fn of_suite(succeeded: bool, output: &str, report: Option<&Value>, whole: bool) -> Verdict {
    let mut verdict = of_tests(succeeded, output);
    match report {
        Some(report) => verdict.skipped = read_report(report, whole, &mut verdict.complaints),
        None => verdict.complaints.push("the suite wrote no report".to_owned()),
    }
    verdict.told()
}

/// Complains of what is wrong in a report, and answers how many tests were skipped.
fn read_report(report: &Value, whole: bool, complaints: &mut Vec<String>) -> u64 {
    let mut skipped = 0;
    let profiles: Vec<_> = report["profiles"].as_array().into_iter().flatten().collect();
    for Profile { name, core, extended } in PROFILES {
        let Some(profile) = profiles.iter().find(|profile| profile["name"] == name) else {
            complaints.push(format!("report: profile {name} is missing"));
            continue;
        };
        for (part, least) in [("core", core), ("extended", extended)] {
            let part_report = &profile[part];
            let count = |what: &str| part_report["statistics"][what].as_u64().unwrap_or(0);
            skipped += count("Skipped");
            if count("Skipped") > 0 || count("Failed") > 0 {
                let (failed, skipped) = (count("Failed"), count("Skipped"));
                complaints.push(format!("report: {name} {part}: {failed} failed, {skipped} skipped"));
            }
            if whole && (count("Passed") < least || part_report["result"] != "success") {
                let (result, passed) = (&part_report["result"], count("Passed"));
                complaints.push(format!("report: {name} {part}: {result}, {passed} of {least} passed"));
            }
        }
    }
    skipped
}

/// The tests of that outcome: `    --- PASS: TestConformance/TCPRoute (0.10s)`, and none of their parts.
fn outcomes<'a>(output: &'a str, outcome: &str) -> Vec<&'a str> {
    parts(output, outcome).filter(|name| !name.contains('/')).collect()
}

/// The tests of that outcome, and the parts of tests.
fn parts<'a>(output: &'a str, outcome: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("--- {outcome}: ");
    output.lines().filter_map(move |line| {
        let (_, name) = line.trim_start().strip_prefix(&start)?.split_once('/')?;
        name.split(' ').next()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OUTPUT: &str = "\
=== RUN   TestConformance
    --- PASS: TestConformance/GatewayModifyListeners (1.00s)
        --- PASS: TestConformance/GatewayModifyListeners/should_be_able_to_add_a_listener (0.50s)
    --- SKIP: TestConformance/HTTPRouteHeaderMatching (0.00s)
    --- PASS: TestConformance/TCPRoute (0.10s)
--- PASS: TestConformance (30.00s)
PASS
";

    #[test]
    fn a_run_without_failures_is_a_success_and_each_test_counts_once() {
        let verdict = of_suite(true, OUTPUT, Some(&report(19, 0)), true);
        assert_eq!(verdict, Verdict { passed: 2, ..Verdict::default() });
        assert_eq!(verdict.to_string(), "2 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_failed_test_counts_though_the_report_says_success() {
        let output =
            OUTPUT.replace("--- PASS: TestConformance/TCPRoute", "--- FAIL: TestConformance/TCPRoute");
        let verdict = of_suite(true, &output, Some(&report(19, 0)), true);
        assert_eq!((verdict.passed, verdict.failed), (1, 1));
        assert_eq!(verdict.complaints, ["failed: TCPRoute"]);
    }

    #[test]
    fn a_test_that_failed_is_heard_and_its_parts_that_passed_are_not() {
        let output = "\
=== RUN   TestL4/Faults
    faults_test.go:1: begins
=== RUN   TestL4/Faults/AnAgent
    load_test.go:1: 10 connections, 0 failed
=== RUN   TestL4/Faults/TheLeader
    load_test.go:2: 10 connections, 1 failed
        refused
=== NAME  TestL4/Faults
    faults_test.go:2: ends
    --- FAIL: TestL4/Faults (2.00s)
        --- PASS: TestL4/Faults/AnAgent (1.00s)
        --- FAIL: TestL4/Faults/TheLeader (1.00s)
=== RUN   TestL4/FaultsOfOthers
    faults_test.go:3: is another
";
        let expected = "\
--- the end of what Faults said
    faults_test.go:1: begins
    faults_test.go:2: ends
--- the end of what Faults/TheLeader said
    load_test.go:2: 10 connections, 1 failed
        refused
";
        assert_eq!(of_tests(false, output).sayings, [expected]);
    }

    #[test]
    fn an_exit_status_a_missing_report_a_skipped_test_and_a_missing_one_count() {
        for (succeeded, report, complaint) in [
            (false, Some(report(19, 0)), "the exit status is not 0"),
            (true, None, "the suite wrote no report"),
            (true, Some(report(19, 1)), "report: GATEWAY-TCP core: 0 failed, 1 skipped"),
            (true, Some(report(18, 0)), "report: GATEWAY-TCP core: \"success\", 18 of 19 passed"),
            (true, Some(json!({})), "report: profile GATEWAY-TCP is missing"),
        ] {
            let Verdict { failed, complaints, .. } = of_suite(succeeded, OUTPUT, report.as_ref(), true);
            assert_eq!(failed, 1);
            assert_eq!(complaints.first().map(String::as_str), Some(complaint));
        }
    }

    #[test]
    fn a_failure_before_the_first_test_counts() {
        let verdict = of_suite(true, "--- FAIL: TestConformance (180.00s)\n", Some(&report(19, 0)), true);
        assert_eq!(verdict.complaints, ["failed before any test of its own: see the log"]);
    }

    #[test]
    fn a_run_of_single_tests_is_not_held_against_the_profiles() {
        assert_eq!(of_suite(true, OUTPUT, Some(&report(1, 0)), false).complaints, [""; 0]);
    }

    fn report(core: u64, skipped: u64) -> Value {
        let part = |passed, skipped| json!({ "result": "success", "statistics": { "Failed": 0, "Passed": passed, "Skipped": skipped } });
        json!({ "profiles": [
            { "name": "GATEWAY-TCP", "core": part(core, skipped), "extended": part(10, 0) },
            { "name": "GATEWAY-UDP", "core": part(20, 0), "extended": part(10, 0) },
        ] })
    }
}
