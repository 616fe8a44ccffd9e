//! The machine as netlink shows it: a thread follows devices, addresses, routes and neighbours of the network
//! namespace it was started in, and publishes an [`Observation`] whenever something that matters changed.
//!
//! ```text
//! Interest ─► thread: multicast groups ─► what is stale is asked anew ─► Observation { Host, links, .. }
//!                     └─ neighbours of the paths are kept alive by the kernel (NTF_EXT_MANAGED)
//! ```
//!
//! Levels, not edges: a notification only says what is stale. An overrun of the socket's buffer, and a slow pass
//! that is made anyway, repair what was missed. The thread changes nothing of the machine but those neighbours; the [`Wire`] is its keeper's.

mod announce;
mod facts;
mod follow;
mod link;
mod neighbour;
mod netlink;
mod path;
mod sockets;
mod watcher;
mod wire;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use blixt_core::host::Host;

pub use announce::{AnnounceError, Announcement, announce, announcements};
pub use link::{Link, LinkKind, hooked};
pub use neighbour::release_neighbours;
pub use sockets::{Listening, listening_sockets};
pub use watcher::Watcher;
pub use wire::{Wire, WireEnd, remove_wire};

/// How what the machine must be watched for changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    /// How many pools more or fewer send packets to each: the way to those that are in one is looked up.
    pub backends: BTreeMap<IpAddr, i32>,
    /// Addresses that Gateways hold, all of them: on whose link they lie is looked up.
    pub addresses: BTreeSet<IpAddr>,
}

/// The machine at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// What `compile` wants to know.
    pub host: Host,
    /// Every device, by index.
    pub links: BTreeMap<u32, Link>,
    /// The machine's own address of each family: what it would reach the world from, else its first global one.
    pub primary: Vec<IpAddr>,
    /// Addresses that Gateways hold on links of devices that are not hooked: neighbours there get no answer. With one of
    /// these devices.
    pub unanswered: BTreeMap<IpAddr, u32>,
    /// The number of the last [`Interest`] that it covers, see [`Watcher::follow`].
    pub followed: u64,
}

/// Netlink could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No socket.
    #[error("netlink: open a socket: {source}; is this Linux, and may this process use AF_NETLINK?")]
    Open {
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("netlink: start the thread that follows the machine: {source}; raise the limit on processes")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// A question failed as a whole.
    #[error("netlink: {op}: {source}; run as root, or with CAP_NET_ADMIN")]
    Ask {
        /// What was asked.
        op: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The sending went wrong halfway.
    #[error("netlink: {op}: the table changed too often while it was read; try again")]
    Interrupted {
        /// What was asked.
        op: &'static str,
    },
}
