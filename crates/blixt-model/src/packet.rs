//! What a frame says: IPv4 (RFC 791), IPv6 (RFC 8200), TCP, UDP and ICMP, read one field at a time.

use std::net::IpAddr;

pub use blixt_cases::packet::{ACK, FIN, RST, SYN, TCP, UDP};
use blixt_packet::DropReason;
use blixt_packet::abi::Link;

use crate::flow::Tuple;

/// Extension headers of IPv6 that are followed.
const MOST_EXTENSIONS: usize = 6;

/// The Ethernet header, with one VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Whom to.
    pub destination: [u8; 6],
    /// Whom from.
    pub source: [u8; 6],
    /// Where it came by; a tag's VLAN included.
    pub link: Link,
    /// What it carries.
    pub ethertype: u16,
    /// Where that begins.
    pub network: usize,
}

impl Ethernet {
    /// Nothing: the frame is too short.
    pub fn read(frame: &[u8], ifindex: u32) -> Option<Self> {
        let destination = *frame.first_chunk()?;
        let source = *frame.get(6..)?.first_chunk()?;
        let untagged = Self {
            destination,
            source,
            link: Link::new(ifindex, 0),
            ethertype: be16(frame, 12)?,
            network: 14,
        };
        if untagged.ethertype != 0x8100 {
            return Some(untagged);
        }
        let link = Link::new(ifindex, be16(frame, 14)? & 0xfff);
        Some(Self { link, ethertype: be16(frame, 16)?, network: 18, ..untagged })
    }
}

/// A packet of IPv4 or IPv6.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The frame as it came.
    pub frame: Vec<u8>,
    /// Its Ethernet header.
    pub ethernet: Ethernet,
    /// Its addresses, protocol and ports; ports are 0 where there are none.
    pub tuple: Tuple,
    /// Bytes of the IP packet.
    pub total: usize,
    /// Where the headers of IP end.
    pub transport: usize,
    /// TTL or hop limit.
    pub hops: u8,
    /// Which part of a packet it is.
    pub part: Part,
    /// Flags of TCP.
    pub flags: u8,
    /// Bytes of payload of the segments that it is cut into later; 0: it is one packet.
    pub segment: usize,
}

/// Which part of a fragmented packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// What the parts have in common.
    pub id: u32,
    /// Bytes before it.
    pub offset: usize,
    /// Others follow.
    pub more: bool,
}

impl Part {
    /// It is not the whole packet.
    pub fn is_fragment(self) -> bool {
        self.offset != 0 || self.more
    }
}

/// A packet that cannot be used, and what was read of it; nothing if not even its addresses.
pub type Unread = (DropReason, Option<Box<Packet>>);

impl Packet {
    /// Reads all headers up to that of TCP or UDP.
    pub fn read(frame: &[u8], ethernet: Ethernet, segment: usize) -> Result<Self, Unread> {
        let at = ethernet.network;
        if ethernet.ethertype == 0x0800 {
            Self::read_v4(frame, ethernet, at, segment)
        } else {
            Self::read_v6(frame, ethernet, at, segment)
        }
    }

    /// The number of ICMP in the packet's family.
    pub fn icmp(&self) -> u8 {
        if self.tuple.from.0.is_ipv4() { 1 } else { 58 }
    }

    /// What follows the headers of IP.
    pub fn payload(&self) -> &[u8] {
        self.frame.get(self.transport..self.ethernet.network + self.total).unwrap_or_default()
    }

    /// It is the first segment of a connection: with RST, which is looked at first (RFC 9293, section 3.10.7), or FIN it ends one.
    pub fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// Bytes of the largest IP packet that it is sent as.
    pub fn largest(&self) -> usize {
        if self.segment == 0 {
            return self.total;
        }
        let transport = match self.tuple.protocol {
            TCP => usize::from(self.frame[self.transport + 12] >> 4) * 4,
            _ => 8,
        };
        self.transport - self.ethernet.network + transport + self.segment
    }

    fn read_v4(frame: &[u8], ethernet: Ethernet, at: usize, segment: usize) -> Result<Self, Unread> {
        let Some(header) = frame.get(at..at + 20) else { return Err((DropReason::Truncated, None)) };
        let address = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::from(header[0] & 15) * 4;
        let offset = u16::from_be_bytes([header[6], header[7]]);
        let told = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let available = frame.len() - at;
        let packet = Self {
            frame: frame.to_vec(),
            ethernet,
            tuple: Tuple { from: (address(12), 0), to: (address(16), 0), protocol: header[9] },
            total: if told == 0 && segment != 0 { available } else { told },
            transport: at + length,
            hops: header[8],
            part: Part {
                id: u32::from(u16::from_be_bytes([header[4], header[5]])),
                offset: usize::from(offset & 0x1fff) * 8,
                more: offset & 0x2000 != 0,
            },
            flags: 0,
            segment,
        };
        let bad = |reason| Err((reason, Some(Box::new(packet.clone()))));
        if header[0] >> 4 != 4 || length < 20 {
            return bad(DropReason::BadLength);
        }
        let Some(header) = frame.get(at..at + length) else { return bad(DropReason::Truncated) };
        if crate::sum::sum(&[header]) != 0xffff {
            return bad(DropReason::BadChecksum);
        }
        if packet.total < length {
            return bad(DropReason::BadLength);
        }
        if packet.total > available {
            return bad(DropReason::Truncated);
        }
        packet.read_transport()
    }

