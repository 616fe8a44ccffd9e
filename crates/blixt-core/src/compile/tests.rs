mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use blixt_packet::abi::BackendId;
use smol_str::{SmolStr, format_smolstr};

use super::recompile::touched;
use super::{Compilation, Last, Problem, compile, recompile, with_slots};
use crate::config::{Backend, Config, Endpoint, Forwarding, Frontend, Pool, Protocol, RouteName, Share};
use crate::diff::diff;
use crate::host::{Device, Host, Mac, Path};
use crate::tables::{BackendSlot, BackendState, Family, HopEntry, Limits, RouteEntry, Tables, Way};

#[test]
fn a_frontend_gets_its_route_ring_backends_and_hop() {
    let tables = compiled(&[("10.99.0.1:80", "web", &[(1, &[1, 2, 3])])], &Tables::default());
    let frontend = &tables.frontends[&endpoint("10.99.0.1:80")];
    assert_eq!(tables.routes[&frontend.route].name, Some(route("web")));
    assert_eq!(slots_of(&tables, frontend.ring).len(), 3, "each backend is in the ring");
    assert_eq!(frontend.slots, 307);
    let backend = &tables.backends[&v4_slot(1)];
    assert_eq!((backend.way, backend.state), (Way::Nat, BackendState::Serving));
    assert_eq!(backend.source, address("192.0.2.254"));
    assert_eq!(tables.hops[&backend.hop].destination, Some(Mac([2, 0, 0, 0, 0, 1])));
}

#[test]
fn compiling_again_changes_nothing() {
    let asked: &[Asked] = &[("10.99.0.1:80", "web", &[(1, &[1, 2])]), ("10.99.0.1:81", "api", &[(3, &[4])])];
    let first = compiled(asked, &Tables::default());
    let second = compiled(asked, &first);
    assert_eq!(diff(&first, &second), vec![]);
    let read_back = read_back(&first);
    let third = compiled(asked, &read_back);
    assert_eq!(diff(&read_back, &third), vec![], "nor after a restart");
    assert!(third.rings[&1].slots.is_none(), "and no ring is filled that the maps hold");
    let found = with_slots(&third, &config(asked), &host(), &Limits::default());
    assert_eq!(slots_of(&found, 1), slots_of(&first, 1), "until somebody asks for its slots");
}

#[test]
fn backends_whose_next_hops_are_alike_keep_them_after_a_restart() {
    let asked: &[Asked] = &[("10.99.0.1:80", "web", &[(1, &[1, 2, 3, 4])])];
    let mut host = host();
    host.neighbours.clear();
    let limits = Limits::default();
    let compiled = |previous: &Tables| compile(&config(asked), &host, previous, &limits).tables;
    let first = compiled(&Tables::default());
    assert_eq!(first.hops.len(), 4);
    let read_back = read_back(&first);
    assert_eq!(diff(&read_back, &compiled(&read_back)), vec![]);
}

#[test]
fn a_backend_that_stays_keeps_its_slot_and_one_that_goes_stays_as_gone() {
    let first = compiled(&[("10.99.0.1:80", "web", &[(1, &[1, 2, 3])])], &Tables::default());
    let second = compiled(&[("10.99.0.1:80", "web", &[(1, &[3, 4])])], &first);
    assert_eq!(second.backends[&v4_slot(1)].state, BackendState::Gone);
    assert_eq!(second.backends[&v4_slot(3)], first.backends[&v4_slot(3)]);
    assert_eq!(second.backends[&v4_slot(4)].endpoint.address, backend(4).address, "a slot never used");
}

#[test]
fn a_full_table_gives_gone_slots_away_with_the_next_incarnation() {
    let limits = Limits { backends: 2, ..Limits::default() };
    let mut tables = Tables::default();
    for (step, expected) in [(1, (1, 0)), (2, (2, 0)), (3, (1, 1)), (4, (2, 1)), (5, (1, 2))] {
        let config = config(&[("10.99.0.1:80", "web", &[(1, &[step])])]);
        tables = compile(&config, &host(), &tables, &limits).tables;
        let (slot, incarnation) = expected;
        let ring = tables.frontends[&endpoint("10.99.0.1:80")].ring;
        assert_eq!(slots_of(&tables, ring), [BackendId::new(slot, incarnation)].into(), "backend {step}");
    }
}

