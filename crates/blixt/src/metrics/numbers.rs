//! The numbers of an instance, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt;

use blixt_core::config::{Endpoint, RouteName};
use blixt_loader::FlowCount;
use blixt_packet::DropReason;
use blixt_packet::abi::RouteCounters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Everything that is counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// The number of the last Config that was applied.
    pub generation: u64,
    /// The data plane holds what the manifests say.
    pub ready: bool,
    /// Times that changes were written to the data plane, and times that it failed.
    pub applied: u64,
    /// See above.
    pub apply_failures: u64,
    /// Seconds that the last apply took.
    pub apply_seconds: f64,
    /// Objects by kind.
    pub objects: BTreeMap<String, u64>,
    /// What is wrong with files and objects.
    pub problems: u64,
    /// Frontends in the data plane.
    pub frontends: u64,
    /// Attached programs by hook.
    pub hooks: BTreeMap<String, u64>,
    /// By route.
    pub routes: Vec<RouteNumber>,
    /// By backend of a route.
    pub backends: Vec<BackendNumber>,
    /// Packets that were dropped.
    pub drops: BTreeMap<DropReason, u64>,
    /// What the flow tables of IPv4 and IPv6 held and gave up when they were last counted.
    pub flows: [FlowCount; 2],
}

/// What one route did.
#[derive(Clone, Debug)]
pub struct RouteNumber {
    /// The route.
    pub route: RouteName,
    /// Its counters, summed over the CPUs.
    pub counters: RouteCounters,
}

/// What one backend got.
#[derive(Clone, Debug)]
pub struct BackendNumber {
    /// The route that it serves.
    pub route: RouteName,
    /// Its address, port and protocol.
    pub backend: Endpoint,
    /// Connections begun.
    pub connections: u64,
}

/// Names and values.
pub type Labels<'a> = Vec<(&'a str, String)>;

impl Numbers {
    fn by_route(&self, value: impl Fn(&RouteCounters) -> u64) -> Vec<(Labels<'static>, u64)> {
        self.routes.iter().map(|number| (route_labels(&number.route), value(&number.counters))).collect()
    }

    fn by_family(&self, value: impl Fn(&FlowCount) -> u64) -> Vec<(Labels<'static>, u64)> {
        let families = ["ipv4", "ipv6"].into_iter().zip(&self.flows);
        families.map(|(family, count)| (vec![("family", family.to_owned())], value(count))).collect()
    }

    fn by_direction(
        &self,
        request: impl Fn(&RouteCounters) -> u64,
        reply: impl Fn(&RouteCounters) -> u64,
    ) -> Vec<(Labels<'static>, u64)> {
        let both = |number: &RouteNumber| {
            [("request", request(&number.counters)), ("reply", reply(&number.counters))].map(
                |(direction, value)| {
                    let mut labels = route_labels(&number.route);
                    labels.push(("direction", direction.to_owned()));
                    (labels, value)
                },
            )
        };
        self.routes.iter().flat_map(both).collect()
    }
}

impl super::Encode for Numbers {
    fn encode(self) -> Result<String, fmt::Error> {
        text(self)
    }
}

/// The text of what can be collected.
pub fn text(collector: impl Collector) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(encoder, "blixt_build_info", "The version that runs", vec![(version, 1)])?;
        gauge(
            encoder,
            "blixt_ready",
            "Whether the data plane holds what the manifests say, and an interface carries it",
            self.ready.into(),
        )?;
        gauge(
            encoder,
            "blixt_config_generation",
            "Number of the Config that was applied last",
            self.generation,
        )?;
        gauge(encoder, "blixt_frontends", "Frontends in the data plane", self.frontends)?;
        gauge(encoder, "blixt_problems", "Problems of files and objects", self.problems)?;
        gauges(encoder, "blixt_objects", "Objects read", by_label("kind", &self.objects))?;
        gauges(encoder, "blixt_hooks", "Programs attached to devices", by_label("hook", &self.hooks))?;
        let descriptor = encoder.encode_descriptor(
            "blixt_last_apply_seconds",
            "Seconds that it took to write the last changes to the data plane",
            None,
            ConstGauge::new(0.0).metric_type(),
        )?;
        ConstGauge::new(self.apply_seconds).encode(descriptor)?;
        counters(encoder, "blixt_applies", "Times that changes were written", vec![(vec![], self.applied)])?;
        counters(
            encoder,
            "blixt_apply_failures",
            "Times that changes could not be written",
            vec![(vec![], self.apply_failures)],
        )?;
        gauges(
            encoder,
            "blixt_flow_entries",
            "Entries of the flow table, two for each connection; those that are over stay until their place is needed",
            self.by_family(|count| count.entries),
        )?;
        gauges(
            encoder,
            "blixt_flow_entries_open",
            "Entries of the flow table whose connection is not over; near the limit, raise --flows",
            self.by_family(|count| count.open),
        )?;
        gauges(
            encoder,
            "blixt_flow_entries_limit",
            "Entries that the flow table has room for",
            self.by_family(|count| count.room),
        )?;
        counters(
            encoder,
            "blixt_flow_entries_evicted",
            "Entries whose place the full flow table gave to others, those not used for the longest time first",
            self.by_family(|count| count.evicted),
        )?;
        counters(
            encoder,
            "blixt_route_connections",
            "Connections begun, by route",
            self.by_route(|counters| counters.connections),
        )?;
        counters(
            encoder,
            "blixt_route_refused",
            "Connections answered with a refusal, by route",
            self.by_route(|counters| counters.refused),
        )?;
        counters(
            encoder,
            "blixt_route_packets",
            "Packets sent on, by route and direction",
            self.by_direction(|counters| counters.requests.packets, |counters| counters.replies.packets),
        )?;
        counters(
            encoder,
            "blixt_route_bytes",
            "Bytes of IP packets sent on, by route and direction",
            self.by_direction(|counters| counters.requests.bytes, |counters| counters.replies.bytes),
        )?;
        counters(
            encoder,
            "blixt_backend_connections",
            "Connections begun, by route and backend",
            self.backends.iter().map(|number| (backend_labels(number), number.connections)).collect(),
        )?;
        counters(
            encoder,
            "blixt_dropped_packets",
            "Packets dropped, by reason",
            self.drops
                .iter()
                .map(|(reason, packets)| (vec![("reason", reason.label().to_owned())], *packets))
                .collect(),
        )
    }
}

