//! What a packet's headers say, copied out: no reference into a packet outlives the line that made it.

use crate::DropReason;
use crate::abi::{FlowKey, FragmentKey, Link};
use crate::address::Address;
use crate::frame::Frame;
use crate::packet::Packet;

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// Bits of the flags byte of a TCP header.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// The headers of one packet of one family.
#[repr(align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers<A> {
    /// The tuple. For protocols other than TCP and UDP, and for a fragment that is not the first, the ports are 0.
    pub key: FlowKey<A>,
    /// Where the packet came by, its VLAN included.
    pub link: Link,
    /// Source MAC address of the frame.
    pub mac: [u16; 3],
    /// Bytes of the IP packet, its header included.
    pub total: u32,
    /// Offset of the IP header.
    pub network: usize,
    /// Offset of the transport header, or of the first byte after the IP headers. 0: the packet is too short for addresses.
    pub transport: usize,
    /// TTL or hop limit.
    pub hops: u8,
    /// TCP flags, 0 for others.
    pub flags: u8,
    /// Which part of a fragmented packet this is.
    pub part: Part,
}

/// Which part of a fragmented packet a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// Identification; of a whole packet it says nothing.
    pub id: u32,
    /// Bytes of the original packet's payload in front of this part.
    pub offset: u32,
    /// More parts follow.
    pub more: bool,
}

impl Part {
    /// One of several.
    pub const fn is_fragment(self) -> bool {
        self.offset != 0 || self.more
    }

    /// One without a transport header.
    pub const fn is_later(self) -> bool {
        self.offset != 0
    }
}

impl<A: Address> Headers<A> {
    /// Reads the headers of a packet. Where it fails, `headers` holds what was read up to there: the destination,
    /// if there is a transport offset, tells whether the packet would have been ours to drop.
    #[inline(always)]
    pub fn parse<P: Packet>(pkt: &P, headers: &mut Self) -> Result<(), DropReason> {
        headers.transport = 0;
        headers.key.ports = [0; 2];
        headers.flags = 0;
        // Field by field, as with all that is cleared for every packet: the compiler makes a loop over bytes of more.
        headers.part.offset = 0;
        headers.part.more = false;
        let frame = Frame::parse(pkt)?;
        headers.link = frame.link;
        headers.mac = frame.source;
        headers.network = frame.network;
        A::parse(pkt, headers)?;
        if headers.part.is_later() {
            return Ok(());
        }
        headers.parse_transport(pkt)
    }

    /// The protocol number, as the IP header has it.
    pub const fn protocol(&self) -> u8 {
        self.key.protocol as u8
    }

    /// The first packet of a TCP connection. One that ends a connection at the same time begins none: RST is looked at first (RFC 9293,
    /// section 3.10.7), and with FIN it is ignored where somebody listens.
    pub const fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// Offset of the transport checksum.
    pub const fn checksum_at(&self) -> usize {
        self.transport + if self.protocol() == TCP { 16 } else { 6 }
    }

    /// Bytes of the IP packet after its headers.
    pub const fn payload(&self) -> u32 {
        self.total.saturating_sub((self.transport - self.network) as u32)
    }

    /// Bytes of the largest IP packet that leaves: of one that stands for several segments, the first of these.
    #[inline(always)]
    pub fn largest<P: Packet>(&self, pkt: &P) -> Result<u32, DropReason> {
        let segment = pkt.segment();
        if segment == 0 {
            return Ok(self.total);
        }
        let header = if self.protocol() == TCP {
            let [offset] = pkt.read(self.transport + 12)?;
            (offset >> 4) as u32 * 4
        } else {
            8
        };
        Ok(((self.transport - self.network) as u32 + header).saturating_add(segment))
    }

    /// What the parts of the packet have in common.
    pub const fn fragment_key(&self) -> FragmentKey<A> {
        FragmentKey {
            source: self.key.source,
            destination: self.key.destination,
            id: self.part.id,
            protocol: self.key.protocol,
        }
    }

    #[inline(always)]
    fn parse_transport<P: Packet>(&mut self, pkt: &P) -> Result<(), DropReason> {
        match self.protocol() {
            TCP => {
                let [ports, _, _, flags] = pkt.words::<4>(self.transport)?;
                self.set_ports(ports);
                let [offset, flags, _, _] = flags.to_ne_bytes();
                self.flags = flags;
                let length = (offset >> 4) as u32 * 4;
                if length < 20 || length > self.payload() {
                    return Err(DropReason::BadLength);
                }
                Ok(())
            }
            UDP => {
                let [ports, length] = pkt.words::<2>(self.transport)?;
                self.set_ports(ports);
                let [high, low, _, _] = length.to_ne_bytes();
                let length = u16::from_be_bytes([high, low]) as u32;
                // The parts of a fragmented packet, and those of one that is cut later, hold less than the whole.
                if length < 8 || (length > self.payload() && !self.part.is_fragment() && !pkt.is_segmented())
                {
                    return Err(DropReason::BadLength);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[inline(always)]
    fn set_ports(&mut self, word: u32) {
        let [a, b, c, d] = word.to_ne_bytes();
        self.key.ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
    }
}
