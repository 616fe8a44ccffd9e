//! The machine of every story: two devices and the wire of its own processes, frontends of every kind, backends of every way.
//!
//! ```text
//! clients ── CLIENT_SIDE ┐
//!                        ├ [balancer] ── BACKEND_SIDE ── backends, more clients
//! own processes ── WIRE ─┘
//! ```

use std::net::IpAddr;

use blixt_cases::network::{BACKEND_MAC, CLIENT_MAC, INNER_MAC, OUR_MAC, PROTOCOLS, UNLIMITED};
use blixt_core::config::{Endpoint, Protocol};
use blixt_core::host::Mac;
use blixt_core::tables::{
    BackendEntry, BackendSlot, BackendState, DeviceEntry, FrontendEntry, HopEntry, Op, Ring, RouteEntry,
    Tables, Way,
};
use blixt_packet::abi::{BackendId, Settings};

pub use blixt_cases::network::{BACKEND_SIDE, CLIENT_SIDE};

/// Index of the device that this machine's own processes are behind.
pub const WIRE: u32 = 1013;
/// Its MAC address.
pub const WIRE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// Of a second client on the client's side.
pub const SECOND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// What the programs are loaded with: so few source ports that they run out.
pub const SETTINGS: Settings = Settings { first_port: 20_000, last_port: 20_003, ..UNLIMITED };

/// Ports of frontends: full NAT, the client's address kept, this machine, some of all, no route.
pub const FRONTEND_PORTS: [u16; 5] = [80, 81, 82, 83, 84];
/// Backends of one family and protocol.
pub const BACKENDS: u32 = 6;
/// Rings of one protocol.
pub const RINGS: u32 = 4;

/// Largest IP packet of the client's side.
const CLIENT_MTU: u32 = 1500;
/// Largest IP packet of the backends' side.
const BACKEND_MTU: u32 = 1400;
const HOP: u32 = 1;
const ROUTE: u32 = 1;

/// An address by its last byte, in either family.
pub fn address(is_v4: bool, host: u8) -> IpAddr {
    if is_v4 {
        IpAddr::from([10, 0, 0, host])
    } else {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)])
    }
}

/// Clients, by the last byte of their address.
pub const CLIENTS: [u8; 4] = [1, 8, 9, 10];
/// An address of the machine with frontends.
pub const HOST: u8 = 2;
/// An address that only Blixt owns, on the client's side.
pub const OWNED: u8 = 3;
/// One on the backends' side, without frontends.
pub const OWNED_INSIDE: u8 = 13;
/// One that is on no link.
pub const OWNED_NOWHERE: u8 = 23;
/// The address of full NAT.
pub const SOURCE: u8 = 4;
/// Another one.
pub const OTHER_SOURCE: u8 = 14;
/// Somebody on the way.
pub const ROUTER: u8 = 6;
/// The first backend's address; the others follow.
pub const FIRST_BACKEND: u8 = 31;

/// What user space has written before a story begins.
pub fn tables() -> Tables {
    let mut tables = Tables::default();
    for (index, mac, mtu, of_host) in [
        (CLIENT_SIDE, OUR_MAC, CLIENT_MTU, false),
        (BACKEND_SIDE, INNER_MAC, BACKEND_MTU, false),
        (WIRE, WIRE_MAC, CLIENT_MTU, true),
    ] {
        let device = DeviceEntry { mac: Mac(mac), mtu, xdp_target: true, xdp_sender: true, of_host };
        tables.devices.insert(index, device);
    }
    tables.hops.insert(HOP, hop(BACKEND_MTU));
    tables.routes.insert(ROUTE, RouteEntry { hash: 1, name: None });
    for protocol in PROTOCOLS {
        for ring in 0..RINGS {
            let slots: Vec<_> = shares(ring).iter().map(|share| share.map(|which| (which, 1))).collect();
            tables.rings.insert(ring_id(protocol, ring), make_ring(protocol, &slots));
        }
        for is_v4 in [true, false] {
            for which in 0..BACKENDS {
                let (slot, backend) = backend(is_v4, protocol, which);
                tables.backends.insert(slot, backend);
            }
            for (index, port) in (0..).zip(FRONTEND_PORTS) {
                for host in [HOST, OWNED] {
                    let frontend = Endpoint { address: address(is_v4, host), port, protocol };
                    tables.frontends.insert(frontend, frontend_entry(protocol, index));
                }
            }
        }
    }
    for is_v4 in [true, false] {
        for (host, device) in [(OWNED, CLIENT_SIDE), (OWNED_INSIDE, BACKEND_SIDE), (OWNED_NOWHERE, 0)] {
            tables.addresses.insert(address(is_v4, host), device);
        }
    }
    tables
}

