//! What a node says of the Config that it has: errors and warnings by frontend.

use std::collections::BTreeMap;

use blixt_core::config::{Endpoint, Generation};
use blixt_core::translate::{FrontendReport, Report};

use super::proto::{self, Finding};
use super::wire::Malformed;

/// What a node said last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeReport {
    /// The last generation that its maps hold.
    pub generation: Generation,
    /// Of frontends of which there is more to say than that they take connections.
    pub frontends: BTreeMap<Endpoint, FrontendReport>,
    /// The version of its agent.
    pub version: String,
}

impl NodeReport {
    /// What the data plane made of a generation.
    pub fn new(generation: Generation, report: &Report) -> Self {
        let frontends = report.frontends.iter().filter(|(_, report)| **report != FrontendReport::default());
        Self {
            generation,
            frontends: frontends.map(|(endpoint, report)| (*endpoint, report.clone())).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl From<&NodeReport> for proto::Report {
    fn from(report: &NodeReport) -> Self {
        let NodeReport { generation, frontends, version } = report;
        // Where a node cannot serve at all, ten thousand frontends give the same reason.
        let mut errors: BTreeMap<&str, Vec<proto::Endpoint>> = BTreeMap::new();
        let mut warnings: BTreeMap<&str, Vec<proto::Endpoint>> = BTreeMap::new();
        for (endpoint, FrontendReport { error, warnings: of_frontend, .. }) in frontends {
            if let Some(error) = error {
                errors.entry(error).or_default().push(endpoint.into());
            }
            for warning in of_frontend {
                warnings.entry(warning).or_default().push(endpoint.into());
            }
        }
        let findings = |by_message: BTreeMap<&str, Vec<proto::Endpoint>>| {
            let finding =
                |(message, endpoints): (&str, _)| Finding { message: message.to_owned(), endpoints };
            by_message.into_iter().map(finding).collect()
        };
        Self {
            generation: generation.0,
            errors: findings(errors),
            warnings: findings(warnings),
            version: version.clone(),
        }
    }
}

impl TryFrom<proto::Report> for NodeReport {
    type Error = Malformed;

    fn try_from(wire: proto::Report) -> Result<Self, Malformed> {
        let mut frontends: BTreeMap<Endpoint, FrontendReport> = BTreeMap::new();
        for Finding { message, endpoints } in wire.errors {
            for endpoint in endpoints {
                frontends.entry(endpoint.try_into()?).or_default().error = Some(message.clone());
            }
        }
        for Finding { message, endpoints } in wire.warnings {
            for endpoint in endpoints {
                frontends.entry(endpoint.try_into()?).or_default().warnings.push(message.clone());
            }
        }
        Ok(Self { generation: Generation(wire.generation), frontends, version: wire.version })
    }
}

#[cfg(test)]
mod tests {
    use blixt_core::config::Protocol;

    use super::*;

    #[test]
    fn a_report_goes_over_the_wire_and_ten_thousand_equal_errors_are_said_once() {
        let endpoint = |port| Endpoint { address: [10, 0, 0, 1].into(), port, protocol: Protocol::Udp };
        let failed = FrontendReport { error: Some("no interface".into()), ..FrontendReport::default() };
        let warned =
            FrontendReport { warnings: vec!["a process listens".into()], ..FrontendReport::default() };
        let mut frontends: BTreeMap<_, _> =
            (1..10_000).map(|port| (endpoint(port), failed.clone())).collect();
        frontends.insert(endpoint(10_000), warned);
        frontends.insert(endpoint(10_001), FrontendReport::default());
        let report =
            NodeReport::new(Generation(3), &Report { frontends: frontends.clone(), ..Report::default() });
        frontends.remove(&endpoint(10_001));
        assert_eq!(report.frontends, frontends);
        let wire = proto::Report::from(&report);
        assert_eq!((wire.errors.len(), wire.warnings.len()), (1, 1));
        assert_eq!(NodeReport::try_from(wire).unwrap(), report);
    }
}
