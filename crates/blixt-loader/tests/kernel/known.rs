//! The bits of addresses whose packets may be ours.

use std::net::IpAddr;

use aya::maps::{Array, Map, MapData};
use blixt_core::config::{Endpoint, Protocol};
use blixt_core::tables::{FrontendEntry, Op};
use blixt_packet::abi::{V4, V6};
use blixt_packet::known::place;

use crate::world::{World, open, options};

/// More than there is room for.
const TOO_MANY: u32 = 300;

#[test]
fn an_address_is_known_for_ever_whoever_writes_the_tables() {
    World::run(|world| {
        let served: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let owned: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()];
        let mut first = open();
        assert_eq!(known(world, served.iter().chain(&owned)), [false; 4]);
        let frontend = || Some(FrontendEntry { ring: 0, slots: 0, route: 0 });
        first
            .apply(&served.iter().map(|it| Op::SetFrontend(at(*it), frontend())).collect::<Vec<_>>())
            .unwrap();
        first.apply(&owned.iter().map(|it| Op::SetAddress(*it, Some(0))).collect::<Vec<_>>()).unwrap();
        drop(first);

        let mut second = open();
        second.apply(&served.iter().map(|it| Op::SetFrontend(at(*it), None)).collect::<Vec<_>>()).unwrap();
        second.apply(&owned.iter().map(|it| Op::SetAddress(*it, None)).collect::<Vec<_>>()).unwrap();
        drop(second);
        // A neighbour in the same element must not take a bit back.
        let mut third = open();
        let all: Vec<Op> = (0..=255).map(|host| Op::SetAddress([10, 0, 0, host].into(), Some(0))).collect();
        third.apply(&all[3..60]).unwrap();
        assert_eq!(known(world, served.iter().chain(&owned)), [true; 4]);
        assert_eq!(
            known(world, ["10.0.0.3", "10.0.1.1"].map(|it| it.parse().unwrap()).iter()),
            [true, false]
        );
    });
}

#[test]
fn an_address_is_known_before_anything_leads_there() {
    World::run(|world| {
        assert!(options().capacity.limits.addresses < TOO_MANY);
        let addresses: Vec<IpAddr> =
            (0..TOO_MANY).map(|host| [10, 0, (host >> 8) as u8, host as u8].into()).collect();
        let ops: Vec<Op> = addresses.iter().map(|address| Op::SetAddress(*address, Some(0))).collect();
        let mut dataplane = open();
        dataplane.apply(&ops).unwrap_err();
        assert!(known(world, addresses.iter()).iter().all(|known| *known));
    });
}

fn at(address: IpAddr) -> Endpoint {
    Endpoint { address, port: 80, protocol: Protocol::Tcp }
}

/// Which of the addresses the map knows.
fn known<'a>(world: &World, addresses: impl Iterator<Item = &'a IpAddr>) -> Vec<bool> {
    let map = |name| {
        let data = MapData::from_pin(world.pins().join(name)).unwrap();
        Array::<MapData, u64>::try_from(Map::Array(data)).unwrap()
    };
    let (v4, v6) = (map("KNOWN_V4"), map("KNOWN_V6"));
    let word = |octets: &[u8]| u32::from_ne_bytes(octets.try_into().unwrap());
    let is_known = |address: &IpAddr| {
        let (map, (element, bit)) = match address {
            IpAddr::V4(address) => (&v4, place(V4([word(&address.octets())]))),
            IpAddr::V6(address) => {
                let octets = address.octets();
                (&v6, place(V6([0, 4, 8, 12].map(|at| word(&octets[at..at + 4])))))
            }
        };
        map.get(&element, 0).unwrap() & bit != 0
    };
    addresses.map(is_known).collect()
}
