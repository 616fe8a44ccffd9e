//! The numbers of a controller, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::metrics::{Encode, counter, gauge, gauges, metrics_text};

/// Everything that is counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// It holds the Lease.
    pub leading: bool,
    /// The number of the last Config that was published.
    pub generation: u64,
    /// Frontends in it.
    pub frontends: u64,
    /// Nodes that must serve.
    pub nodes_expected: u64,
    /// Nodes that are connected.
    pub nodes_connected: u64,
    /// Objects by kind.
    pub objects: BTreeMap<&'static str, u64>,
    /// Statuses that were written.
    pub status_writes: u64,
    /// And those that could not be.
    pub status_failures: u64,
}

impl Encode for Numbers {
    fn encode(self) -> Result<String, fmt::Error> {
        metrics_text(self)
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(encoder, "blixt_build_info", "The version that runs", vec![(version, 1)])?;
        gauge(encoder, "blixt_leading", "Whether this controller holds the Lease", self.leading.into())?;
        gauge(encoder, "blixt_config_generation", "The number of the last Config", self.generation)?;
        gauge(encoder, "blixt_frontends", "Frontends in the last Config", self.frontends)?;
        gauge(encoder, "blixt_nodes_expected", "Ready nodes that must serve", self.nodes_expected)?;
        gauge(encoder, "blixt_nodes_connected", "Nodes whose agent is connected", self.nodes_connected)?;
        let objects =
            self.objects.iter().map(|(kind, count)| (vec![("kind", (*kind).to_owned())], *count)).collect();
        gauges(encoder, "blixt_objects", "Objects that are known", objects)?;
        counter(encoder, "blixt_status_writes", "Statuses that were written", self.status_writes)?;
        counter(
            encoder,
            "blixt_status_write_failures",
            "Statuses that could not be written",
            self.status_failures,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controllers_numbers_are_written() {
        let numbers = Numbers { leading: true, generation: 7, status_writes: 3, ..Numbers::default() };
        let text = Encode::encode(numbers).unwrap();
        for line in ["blixt_leading 1", "blixt_config_generation 7", "blixt_status_writes_total 3"] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }
}
