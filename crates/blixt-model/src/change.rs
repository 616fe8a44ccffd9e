//! What user space writes between two packets.

use std::fmt;
use std::str::FromStr;

use blixt_cases::network::PROTOCOLS;
use blixt_core::config::Endpoint;
use blixt_core::tables::{BackendState, Op, Tables, Way};

use crate::network::{
    BACKENDS, FRONTEND_PORTS, HOST, OTHER_SOURCE, OWNED, RINGS, SOURCE, address, frontend_entry, make_ring,
    narrows, ring_id, shares, slot,
};

/// One change; backends change in both families and protocols alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A backend goes, drains, or serves again.
    State(u32, BackendState),
    /// Another backend takes the slot, with the same address.
    Renew(u32),
    /// Full NAT to a backend has another source, or none.
    Source(u32, Option<u8>),
    /// A backend is reached in another way.
    Way(u32, Way),
    /// One slot of a ring goes to a backend as it is now, or is refused.
    Slot(u32, u32, Option<u32>),
    /// The frontends of a port go.
    Close(u32),
    /// They come back.
    Open(u32),
    /// The largest IP packet towards the backends.
    Mtu(u32),
}

impl Change {
    /// The writes.
    pub fn ops(&self, tables: &Tables) -> Vec<Op> {
        let both = [true, false].into_iter().flat_map(|is_v4| PROTOCOLS.map(|protocol| (is_v4, protocol)));
        match *self {
            Self::Mtu(mtu) => vec![narrows(mtu)],
            Self::Close(index) | Self::Open(index) => both
                .flat_map(|(is_v4, protocol)| [HOST, OWNED].map(|host| (is_v4, protocol, host)))
                .map(|(is_v4, protocol, host)| {
                    let port = FRONTEND_PORTS[index as usize % FRONTEND_PORTS.len()];
                    let frontend = Endpoint { address: address(is_v4, host), port, protocol };
                    let is_open = matches!(self, Self::Open(_));
                    Op::SetFrontend(frontend, is_open.then(|| frontend_entry(protocol, index)))
                })
                .collect(),
            Self::Slot(ring, at, which) => PROTOCOLS
                .into_iter()
                .map(|protocol| {
                    let id = ring_id(protocol, ring % RINGS);
                    let mut slots: Vec<Option<(u32, u8)>> = current(tables, protocol, id);
                    let at = at as usize % shares(ring % RINGS).len();
                    slots[at] = which.map(|which| {
                        (which, tables.backends[&slot(true, protocol, which % BACKENDS)].incarnation)
                    });
                    Op::SetRing(id, Some(make_ring(protocol, &slots)))
                })
                .collect(),
            Self::State(which, _) | Self::Renew(which) | Self::Source(which, _) | Self::Way(which, _) => both
                .map(|(is_v4, protocol)| {
                    let slot = slot(is_v4, protocol, which % BACKENDS);
                    let mut backend = tables.backends[&slot].clone();
                    match *self {
                        Self::State(_, state) => backend.state = state,
                        Self::Renew(_) => backend.incarnation = backend.incarnation.wrapping_add(1),
                        Self::Source(_, Some(host)) => backend.source = address(is_v4, host),
                        Self::Source(_, None) => {
                            backend.source =
                                if is_v4 { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
                        }
                        // No way leads to a process of this machine but through its stack.
                        Self::Way(_, way) if backend.hop != 0 => backend.way = way,
                        _ => {}
                    }
                    Op::SetBackend(slot, backend)
                })
                .collect(),
        }
    }
}

/// The slots of a ring, by the number of their backend.
fn current(tables: &Tables, protocol: blixt_core::config::Protocol, id: u32) -> Vec<Option<(u32, u8)>> {
    let first = slot(true, protocol, 0).slot;
    let ids = tables.rings[&id].slots.iter().flat_map(|slots| slots.iter());
    ids.map(|id| (id.0 != 0).then(|| (id.slot() - first, id.incarnation()))).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::State(which, BackendState::Gone) => write!(f, "gone {which}"),
            Self::State(which, BackendState::Draining) => write!(f, "draining {which}"),
            Self::State(which, BackendState::Serving) => write!(f, "serving {which}"),
            Self::Renew(which) => write!(f, "renew {which}"),
            Self::Source(which, host) => write!(f, "source {which} {}", host.unwrap_or(0)),
            Self::Way(which, Way::Nat) => write!(f, "nat {which}"),
            Self::Way(which, Way::Transparent) => write!(f, "transparent {which}"),
            Self::Way(which, Way::Local) => write!(f, "local {which}"),
            Self::Slot(ring, at, None) => write!(f, "slot {ring} {at}"),
            Self::Slot(ring, at, Some(which)) => write!(f, "slot {ring} {at} {which}"),
            Self::Close(index) => write!(f, "close {index}"),
            Self::Open(index) => write!(f, "open {index}"),
            Self::Mtu(mtu) => write!(f, "mtu {mtu}"),
        }
    }
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let word = words.next().unwrap_or_default();
        let numbers: Result<Vec<u32>, _> = words.map(str::parse).collect();
        let numbers = numbers.map_err(|error| format!("change {text}: {error}"))?;
        Ok(match (word, &numbers[..]) {
            ("gone", [which]) => Self::State(*which, BackendState::Gone),
            ("draining", [which]) => Self::State(*which, BackendState::Draining),
            ("serving", [which]) => Self::State(*which, BackendState::Serving),
            ("renew", [which]) => Self::Renew(*which),
            ("source", [which, 0]) => Self::Source(*which, None),
            ("source", [which, host]) => Self::Source(*which, Some(*host as u8)),
            ("nat", [which]) => Self::Way(*which, Way::Nat),
            ("transparent", [which]) => Self::Way(*which, Way::Transparent),
            ("local", [which]) => Self::Way(*which, Way::Local),
            ("slot", [ring, at]) => Self::Slot(*ring, *at, None),
            ("slot", [ring, at, which]) => Self::Slot(*ring, *at, Some(*which)),
            ("close", [index]) => Self::Close(*index),
            ("open", [index]) => Self::Open(*index),
            ("mtu", [mtu]) => Self::Mtu(*mtu),
            _ => return Err(format!("change {text}: no such change")),
        })
    }
}

/// Sources of full NAT that a backend may get.
pub const SOURCES: [Option<u8>; 3] = [None, Some(SOURCE), Some(OTHER_SOURCE)];
