//! The network of every case: a client, the balancer with two devices, two backends; and the tables for it.
//!
//! ```text
//! client ── CLIENT_SIDE [balancer] BACKEND_SIDE ── backend, other backend
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blixt_core::config::{Endpoint, Protocol};
use blixt_core::host::Mac;
use blixt_core::tables::{
    BackendEntry, BackendSlot, BackendState, DeviceEntry, FrontendEntry, HopEntry, Op, Ring, RouteEntry,
    Tables, Way,
};
use blixt_packet::abi::{BackendId, Settings};

use crate::packet::frame;

/// Index of the device that clients are behind.
pub const CLIENT_SIDE: u32 = 1011;
/// Index of the device that backends are behind.
pub const BACKEND_SIDE: u32 = 1012;
/// The client's.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Of the device on the client's side.
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Of the device on the backends' side.
pub const INNER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// The backends' router.
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];

/// Where connections are balanced.
pub const FRONTEND_PORT: u16 = 80;
/// Where the share of every connection is refused.
pub const REFUSED_PORT: u16 = 81;
/// Where there is no route.
pub const ROUTELESS_PORT: u16 = 82;
/// Where backends listen.
pub const BACKEND_PORT: u16 = 8080;
/// The only source port that full NAT may choose, so that it is known and soon exhausted.
pub const OUR_PORT: u16 = 20_000;
/// Largest IP packet towards the backends.
pub const MTU: u32 = 1400;
/// Largest IP packet of the client's side: what is too big for the other side comes in whole.
const CLIENT_MTU: u32 = 1500;

/// Constants of a program that answers and begins as much as it is asked to.
pub const UNLIMITED: Settings = Settings { answers: u32::MAX, new_flows: u32::MAX, ..Settings::DEFAULT };

/// Constants of the program.
pub const SETTINGS: Settings = Settings { first_port: OUR_PORT, last_port: OUR_PORT, ..UNLIMITED };

/// The addresses of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Net {
    /// The client.
    pub client: IpAddr,
    /// What it dials: an address of the host.
    pub frontend: IpAddr,
    /// An address that only Blixt owns; the same ports are served there.
    pub owned: IpAddr,
    /// The address of full NAT.
    pub source: IpAddr,
    /// Serves.
    pub backend: IpAddr,
    /// Somewhere on the way.
    pub router: IpAddr,
    /// Could serve.
    pub other_backend: IpAddr,
    /// Another client.
    pub other_client: IpAddr,
}

/// IPv4 and IPv6.
pub fn nets() -> [Net; 2] {
    let net = |prefix: &str| {
        let address = |host: u8| format!("{prefix}{host}").parse().unwrap();
        Net {
            client: address(1),
            frontend: address(2),
            owned: address(3),
            source: address(4),
            backend: address(5),
            router: address(6),
            other_backend: address(7),
            other_client: address(8),
        }
    };
    [net("10.0.0."), net("fd00::")]
}

/// Both protocols.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The frame of a packet from the client.
pub fn from_client(ip: &[u8]) -> Vec<u8> {
    frame(OUR_MAC, CLIENT_MAC, ip)
}

/// The frame of a packet from the backends' side.
pub fn from_backend(ip: &[u8]) -> Vec<u8> {
    frame(INNER_MAC, BACKEND_MAC, ip)
}

/// The frame of a packet to the client.
pub fn to_client(ip: &[u8]) -> Vec<u8> {
    frame(CLIENT_MAC, OUR_MAC, ip)
}

/// The frame of a packet to the backends.
pub fn to_backend(ip: &[u8]) -> Vec<u8> {
    frame(BACKEND_MAC, INNER_MAC, ip)
}

