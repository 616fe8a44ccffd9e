//! Whatever comes over the wire: never a panic, and nothing gets further that the tables could not hold.

use std::net::IpAddr;
use std::sync::Arc;

use blixt_core::compile::compile;
use blixt_core::config::{Config, Endpoint, Generation};
use blixt_core::diff::diff;
use blixt_core::host::{Device, Host, Mac, Path};
use blixt_core::tables::{BackendSlot, Family, Limits, Tables};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::Message;
use tonic::codegen::Bytes;

use super::config_parts::{Assembly, ConfigPart};
use super::proto;
use super::report::NodeReport;

/// Few enough that some Configs do not fit.
const LIMITS: Limits = Limits { frontends: 4, backends: 8, rings: 6, routes: 3, hops: 4, addresses: 2 };

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn an_agent_takes_any_parts_or_refuses_them(messages in vec(any_part(), 1..6)) {
        obey(messages)?;
    }

    #[test]
    fn an_agent_takes_damaged_messages_or_refuses_them(
        messages in vec((any_part(), vec((any::<Index>(), any::<u8>()), 0..4), option::of(any::<Index>())), 1..6),
    ) {
        let decoded = messages.into_iter().filter_map(|(part, changes, end)| {
            ConfigPart::decode(&*damaged(part.encode_to_vec(), &changes, end)).ok()
        });
        obey(decoded.collect())?;
    }

    #[test]
    fn a_controller_takes_any_report_or_refuses_it(
        report in any_report(), changes in vec((any::<Index>(), any::<u8>()), 0..4), end in option::of(any::<Index>()),
    ) {
        for bytes in [report.encode_to_vec(), damaged(report.encode_to_vec(), &changes, end)] {
            if let Ok(report) = proto::Report::decode(&*bytes)
                && let Ok(report) = NodeReport::try_from(report)
            {
                let again = NodeReport::try_from(proto::Report::from(&report)).unwrap();
                prop_assert_eq!(again.generation, report.generation);
                prop_assert!(again.frontends.keys().all(|endpoint| report.frontends.contains_key(endpoint)));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(part) = ConfigPart::decode(&*bytes) {
            obey(vec![part])?;
        }
        let _ = proto::Report::decode(&*bytes).map(NodeReport::try_from);
    }
}

/// What an agent does with what it is sent, up to the tables. After what is malformed the stream ends.
fn obey(messages: Vec<ConfigPart>) -> Result<(), TestCaseError> {
    let mut assembly = Assembly::default();
    let mut tables = Tables::default();
    for message in messages {
        let Ok(closed) = assembly.add(message) else { return Ok(()) };
        let Some((config, Generation(_))) = closed else { continue };
        check_percents(&config)?;
        let next = compile(&config, &host(&config), &tables, &LIMITS).tables;
        for op in diff(&tables, &next) {
            tables.apply(&op);
        }
        prop_assert_eq!(&tables.frontends, &next.frontends);
        for (endpoint, frontend) in &tables.frontends {
            check_ring(&tables, endpoint, frontend.ring)?;
        }
    }
    Ok(())
}

/// What `status` shows of the weights.
fn check_percents(config: &Config) -> Result<(), TestCaseError> {
    for frontend in config.frontends.values() {
        let percents: f64 =
            frontend.pool.shares.iter().map(|share| frontend.pool.percent(share.weight.into())).sum();
        prop_assert!(frontend.pool.shares.is_empty() || (percents - 100.0).abs() < 0.001, "{percents}");
    }
    Ok(())
}

/// Everybody in a ring stands somewhere.
fn check_ring(tables: &Tables, endpoint: &Endpoint, ring: u32) -> Result<(), TestCaseError> {
    let slots = tables.rings.get(&ring).and_then(|ring| ring.slots.as_ref());
    for id in slots.iter().flat_map(|slots| slots.iter()).filter(|id| id.slot() != 0) {
        let slot = BackendSlot { family: Family::from(endpoint.address), slot: id.slot() };
        prop_assert!(tables.backends.contains_key(&slot), "{endpoint}: nobody stands in {slot:?}");
    }
    Ok(())
}

/// A machine from which every backend is reached.
fn host(config: &Config) -> Host {
    let device = Device { name: "eth0".to_owned(), mac: Mac([2; 6]), mtu: 1500, ..Device::default() };
    let backends = config.frontends.values().flat_map(|frontend| frontend.pool.backends());
    let path = |address: IpAddr| {
        let source =
            if address.is_ipv4() { [192, 0, 2, 1].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, 1].into() };
        (address, Path { device: 1, next_hop: address, source, mtu: 1500, local: false })
    };
    let paths = backends.map(|backend| path(backend.address)).collect();
    Host {
        name: "node1".to_owned(),
        devices: [(1, device)].into(),
        paths: Arc::new(paths),
        ..Host::default()
    }
}

