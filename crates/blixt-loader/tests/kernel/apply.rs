//! Applying: what was written is what is read back, after any prefix.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use blixt_core::config::{Endpoint, Protocol};
use blixt_core::diff::diff;
use blixt_core::host::Mac;
use blixt_core::tables::{
    BackendEntry, BackendSlot, BackendState, DeviceEntry, Family, FrontendEntry, HopEntry, Op, Ring,
    RouteEntry, Tables, Way,
};
use blixt_loader::{Capacity, Dataplane, Error, Options};
use blixt_packet::abi::BackendId;
use proptest::collection::btree_map;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::world::{World, open, options};

#[test]
fn after_any_prefix_the_maps_hold_what_the_tables_say() {
    World::run(|world| {
        let mut dataplane = open();
        let mut current = Tables::default();
        let mut runner = TestRunner::deterministic();
        let strategy = (tables(), any::<prop::sample::Index>());
        for _ in 0..64 {
            let (wanted, prefix) = strategy.new_tree(&mut runner).unwrap().current();
            let ops = diff(&current, &wanted);
            let ops = &ops[..prefix.index(ops.len() + 1)];
            dataplane.apply(ops).unwrap();
            ops.iter().for_each(|op| current.apply(op));
            assert_eq!(dataplane.read_back().unwrap(), current);
            assert_eq!(endpoints(world), expected_endpoints(&current));
        }
        // A process that takes over sees the same, and goes on from there.
        drop(dataplane);
        let mut next = open();
        assert_eq!(next.read_back().unwrap(), current);
        next.apply(&diff(&current, &Tables { backends: current.backends.clone(), ..Tables::default() }))
            .unwrap();
        assert_eq!(next.read_back().unwrap().frontends, BTreeMap::new());
    });
}

#[test]
fn rings_hold_their_slots_whether_made_resized_or_rewritten() {
    World::run(|world| {
        let mut dataplane = open();
        for (len, seed) in [(251, 1), (251, 2), (4001, 3), (307, 4), (307, 5), (1, 6)] {
            let rings: Vec<_> = (1..=40).map(|id| (id, ring(len, seed * 100 + id))).collect();
            let ops: Vec<_> = rings.iter().map(|(id, ring)| Op::SetRing(*id, Some(ring.clone()))).collect();
            dataplane.apply(&ops).unwrap();
            for (id, ring) in &rings {
                assert_eq!(slots(world, *id, len), ring.slots.as_deref().unwrap(), "ring {id} of {len}");
            }
            assert_eq!(dataplane.read_back().unwrap().rings, rings.into_iter().collect());
        }
        dataplane.apply(&[Op::SetRing(7, None)]).unwrap();
        let rings = dataplane.read_back().unwrap().rings;
        assert!(!rings.contains_key(&7) && rings.len() == 39);
    });
}

#[test]
fn a_ring_that_was_read_back_cannot_be_written() {
    World::run(|_| {
        let mut dataplane = open();
        let ring = Ring { slots: None, ..ring(251, 1) };
        let error = dataplane.apply(&[Op::SetRing(3, Some(ring))]).unwrap_err();
        assert!(matches!(error, Error::RingUnknown { id: 3 }), "{error:?}");
    });
}

#[test]
fn a_full_map_says_which_flag_makes_it_larger_and_what_is_written_stays() {
    World::run(|_| {
        let mut dataplane = open();
        let frontend = FrontendEntry { ring: 0, slots: 0, route: 0 };
        let ops: Vec<_> =
            (1..=70).map(|n| Op::SetFrontend(endpoint(1, 3 * n + 1), Some(frontend.clone()))).collect();
        let error = dataplane.apply(&ops).unwrap_err();
        assert!(matches!(error, Error::Full { map: "FRONTENDS_V4", max_entries: 64 }), "{error:?}");
        assert!(error.to_string().contains("--frontends"), "{error}");
        assert_eq!(dataplane.read_back().unwrap().frontends.len(), 64);
        // The next one begins with what is there.
        dataplane.apply(&[Op::SetFrontend(endpoint(1, 4), None)]).unwrap();
        assert_eq!(dataplane.read_back().unwrap().frontends.len(), 63);

        let error =
            dataplane.apply(&[Op::SetRoute(65, Some(RouteEntry { hash: 1, name: None }))]).unwrap_err();
        assert!(error.to_string().contains("--frontends"), "{error}");
    });
}

