//! Which devices take frames that XDP redirects to them: the kernel says so over generic netlink (family `netdev`,
//! since 6.3). A veth does while its other end has an XDP program or GRO; without the family nobody is known to.

use std::collections::BTreeSet;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::constants::NETLINK_GENERIC;
use tracing::debug;

use super::HostError;
use super::netlink::Asker;

/// Indices of the devices.
pub(super) fn targets() -> BTreeSet<u32> {
    ask().unwrap_or_else(|error| {
        debug!(%error, "which devices take redirected frames is not known");
        BTreeSet::new()
    })
}

fn ask() -> Result<BTreeSet<u32>, HostError> {
    let mut asker = Asker::open(NETLINK_GENERIC)?;
    let cmd = GenlCtrlCmd::GetFamily;
    let nlas = vec![GenlCtrlAttrs::FamilyName("netdev".to_owned())];
    let request = GenlMessage::from_payload(GenlCtrl { cmd, nlas });
    let family = asker.ask("find the family netdev", &[request], 0)?.into_iter().find_map(|answer| {
        let message = answer.ok()??;
        message.payload.nlas.iter().find_map(|nla| match nla {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        })
    });
    let Some(family) = family else {
        return Ok(BTreeSet::new());
    };
    let mut request = GenlMessage::from_payload(NetDev::default());
    request.set_resolved_family_id(family);
    let devices = asker.dump("list what devices can do with XDP", request)?;
    Ok(devices
        .iter()
        .filter(|device| device.payload.transmits)
        .map(|device| device.payload.ifindex)
        .collect())
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