/// The frontends of a port are served by the ring of that number; the last port has no route.
pub fn frontend_entry(protocol: Protocol, index: u32) -> FrontendEntry {
    if index >= RINGS {
        return FrontendEntry { ring: 0, slots: 0, route: 0 };
    }
    let slots = shares(index).len() as u32;
    FrontendEntry { ring: ring_id(protocol, index), slots, route: ROUTE }
}

/// The hop of all backends.
pub fn hop(mtu: u32) -> HopEntry {
    HopEntry {
        next_hop: None,
        device: BACKEND_SIDE,
        mtu,
        source: Mac(INNER_MAC),
        destination: Some(Mac(BACKEND_MAC)),
    }
}

/// The write that makes `mtu` the largest IP packet towards backends.
pub fn narrows(mtu: u32) -> Op {
    Op::SetHop(HOP, Some(hop(mtu)))
}

/// A backend as it is at first.
pub fn backend(is_v4: bool, protocol: Protocol, which: u32) -> (BackendSlot, BackendEntry) {
    let host = FIRST_BACKEND + which as u8;
    let way = match which {
        0 | 1 => Way::Nat,
        2 | 3 => Way::Transparent,
        _ => Way::Local,
    };
    let entry = BackendEntry {
        endpoint: Endpoint { address: address(is_v4, host), port: 8080, protocol },
        incarnation: 1,
        state: BackendState::Serving,
        way,
        source: address(is_v4, SOURCE),
        // The last one is a process of the machine.
        hop: if which == BACKENDS - 1 { 0 } else { HOP },
        route: ROUTE,
    };
    (slot(is_v4, protocol, which), entry)
}

/// Where a backend stands.
pub fn slot(is_v4: bool, protocol: Protocol, which: u32) -> BackendSlot {
    BackendSlot { family: address(is_v4, 0).into(), slot: slot_number(protocol, which) }
}

/// The id of a ring of a protocol; it serves both families.
pub fn ring_id(protocol: Protocol, ring: u32) -> u32 {
    1 + ring + if protocol == Protocol::Udp { RINGS } else { 0 }
}

/// A ring of backends in their incarnations; `None` is the share that is refused.
pub fn make_ring(protocol: Protocol, slots: &[Option<(u32, u8)>]) -> Ring {
    let ids: Vec<BackendId> = slots
        .iter()
        .map(|share| match share {
            Some((which, incarnation)) => BackendId::new(slot_number(protocol, *which), *incarnation),
            None => BackendId::REFUSE,
        })
        .collect();
    // Its name is what it holds.
    let hash = ids.iter().fold(1_u64, |hash, id| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(id.0));
    Ring { hash, len: ids.len() as u32, slots: Some(ids.into()) }
}

/// Who serves the slots of a ring.
pub fn shares(ring: u32) -> &'static [Option<u32>] {
    match ring {
        0 => &[Some(0), Some(1), Some(0), Some(1), Some(1)],
        1 => &[Some(2), Some(3)],
        2 => &[Some(4), Some(5), Some(4)],
        _ => &[Some(0), Some(2), None, Some(4), Some(1), Some(3), Some(5)],
    }
}

/// Who is behind a device, and that device's own MAC address.
pub fn macs(ifindex: u32) -> ([u8; 6], [u8; 6]) {
    match ifindex {
        BACKEND_SIDE => (BACKEND_MAC, INNER_MAC),
        WIRE => ([2, 0, 0, 0, 0, 6], WIRE_MAC),
        _ => (CLIENT_MAC, OUR_MAC),
    }
}

/// Largest IP packet of a device.
pub fn mtu(ifindex: u32) -> usize {
    (if ifindex == BACKEND_SIDE { BACKEND_MTU } else { CLIENT_MTU }) as usize
}

fn slot_number(protocol: Protocol, which: u32) -> u32 {
    1 + which + if protocol == Protocol::Udp { BACKENDS } else { 0 }
}
