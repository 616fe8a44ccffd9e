//! The Ethernet header and the VLAN tag behind it: whom a frame is for, and what it carries.

use crate::DropReason;
use crate::abi::Link;
use crate::address::Address;
use crate::packet::Packet;
use crate::state::State;

/// Whom a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addressee {
    /// This machine, and nobody else.
    Us,
    /// A group of machines, or all of them. A packet for one machine is not forwarded out of such a frame (RFC 1122, section
    /// 3.3.6): each of them would do it.
    Group,
    /// Another machine: the interface shows it all the same, as the port of a mirror or a bridge does.
    Another,
}

impl Addressee {
    /// Whom the frame of a packet that came in is for: who has said so, or else the MAC address of the device. What another device
    /// above that one takes (a VLAN, a macvlan) is seen again there.
    #[inline(always)]
    pub(crate) fn of<A: Address, P: Packet, S: State<A>>(pkt: &P, state: &S) -> Self {
        if let Some(addressee) = pkt.addressee() {
            return addressee;
        }
        let Ok([a, b, c, d, e, f]) = pkt.read::<6>(0) else {
            return Self::Another;
        };
        if a & GROUP_MAC != 0 {
            return Self::Group;
        }
        let mac = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])];
        match state.device(pkt.link().ifindex()) {
            Some(device) if device.mac != mac => Self::Another,
            _ => Self::Us,
        }
    }
}

/// Type of a VLAN tag in front of the real type, host order.
const VLAN: u16 = 0x8100;

/// The first byte of a MAC address that names a group of machines.
const GROUP_MAC: u8 = 1;

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