/// The tables: in both families and protocols one backend serves, reached in this way.
pub fn tables(way: Way) -> Tables {
    let mut tables = Tables::default();
    for (index, mac, mtu) in [(CLIENT_SIDE, OUR_MAC, CLIENT_MTU), (BACKEND_SIDE, INNER_MAC, MTU)] {
        tables.devices.insert(
            index,
            DeviceEntry { mac: Mac(mac), mtu, xdp_target: true, xdp_sender: true, of_host: false },
        );
    }
    let hop = HopEntry {
        next_hop: None,
        device: BACKEND_SIDE,
        mtu: MTU,
        source: Mac(INNER_MAC),
        destination: Some(Mac(BACKEND_MAC)),
    };
    tables.hops.insert(HOP, hop);
    tables.routes.insert(ROUTE, RouteEntry { hash: 1, name: None });
    tables.rings.insert(REFUSING_RING, ring(REFUSING_RING, BackendId::REFUSE));
    for net in nets() {
        for protocol in PROTOCOLS {
            for (which, state) in [(1, BackendState::Serving), (2, BackendState::Gone)] {
                let (slot, entry) = backend(&net, protocol, which, state, way);
                tables.backends.insert(slot, entry);
            }
            let id = ring_id(protocol);
            tables.rings.insert(id, ring(id, BackendId::new(slot(protocol, 1), 1)));
            let served = FrontendEntry { ring: id, slots: 1, route: ROUTE };
            let refused = FrontendEntry { ring: REFUSING_RING, ..served };
            let routeless = FrontendEntry { ring: 0, slots: 0, route: 0 };
            for (port, entry) in
                [(FRONTEND_PORT, served), (REFUSED_PORT, refused), (ROUTELESS_PORT, routeless)]
            {
                for address in [net.frontend, net.owned] {
                    tables.frontends.insert(Endpoint { address, port, protocol }, entry.clone());
                }
            }
        }
        tables.addresses.insert(net.owned, CLIENT_SIDE);
    }
    tables
}

/// The backend becomes what `state` says, and the other one takes its connections.
pub fn moves(way: Way, state: BackendState) -> Vec<Op> {
    let mut ops = Vec::new();
    for net in nets() {
        for protocol in PROTOCOLS {
            let (slot, entry) = backend(&net, protocol, 2, BackendState::Serving, way);
            ops.push(Op::SetBackend(slot, entry));
        }
    }
    for protocol in PROTOCOLS {
        let id = ring_id(protocol);
        let ring = Ring { hash: 100 + u64::from(id), ..ring(id, BackendId::new(slot(protocol, 2), 1)) };
        ops.push(Op::SetRing(id, Some(ring)));
    }
    for net in nets() {
        for protocol in PROTOCOLS {
            let (slot, entry) = backend(&net, protocol, 1, state, way);
            ops.push(Op::SetBackend(slot, entry));
        }
    }
    ops
}

/// The backend goes, and another one comes that has its address.
pub fn renews(way: Way) -> Vec<Op> {
    let mut ops = Vec::new();
    for net in nets() {
        for protocol in PROTOCOLS {
            let (slot, entry) = backend(&net, protocol, 1, BackendState::Serving, way);
            ops.push(Op::SetBackend(slot, BackendEntry { incarnation: 2, ..entry }));
        }
    }
    for protocol in PROTOCOLS {
        let id = ring_id(protocol);
        let ring = Ring { hash: 200 + u64::from(id), ..ring(id, BackendId::new(slot(protocol, 1), 2)) };
        ops.push(Op::SetRing(id, Some(ring)));
    }
    ops
}

/// The way to the backends is lost, or found again with this source: `None` is lost.
pub fn reroutes(way: Way, source: impl Fn(&Net) -> Option<IpAddr>) -> Vec<Op> {
    let mut ops = Vec::new();
    for net in nets() {
        let nowhere =
            if net.source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        for protocol in PROTOCOLS {
            let (slot, entry) = backend(&net, protocol, 1, BackendState::Serving, way);
            let entry = match source(&net) {
                Some(source) => BackendEntry { source, ..entry },
                None => BackendEntry { source: nowhere, hop: 0, ..entry },
            };
            ops.push(Op::SetBackend(slot, entry));
        }
    }
    ops
}

const HOP: u32 = 1;
const ROUTE: u32 = 1;
const REFUSING_RING: u32 = 3;

/// Slots are counted in each family by itself.
fn slot(protocol: Protocol, which: u32) -> u32 {
    2 * (which - 1) + ring_id(protocol)
}

/// Rings serve both families.
fn ring_id(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    }
}

fn ring(id: u32, backend: BackendId) -> Ring {
    Ring { hash: u64::from(id), len: 1, slots: Some([backend].into()) }
}

fn backend(
    net: &Net,
    protocol: Protocol,
    which: u32,
    state: BackendState,
    way: Way,
) -> (BackendSlot, BackendEntry) {
    let address = if which == 1 { net.backend } else { net.other_backend };
    let entry = BackendEntry {
        endpoint: Endpoint { address, port: BACKEND_PORT, protocol },
        incarnation: 1,
        state,
        way,
        source: net.source,
        hop: HOP,
        route: ROUTE,
    };
    (BackendSlot { family: address.into(), slot: slot(protocol, which) }, entry)
}