#[test]
fn endpoints_are_put_right_after_a_death_between_two_writes() {
    World::run(|world| {
        let mut dataplane = open();
        dataplane
            .apply(&[set_backend(1, 1, BackendState::Serving), set_backend(2, 1, BackendState::Serving)])
            .unwrap();
        drop(dataplane);
        let before = endpoints(world);
        assert_eq!(before.values().copied().collect::<Vec<_>>(), [2]);
        let mut map: HashMap<MapData, [u8; 8], u32> =
            Map::HashMap(MapData::from_pin(world.pins().join("ENDPOINTS_V4")).unwrap()).try_into().unwrap();
        let key = map.keys().next().unwrap().unwrap();
        map.insert(key, 7, 0).unwrap();
        let mut other = key;
        other[0] ^= 1;
        map.insert(other, 1, 0).unwrap();

        drop(open());
        assert_eq!(endpoints(world), before);
    });
}

#[test]
fn counters_of_a_route_begin_anew_with_its_name_and_those_of_a_backend_with_its_incarnation() {
    World::run(|world| {
        let mut dataplane = open();
        let route = |hash| Op::SetRoute(3, Some(RouteEntry { hash, name: None }));
        dataplane.apply(&[route(7), set_backend(5, 1, BackendState::Serving)]).unwrap();
        set_counter::<[u64; 6]>(world, "ROUTE_COUNTERS", 3, [1, 2, 3, 4, 5, 6]);
        set_counter::<u64>(world, "BACKEND_COUNTERS_V4", 5, 9);
        set_counter::<u64>(world, "DROPS", 0, 2);

        let cpus = aya::util::nr_cpus().unwrap() as u64;
        let slot = BackendSlot { family: Family::V4, slot: 5 };
        let counters = dataplane.counters().unwrap();
        let of_route = counters.routes[&3];
        assert_eq!((of_route.requests.packets, of_route.requests.bytes), (cpus, 2 * cpus));
        assert_eq!((of_route.replies.packets, of_route.replies.bytes), (3 * cpus, 4 * cpus));
        assert_eq!((of_route.connections, of_route.refused), (5 * cpus, 6 * cpus));
        assert_eq!(counters.backends[&slot], 9 * cpus);
        assert_eq!(counters.drops[&blixt_packet::DropReason::ALL[0]], 2 * cpus);

        // The same again changes nothing.
        dataplane.apply(&[route(7), set_backend(5, 1, BackendState::Draining)]).unwrap();
        assert_eq!(dataplane.counters().unwrap(), counters);
        dataplane.apply(&[route(8), set_backend(5, 2, BackendState::Serving)]).unwrap();
        let counters = dataplane.counters().unwrap();
        assert_eq!((counters.routes[&3].connections, counters.backends[&slot]), (0, 0));
    });
}

#[test]
fn hops_with_a_neighbour_are_renewed_and_no_others() {
    World::run(|world| {
        let mut dataplane =
            Dataplane::open(&Options { hop_life: Duration::from_secs(10), ..options() }).unwrap();
        let hop =
            |destination| HopEntry { next_hop: None, device: 3, mtu: 1500, source: Mac([2; 6]), destination };
        dataplane
            .apply(&[Op::SetHop(1, Some(hop(Some(Mac([4; 6]))))), Op::SetHop(2, Some(hop(None)))])
            .unwrap();
        let deadlines = || {
            let hops: Array<MapData, [u32; 6]> =
                Map::Array(MapData::from_pin(world.pins().join("HOPS")).unwrap()).try_into().unwrap();
            [1, 2].map(|id| hops.get(&id, 0).unwrap()[1])
        };
        let [with, without] = deadlines();
        assert!(with > 10 && without == 0);
        drop(dataplane);
        // Also by a process that takes over, and only from then on.
        let mut dataplane =
            Dataplane::open(&Options { hop_life: Duration::from_secs(1000), ..options() }).unwrap();
        assert_eq!(deadlines(), [with, 0]);
        dataplane.renew_hops().unwrap();
        let [renewed, without] = deadlines();
        assert!(renewed >= with + 990 && without == 0);
        dataplane.apply(&[Op::SetHop(1, Some(hop(None)))]).unwrap();
        dataplane.renew_hops().unwrap();
        assert_eq!(deadlines(), [0, 0]);
    });
}

