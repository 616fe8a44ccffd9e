//! What the maps should hold. `compile` makes it, the loader reads it back, `diff` compares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use blixt_packet::abi::BackendId;
use serde::{Deserialize, Serialize};

use crate::config::{Endpoint, RouteName};
use crate::host::Mac;

/// The content of every map that user space writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// `DEVICES`, by index of the device.
    pub devices: BTreeMap<u32, DeviceEntry>,
    /// `HOPS`, by hop id (from 1).
    pub hops: BTreeMap<u32, HopEntry>,
    /// `ROUTES`, by route id (from 1).
    pub routes: BTreeMap<u32, RouteEntry>,
    /// `BACKENDS_*`, by family and slot (from 1). A slot that was ever used stays, as gone.
    pub backends: BTreeMap<BackendSlot, BackendEntry>,
    /// `RINGS` and `RING_HASHES`, by ring id (from 1).
    pub rings: BTreeMap<u32, Ring>,
    /// `FRONTENDS_*`.
    pub frontends: BTreeMap<Endpoint, FrontendEntry>,
    /// `ADDRESSES_*`: addresses that Gateways hold and this machine does not, with the device that answers
    /// ARP and NDP for them (0: none).
    pub addresses: BTreeMap<IpAddr, u32>,
}

/// How many entries the maps have room for; ids and slots go from 1 to the number given here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Frontends of one family.
    pub frontends: u32,
    /// Backends of one family, those that are gone included.
    pub backends: u32,
    /// Rings. More than one a frontend, since a ring that changes its size exists twice for a moment.
    pub rings: u32,
    /// Routes.
    pub routes: u32,
    /// Next hops.
    pub hops: u32,
    /// Addresses that only Blixt owns, of one family.
    pub addresses: u32,
}

/// A slot of `BACKENDS_V4` or `BACKENDS_V6`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BackendSlot {
    /// Which of the two maps.
    pub family: Family,
    /// Index in it.
    pub slot: u32,
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// See [`blixt_packet::abi::Device`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceEntry {
    /// MAC address.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// It takes frames that XDP redirects to it.
    pub xdp_target: bool,
    /// What XDP sends back by it arrives.
    pub xdp_sender: bool,
    /// What comes in by it was sent by this machine itself.
    pub of_host: bool,
}

/// See [`blixt_packet::abi::Hop`]. The deadline is not part of it: the loader renews it for every hop that has
/// a neighbour. Two are equal if the kernel would see no difference.
#[derive(Clone, Debug)]
pub struct HopEntry {
    /// The neighbour that frames go to, unless read back from the kernel, which does not keep it.
    pub next_hop: Option<IpAddr>,
    /// Index of the device.
    pub device: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// MAC address of the device.
    pub source: Mac,
    /// MAC address of the neighbour; without one the program asks the kernel.
    pub destination: Option<Mac>,
}

/// See [`blixt_packet::abi::RouteHash`]. Read back, only the hash is known.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// Hash of the name.
    pub hash: u64,
    /// The name, for people.
    pub name: Option<RouteName>,
}

/// See [`blixt_packet::abi::Backend`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendEntry {
    /// Address, port and protocol.
    pub endpoint: Endpoint,
    /// Counts who stood in the slot.
    pub incarnation: u8,
    /// Gone, serving or draining.
    pub state: BackendState,
    /// How packets reach it.
    pub way: Way,
    /// The address that full NAT sends from; unspecified where there is none.
    pub source: IpAddr,
    /// Hop id, 0 for none.
    pub hop: u32,
    /// Route id.
    pub route: u32,
}

/// See the constants `BACKEND_*` in [`blixt_packet::abi`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum BackendState {
    /// Nobody stands in the slot.
    Gone,
    /// Takes connections.
    Serving,
    /// Keeps its TCP connections.
    Draining,
}

/// How packets reach a backend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Way {
    /// Full NAT.
    Nat,
    /// The client's address kept; the backend's route leads back.
    Transparent,
    /// Through this machine's own stack; the client's address kept.
    Local,
}

/// See [`blixt_packet::abi::RingHash`]. Two rings are equal if their hashes are: read back, content is unknown.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Hash of everything that decides what the slots hold (so it is known before they are computed), never 0.
    pub hash: u64,
    /// How many slots.
    pub len: u32,
    /// The slots, unless read back from the kernel or forgotten since the maps hold them.
    pub slots: Option<Arc<[BackendId]>>,
}

/// See [`blixt_packet::abi::Frontend`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrontendEntry {
    /// Ring id; 0: every connection is refused.
    pub ring: u32,
    /// Slots of the ring.
    pub slots: u32,
    /// Route id, 0 for none.
    pub route: u32,
}

/// One change of one map. `diff` orders them so that after any prefix no frontend is without its backends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Write a device; `None` clears it.
    SetDevice(u32, Option<DeviceEntry>),
    /// Write a hop; `None` clears it.
    SetHop(u32, Option<HopEntry>),
    /// Write a route's hash, its counters back to 0 if the hash changed; `None` clears it.
    SetRoute(u32, Option<RouteEntry>),
    /// Write a backend.
    SetBackend(BackendSlot, BackendEntry),
    /// Make a ring with this content, or replace what it holds; `None` clears it.
    SetRing(u32, Option<Ring>),
    /// Write a frontend; `None` removes it.
    SetFrontend(Endpoint, Option<FrontendEntry>),
    /// Write an address of ours with the device that answers for it; `None` removes it.
    SetAddress(IpAddr, Option<u32>),
}

impl Limits {
    /// Room for so many frontends and backends of each family, and for all that goes with them.
    pub const fn new(frontends: u32, backends: u32) -> Self {
        let both = frontends.saturating_mul(2);
        Self { frontends, backends, rings: both, routes: both, hops: backends, addresses: frontends }
    }
}

impl Default for Limits {
    /// 10 000 frontends with up to 6 backends each on average, and room for all of them to change at once.
    fn default() -> Self {
        Self::new(10_000, 65_535)
    }
}

impl Tables {
    /// Drops the slots of all rings, once the maps hold them: they are most of what the tables weigh, and a ring that
    /// changes is computed anew.
    pub fn forget_slots(&mut self) {
        for ring in self.rings.values_mut() {
            ring.slots = None;
        }
    }
}

impl PartialEq for HopEntry {
    fn eq(&self, other: &Self) -> bool {
        self.device == other.device
            && self.mtu == other.mtu
            && self.source == other.source
            && self.destination == other.destination
    }
}

impl Eq for HopEntry {}

impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.len == other.len
    }
}

impl Eq for Ring {}

impl PartialEq for RouteEntry {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for RouteEntry {}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}
