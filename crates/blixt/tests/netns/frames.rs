//! Frames that no socket would send: options, extension headers, VLAN tags.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use blixt_lab::{Lab, PacketSocket};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, SlicedPacket, TransportSlice,
};

use crate::world::{World, at};

/// What is odd about a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// Nothing.
    None,
    /// IPv4 options of that many bytes (no operation).
    Options(usize),
    /// IPv6 hop-by-hop and destination options.
    Extensions,
    /// This VLAN's tag.
    Vlan(u16),
}

/// A frame with a datagram from the client towards an address, through the balancer.
pub fn datagram(world: &World, from: SocketAddr, to: SocketAddr, payload: &[u8], oddity: Oddity) -> Vec<u8> {
    let source = world.lab.client.mac("eth0").unwrap();
    let destination = world.lab.balancer.mac(&Lab::device(0)).unwrap();
    let builder = PacketBuilder::ethernet2(source, destination).ip(headers(from.ip(), to.ip(), oddity));
    let mut frame = Vec::new();
    builder.udp(from.port(), to.port()).write(&mut frame, payload).unwrap();
    if let Oddity::Vlan(id) = oddity {
        let [a, b] = id.to_be_bytes();
        frame.splice(TAG_AT..TAG_AT, [0x81, 0x00, a, b]);
    }
    frame
}

/// Sends a frame from the client and waits for the answer to it: the frame, and the datagram's payload.
pub fn ask(world: &World, frame: &[u8], from: SocketAddr, to: SocketAddr) -> Option<(Vec<u8>, Vec<u8>)> {
    let socket = PacketSocket::open(&world.lab.client, "eth0").unwrap();
    socket.send(frame).unwrap();
    let answer = socket.receive_if(WAIT, |frame| {
        udp_of(frame).is_some_and(|(source, destination, _)| (source, destination) == (to, from))
    });
    let answer = answer.unwrap()?;
    let payload = udp_of(&answer)?.2;
    Some((answer, payload))
}

/// The addresses and the payload of a frame with UDP in it, if its checksums are right.
pub fn udp_of(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let TransportSlice::Udp(udp) = packet.transport? else { return None };
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        etherparse::NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::NetSlice::Arp(_) => return None,
    };
    Some((at(source, udp.source_port()), at(destination, udp.destination_port()), udp.payload().to_vec()))
}

/// The TTL or hop limit of a frame.
pub fn ttl_of(frame: &[u8]) -> Option<u8> {
    match SlicedPacket::from_ethernet(frame).ok()?.net? {
        etherparse::NetSlice::Ipv4(ip) => Some(ip.header().ttl()),
        etherparse::NetSlice::Ipv6(ip) => Some(ip.header().hop_limit()),
        etherparse::NetSlice::Arp(_) => None,
    }
}

/// Long enough for an answer on a busy machine.
pub const WAIT: Duration = Duration::from_secs(3);
/// A VLAN tag follows the two MAC addresses.
pub const TAG_AT: usize = 12;

fn headers(from: IpAddr, to: IpAddr, oddity: Oddity) -> IpHeaders {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets()).unwrap();
            if let Oddity::Options(length) = oddity {
                header.options = Ipv4Options::try_from(vec![1; length].as_slice()).unwrap();
            }
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber::UDP,
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
            };
            let mut extensions = Ipv6Extensions::default();
            if oddity == Oddity::Extensions {
                // PadN fills the smallest header there is. Linux takes no longer padding, so an option of experiments
                // (0x1e: skipped by whoever does not know it) fills one of 16 bytes.
                let short = Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[1, 4, 0, 0, 0, 0]).unwrap();
                let long = [0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let long = Ipv6RawExtHeader::new_raw(IpNumber::UDP, &long).unwrap();
                extensions.hop_by_hop_options = Some(short);
                extensions.destination_options = Some(long);
            }
            IpHeaders::Ipv6(header, extensions)
        }
        _ => panic!("{from} and {to} are of different families"),
    }
}
