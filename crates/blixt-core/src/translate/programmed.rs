//! What the data plane said about frontends.

use super::Report;
use super::refusal::some;
use crate::config::{Endpoint, Generation};

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
    /// All take connections.
    Done(Done),
}

/// What there is to say of frontends that take connections.
#[derive(Debug, Default)]
pub struct Done {
    /// What their user should know nevertheless.
    pub warnings: Vec<String>,
    /// In a cluster: which nodes serve them; else empty.
    pub nodes: String,
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
        let mut generation = None;
        for endpoint in endpoints {
            match report.frontends.get(endpoint) {
                None => pending = true,
                Some(frontend) => {
                    if let Some(error) = &frontend.error {
                        return Outcome::Failed(format!("{endpoint}: {error}"));
                    }
                    warnings.extend(frontend.warnings.iter().map(|warning| format!("{endpoint}: {warning}")));
                    generation = generation.max(frontend.generation);
                }
            }
        }
        if pending {
            Outcome::Pending
        } else {
            Outcome::Done(Done { warnings, nodes: nodes(report, generation) })
        }
    }
}

impl Done {
    /// What is so, and on which nodes.
    pub fn say(&self, what: &str) -> String {
        if self.nodes.is_empty() { what.to_owned() } else { format!("{what}: {}", self.nodes) }
    }
}

/// Which nodes hold what was asked for, and who is left out of the count.
fn nodes(report: &Report, generation: Option<Generation>) -> String {
    let Some(nodes) = &report.nodes else { return String::new() };
    let count = nodes.serving;
    let mut words = match generation {
        Some(Generation(generation)) => format!("{count}/{count} nodes at generation {generation}"),
        None => format!("{count}/{count} nodes"),
    };
    if !nodes.not_ready.is_empty() {
        words.push_str(&format!("; not ready and not counted: {}", some(&nodes.not_ready, ", ")));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::{FrontendReport, Nodes};
    use super::*;
    use crate::config::Protocol;

    #[test]
    fn nodes_that_serve_are_counted_with_the_generation_and_those_that_are_not_ready_are_named() {
        let endpoint = |port| Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Tcp };
        let at = |generation| FrontendReport {
            generation: Some(Generation(generation)),
            ..FrontendReport::default()
        };
        let report = |not_ready: &[&str]| Report {
            frontends: [(endpoint(1), at(5)), (endpoint(2), at(7))].into(),
            nodes: Some(Nodes { serving: 2, not_ready: not_ready.iter().map(ToString::to_string).collect() }),
        };
        let said = |report: &Report, ports: &[u16]| {
            let endpoints: Vec<_> = ports.iter().copied().map(endpoint).collect();
            match Programmed::new(Some(report)).outcome(&endpoints) {
                Outcome::Done(done) => done.say("served"),
                Outcome::Pending => "pending".to_owned(),
                Outcome::Failed(error) => error,
            }
        };
        assert_eq!(said(&report(&[]), &[1, 2]), "served: 2/2 nodes at generation 7");
        assert_eq!(said(&report(&[]), &[1, 3]), "pending");
        assert_eq!(
            said(&report(&["node3"]), &[1]),
            "served: 2/2 nodes at generation 5; not ready and not counted: node3"
        );
        assert_eq!(said(&Report { nodes: None, ..report(&[]) }, &[1]), "served");
    }
}
