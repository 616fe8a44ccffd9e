//! The Ethernet header and the VLAN tag behind it.

use crate::DropReason;
use crate::abi::Link;
use crate::packet::Packet;

/// Type of a VLAN tag in front of the real type, host order.
const VLAN: u16 = 0x8100;

/// What the MAC header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Where the frame came by, its VLAN included.
    pub link: Link,
    /// Source MAC address.
    pub source: [u16; 3],
    /// Type of what is carried, host order.
    pub ethertype: u16,
    /// Offset of what is carried.
    pub network: usize,
}

impl Frame {
    /// Reads the MAC header and one VLAN tag; a second tag stays a type that nobody knows.
    #[inline(always)]
    pub fn parse<P: Packet>(pkt: &P) -> Result<Self, DropReason> {
        let link = pkt.link();
        let [a, b, c, d, e, f, high, low]: [u8; 8] = pkt.read(6)?;
        let source = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])];
        let ethertype = u16::from_be_bytes([high, low]);
        if !P::HAS_TAGS || ethertype != VLAN {
            return Ok(Self { link, source, ethertype, network: 14 });
        }
        let [id_high, id_low, high, low]: [u8; 4] = pkt.read(14)?;
        let link = Link::new(link.ifindex(), u16::from_be_bytes([id_high, id_low]));
        Ok(Self { link, source, ethertype: u16::from_be_bytes([high, low]), network: 18 })
    }
}
