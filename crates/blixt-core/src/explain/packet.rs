//! The packet of a tuple, and the tuple of a packet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use blixt_packet::abi::Link;

use super::Tuple;
use crate::config::Protocol;
use crate::simulation::Buffer;
use crate::tables::{Tables, Way};

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// The first packet of a connection: a TCP SYN or an empty datagram. It comes by the link that is known of its client, else by
/// the first device that can be meant.
pub(super) fn first(tuple: &Tuple, tables: &Tables, known: Option<Link>) -> Buffer {
    let segment = segment(tuple);
    let ip = match (tuple.source.ip(), tuple.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = (20 + segment.len() as u16).to_be_bytes();
            let mut header =
                vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, tuple.protocol.number(), 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = (segment.len() as u16).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], tuple.protocol.number(), 64];
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        // A `Tuple` is of one family.
        _ => Vec::new(),
    };
    let ethertype: [u8; 2] = if tuple.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    let link = known.unwrap_or_else(|| Link::new(device_towards(tuple.source.ip(), tables), 0));
    let mac = tables.devices.get(&link.ifindex()).map_or([0; 6], |device| device.mac.0);
    // Whoever sends it: a MAC address that no maker gives out.
    let sender = [2, 0, 0, 0, 0, 1];
    let bytes = [&mac[..], &sender, &ethertype, &ip, &segment].concat();
    Buffer { bytes, link, ..Buffer::default() }
}

/// The device that a client is behind: that of a hop to it, as clients have that are backends themselves; else one that leads to
/// no backend of this machine.
fn device_towards(client: IpAddr, tables: &Tables) -> u32 {
    let hop = tables.hops.values().find(|hop| hop.next_hop == Some(client));
    if let Some(hop) = hop {
        return hop.device;
    }
    let local = tables.backends.values().filter(|entry| entry.way == Way::Local);
    let inner: BTreeSet<u32> = local.filter_map(|entry| Some(tables.hops.get(&entry.hop)?.device)).collect();
    let mut devices =
        tables.devices.iter().filter(|(_, device)| !device.of_host).map(|(ifindex, _)| *ifindex);
    let first = devices.clone().next().unwrap_or(0);
    devices.find(|ifindex| !inner.contains(ifindex)).unwrap_or(first)
}

/// What its headers say now.
pub(super) fn tuple(pkt: &Buffer, protocol: Protocol) -> Option<Tuple> {
    // A tag of four bytes may have come in front of the type.
    let network = if pkt.bytes.get(12..14)? == [0x81, 0] { ETHERNET + 4 } else { ETHERNET };
    let ip = pkt.bytes.get(network..)?;
    let (source, destination, transport) = match ip.first()? >> 4 {
        4 => (address::<4>(ip, 12)?.into(), address::<4>(ip, 16)?.into(), 20),
        _ => (IpAddr::from(address::<16>(ip, 8)?), address::<16>(ip, 24)?.into(), 40),
    };
    let port = |at: usize| Some(u16::from_be_bytes(address::<2>(ip, transport + at)?));
    Some(Tuple {
        protocol,
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
    })
}

fn segment(tuple: &Tuple) -> Vec<u8> {
    let ports = [tuple.source.port().to_be_bytes(), tuple.destination.port().to_be_bytes()].concat();
    let rest: &[u8] = match tuple.protocol {
        // Sequence and acknowledgement, a header of 5 words, SYN, window, no checksum that anybody looks at.
        Protocol::Tcp => &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0],
        Protocol::Udp => &[0, 8, 0, 0],
    };
    [&ports, rest].concat()
}

fn address<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn checksum(header: &[u8]) -> [u8; 2] {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!(((folded & 0xffff) + (folded >> 16)) as u16)).to_be_bytes()
}
