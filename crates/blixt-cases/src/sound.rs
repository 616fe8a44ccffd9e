//! What a machine that looks closely would say of a packet: etherparse reads it, and sums it anew.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::packet::{TCP, UDP, icmp_number, sum};

/// Says which sum of a frame is wrong, if one is. Parts of packets are not summed.
pub fn flaw(frame: &[u8]) -> Option<String> {
    let packet = match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => packet,
        Err(error) => return Some(error.to_string()),
    };
    let (source, destination, payload): (IpAddr, IpAddr, &[u8]) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            if header.header_checksum != header.calc_header_checksum() {
                return Some("the sum of the IPv4 header is wrong".into());
            }
            (header.source.into(), header.destination.into(), ip.payload().payload)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload().payload)
        }
        _ => return None,
    };
    let transport = packet.transport?;
    let payload = if let TransportSlice::Udp(datagram) = &transport { datagram.slice() } else { payload };
    let protocol = match transport {
        TransportSlice::Tcp(_) => TCP,
        // UDP over IPv4 may have no sum.
        TransportSlice::Udp(datagram) if datagram.checksum() == 0 && source.is_ipv4() => return None,
        TransportSlice::Udp(_) => UDP,
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => icmp_number(source),
        _ => return None,
    };
    let is_right = sum(source, destination, protocol, payload) == [0, 0];
    (!is_right).then(|| format!("the sum of protocol {protocol} is wrong"))
}
