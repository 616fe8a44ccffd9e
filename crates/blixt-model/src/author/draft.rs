//! A frame in the making: right in every field, unless somebody makes it wrong.

use std::net::IpAddr;

use crate::flow::Tuple;
use crate::packet::TCP;
use crate::sum::{checksum, octets, pseudo_header, sum};

/// A frame with an IP packet.
#[derive(Clone, Debug)]
pub struct Draft {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// A VLAN tag.
    pub tag: Option<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// What the body is.
    pub protocol: u8,
    pub hops: u8,
    /// Type of service, or traffic class.
    pub class: u8,
    pub id: u32,
    /// The bit "don't fragment" of IPv4.
    pub whole: bool,
    pub more: bool,
    pub offset: u16,
    /// IPv4's; whole words.
    pub options: Vec<u8>,
    /// IPv6's: types and contents, whose first byte is left to the next type.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// An IPv6 fragment header, also where there are no parts.
    pub fragment_header: bool,
    pub body: Vec<u8>,
    /// Behind the packet.
    pub padding: Vec<u8>,
}

impl Draft {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [self.destination_mac, self.source_mac].concat();
        if let Some(tag) = self.tag {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(if self.source.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(self.ip());
        frame.extend(&self.padding);
        frame
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        if self.source.is_ipv4() { self.v4() } else { self.v6() }
    }

    fn v4(&self) -> Vec<u8> {
        let length = 20 + self.options.len();
        let mut header = vec![0x40 | (length / 4) as u8, self.class];
        header.extend(((length + self.body.len()) as u16).to_be_bytes());
        header.extend((self.id as u16).to_be_bytes());
        let bits = u16::from(self.whole) << 14 | u16::from(self.more) << 13 | (self.offset / 8);
        header.extend(bits.to_be_bytes());
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend([octets(self.source), octets(self.destination)].concat());
        header.extend(&self.options);
        let field = checksum(sum(&[&header]));
        header[10..12].copy_from_slice(&field.to_be_bytes());
        [header, self.body.clone()].concat()
    }

    fn v6(&self) -> Vec<u8> {
        let mut headers = self.extensions.clone();
        if self.fragment_header || self.more || self.offset != 0 {
            let bits = self.offset & !7 | u16::from(self.more);
            let fragment = [&[0, 0][..], &bits.to_be_bytes(), &self.id.to_be_bytes()].concat();
            headers.push((44, fragment));
        }
        let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([self.protocol]).collect();
        let mut between = Vec::new();
        for ((_, content), next) in headers.iter().zip(&kinds[1..]) {
            between.push(*next);
            between.extend(&content[1..]);
        }
        let mut header = vec![0x60 | self.class >> 4, self.class << 4, 0, 0];
        header.extend(((between.len() + self.body.len()) as u16).to_be_bytes());
        header.extend([kinds[0], self.hops]);
        header.extend([octets(self.source), octets(self.destination)].concat());
        [header, between, self.body.clone()].concat()
    }
}

/// A TCP segment.
pub struct Segment {
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// The segment between these ends.
pub fn tcp(tuple: &Tuple, segment: &Segment) -> Vec<u8> {
    let mut bytes = [tuple.from.1.to_be_bytes(), tuple.to.1.to_be_bytes()].concat();
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgement.to_be_bytes());
    bytes.extend([(5 + segment.options.len() as u8 / 4) << 4, segment.flags, 0x10, 0, 0, 0, 0, 0]);
    bytes.extend(&segment.options);
    bytes.extend(&segment.payload);
    summed(bytes, tuple, 16)
}

/// A datagram between these ends.
pub fn udp(tuple: &Tuple, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [tuple.from.1.to_be_bytes(), tuple.to.1.to_be_bytes()].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    summed(bytes, tuple, 6)
}

/// A message of ICMP, or in IPv6 of ICMPv6.
pub fn icmp(source: IpAddr, destination: IpAddr, head: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let mut bytes = [&head[..], &[0, 0], rest].concat();
    let pseudo = if source.is_ipv4() { vec![] } else { pseudo_header(source, destination, 58, bytes.len()) };
    let field = checksum(sum(&[&pseudo, &bytes]));
    bytes[2..4].copy_from_slice(&field.to_be_bytes());
    bytes
}

fn summed(mut bytes: Vec<u8>, tuple: &Tuple, at: usize) -> Vec<u8> {
    let pseudo = pseudo_header(tuple.from.0, tuple.to.0, tuple.protocol, bytes.len());
    let field = match checksum(sum(&[&pseudo, &bytes])) {
        0 if tuple.protocol != TCP => 0xffff,
        field => field,
    };
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    bytes
}
