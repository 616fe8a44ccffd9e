//! Maps that somebody else filled: a start puts them right, or says which entry it cannot make sense of.

use aya::maps::{Array, HashMap, Map, MapData};
use blixt_cases::network::tables as usual;
use blixt_core::tables::{BackendState, Op, Tables, Way};
use blixt_loader::{Dataplane, Error};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::apply::{endpoints, expected_endpoints};
use crate::world::{World, options};

/// Times that the maps are filled.
const TIMES: usize = 12;

/// Bytes that are written somewhere: the map, the element or the seed of the key, the value.
#[derive(Clone, Debug)]
struct Write {
    map: usize,
    place: u8,
    bytes: Vec<u8>,
}

#[test]
fn maps_that_hold_anything_are_put_right_or_refused_by_name() {
    let mut runner = TestRunner::deterministic();
    let strategy = vec(any_write(), 1..12);
    let wanted = usual(Way::Nat);
    let (mut refused, mut righted) = (0, 0);
    for _ in 0..TIMES {
        let writes = strategy.new_tree(&mut runner).unwrap().current();
        World::run(|world| {
            drop(Dataplane::open(&options()).unwrap());
            for write in &writes {
                write.perform(world);
            }
            match Dataplane::open(&options()) {
                Ok(mut dataplane) => {
                    righted += 1;
                    let found = dataplane.read_back().unwrap();
                    dataplane.counters().unwrap();
                    dataplane.renew_hops().unwrap();
                    dataplane.apply(&towards(&found, &wanted)).unwrap();
                    let now = dataplane.read_back().unwrap();
                    assert_eq!(now.frontends, wanted.frontends, "{writes:?}");
                    assert_eq!(now.addresses, wanted.addresses, "{writes:?}");
                    assert!(
                        wanted.backends.iter().all(|(slot, entry)| now.backends.get(slot) == Some(entry)),
                        "{writes:?}"
                    );
                    assert_eq!(endpoints(world), expected_endpoints(&now), "{writes:?}");
                }
                Err(error @ Error::Row { .. }) => {
                    refused += 1;
                    assert!(error.to_string().contains("run `blixt cleanup`"), "{error}");
                }
                Err(error) => panic!("{error} after {writes:?}"),
            }
        });
    }
    println!("{righted} were put right, {refused} refused");
    assert!(refused > 1 && righted > 1, "{righted} were put right, {refused} refused");
}

/// What leads from tables that were found to others. Whoever stood in a slot that is not needed is gone.
fn towards(found: &Tables, wanted: &Tables) -> Vec<Op> {
    let mut target = wanted.clone();
    for (slot, entry) in &found.backends {
        let mut gone = entry.clone();
        gone.state = BackendState::Gone;
        target.backends.entry(*slot).or_insert(gone);
    }
    blixt_core::diff::diff(found, &target)
}

impl Write {
    fn perform(&self, world: &World) {
        let Self { map, place, bytes } = self;
        let (map, kind) = MAPS[map % MAPS.len()];
        let pin = world.pins().join(map);
        let data = MapData::from_pin(pin).unwrap();
        let index = u32::from(*place) % 60;
        match kind {
            Kind::Array(4) => array::<4>(data, index, bytes),
            Kind::Array(8) => array::<8>(data, index, bytes),
            Kind::Array(16) => array::<16>(data, index, bytes),
            Kind::Array(24) => array::<24>(data, index, bytes),
            Kind::Array(48) => array::<48>(data, index, bytes),
            Kind::Hash(4, 8) => hash::<4, 8>(data, *place, bytes),
            Kind::Hash(8, 4) => hash::<8, 4>(data, *place, bytes),
            Kind::Hash(8, 16) => hash::<8, 16>(data, *place, bytes),
            Kind::Hash(20, 4) => hash::<20, 4>(data, *place, bytes),
            Kind::Hash(20, 16) => hash::<20, 16>(data, *place, bytes),
            other => panic!("{map}: {other:?}"),
        }
    }
}

/// How large keys and values are.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Array(usize),
    Hash(usize, usize),
}

/// What user space reads when it begins.
const MAPS: [(&str, Kind); 13] = [
    ("FRONTENDS_V4", Kind::Hash(8, 16)),
    ("FRONTENDS_V6", Kind::Hash(20, 16)),
    ("ENDPOINTS_V4", Kind::Hash(8, 4)),
    ("ENDPOINTS_V6", Kind::Hash(20, 4)),
    ("ADDRESSES_V4", Kind::Hash(4, 8)),
    ("BACKENDS_V4", Kind::Array(24)),
    ("BACKENDS_V6", Kind::Array(48)),
    ("KNOWN_V4", Kind::Array(8)),
    ("KNOWN_V6", Kind::Array(8)),
    ("RING_HASHES", Kind::Array(16)),
    ("HOPS", Kind::Array(24)),
    ("DEVICES", Kind::Array(16)),
    ("ROUTES", Kind::Array(8)),
];

fn array<const N: usize>(data: MapData, index: u32, bytes: &[u8]) {
    let mut map: Array<MapData, [u8; N]> = Map::Array(data).try_into().unwrap();
    map.set(index, cut(bytes), 0).unwrap();
}

/// The protocol, the last two bytes of an endpoint, is mostly one that there is.
fn hash<const K: usize, const V: usize>(data: MapData, place: u8, bytes: &[u8]) {
    let mut map: HashMap<MapData, [u8; K], [u8; V]> = Map::HashMap(data).try_into().unwrap();
    let mut key = [place % 4; K];
    if K > 4 && place < 230 {
        key[K - 2..].copy_from_slice(&6_u16.to_ne_bytes());
    }
    map.insert(key, cut::<V>(bytes), 0).unwrap();
}

fn cut<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().unwrap()
}

/// Small numbers, so that some make sense, the largest one, and any.
fn any_write() -> impl Strategy<Value = Write> {
    let byte = prop_oneof![6 => 0_u8..4, 1 => Just(6_u8), 1 => Just(255), 1 => any::<u8>()];
    let bytes = prop_oneof![3 => vec(byte, 48), 1 => vec(0_u8..2, 48), 1 => vec(any::<u8>(), 48)];
    (any::<usize>(), any::<u8>(), bytes).prop_map(|(map, place, bytes)| Write { map, place, bytes })
}