fn route_labels(route: &RouteName) -> Labels<'static> {
    vec![
        ("kind", route.kind.to_string()),
        ("namespace", route.namespace.to_string()),
        ("name", route.name.to_string()),
    ]
}

fn backend_labels(number: &BackendNumber) -> Labels<'static> {
    let mut labels = route_labels(&number.route);
    labels.push(("backend", number.backend.to_string()));
    labels
}

fn by_label(name: &'static str, values: &BTreeMap<String, u64>) -> Vec<(Labels<'static>, u64)> {
    values.iter().map(|(label, value)| (vec![(name, label.clone())], *value)).collect()
}

/// A number that goes up and down.
pub fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    gauges(encoder, name, help, vec![(vec![], value)])
}

/// The same, by labels.
pub fn gauges(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: Vec<(Labels, u64)>,
) -> fmt::Result {
    family(encoder, name, help, values, ConstGauge::new)
}

/// A number that only grows.
pub fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    counters(encoder, name, help, vec![(vec![], value)])
}

/// Numbers that only grow, by labels.
pub fn counters(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: Vec<(Labels, u64)>,
) -> fmt::Result {
    family(encoder, name, help, values, ConstCounter::new)
}

fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: Vec<(Labels, u64)>,
    metric: impl Fn(u64) -> M,
) -> fmt::Result {
    let mut descriptor = encoder.encode_descriptor(name, help, None, metric(0).metric_type())?;
    for (labels, value) in values {
        if labels.is_empty() {
            return metric(value).encode(descriptor);
        }
        let labels: &[(&str, String)] = &labels;
        metric(value).encode(descriptor.encode_family(&LabelSlice(labels))?)?;
    }
    Ok(())
}

/// Labels as `prometheus-client` wants them.
struct LabelSlice<'a>(&'a [(&'a str, String)]);

impl EncodeLabelSet for LabelSlice<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        self.0
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .try_for_each(|label| label.encode(encoder.encode_label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blixt_core::config::Protocol;
    use blixt_packet::abi::Traffic;

    #[test]
    fn what_was_counted_is_written_with_its_labels() {
        let route = RouteName { kind: "TCPRoute".into(), namespace: "default".into(), name: "we\"b".into() };
        let backend = Endpoint { address: "10.0.0.9".parse().unwrap(), port: 8080, protocol: Protocol::Tcp };
        // No two are alike, so that none can stand for another.
        let numbers = Numbers {
            generation: 7,
            ready: true,
            applied: 8,
            apply_failures: 9,
            apply_seconds: 0.25,
            objects: BTreeMap::from([("Gateway".into(), 10)]),
            problems: 11,
            frontends: 12,
            hooks: BTreeMap::from([("tc".into(), 13)]),
            routes: vec![RouteNumber {
                route: route.clone(),
                counters: RouteCounters {
                    requests: Traffic { packets: 3, bytes: 180 },
                    replies: Traffic { packets: 2, bytes: 140 },
                    connections: 1,
                    refused: 5,
                },
            }],
            backends: vec![BackendNumber { route, backend, connections: 6 }],
            drops: BTreeMap::from([(DropReason::Refused, 4)]),
            flows: [
                FlowCount { room: 14, entries: 15, open: 16, evicted: 17, added: 18 },
                FlowCount { room: 19, entries: 20, open: 21, evicted: 22, added: 23 },
            ],
        };
        let written = text(numbers).unwrap();
        let name = r#"kind="TCPRoute",namespace="default",name="we\"b""#;
        let expected = format!(
            r#"blixt_build_info{{version="{}"}} 1
blixt_ready 1
blixt_config_generation 7
blixt_frontends 12
blixt_problems 11
blixt_objects{{kind="Gateway"}} 10
blixt_hooks{{hook="tc"}} 13
blixt_last_apply_seconds 0.25
blixt_applies_total 8
blixt_apply_failures_total 9
blixt_flow_entries{{family="ipv4"}} 15
blixt_flow_entries{{family="ipv6"}} 20
blixt_flow_entries_open{{family="ipv4"}} 16
blixt_flow_entries_open{{family="ipv6"}} 21
blixt_flow_entries_limit{{family="ipv4"}} 14
blixt_flow_entries_limit{{family="ipv6"}} 19
blixt_flow_entries_evicted_total{{family="ipv4"}} 17
blixt_flow_entries_evicted_total{{family="ipv6"}} 22
blixt_route_connections_total{{{name}}} 1
blixt_route_refused_total{{{name}}} 5
blixt_route_packets_total{{{name},direction="request"}} 3
blixt_route_packets_total{{{name},direction="reply"}} 2
blixt_route_bytes_total{{{name},direction="request"}} 180
blixt_route_bytes_total{{{name},direction="reply"}} 140
blixt_backend_connections_total{{{name},backend="10.0.0.9:8080/tcp"}} 6
blixt_dropped_packets_total{{reason="refused"}} 4
"#,
            env!("CARGO_PKG_VERSION")
        );
        let numbers: String =
            written.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        assert_eq!(numbers, expected);
    }
}
