//! What `compile` must know of the machine it compiles for. Filled from netlink, or by hand in a test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One machine (one network namespace of it) as netlink shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// Its node name.
    pub name: String,
    /// Every address that one of its devices has.
    pub addresses: BTreeSet<IpAddr>,
    /// Devices that can carry traffic, by index.
    pub devices: BTreeMap<u32, Device>,
    /// How each backend is reached; one that is missing has no route.
    pub paths: Arc<BTreeMap<IpAddr, Path>>,
    /// For each address that only Blixt owns and that lies in the subnet of a device: that device.
    pub on_link: BTreeMap<IpAddr, u32>,
    /// Neighbours that are resolved (or were, and are being probed again), by device and address.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// Its name, for people.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// It takes frames that XDP redirects to it.
    pub xdp_target: bool,
    /// What XDP sends back by it arrives.
    pub xdp_sender: bool,
    /// What comes in by it was sent by the machine itself.
    pub of_host: bool,
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// How the kernel would send to an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Path {
    /// Index of the device.
    pub device: u32,
    /// The neighbour that the frame goes to: a gateway, or the address itself.
    pub next_hop: IpAddr,
    /// The address of this machine that the kernel would send from.
    pub source: IpAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The address is this machine's own: its stack delivers.
    pub local: bool,
}