/// 10 000 frontends with three backends each, every one with a ring of its own: the batches of a cold start.
#[test]
fn ten_thousand_frontends_are_written_and_read_back() {
    World::run(|world| {
        let options = Options { capacity: Capacity { flows: 1024, ..Capacity::from_memory(0) }, ..options() };
        let mut dataplane = Dataplane::open(&options).unwrap();
        let mut wanted = Tables::default();
        for id in 1..=10_000 {
            wanted.routes.insert(id, RouteEntry { hash: u64::from(id) << 32, name: None });
            wanted.rings.insert(id, ring(307, id));
            let frontend = FrontendEntry { ring: id, slots: 307, route: id };
            wanted.frontends.insert(endpoint((id >> 8) as u8, (id & 0xff) as u16 + 1), frontend);
            for slot in 3 * id - 2..=3 * id {
                let Op::SetBackend(slot, entry) = set_backend(slot, 1, BackendState::Serving) else {
                    unreachable!()
                };
                wanted.backends.insert(slot, entry);
            }
        }
        let ops = diff(&Tables::default(), &wanted);
        assert_eq!(ops.len(), 60_000);
        let begin = std::time::Instant::now();
        dataplane.apply(&ops).unwrap();
        println!("60 000 operations: {:?}", begin.elapsed());
        let begin = std::time::Instant::now();
        let tables = dataplane.read_back().unwrap();
        println!("read back: {:?}", begin.elapsed());
        assert!(tables == wanted);
        for id in [1, 777, 10_000] {
            assert_eq!(slots(world, id, 307), wanted.rings[&id].slots.as_deref().unwrap());
        }
        let begin = std::time::Instant::now();
        dataplane
            .apply(&[set_backend(5, 2, BackendState::Serving), Op::SetRing(5, Some(ring(307, 99)))])
            .unwrap();
        println!("one change: {:?}", begin.elapsed());
        assert_eq!(slots(world, 5, 307), ring(307, 99).slots.as_deref().unwrap());
    });
}

fn endpoint(address: u8, port: u16) -> Endpoint {
    let address = if port.is_multiple_of(3) {
        IpAddr::V6(Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, address.into()]))
    } else {
        IpAddr::V4(Ipv4Addr::from([10, 0, 0, address]))
    };
    Endpoint { address, port, protocol: if port.is_multiple_of(2) { Protocol::Udp } else { Protocol::Tcp } }
}

