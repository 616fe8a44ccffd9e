//! What holds for any Config, any machine and any tables before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use blixt_packet::abi::BackendId;
use proptest::prelude::*;

use super::super::{Change, Compilation, Last, compile, recompile, with_slots};
use super::{address, addresses_of_rings, backend, frontend_of, host, read_back};
use crate::config::{Config, Endpoint, Forwarding, Protocol, Share};
use crate::diff::diff;
use crate::host::{Host, Mac, Path};
use crate::tables::{
    BackendEntry, BackendSlot, BackendState, Family, FrontendEntry, HopEntry, Limits, Ring, RouteEntry,
    Tables, Way,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_prefix_of_a_diff_every_frontend_has_its_backends(
        steps in proptest::collection::vec(any_step(), 2..6),
    ) {
        let limits = Limits { frontends: 6, backends: 14, rings: 12, routes: 5, hops: 12, addresses: 8 };
        let mut tables = Tables::default();
        for Step { config, host, restart } in steps {
            if restart {
                tables = read_back(&tables);
            }
            let target = compile(&config, &host, &tables, &limits).tables;
            // What rings hold that were read back, too.
            let known = with_slots(&target, &config, &host, &limits);
            for op in diff(&tables, &target) {
                tables.apply(&op);
                let both = config.frontends.keys().filter(|key| target.frontends.contains_key(key));
                for endpoint in both {
                    check_frontend(&tables, &known, endpoint)?;
                }
            }
            prop_assert_eq!(&tables, &target);
            tables = target;
            for endpoint in tables.frontends.keys() {
                check_frontend(&tables, &known, endpoint)?;
            }
        }
    }

    #[test]
    fn equal_configs_give_equal_distributions_whatever_was_before(
        before in any_step(), step in any_step(),
    ) {
        let limits = Limits::default();
        let history = compile(&before.config, &before.host, &Tables::default(), &limits).tables;
        let with = compile(&step.config, &step.host, &history, &limits).tables;
        let without = compile(&step.config, &step.host, &Tables::default(), &limits).tables;
        prop_assert_eq!(addresses_of_rings(&with), addresses_of_rings(&without));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recompiling_a_change_is_compiling_everything(
        steps in proptest::collection::vec(any_step(), 2..5), limits in any_limits(),
    ) {
        let mut last: Option<(Config, Host, Compilation)> = None;
        for (many, Step { config, host, .. }) in steps.into_iter().enumerate() {
            // Some frontends that do not change, so that a change is a small one.
            let mut config = config;
            for port in 1000..1040_u16 {
                let key = Endpoint { address: address("10.99.0.1"), port, protocol: Protocol::Tcp };
                let share = Share { weight: 1, backends: [backend(1), backend((port % 7) as u8 + 1)].into() };
                config.frontends.insert(key, Arc::new(frontend_of(&format!("still-{port}"), vec![share])));
            }
            let host = if many % 2 == 0 { host } else { Host { paths: last_paths(&last), ..host } };
            let previous = last.as_ref().map(|(_, _, compilation)| compilation.tables.clone()).unwrap_or_default();
            let whole = compile(&config, &host, &previous, &limits);
            if let Some((last_config, last_host, compilation)) = &last {
                let last = Last {
                    config: last_config,
                    host: last_host,
                    tables: &compilation.tables,
                    problems: &compilation.problems,
                };
                let change = Change { ops: diff(last.tables, &whole.tables), problems: whole.problems.clone() };
                prop_assert_eq!(&recompile(&config, &host, &last, &limits), &change);
            }
            last = Some((config, host, whole));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_maps_held_they_become_what_they_should_be(step in any_step(), found in any_found()) {
        let limits = Limits { frontends: 8, backends: FOUND, rings: FOUND, routes: FOUND, hops: FOUND, addresses: 8 };
        let mut written = found;
        // What has no room gets it once somebody is gone.
        for pass in 0.. {
            let tables = compile(&step.config, &step.host, &written, &limits).tables;
            let ops = diff(&written, &tables);
            for op in &ops {
                written.apply(op);
            }
            prop_assert_eq!(&written.frontends, &tables.frontends);
            prop_assert_eq!(&written.addresses, &tables.addresses);
            for endpoint in step.config.frontends.keys() {
                check_frontend(&written, &tables, endpoint)?;
            }
            if ops.is_empty() {
                break;
            }
            prop_assert!(pass < 4, "it comes to no end: {:?}", ops);
        }
    }
}

/// Slots and ids that were found go up to this one.
const FOUND: u32 = 40;

/// What may be read back from maps that somebody else wrote: ids lead anywhere.
fn any_found() -> impl Strategy<Value = Tables> {
    let id = || prop_oneof![0..FOUND, Just(u32::MAX - 1), Just(u32::MAX)];
    let place = 0..=FOUND;
    let endpoint = (1_u8..10, 80_u16..84).prop_map(|(number, port)| {
        let address = if number < 7 { backend(number).address } else { address("10.99.0.1") };
        Endpoint { address, port: if number < 7 { 8080 } else { port }, protocol: Protocol::Tcp }
    });
    let state =
        prop_oneof![Just(BackendState::Gone), Just(BackendState::Serving), Just(BackendState::Draining)];
    let way = prop_oneof![Just(Way::Nat), Just(Way::Transparent), Just(Way::Local)];
    let entry = (endpoint.clone(), any::<u8>(), state, way, id(), id()).prop_map(
        |(endpoint, incarnation, state, way, hop, route)| BackendEntry {
            endpoint,
            incarnation,
            state,
            way,
            source: address("192.0.2.254"),
            hop,
            route,
        },
    );
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let slot = (family, place.clone()).prop_map(|(family, slot)| BackendSlot { family, slot });
    let backends = proptest::collection::btree_map(slot, entry, 0..20);
    let ring = (any::<u64>(), id()).prop_map(|(hash, len)| Ring { hash, len, slots: None });
    let rings = proptest::collection::btree_map(place.clone(), ring, 0..10);
    let hop = (id(), proptest::option::of(0_u8..3)).prop_map(|(device, mac)| HopEntry {
        next_hop: None,
        device,
        mtu: 1500,
        source: Mac([2; 6]),
        destination: mac.map(|mac| Mac([2, 0, 0, 0, 0, mac])),
    });
    let hops = proptest::collection::btree_map(place.clone(), hop, 0..10);
    let route = prop_oneof![any::<u64>(), Just(1)].prop_map(|hash| RouteEntry { hash, name: None });
    let routes = proptest::collection::btree_map(place, route, 0..10);
    let frontend = (id(), id(), id()).prop_map(|(ring, slots, route)| FrontendEntry { ring, slots, route });
    let frontends = proptest::collection::btree_map(endpoint, frontend, 0..8);
    (backends, rings, hops, routes, frontends).prop_map(|(backends, rings, hops, routes, frontends)| Tables {
        backends,
        rings,
        hops,
        routes,
        frontends,
        ..Tables::default()
    })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    prop_oneof![
        Just(Limits::default()),
        (44_u32..50, 60_u32..120).prop_map(|(rings, backends)| Limits {
            rings,
            backends,
            ..Limits::default()
        }),
    ]
}

fn last_paths(last: &Option<(Config, Host, Compilation)>) -> Arc<BTreeMap<IpAddr, Path>> {
    last.as_ref().map(|(_, host, _)| host.paths.clone()).unwrap_or_default()
}

/// Whoever the frontend leads to stands there, by a hop that exists.
fn check_frontend(tables: &Tables, target: &Tables, endpoint: &Endpoint) -> Result<(), TestCaseError> {
    let Some(entry) = tables.frontends.get(endpoint) else {
        return Ok(());
    };
    prop_assert!(entry.route == 0 || tables.routes.contains_key(&entry.route));
    if entry.ring == 0 {
        return Ok(());
    }
    let Some(ring) = tables.rings.get(&entry.ring) else {
        return Err(TestCaseError::fail(format!("{endpoint}: no ring {}", entry.ring)));
    };
    prop_assert_eq!(ring.len, entry.slots);
    // Content that was read back is the target's, if it is to stay.
    let same = target.rings.get(&entry.ring).filter(|other| *other == ring);
    let known = ring.slots.as_ref().or_else(|| same?.slots.as_ref());
    for id in known.iter().flat_map(|slots| slots.iter()).filter(|id| **id != BackendId::REFUSE) {
        let slot = BackendSlot { family: Family::from(endpoint.address), slot: id.slot() };
        let Some(backend) = tables.backends.get(&slot) else {
            return Err(TestCaseError::fail(format!("{endpoint}: nobody ever stood in {slot:?}")));
        };
        if ring.slots.is_some() {
            prop_assert_eq!(backend.incarnation, id.incarnation());
            prop_assert_eq!(backend.state, BackendState::Serving);
        }
        prop_assert!(backend.hop == 0 || tables.hops.contains_key(&backend.hop));
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Step {
    config: Config,
    host: Host,
    restart: bool,
}

fn any_step() -> impl Strategy<Value = Step> {
    let share = (1_u32..4, proptest::collection::btree_set(1_u8..7, 0..4));
    let frontend = (
        0_u16..8,
        0_u8..3,
        any::<bool>(),
        proptest::collection::vec(share, 0..3),
        proptest::option::of(1_u8..7),
    );
    let lost = proptest::option::of(1_u8..7);
    (proptest::collection::vec(frontend, 0..6), lost, any::<bool>(), any::<bool>()).prop_map(
        |(frontends, lost, moved, restart)| {
            let mut config = Config::default();
            for (port, name, transparent, shares, draining) in frontends {
                let key =
                    Endpoint { address: address("10.99.0.1"), port: port + 80, protocol: Protocol::Tcp };
                let shares = shares
                    .into_iter()
                    .map(|(weight, numbers)| Share {
                        weight,
                        backends: numbers.into_iter().map(backend).collect(),
                    })
                    .collect();
                let mut frontend = frontend_of(&format!("route-{name}"), shares);
                frontend.pool.draining = draining.into_iter().map(backend).collect();
                if transparent {
                    frontend.forwarding = Forwarding::Transparent;
                }
                config.frontends.insert(key, Arc::new(frontend));
            }
            let mut host = host();
            if let Some(lost) = lost {
                Arc::make_mut(&mut host.paths).remove(&backend(lost).address);
            }
            if moved {
                for path in Arc::make_mut(&mut host.paths).values_mut() {
                    path.next_hop = address("192.0.2.253");
                }
            }
            Step { config, host, restart }
        },
    )
}
