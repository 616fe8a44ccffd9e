//! What there is to say of manifests. Pure.

use std::collections::BTreeMap;
use std::fmt;

use blixt_core::compile::{self, compile};
use blixt_core::host::Host;
use blixt_core::status::ConditionStatus;
use blixt_core::tables::{Limits, Tables};
use blixt_core::translate::{Translation, translate};
use serde::Serialize;

use crate::check::places::Places;
use crate::source::Loaded;
use crate::status::book::status_name;
use crate::status::gather::{file_problem, note};
use crate::status::view::ProblemView;

/// Everything that was found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Findings {
    /// How many files were read.
    pub files: usize,
    /// How many objects are in them.
    pub objects: usize,
    /// How many findings are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// All findings, errors first.
    pub findings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    #[serde(flatten)]
    pub problem: ProblemView,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work as it is written.
    Error,
    /// It works, perhaps not as it is meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// Looks through what was read.
pub fn findings(loaded: &Loaded) -> Findings {
    let Loaded { store, .. } = loaded;
    let places = Places::new(loaded);
    let mut findings: Vec<Finding> = store
        .problems()
        .into_iter()
        .map(|problem| Finding::new(Severity::Error, file_problem(problem)))
        .collect();
    findings.extend(store.skipped().into_iter().map(|skipped| {
        let problem = ProblemView {
            file: skipped.file.display().to_string(),
            line: Some(skipped.line),
            object: skipped.object,
            message: "blixt does not read objects of this kind; it is skipped".into(),
            ..ProblemView::default()
        };
        Finding::new(Severity::Note, problem)
    }));
    let translation = translate(&store.snapshot, None);
    findings.extend(conditions(&places, &translation));
    findings.extend(translation.notes.iter().map(|found| {
        let severity = if found.is_error { Severity::Error } else { Severity::Warning };
        let problem = note(found, store.origin(&found.object));
        let line = places.line(&found.object, found.field).or(problem.line);
        Finding::new(severity, ProblemView { line, ..problem })
    }));
    findings.extend(conflicts(&translation));
    let objects = store.known().count();
    if objects == 0 && findings.is_empty() {
        let message = "there is no object of a kind that blixt reads".into();
        findings.push(Finding::new(Severity::Warning, ProblemView { message, ..ProblemView::default() }));
    }
    findings.sort();
    findings.dedup();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    Findings {
        files: store.files().count(),
        objects,
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        findings,
    }
}

/// Conditions that say that something is not as its author wants it.
fn conditions(places: &Places<'_>, translation: &Translation) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, status) in &translation.statuses {
        // What a refused object does not do follows from the refusal, and is said once.
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (part, condition) in status.all_conditions() {
            let message = condition.message.to_string();
            if !condition.is_trouble() || said.get(&part).is_some_and(|messages| messages.contains(&message))
            {
                continue;
            }
            said.entry(part.clone()).or_default().push(message.clone());
            let severity = match condition.status {
                // Whether somebody takes connections changes from minute to minute, and with the machine.
                _ if condition.condition_type == "blixt.dev/Serving" => Severity::Warning,
                ConditionStatus::False => Severity::Error,
                _ if condition.condition_type == "Conflicted" => Severity::Error,
                _ => Severity::Warning,
            };
            let field = places.field(key, &part, condition);
            let origin = places.store.origin(key);
            let problem = ProblemView {
                file: origin.map(|known| known.file.display().to_string()).unwrap_or_default(),
                line: places.line(key, &field).or(origin.map(|known| known.line)),
                object: key.to_string(),
                field,
                message: format!(
                    "{}={} ({}): {message}",
                    condition.condition_type,
                    status_name(condition.status),
                    condition.reason
                ),
                ..ProblemView::default()
            };
            findings.push(Finding::new(severity, problem));
        }
    }
    findings
}

/// What does not fit into the tables of any machine.
fn conflicts(translation: &Translation) -> Vec<Finding> {
    let compilation = compile(&translation.config, &Host::default(), &Tables::default(), &Limits::default());
    let lasting = compilation.problems.into_iter().filter(|problem| {
        // Which ways there are depends on the machine.
        !matches!(problem, compile::Problem::NoPath { .. })
    });
    let finding = |problem: compile::Problem| {
        let severity = if problem.is_fatal() { Severity::Error } else { Severity::Warning };
        Finding::new(severity, ProblemView { message: problem.to_string(), ..ProblemView::default() })
    };
    lasting.map(finding).collect()
}

impl Finding {
    fn new(severity: Severity, problem: ProblemView) -> Self {
        Self { severity, problem }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{}: {}", finding.severity, finding.problem)?;
        }
        writeln!(
            f,
            "{} in {}: {}, {}",
            counted(self.objects, "object"),
            counted(self.files, "file"),
            counted(self.errors, "error"),
            counted(self.warnings, "warning")
        )
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
