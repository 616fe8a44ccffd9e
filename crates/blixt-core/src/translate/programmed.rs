//! What the data plane said about frontends.

use super::Report;
use crate::config::Endpoint;

/// The data plane's report, if there is one.
pub struct Programmed<'a> {
    report: Option<&'a Report>,
}

/// What became of some frontends taken together.
pub enum Outcome {
    /// Of at least one nothing is known yet.
    Pending,
    /// At least one does not take connections.
    Failed(String),
    /// All take connections; what their user should know nevertheless.
    Done(Vec<String>),
}

impl<'a> Programmed<'a> {
    /// Of a report.
    pub fn new(report: Option<&'a Report>) -> Self {
        Self { report }
    }

    /// What became of these frontends.
    pub fn outcome(&self, endpoints: &[Endpoint]) -> Outcome {
        let Some(report) = self.report else { return Outcome::Pending };
        let mut pending = false;
        let mut warnings = Vec::new();
        for endpoint in endpoints {
            match report.frontends.get(endpoint) {
                None => pending = true,
                Some(frontend) => {
                    if let Some(error) = &frontend.error {
                        return Outcome::Failed(format!("{endpoint}: {error}"));
                    }
                    warnings.extend(frontend.warnings.iter().map(|warning| format!("{endpoint}: {warning}")));
                }
            }
        }
        if pending { Outcome::Pending } else { Outcome::Done(warnings) }
    }
}