#[test]
fn backends_that_come_and_go_share_slots_and_no_id_comes_twice() {
    /// One backend after the other takes two slots, since one stands until the next one does: enough for 512 ids. Each slot
    /// more is 256 more.
    const CHANGES: usize = 2000;
    const SLOTS: usize = 2 + (CHANGES - 512).div_ceil(256);

    let mut ids = BTreeSet::new();
    let mut tables = Tables::default();
    for number in (1..200).cycle().take(CHANGES) {
        tables = compiled(&[("10.99.0.1:80", "web", &[(1, &[number])])], &tables);
        let ring = tables.frontends[&endpoint("10.99.0.1:80")].ring;
        ids.extend(slots_of(&tables, ring));
    }
    assert_eq!(ids.len(), CHANGES);
    assert!(tables.backends.len() <= SLOTS, "{} slots", tables.backends.len());
}

#[test]
fn the_incarnation_wraps() {
    let mut previous = compiled(&[("10.99.0.1:80", "web", &[(1, &[1])])], &Tables::default());
    previous.backends.get_mut(&v4_slot(1)).unwrap().incarnation = 255;
    previous.backends.get_mut(&v4_slot(1)).unwrap().state = BackendState::Gone;
    let limits = Limits { backends: 1, ..Limits::default() };
    let config = config(&[("10.99.0.1:80", "web", &[(1, &[2])])]);
    let tables = compile(&config, &host(), &previous, &limits).tables;
    assert_eq!(tables.backends[&v4_slot(1)].incarnation, 0);
}

#[test]
fn shares_follow_their_weights_and_an_empty_one_is_refused() {
    for (shares, expected) in [
        (&[(9, &[1][..]), (1, &[2])][..], &[(Some(1), 0.9), (Some(2), 0.1)][..]),
        (&[(1, &[1]), (1, &[])], &[(Some(1), 0.5), (None, 0.5)]),
        (&[(2, &[1, 2]), (1, &[3])], &[(Some(1), 1. / 3.), (Some(2), 1. / 3.), (Some(3), 1. / 3.)]),
        (&[(1, &[1, 2]), (1, &[1])], &[(Some(1), 0.75), (Some(2), 0.25)]),
        (&[(1, &[1]), (1_000_000, &[2])], &[(Some(1), 1. / 65_537.), (Some(2), 65_536. / 65_537.)]),
    ] {
        let tables = compiled(&[("10.99.0.1:80", "web", shares)], &Tables::default());
        let ring = &tables.rings[&1];
        for (number, part) in expected {
            let id = number.map_or(BackendId::REFUSE, |number| id_of(&tables, number));
            let slots = ring.slots.as_ref().unwrap().iter().filter(|slot| **slot == id).count();
            let wanted = part * f64::from(ring.len);
            assert!((slots as f64 - wanted).abs() <= 1., "{shares:?}: {number:?} has {slots} of {wanted}");
        }
    }
}

#[test]
fn a_pool_without_backends_refuses_everything() {
    for shares in [&[][..], &[(1, &[][..])]] {
        let tables = compiled(&[("10.99.0.1:80", "web", shares)], &Tables::default());
        let frontend = &tables.frontends[&endpoint("10.99.0.1:80")];
        assert_eq!((frontend.ring, frontend.slots), (0, 0), "{shares:?}");
    }
}

#[test]
fn the_ring_depends_on_the_set_of_backends_only() {
    let straight = compiled(&[("10.99.0.1:80", "web", &[(2, &[1, 2]), (1, &[3])])], &Tables::default());
    let detour = compiled(&[("10.99.0.1:80", "web", &[(1, &[9, 3, 2])])], &Tables::default());
    let detour = compiled(&[("10.99.0.1:80", "web", &[(2, &[3]), (4, &[2, 1])])], &detour);
    assert_eq!(addresses_of_ring(&straight), addresses_of_ring(&detour));
}

