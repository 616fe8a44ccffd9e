//! Neighbours: who answers at which MAC address, and those that the kernel is to keep resolved for us.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use blixt_core::host::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_sys::constants::NETLINK_ROUTE;
use tracing::warn;

use super::HostError;
use super::netlink::{Answer, Asker};
use super::path::family;

/// A device and an address on it.
pub(super) type NeighbourKey = (u32, IpAddr);

/// A neighbour that stops answering keeps its MAC address this long: the kernel takes some seconds from FAILED to the
/// next answer, and a guess is better than silence.
pub(super) const KEEP_LOST: Duration = Duration::from_secs(10);

/// Marks neighbours as ours (`NDA_PROTOCOL`), also for the process after this one. No routing daemon uses it.
const OURS: RouteProtocol = RouteProtocol::Other(177);

/// What the kernel says of a neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Neighbour {
    /// Its last known MAC address.
    pub(super) mac: Option<Mac>,
    /// Since when it does not answer.
    pub(super) lost: Option<Instant>,
    /// The kernel keeps it resolved, or need not.
    pub(super) kept: bool,
    /// We asked the kernel to.
    pub(super) ours: bool,
}

impl Neighbour {
    /// Its MAC address, unless it has been silent for long.
    pub(super) fn mac(&self, now: Instant) -> Option<Mac> {
        let answers = self.lost.is_none_or(|lost| now.duration_since(lost) < KEEP_LOST);
        self.mac.filter(|_| answers)
    }

    /// What is known of one after the kernel removed it.
    pub(super) fn gone(&self, now: Instant) -> Self {
        Self { mac: self.mac, lost: self.lost.or(Some(now)), kept: false, ours: false }
    }
}

/// `None`: not a neighbour of IP.
pub(super) fn key(message: &NeighbourMessage) -> Option<NeighbourKey> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some((message.header.ifindex, IpAddr::V4(*address)))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some((message.header.ifindex, IpAddr::V6(*address)))
        }
        _ => None,
    })
}

/// What a message says, given what was known.
pub(super) fn neighbour(message: &NeighbourMessage, known: Option<&Neighbour>, now: Instant) -> Neighbour {
    let state = message.header.state;
    let fixed = matches!(state, NeighbourState::Permanent | NeighbourState::Noarp);
    let answers = fixed
        || matches!(
            state,
            NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
        );
    let mut neighbour = Neighbour { mac: None, lost: None, kept: fixed, ours: false };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                neighbour.mac = bytes.as_slice().try_into().ok().map(Mac);
            }
            NeighbourAttribute::ExtFlags(flags) => {
                neighbour.kept |= flags.contains(NeighbourExtFlags::Managed);
            }
            NeighbourAttribute::Protocol(protocol) => neighbour.ours = *protocol == OURS,
            _ => {}
        }
    }
    if !answers || neighbour.mac.is_none() {
        neighbour.mac = known.and_then(|known| known.mac);
        neighbour.lost = Some(known.and_then(|known| known.lost).unwrap_or(now));
    }
    neighbour
}

/// Everything that the kernel has, with what it says.
pub(super) fn dump(asker: &mut Asker) -> Result<Vec<NeighbourMessage>, HostError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let messages = asker.dump("list neighbours", request)?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some(message),
            _ => None,
        })
        .collect())
}

/// Asks the kernel to keep neighbours resolved without traffic. `NTF_USE` beside it is for kernels before 5.16, which
/// know no better: they resolve once.
pub(super) fn keep(
    asker: &mut Asker,
    keys: &[NeighbourKey],
) -> Result<Vec<Answer<RouteNetlinkMessage>>, HostError> {
    let requests: Vec<_> = keys.iter().map(|key| request(*key, true)).collect();
    asker.ask("keep neighbours", &requests, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK)
}

/// Leaves neighbours to the ordinary ways of the kernel again; they stay in its cache as long as they are used.
pub(super) fn release(asker: &mut Asker, keys: &[NeighbourKey]) -> Result<(), HostError> {
    let requests: Vec<_> = keys.iter().map(|key| request(*key, false)).collect();
    asker.ask("release neighbours", &requests, NLM_F_REPLACE | NLM_F_ACK)?;
    Ok(())
}

/// How many neighbours of each family the kernel is asked to keep. Its table is one for the whole machine, and gives a kept
/// entry's place to nobody: a full one would leave the machine without ARP. Whoever is not kept is asked for when packets
/// go there.
#[derive(Debug)]
pub(super) struct Quota {
    v4: usize,
    v6: usize,
    is_told: bool,
}

/// Entries that the table has room for where the setting cannot be seen: in network namespaces but the first.
const USUAL_TABLE: usize = 1024;

impl Quota {
    /// Half of the table.
    pub(super) fn of_kernel() -> Self {
        let half = |family: &str| {
            let setting = fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3"));
            setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_TABLE) / 2
        };
        Self { v4: half("ipv4"), v6: half("ipv6"), is_told: false }
    }

    /// Leaves those out that have no room, and says so once.
    pub(super) fn limit(&mut self, needed: &mut BTreeSet<NeighbourKey>) {
        let before = needed.len();
        let (mut v4, mut v6) = (self.v4, self.v6);
        needed.retain(|(_, address)| {
            let room = if address.is_ipv4() { &mut v4 } else { &mut v6 };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            fits
        });
        if needed.len() < before && !self.is_told {
            warn!(
                neighbours = before,
                kept = needed.len(),
                "the kernel's table of neighbours is too small to keep them all resolved, the others are slower; raise \
                 the sysctls net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3 and start again"
            );
            self.is_told = true;
        }
    }
}

/// Releases every neighbour that any instance in this network namespace had the kernel keep. Says how many.
pub fn release_neighbours() -> Result<usize, HostError> {
    let mut asker = Asker::open(NETLINK_ROUTE)?;
    let now = Instant::now();
    let ours: Vec<NeighbourKey> = dump(&mut asker)?
        .iter()
        .filter(|message| {
            let neighbour = neighbour(message, None, now);
            neighbour.ours && neighbour.kept
        })
        .filter_map(key)
        .collect();
    release(&mut asker, &ours)?;
    Ok(ours.len())
}

fn request((device, address): NeighbourKey, managed: bool) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = device;
    message.header.flags = NeighbourFlags::Use;
    message.attributes = vec![
        NeighbourAttribute::Destination(address.into()),
        NeighbourAttribute::Protocol(OURS),
        NeighbourAttribute::ExtFlags(if managed {
            NeighbourExtFlags::Managed
        } else {
            NeighbourExtFlags::empty()
        }),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}
