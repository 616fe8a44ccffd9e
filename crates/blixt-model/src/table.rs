//! The flow table as its map has it, for comparison.

use std::collections::BTreeMap;
use std::net::IpAddr;

use blixt_core::simulation::AddressFamily;
use blixt_packet::abi::{Flow, FlowKey};

use crate::flow::{End, Tuple};
use crate::model::Model;

/// What the map says of one half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Written as the source.
    pub from: End,
    /// Written as the destination.
    pub to: End,
    /// The backend's id.
    pub backend: u32,
    /// The client's link.
    pub client: u32,
    /// The client's MAC address.
    pub mac: [u8; 6],
    /// What kind of half it is.
    pub flags: u8,
    /// How far the connection came.
    pub state: u8,
    /// The second of the last packet.
    pub seen: u32,
}

/// All that the model has.
pub fn rows(model: &Model) -> BTreeMap<Tuple, Row> {
    let row = |(key, half): (&Tuple, &crate::flow::Half)| {
        let row = Row {
            from: half.from,
            to: half.to,
            backend: half.backend.0,
            client: half.client.0,
            mac: half.client_mac,
            flags: half.flags(),
            state: half.progress.bits(),
            seen: half.seen,
        };
        (*key, row)
    };
    model.flows.iter().map(row).collect()
}

impl Row {
    /// What an entry of the table on the host says.
    pub fn of<A: AddressFamily>(key: &FlowKey<A>, flow: &Flow<A>) -> (Tuple, Self) {
        let [from, to] = key.ports.map(u16::from_be);
        let tuple = Tuple {
            from: (key.source.to_ip(), from),
            to: (key.destination.to_ip(), to),
            protocol: key.protocol as u8,
        };
        let [from, to] = flow.ports.map(u16::from_be);
        let [[a, b], [c, d], [e, f]] = flow.client_mac.map(u16::to_ne_bytes);
        let row = Self {
            from: (flow.source.to_ip(), from),
            to: (flow.destination.to_ip(), to),
            backend: flow.backend.0,
            client: flow.client.0,
            mac: [a, b, c, d, e, f],
            flags: flow.flags,
            state: flow.state,
            seen: flow.seen,
        };
        (tuple, row)
    }

    /// What the value of a map in the kernel says: see `blixt_packet::abi::Flow`.
    pub fn read(value: &[u8]) -> Self {
        let is_v4 = value.len() == 32;
        let address = |at: usize| -> IpAddr {
            if is_v4 {
                [value[at], value[at + 1], value[at + 2], value[at + 3]].into()
            } else {
                <[u8; 16]>::try_from(&value[at..at + 16]).expect("16 bytes").into()
            }
        };
        let wide = if is_v4 { 4 } else { 16 };
        let rest = &value[2 * wide..];
        let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        Self {
            from: (address(0), u16::from_be_bytes([rest[0], rest[1]])),
            to: (address(wide), u16::from_be_bytes([rest[2], rest[3]])),
            backend: word(4),
            client: word(8),
            mac: [rest[12], rest[13], rest[14], rest[15], rest[16], rest[17]],
            flags: rest[18],
            state: rest[19],
            seen: word(20),
        }
    }
}

/// The key of a tuple in the map in the kernel: see `blixt_packet::abi::FlowKey`.
pub fn key_bytes(tuple: &Tuple) -> Vec<u8> {
    let mut bytes = [crate::sum::octets(tuple.from.0), crate::sum::octets(tuple.to.0)].concat();
    bytes.extend(tuple.from.1.to_be_bytes());
    bytes.extend(tuple.to.1.to_be_bytes());
    bytes.extend(u32::from(tuple.protocol).to_ne_bytes());
    bytes
}

/// Says where two tables differ.
pub fn difference(wanted: &BTreeMap<Tuple, Row>, seen: &BTreeMap<Tuple, Row>) -> Option<String> {
    let keys = wanted.keys().chain(seen.keys().filter(|key| !wanted.contains_key(key)));
    let mut different = keys.filter(|key| wanted.get(key) != seen.get(key));
    different
        .next()
        .map(|key| format!("flow of {key:?}\n  model  {:?}\n  target {:?}", wanted.get(key), seen.get(key)))
}