fn damaged(mut bytes: Vec<u8>, changes: &[(Index, u8)], end: Option<Index>) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(end) = end {
        bytes.truncate(end.index(bytes.len()));
    }
    bytes
}

/// Mostly as it should be.
fn any_part() -> impl Strategy<Value = ConfigPart> {
    let frontends = vec(any_frontend(), 0..5);
    let removed = vec(any_endpoint(), 0..3);
    let addresses = vec(any_address(), 0..4);
    (any::<bool>(), frontends, removed, addresses, option::weighted(0.8, any::<u64>())).prop_map(
        |(whole, frontends, removed, addresses, generation)| ConfigPart {
            whole,
            frontends,
            removed,
            addresses,
            generation,
        },
    )
}

fn any_frontend() -> impl Strategy<Value = proto::Frontend> {
    let endpoint = option::weighted(0.99, any_endpoint());
    let name = option::of(select(vec!["a", "b", "c", "d", ""]));
    let route =
        name.prop_map(|name| name.map(|name| proto::RouteName { name: name.into(), ..Default::default() }));
    let weight = prop_oneof![20 => 1_u32..5, 1 => Just(0), 5 => Just(u32::MAX)];
    let share =
        (weight, vec(any_backend(), 0..5)).prop_map(|(weight, backends)| proto::Share { weight, backends });
    (endpoint, route, -1_i32..3, vec(share, 0..4), vec(any_backend(), 0..3)).prop_map(
        |(endpoint, route, forwarding, shares, draining)| proto::Frontend {
            endpoint,
            listener: "a/b/c".to_owned(),
            route,
            forwarding,
            shares,
            draining,
        },
    )
}

fn any_endpoint() -> impl Strategy<Value = proto::Endpoint> {
    let protocol = prop_oneof![10 => Just(6), 10 => Just(17), 1 => any::<u32>()];
    (any_address(), any_port(), protocol).prop_map(|(address, port, protocol)| proto::Endpoint {
        address,
        port,
        protocol,
    })
}

fn any_backend() -> impl Strategy<Value = proto::Backend> {
    let node = option::of(select(vec!["node1", "node2", ""]));
    (any_address(), any_port(), node).prop_map(|(address, port, node)| proto::Backend {
        address,
        port,
        node: node.map(str::to_owned),
    })
}

fn any_port() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 79_u32..82, 1 => Just(0), 1 => Just(65_535), 1 => any::<u32>()]
}

fn any_address() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        20 => (1_u8..6).prop_map(|last| vec![10, 0, 0, last]),
        10 => (1_u8..6).prop_map(|last| {
            let mut bytes = vec![0; 16];
            (bytes[0], bytes[15]) = (0xfd, last);
            bytes
        }),
        1 => select(vec![vec![0; 4], vec![255; 4], vec![127, 0, 0, 1], vec![0; 16], vec![255; 16]]),
        1 => vec(any::<u8>(), 0..20),
    ]
    .prop_map(Bytes::from)
}

fn any_report() -> impl Strategy<Value = proto::Report> {
    let finding = || {
        ("[a-c]{0,3}", vec(any_endpoint(), 0..4))
            .prop_map(|(message, endpoints)| proto::Finding { message, endpoints })
    };
    (any::<u64>(), vec(finding(), 0..4), vec(finding(), 0..4)).prop_map(|(generation, errors, warnings)| {
        proto::Report { generation, errors, warnings, version: String::new() }
    })
}
