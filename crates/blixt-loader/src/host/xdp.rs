//! What devices can do with XDP: the kernel says so over generic netlink (family `netdev`, since 6.3), and tells of
//! changes. Where it says nothing, the safe answer is no: the packet goes by TC then.
//!
//! A veth hands frames to its other end, in whatever namespace. That takes what is redirected while it has an XDP program
//! or GRO, and what is sent back (`XDP_TX`) only while it has a program.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, McastGrpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::Socket;
use netlink_sys::constants::NETLINK_GENERIC;
use tracing::debug;

use super::HostError;
use super::link::{Link, LinkKind};
use super::netlink::Asker;
use crate::ethtool;

/// Indices of the devices that take frames that XDP redirects to them.
pub(super) fn targets() -> BTreeSet<u32> {
    ask().unwrap_or_else(|error| {
        debug!(%error, "which devices take redirected frames is not known");
        BTreeSet::new()
    })
}

/// What XDP sends back by the device arrives. An XDP program at the other end of a veth takes the right to segment away
/// from this end: that is how it is told from GRO.
pub(super) fn is_sender(link: &Link) -> bool {
    link.kind != LinkKind::Veth || (link.xdp_target && ethtool::may_segment(&link.name) == Some(false))
}

/// XDP does not see the VLAN tags of its frames: a network card takes them off if it is told to, and between virtual
/// devices they are never in the frame.
pub(super) fn hides_tags(link: &Link) -> bool {
    link.kind != LinkKind::Physical || ethtool::takes_tags_off(&link.name) != Some(false)
}

/// Hears that what a device can do changed: neither a program at the other end of a veth nor one that is attached by a
/// link makes the device itself change.
pub(super) struct Listener {
    socket: Option<Socket>,
}

impl Listener {
    /// Where the kernel tells nothing, nothing will be heard.
    pub(super) fn open() -> Self {
        let socket = join().unwrap_or_else(|error| {
            debug!(%error, "changes of what devices can do with XDP are not told");
            None
        });
        Self { socket }
    }

    /// Something changed since it was asked last.
    pub(super) fn heard(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut heard = false;
        loop {
            match socket.recv_from_full() {
                Ok(_) => heard = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return heard,
                // An overrun is a change too.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard = true,
                Err(_) => return heard,
            }
        }
    }

    /// The descriptor to wait for; -1, which is never ready, if there is none.
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

/// The family `netdev` of this kernel.
struct NetDevFamily {
    id: u16,
    /// The multicast group of changes.
    changes: Option<u32>,
}

fn ask() -> Result<BTreeSet<u32>, HostError> {
    let mut asker = Asker::open(NETLINK_GENERIC)?;
    let Some(family) = family(&mut asker)? else {
        return Ok(BTreeSet::new());
    };
    let mut request = GenlMessage::from_payload(NetDev::default());
    request.set_resolved_family_id(family.id);
    let devices = asker.dump("list what devices can do with XDP", request)?;
    Ok(devices
        .iter()
        .filter(|device| device.payload.transmits)
        .map(|device| device.payload.ifindex)
        .collect())
}

fn join() -> Result<Option<Socket>, HostError> {
    let family = family(&mut Asker::open(NETLINK_GENERIC)?)?;
    let Some(group) = family.and_then(|family| family.changes) else {
        return Ok(None);
    };
    let open = || {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.add_membership(group)?;
        Ok(socket)
    };
    open().map(Some).map_err(|source| HostError::Open { source })
}

fn family(asker: &mut Asker) -> Result<Option<NetDevFamily>, HostError> {
    let cmd = GenlCtrlCmd::GetFamily;
    let nlas = vec![GenlCtrlAttrs::FamilyName(NetDev::family_name().to_owned())];
    let request = GenlMessage::from_payload(GenlCtrl { cmd, nlas });
    let answers = asker.ask("find the family netdev", &[request], 0)?;
    Ok(answers.into_iter().find_map(|answer| {
        let message = answer.ok()??;
        let nlas = &message.payload.nlas;
        let id = nlas.iter().find_map(|nla| match nla {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        })?;
        let changes = nlas.iter().find_map(|nla| match nla {
            GenlCtrlAttrs::McastGroups(groups) => groups.iter().find_map(|group| management(group)),
            _ => None,
        });
        Some(NetDevFamily { id, changes })
    }))
}

/// The number of a multicast group, if it is `mgmt`.
fn management(group: &[McastGrpAttrs]) -> Option<u32> {
    let is_it = group.iter().any(|nla| matches!(nla, McastGrpAttrs::Name(name) if name == "mgmt"));
    group.iter().filter(|_| is_it).find_map(|nla| match nla {
        McastGrpAttrs::Id(id) => Some(*id),
        McastGrpAttrs::Name(_) => None,
    })
}

/// A device's answer to `NETDEV_CMD_DEV_GET`.
#[derive(Clone, Debug, Default)]
struct NetDev {
    ifindex: u32,
    /// `NETDEV_XDP_ACT_NDO_XMIT`.
    transmits: bool,
}

impl GenlFamily for NetDev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        1 // NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

/// The question for all devices has no attributes.
impl Emitable for NetDev {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

impl ParseableParametrized<[u8], GenlHeader> for NetDev {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        const IFINDEX: u16 = 1;
        const XDP_FEATURES: u16 = 3;
        const NDO_XMIT: u64 = 1 << 2;

        let mut device = Self::default();
        for nla in NlasIterator::new(bytes) {
            let nla = DefaultNla::parse(&nla?)?;
            let mut value = vec![0; nla.value_len()];
            nla.emit_value(&mut value);
            match nla.kind() {
                IFINDEX => device.ifindex = value.try_into().map_or(0, u32::from_ne_bytes),
                XDP_FEATURES => {
                    let features = value.try_into().map_or(0, u64::from_ne_bytes);
                    device.transmits = features & NDO_XMIT != 0;
                }
                _ => {}
            }
        }
        Ok(device)
    }
}