fn backend(family: Family, address: u8, incarnation: u8, state: BackendState) -> BackendEntry {
    let (address, source): (IpAddr, IpAddr) = match family {
        Family::V4 => ([10, 1, 0, address].into(), [10, 1, 0, 254].into()),
        Family::V6 => ([0xfd01, 0, 0, 0, 0, 0, 0, address.into()].into(), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    BackendEntry {
        endpoint: Endpoint { address, port: 8080, protocol: Protocol::Tcp },
        incarnation,
        state,
        way: if incarnation.is_multiple_of(2) { Way::Local } else { Way::Nat },
        source,
        hop: incarnation.into(),
        route: 3,
    }
}

fn set_backend(slot: u32, incarnation: u8, state: BackendState) -> Op {
    Op::SetBackend(BackendSlot { family: Family::V4, slot }, backend(Family::V4, 1, incarnation, state))
}

fn ring(len: u32, seed: u32) -> Ring {
    let slots: Arc<[BackendId]> = (0..len).map(|slot| BackendId(seed.wrapping_mul(31) ^ slot)).collect();
    Ring { hash: u64::from(seed) << 20 | u64::from(len), len, slots: Some(slots) }
}

fn tables() -> impl Strategy<Value = Tables> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let state =
        prop_oneof![Just(BackendState::Gone), Just(BackendState::Serving), Just(BackendState::Draining)];
    let mac = any::<[u8; 6]>().prop_map(|mut mac| {
        mac[0] |= 2;
        Mac(mac)
    });
    let devices =
        btree_map(
            1u32..5,
            (mac.clone(), any::<bool>(), any::<bool>()).prop_map(|(mac, xdp_target, xdp_sender)| {
                DeviceEntry { mac, mtu: 1500, xdp_target, xdp_sender, of_host: !xdp_target }
            }),
            0..4,
        );
    let hops =
        btree_map(
            1u32..9,
            (1u32..5, mac.clone(), prop::option::of(mac)).prop_map(|(device, source, destination)| {
                HopEntry { next_hop: None, device, mtu: 1500, source, destination }
            }),
            0..6,
        );
    let routes = btree_map(1u32..9, (1..u64::MAX).prop_map(|hash| RouteEntry { hash, name: None }), 0..6);
    let backends = btree_map(
        (family, 1u32..20).prop_map(|(family, slot)| BackendSlot { family, slot }),
        (1u8..6, any::<u8>(), state),
        0..12,
    )
    .prop_map(|backends| {
        let entry = |(slot, (address, incarnation, state)): (BackendSlot, _)| {
            (slot, backend(slot.family, address, incarnation, state))
        };
        backends.into_iter().map(entry).collect()
    });
    let rings = btree_map(1u32..9, (1u32..600, 1u32..1000).prop_map(|(len, seed)| ring(len, seed)), 0..6);
    let frontends = btree_map(
        (1u8..5, 1u16..9).prop_map(|(address, port)| endpoint(address, port)),
        (0u32..9, 0u32..600, 0u32..9).prop_map(|(ring, slots, route)| FrontendEntry { ring, slots, route }),
        0..10,
    );
    let addresses = btree_map((1u8..5, 1u16..9).prop_map(|(a, p)| endpoint(a, p).address), 0u32..5, 0..5);
    (devices, hops, routes, backends, rings, frontends, addresses).prop_map(
        |(devices, hops, routes, backends, rings, frontends, addresses)| Tables {
            devices,
            hops,
            routes,
            backends,
            rings,
            frontends,
            addresses,
        },
    )
}

/// The counts in both maps of endpoints, by the bytes of the key.
pub fn endpoints(world: &World) -> BTreeMap<Vec<u8>, u32> {
    let map = |name| Map::HashMap(MapData::from_pin(world.pins().join(name)).unwrap());
    let v4: HashMap<MapData, [u8; 8], u32> = map("ENDPOINTS_V4").try_into().unwrap();
    let v6: HashMap<MapData, [u8; 20], u32> = map("ENDPOINTS_V6").try_into().unwrap();
    let v4 = v4.iter().map(|entry| entry.map(|(key, count)| (key.to_vec(), count)).unwrap());
    v4.chain(v6.iter().map(|entry| entry.map(|(key, count)| (key.to_vec(), count)).unwrap())).collect()
}

pub fn expected_endpoints(tables: &Tables) -> BTreeMap<Vec<u8>, u32> {
    let mut counts = BTreeMap::new();
    for entry in tables.backends.values().filter(|entry| entry.state != BackendState::Gone) {
        let Endpoint { address, port, protocol } = entry.endpoint;
        let mut key = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        key.extend(port.to_be_bytes());
        key.extend(u16::from(protocol.number()).to_ne_bytes());
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// The slots of a ring as the kernel has them; the test may do what the product does not need the right for.
fn slots(world: &World, id: u32, len: u32) -> Vec<BackendId> {
    let ring = ring_map(world, id);
    let slots = (0..ring.len()).flat_map(|chunk| ring.get(&chunk, 0).unwrap()).map(BackendId);
    slots.take(len as usize).collect()
}

/// The map of a ring.
pub fn ring_map(world: &World, id: u32) -> Array<MapData, [u32; 16]> {
    let rings = Map::ArrayOfMaps(MapData::from_pin(world.pins().join("RINGS")).unwrap());
    let rings: ArrayOfMaps<MapData, Array<MapData, [u32; 16]>> = rings.try_into().unwrap();
    rings.get(&id, 0).unwrap()
}

fn set_counter<V: aya::Pod>(world: &World, map: &str, index: u32, value: V) {
    let map = Map::PerCpuArray(MapData::from_pin(world.pins().join(map)).unwrap());
    let mut map: PerCpuArray<MapData, V> = map.try_into().unwrap();
    let cpus = aya::util::nr_cpus().unwrap();
    map.set(index, PerCpuValues::try_from(vec![value; cpus]).unwrap(), 0).unwrap();
}
