//! Packets by another hand than the product's: etherparse writes the headers and sums them.

mod ip_packet;

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, TcpOptions, TransportHeader,
    UdpHeader,
};

use blixt_packet::abi::V4;
use blixt_packet::fragment::translated_id;

pub use ip_packet::IpPacket;

/// Its protocol number.
pub const TCP: u8 = 6;
/// Its protocol number.
pub const UDP: u8 = 17;

/// Bits of the flags of a segment.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const ACK: u8 = 16;

/// A frame that carries an IP packet.
pub fn frame(destination: [u8; 6], source: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&destination[..], &source, &ethertype, ip].concat()
}

/// A frame that carries an ARP packet for Ethernet and IPv4.
pub fn arp(
    destination: [u8; 6],
    source: [u8; 6],
    operation: u8,
    sender: ([u8; 6], [u8; 4]),
    target: ([u8; 6], [u8; 4]),
) -> Vec<u8> {
    let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&destination[..], &source, &fixed, &sender.0, &sender.1, &target.0, &target.1].concat()
}

/// An IP packet.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    ip_with(source, destination, protocol, hops, &[], body)
}

/// With IPv4 options, or the extension headers in front of an IPv6 packet: `between` is either, in wire format; in IPv6
/// its first byte is the type of its first header.
pub fn ip_with(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    between: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(
                body.len() as u16,
                hops,
                IpNumber(protocol),
                source.octets(),
                destination.octets(),
            )
            .unwrap();
            header.options = Ipv4Options::try_from(between).unwrap();
            header.set_payload_len(body.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (next, extensions) = between.split_first().unwrap_or((&protocol, &[]));
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: (extensions.len() + body.len()) as u16,
                next_header: IpNumber(*next),
                hop_limit: hops,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.write(&mut bytes).unwrap();
            bytes.extend(extensions);
        }
        _ => panic!("families differ"),
    }
    bytes.extend(body);
    bytes
}

/// One part of a fragmented packet.
pub fn part(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    offset: u16,
    more: bool,
    body: &[u8],
) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source, destination) else {
        let [high, low] = (offset | more as u16).to_be_bytes();
        return ip_with(
            source,
            destination,
            protocol,
            hops,
            &[44, protocol, 0, high, low, 0, 0, 0, 77],
            body,
        );
    };
    let mut header =
        Ipv4Header::new(body.len() as u16, hops, IpNumber(protocol), from.octets(), to.octets()).unwrap();
    header.identification = 77;
    header.dont_fragment = false;
    header.more_fragments = more;
    header.fragment_offset = (offset / 8).try_into().unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    bytes.extend(body);
    bytes
}

/// The part of an IPv4 packet of a sender that another one stands in for: numbered anew. IPv6 stays.
pub fn renumbered(sender: IpAddr, mut packet: Vec<u8>) -> Vec<u8> {
    if let IpAddr::V4(sender) = sender {
        let (mut header, _) = Ipv4Header::from_slice(&packet).unwrap();
        let sender = V4([u32::from_ne_bytes(sender.octets())]);
        header.identification = u16::from_be(translated_id(header.identification.to_be(), sender));
        header.header_checksum = header.calc_header_checksum();
        packet.splice(..header.header_len(), header.to_bytes());
    }
    packet
}

/// What a TCP header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Source and destination.
    pub ports: [u16; 2],
    /// Number of the first byte.
    pub sequence: u32,
    /// Number of the byte that is waited for.
    pub acknowledgement: u32,
    /// [`FIN`], [`SYN`], [`RST`], [`ACK`].
    pub flags: u8,
    /// Bytes that may be sent.
    pub window: u16,
}

/// A TCP segment.
pub fn tcp(source: IpAddr, destination: IpAddr, segment: Segment, payload: &[u8]) -> Vec<u8> {
    tcp_with(source, destination, segment, &[], payload)
}

/// A TCP segment with options: whole words of 4 bytes, in wire format.
pub fn tcp_with(
    source: IpAddr,
    destination: IpAddr,
    segment: Segment,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(segment.ports[0], segment.ports[1], segment.sequence, segment.window);
    header.acknowledgment_number = segment.acknowledgement;
    header.fin = segment.flags & 1 != 0;
    header.syn = segment.flags & 2 != 0;
    header.rst = segment.flags & 4 != 0;
    header.ack = segment.flags & 16 != 0;
    header.options = TcpOptions::try_from_slice(options).unwrap();
    summed(TransportHeader::Tcp(header), source, destination, payload)
}

/// A UDP datagram.
pub fn udp(source: IpAddr, destination: IpAddr, ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let [from, to] = ports;
    let header =
        UdpHeader { source_port: from, destination_port: to, length: 8 + payload.len() as u16, checksum: 0 };
    summed(TransportHeader::Udp(header), source, destination, payload)
}

fn summed(mut header: TransportHeader, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let addresses = Ipv4Header { source, destination, ..Ipv4Header::default() };
            header.update_checksum_ipv4(&addresses, payload).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let addresses = Ipv6Header { source, destination, ..Ipv6Header::default() };
            header.update_checksum_ipv6(&addresses, payload).unwrap();
        }
        _ => panic!("families differ"),
    }
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    bytes.extend(payload);
    bytes
}

/// An ICMP or ICMPv6 message.
pub fn icmp(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(payload);
    let sum = sum(source, destination, icmp_number(source), &bytes);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// The protocol number of ICMP in the family of an address.
pub fn icmp_number(address: IpAddr) -> u8 {
    if address.is_ipv4() { 1 } else { 58 }
}

/// The checksum over `bytes`, with the pseudo header where the protocol has one.
pub fn sum(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> [u8; 2] {
    let mut sum = Sum16BitWords::new().add_slice(bytes);
    let sum = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum
            .add_16bytes(source.octets())
            .add_16bytes(destination.octets())
            .add_4bytes((bytes.len() as u32).to_be_bytes())
            .add_2bytes([0, protocol]),
        (IpAddr::V4(source), IpAddr::V4(destination)) if protocol == TCP || protocol == UDP => sum
            .add_4bytes(source.octets())
            .add_4bytes(destination.octets())
            .add_4bytes((bytes.len() as u32).to_be_bytes())
            .add_2bytes([0, protocol]),
        _ => sum,
    };
    sum.ones_complement().to_ne_bytes()
}