    fn read_v6(frame: &[u8], ethernet: Ethernet, at: usize, segment: usize) -> Result<Self, Unread> {
        let Some(header) = frame.get(at..at + 40) else { return Err((DropReason::Truncated, None)) };
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            IpAddr::from(octets)
        };
        let told = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let available = frame.len() - at;
        let mut packet = Self {
            frame: frame.to_vec(),
            ethernet,
            tuple: Tuple { from: (address(8), 0), to: (address(24), 0), protocol: header[6] },
            total: if told == 0 && segment != 0 { available } else { 40 + told },
            transport: at + 40,
            hops: header[7],
            part: Part::default(),
            flags: 0,
            segment,
        };
        let reason = if header[0] >> 4 != 6 {
            DropReason::BadLength
        } else if packet.total > available {
            DropReason::Truncated
        } else {
            let mut chain = Chain::new(header[6], packet.transport, at + packet.total);
            let followed = chain.follow(frame);
            (packet.tuple.protocol, packet.transport, packet.part) = (chain.next, chain.at, chain.part);
            match followed {
                Ok(()) => return packet.read_transport(),
                Err(reason) => reason,
            }
        };
        Err((reason, Some(Box::new(packet))))
    }

    /// The header of TCP or UDP, which only a first part has.
    fn read_transport(mut self) -> Result<Self, Unread> {
        let at = self.transport;
        if self.part.offset != 0 || ![TCP, UDP].contains(&self.tuple.protocol) {
            return Ok(self);
        }
        let shortest = if self.tuple.protocol == TCP { 16 } else { 8 };
        if self.frame.len() < at + shortest {
            return Err((DropReason::Truncated, Some(Box::new(self))));
        }
        let word = |at| u16::from_be_bytes([self.frame[at], self.frame[at + 1]]);
        (self.tuple.from.1, self.tuple.to.1) = (word(at), word(at + 2));
        let payload = self.total - (at - self.ethernet.network);
        let is_bad = if self.tuple.protocol == TCP {
            self.flags = self.frame[at + 13];
            let length = usize::from(self.frame[at + 12] >> 4) * 4;
            length < 20 || length > payload
        } else {
            let length = usize::from(word(at + 4));
            // The parts of a packet hold less than the whole.
            length < 8 || length > payload && !self.part.is_fragment() && self.segment == 0
        };
        if is_bad { Err((DropReason::BadLength, Some(Box::new(self)))) } else { Ok(self) }
    }
}

/// The chain of extension headers (RFC 8200, section 4).
pub struct Chain {
    /// The header that comes next.
    pub next: u8,
    /// Where it begins.
    pub at: usize,
    /// Which part the packet is.
    pub part: Part,
    end: usize,
}

impl Chain {
    /// From a first header, in a packet that ends at `end`.
    pub fn new(next: u8, at: usize, end: usize) -> Self {
        Self { next, at, part: Part::default(), end }
    }

    /// Up to the header of the transport protocol, or to what follows the header of a part that has none.
    pub fn follow(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        for _ in 0..=MOST_EXTENSIONS {
            if self.at > self.end {
                return Err(DropReason::BadLength);
            }
            let length = match self.next {
                // Hop-by-hop, routing, destination options.
                0 | 43 | 60 => frame.get(self.at + 1).map(|length| (usize::from(*length) + 1) * 8),
                // Authentication.
                51 => frame.get(self.at + 1).map(|length| (usize::from(*length) + 2) * 4),
                // Fragment.
                44 => frame.get(self.at..self.at + 8).map(|header| {
                    let offset = u16::from_be_bytes([header[2], header[3]]);
                    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    self.part = Part { id, offset: usize::from(offset & 0xfff8), more: offset & 1 != 0 };
                    8
                }),
                _ => return Ok(()),
            };
            let length = length.ok_or(DropReason::Truncated)?;
            self.next = frame[self.at];
            self.at += length;
            if self.part.offset != 0 {
                return Ok(());
            }
        }
        Err(DropReason::TooManyHeaders)
    }
}

/// A number of two bytes.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