#[test]
fn frontends_of_one_route_share_their_ring() {
    let shares: &[(u32, &[u8])] = &[(1, &[1, 2])];
    let tables = compiled(
        &[("10.99.0.1:80", "web", shares), ("10.99.0.1:81", "web", shares), ("10.99.0.1:82", "api", shares)],
        &Tables::default(),
    );
    assert_eq!(tables.rings.len(), 2, "one for each route");
    assert_eq!(tables.backends.len(), 4);
}

#[test]
fn a_ring_of_the_same_size_is_overwritten_and_another_size_is_another_ring() {
    let one = compiled(&[("10.99.0.1:80", "web", &[(1, &[1, 2, 3])])], &Tables::default());
    let other = compiled(&[("10.99.0.1:80", "web", &[(1, &[1, 2, 4])])], &one);
    assert_eq!(other.rings.keys().collect::<Vec<_>>(), [&1]);
    let larger = compiled(&[("10.99.0.1:80", "web", &[(1, &[1, 2, 4, 5])])], &other);
    assert_eq!(larger.rings.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_ring_that_another_frontend_still_uses_is_not_overwritten() {
    let both: &[Asked] =
        &[("10.99.0.1:80", "web", &[(1, &[1, 2])]), ("10.99.0.1:81", "web", &[(1, &[1, 2])])];
    let one = compiled(both, &Tables::default());
    let two = compiled(&[both[0], ("10.99.0.1:81", "web", &[(1, &[1, 3])])], &one);
    assert_eq!(two.frontends[&endpoint("10.99.0.1:80")], one.frontends[&endpoint("10.99.0.1:80")]);
    assert_ne!(two.frontends[&endpoint("10.99.0.1:81")].ring, 1);
}

#[test]
fn a_ring_that_another_frontend_takes_over_is_not_overwritten() {
    // The only frontend of route `web` moves to another port, where its ring goes along; the port that it leaves gets another route.
    let one = compiled(&[("10.99.0.1:80", "web", &[(1, &[1, 2])])], &Tables::default());
    let two =
        compiled(&[("10.99.0.1:80", "api", &[(1, &[3, 4])]), ("10.99.0.1:81", "web", &[(1, &[1, 2])])], &one);
    let ring = |port: &str| two.frontends[&endpoint(&format!("10.99.0.1:{port}"))].ring;
    assert_eq!(ring("81"), one.frontends[&endpoint("10.99.0.1:80")].ring);
    assert_ne!(ring("80"), ring("81"));
}

#[test]
fn the_way_follows_path_node_and_forwarding() {
    let transparent = Forwarding::Transparent;
    for (number, node, forwarding, way) in [
        (1, None, Forwarding::Nat, Way::Nat),
        (1, Some("other"), transparent, Way::Transparent),
        (1, Some("here"), Forwarding::Nat, Way::Local),
        (200, None, transparent, Way::Local),
    ] {
        let mut config = config(&[("10.99.0.1:80", "web", &[(1, &[])])]);
        let frontend = first_of(&mut config);
        frontend.forwarding = forwarding;
        let backend = Backend { node: node.map(SmolStr::new_static), ..backend(number) };
        frontend.pool.shares[0].backends = [backend].into();
        let Compilation { tables, problems } =
            compile(&config, &host(), &Tables::default(), &Limits::default());
        let entry = &tables.backends[&v4_slot(1)];
        assert_eq!(entry.way, way, "backend {number} on {node:?} with {forwarding:?}");
        // Where a local one sits, so that the program knows its neighbours; a process of the machine has none.
        assert_eq!(entry.hop == 0, number == 200, "backend {number}");
        assert_eq!(problems, vec![]);
    }
}

#[test]
fn a_backend_that_is_reached_otherwise_keeps_its_slot() {
    let asked: &[Asked] = &[("10.99.0.1:80", "web", &[(1, &[1])])];
    let first = compiled(asked, &Tables::default());
    let mut host = host();
    Arc::make_mut(&mut host.paths).get_mut(&backend(1).address).unwrap().local = true;
    let second = compile(&config(asked), &host, &first, &Limits::default()).tables;
    assert_eq!(second.backends.len(), 1);
    assert_eq!(second.backends[&v4_slot(1)].way, Way::Local);
    assert_eq!(second.rings, first.rings);
}

#[test]
fn a_backend_without_path_is_reported_and_keeps_its_part() {
    let config = config(&[("10.99.0.1:80", "web", &[(1, &[1, 250])])]);
    let Compilation { tables, problems } = compile(&config, &host(), &Tables::default(), &Limits::default());
    assert_eq!(slots_of(&tables, 1).len(), 2);
    let lost = tables.backends.values().find(|entry| entry.endpoint.address == backend(250).address).unwrap();
    assert_eq!((lost.hop, lost.source), (0, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "listener default/gateway/80 (10.99.0.1:80/tcp): this machine has no route to backend \
         192.0.2.250:8080/tcp; see `ip route get 192.0.2.250`"
    );
}

#[test]
fn draining_backends_stand_and_are_in_no_ring() {
    let mut config = config(&[("10.99.0.1:80", "web", &[(1, &[1, 2])])]);
    let first = compile(&config, &host(), &Tables::default(), &Limits::default()).tables;
    let pool = &mut first_of(&mut config).pool;
    pool.shares[0].backends = [backend(1)].into();
    pool.draining = [backend(2)].into();
    let second = compile(&config, &host(), &first, &Limits::default()).tables;
    assert_eq!(second.backends[&v4_slot(2)].state, BackendState::Draining);
    assert_eq!(second.backends[&v4_slot(2)].incarnation, first.backends[&v4_slot(2)].incarnation);
    assert_eq!(slots_of(&second, 1), [BackendId::new(1, 0)].into());
}

#[test]
fn backends_of_the_other_family_are_reported_and_their_share_is_refused() {
    let mut config = config(&[("10.99.0.1:80", "web", &[(1, &[])])]);
    let other = Backend { address: address("2001:db8::1"), port: 8080, node: None };
    first_of(&mut config).pool.shares[0].backends = [other].into();
    let Compilation { tables, problems } = compile(&config, &host(), &Tables::default(), &Limits::default());
    assert!(matches!(problems[..], [Problem::OtherFamily { .. }]), "{problems:?}");
    assert!(tables.backends.is_empty() && tables.rings.is_empty());
}

#[test]
fn what_has_no_room_is_reported_and_the_rest_is_served() {
    let asked: &[Asked] =
        &[("10.99.0.1:80", "web", &[(1, &[1, 2])]), ("10.99.0.1:81", "api", &[(1, &[1, 3])])];
    let served = compiled(&asked[1..], &Tables::default());
    let check = |limits: Limits, expected: fn(&Problem) -> bool, frontends: usize| {
        let Compilation { tables, problems } = compile(&config(asked), &host(), &served, &limits);
        assert!(!problems.is_empty() && problems.iter().all(expected), "{problems:?}");
        assert_eq!(tables.frontends.len(), frontends);
        assert_eq!(
            tables.frontends[&endpoint("10.99.0.1:81")],
            served.frontends[&endpoint("10.99.0.1:81")],
            "what is served already goes first"
        );
    };
    let all = Limits::default();
    check(Limits { frontends: 1, ..all }, |problem| matches!(problem, Problem::FrontendsFull { .. }), 1);
    check(Limits { rings: 1, ..all }, |problem| matches!(problem, Problem::RingsFull { .. }), 2);
    check(Limits { routes: 1, ..all }, |problem| matches!(problem, Problem::RoutesFull { .. }), 2);
    check(Limits { backends: 3, ..all }, |problem| matches!(problem, Problem::BackendsFull { .. }), 2);
}

#[test]
fn only_addresses_that_the_host_does_not_have_are_owned() {
    let addresses = ["192.0.2.254", "192.0.2.99", "10.99.0.1"].map(address).into();
    let config = Config { addresses, ..Config::default() };
    let mut host = host();
    host.on_link.insert(address("192.0.2.99"), 7);
    let tables = compile(&config, &host, &Tables::default(), &Limits::default()).tables;
    assert_eq!(tables.addresses, BTreeMap::from([(address("10.99.0.1"), 0), (address("192.0.2.99"), 7)]));
}

#[test]
fn hops_keep_their_ids_when_a_neighbour_moves_and_not_when_a_path_does() {
    let asked: &[Asked] = &[("10.99.0.1:80", "web", &[(1, &[1, 2])])];
    let first = compiled(asked, &Tables::default());
    let mut host = host();
    host.neighbours.insert((7, backend(1).address), Mac([6; 6]));
    Arc::make_mut(&mut host.paths).get_mut(&backend(2).address).unwrap().next_hop = address("192.0.2.253");
    let second = compile(&config(asked), &host, &first, &Limits::default()).tables;
    assert_eq!(second.backends[&v4_slot(1)].hop, first.backends[&v4_slot(1)].hop);
    assert_eq!(second.hops[&1].destination, Some(Mac([6; 6])));
    assert_eq!(second.backends[&v4_slot(2)].hop, 3);
    assert_eq!(second.hops[&3].destination, None, "a neighbour that is not resolved: ask the kernel");
}

#[test]
fn one_change_among_ten_thousand_frontends_computes_one_ring() {
    let mut config = Config::default();
    for number in 0..10_000_u16 {
        let key = Endpoint { address: address("10.99.0.1"), port: number + 1, protocol: Protocol::Tcp };
        let backends = [1, 2, 3].map(|last| Backend { port: number + 1, ..backend(last) }).into();
        let frontend = frontend_of(&number.to_string(), vec![Share { weight: 1, backends }]);
        config.frontends.insert(key, Arc::new(frontend));
    }
    let first = compile(&config, &host(), &Tables::default(), &Limits::default()).tables;
    let before = config.clone();
    let changed = config.frontends.values_mut().nth(5000).unwrap();
    let backends = &mut Arc::make_mut(changed).pool.shares[0].backends;
    *backends = backends[1..].into();
    let last = Last { config: &before, host: &host(), tables: &first, problems: &[] };
    let touched = touched(&config, &host(), &last, &Limits::default()).expect("all of it is compiled anew");
    assert_eq!(touched.routes.len(), 1);
    let started = Instant::now();
    let ops = recompile(&config, &host(), &last, &Limits::default()).ops;
    println!("compiled in {:?}, {} operations", started.elapsed(), ops.len());
    assert_eq!(ops.len(), 4, "the new ring, the frontend, the backend that went, the old ring: {ops:?}");
}

#[test]
fn slots_that_the_maps_hold_are_forgotten_and_found_again() {
    const BEFORE: &[(u32, &[u8])] = &[(1, &[1, 2])];
    const AFTER: &[(u32, &[u8])] = &[(1, &[1, 2, 3])];
    let names: Vec<(String, String)> =
        (80..90).map(|port| (format!("10.99.0.1:{port}"), format!("web-{port}"))).collect();
    let mut asked: Vec<Asked<'_>> = names.iter().map(|(to, name)| (&**to, &**name, BEFORE)).collect();
    let (before, whole) = (config(&asked), compiled(&asked, &Tables::default()));
    asked[9].2 = AFTER;
    let after = config(&asked);
    let mut forgotten = whole.clone();
    forgotten.forget_slots();
    let last = Last { config: &before, host: &host(), tables: &forgotten, problems: &[] };
    let mut tables = forgotten.clone();
    recompile(&after, &host(), &last, &Limits::default()).ops.iter().for_each(|op| tables.apply(op));
    let known = tables.rings.values().filter(|ring| ring.slots.is_some()).count();
    assert_eq!((tables.rings.len(), known), (10, 1), "only the ring that changed is computed");
    let found = with_slots(&forgotten, &before, &host(), &Limits::default());
    for (id, ring) in &whole.rings {
        assert_eq!(found.rings[id].slots, ring.slots);
    }
}

type Asked<'a> = (&'a str, &'a str, &'a [(u32, &'a [u8])]);

fn compiled(asked: &[Asked<'_>], previous: &Tables) -> Tables {
    let Compilation { tables, problems } = compile(&config(asked), &host(), previous, &Limits::default());
    assert_eq!(problems, vec![]);
    tables
}

fn config(asked: &[Asked<'_>]) -> Config {
    let mut config = Config::default();
    for (text, name, shares) in asked {
        let shares = shares
            .iter()
            .map(|(weight, numbers)| Share {
                weight: *weight,
                backends: numbers.iter().copied().map(backend).collect(),
            })
            .collect();
        config.frontends.insert(endpoint(text), Arc::new(frontend_of(name, shares)));
    }
    for (endpoint, frontend) in &mut config.frontends {
        Arc::make_mut(frontend).listener = format_smolstr!("default/gateway/{}", endpoint.port);
    }
    config
}

fn first_of(config: &mut Config) -> &mut Frontend {
    Arc::make_mut(config.frontends.values_mut().next().unwrap())
}

fn frontend_of(name: &str, shares: Vec<Share>) -> Frontend {
    Frontend {
        listener: format_smolstr!("default/gateway/{name}"),
        route: Some(route(name)),
        forwarding: Forwarding::Nat,
        pool: Pool { shares, draining: Box::default() },
    }
}

fn route(name: &str) -> RouteName {
    RouteName { kind: "TCPRoute".into(), namespace: "default".into(), name: name.into() }
}

fn endpoint(text: &str) -> Endpoint {
    let socket: std::net::SocketAddr = text.parse().unwrap();
    Endpoint { address: socket.ip(), port: socket.port(), protocol: Protocol::Tcp }
}

fn backend(number: u8) -> Backend {
    Backend { address: IpAddr::from([192, 0, 2, number]), port: 8080, node: None }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4_slot(slot: u32) -> BackendSlot {
    BackendSlot { family: Family::V4, slot }
}

/// A machine with one device; 192.0.2.1 to .199 are on its link, .200 is the machine's own, .201 and up unknown.
fn host() -> Host {
    let device = Device {
        name: "eth0".to_owned(),
        mac: Mac([2; 6]),
        mtu: 1500,
        xdp_target: false,
        xdp_sender: false,
        of_host: false,
    };
    let mut host = Host {
        name: "here".to_owned(),
        addresses: [address("192.0.2.254")].into(),
        devices: BTreeMap::from([(7, device)]),
        ..Host::default()
    };
    for number in 1..=200 {
        let address = backend(number).address;
        let path = Path {
            device: 7,
            next_hop: address,
            source: IpAddr::from([192, 0, 2, 254]),
            mtu: 1500,
            local: number == 200,
        };
        Arc::make_mut(&mut host.paths).insert(address, path);
        host.neighbours.insert((7, address), Mac([2, 0, 0, 0, 0, number]));
    }
    host
}

/// What is left of tables when they are read from the kernel.
fn read_back(tables: &Tables) -> Tables {
    let mut tables = tables.clone();
    for ring in tables.rings.values_mut() {
        ring.slots = None;
    }
    for HopEntry { next_hop, .. } in tables.hops.values_mut() {
        *next_hop = None;
    }
    for RouteEntry { name, .. } in tables.routes.values_mut() {
        *name = None;
    }
    tables
}

fn slots_of(tables: &Tables, ring: u32) -> BTreeSet<BackendId> {
    tables.rings[&ring].slots.as_ref().unwrap().iter().copied().collect()
}

fn id_of(tables: &Tables, number: u8) -> BackendId {
    let address = backend(number).address;
    let (slot, entry) = tables.backends.iter().find(|(_, entry)| entry.endpoint.address == address).unwrap();
    BackendId::new(slot.slot, entry.incarnation)
}

fn addresses_of_ring(tables: &Tables) -> Vec<Option<IpAddr>> {
    addresses_of_rings(tables).into_values().next().unwrap()
}

fn addresses_of_rings(tables: &Tables) -> BTreeMap<Endpoint, Vec<Option<IpAddr>>> {
    let holder = |id: &BackendId| {
        let slot = BackendSlot { family: Family::V4, slot: id.slot() };
        (*id != BackendId::REFUSE).then(|| tables.backends[&slot].endpoint.address)
    };
    let rings = tables.frontends.iter().filter(|(_, entry)| entry.ring != 0);
    rings
        .map(|(endpoint, entry)| {
            let slots = tables.rings[&entry.ring].slots.as_ref().unwrap();
            (*endpoint, slots.iter().map(holder).collect())
        })
        .collect()
}
