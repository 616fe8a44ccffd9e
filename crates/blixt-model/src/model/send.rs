//! The way out of a packet that goes on.

use blixt_core::host::Mac;
use blixt_core::tables::BackendEntry;
use blixt_packet::DropReason;
use blixt_packet::abi::Link;

use super::{Model, Refusal};
use crate::flow::{End, Half};
use crate::hash::distance;
use crate::outcome::Outcome;
use crate::packet::{Packet, TCP, UDP};
use crate::sum::{carried, checksum, octets, pseudo_header, sum};

/// The next hop.
pub(super) struct Hop {
    pub link: Link,
    pub mtu: u32,
    pub destination: [u8; 6],
    pub source: [u8; 6],
}

impl Model {
    /// Sends a packet on as its flow says.
    pub(super) fn send(
        &self,
        packet: &Packet,
        flow: &Half,
        backend: &BackendEntry,
    ) -> Result<Outcome, Refusal> {
        if flow.is_to_stack && flow.is_request {
            return Ok(Outcome::Deliver(rewritten(packet, flow.from, flow.to, false)));
        }
        let hop = self.hop(flow, backend);
        self.fits(packet, &hop)?;
        Ok(Outcome::Send(hop.link, framed(rewritten(packet, flow.from, flow.to, true), packet, &hop)))
    }

    /// It may be sent to another machine, by this hop.
    pub(super) fn fits(&self, packet: &Packet, hop: &Hop) -> Result<(), Refusal> {
        if packet.hops <= 1 {
            return Err(Refusal::new(DropReason::TtlExceeded));
        }
        if packet.total > hop.mtu as usize && packet.largest() > hop.mtu as usize {
            return Err(Refusal { mtu: hop.mtu, ..Refusal::new(DropReason::TooBig) });
        }
        Ok(())
    }

    /// Where the packets of a flow go that go to another machine. Here every backend has a hop with a neighbour, and every client
    /// came by a device that is known: what the kernel would say is another test's.
    pub(super) fn hop(&self, flow: &Half, backend: &BackendEntry) -> Hop {
        if flow.is_request {
            let hop = &self.tables.hops[&backend.hop];
            let Mac(destination) = hop.destination.expect("the hop has a neighbour");
            return Hop { link: Link::new(hop.device, 0), mtu: hop.mtu, destination, source: hop.source.0 };
        }
        self.hop_to_client(flow)
    }

    /// Back where the client's packets come from.
    pub(super) fn hop_to_client(&self, flow: &Half) -> Hop {
        let device = &self.tables.devices[&flow.client.ifindex()];
        Hop { link: flow.client, mtu: device.mtu, destination: flow.client_mac, source: device.mac.0 }
    }
}

/// A frame with the MAC addresses and the VLAN of the hop. Where the VLAN stays the tag does.
pub(super) fn framed(frame: Vec<u8>, packet: &Packet, hop: &Hop) -> Vec<u8> {
    let network = packet.ethernet.network;
    let mut framed = [hop.destination, hop.source].concat();
    if packet.ethernet.link.vlan() == hop.link.vlan() {
        framed.extend(&frame[12..]);
        return framed;
    }
    if hop.link.vlan() != 0 {
        framed.extend([0x81, 0]);
        framed.extend(hop.link.vlan().to_be_bytes());
    }
    framed.extend(&frame[network - 2..]);
    framed
}

/// The frame with other ends in its packet: a hop less if it is `routed`.
pub(super) fn rewritten(packet: &Packet, from: End, to: End, routed: bool) -> Vec<u8> {
    let mut frame = packet.frame.clone();
    let network = packet.ethernet.network;
    let (source, destination) = (packet.tuple.from.0, packet.tuple.to.0);
    let hops = if routed { packet.hops - 1 } else { packet.hops };
    let header = &mut frame[network..packet.transport];
    if source.is_ipv4() {
        header[8] = hops;
        header[12..16].copy_from_slice(&octets(from.0));
        header[16..20].copy_from_slice(&octets(to.0));
        // Of several senders that get one address no two may number their packets alike.
        if packet.part.is_fragment() && from.0 != source {
            moved(&mut header[4..6], distance(source));
        }
        sum_header(header);
    } else {
        header[7] = hops;
        header[8..24].copy_from_slice(&octets(from.0));
        header[24..40].copy_from_slice(&octets(to.0));
    }
    let at = match packet.tuple.protocol {
        TCP if packet.part.offset == 0 => 16,
        UDP if packet.part.offset == 0 => 6,
        _ => return frame,
    };
    let end = network + packet.total;
    let old = packet.payload();
    let new = &mut frame[packet.transport..end];
    new[..2].copy_from_slice(&from.1.to_be_bytes());
    new[2..4].copy_from_slice(&to.1.to_be_bytes());
    if packet.tuple.protocol == UDP && new[at..at + 2] == [0, 0] {
        return frame;
    }
    let pseudo = |source, destination| pseudo_header(source, destination, packet.tuple.protocol, old.len());
    let before = sum(&[&pseudo(source, destination), old]);
    new[at..at + 2].fill(0);
    let field = carried(before, sum(&[&pseudo(from.0, to.0), new]));
    // In UDP 0 says that there is no sum.
    let field = if packet.tuple.protocol == UDP && field == 0 { 0xffff } else { field };
    new[at..at + 2].copy_from_slice(&field.to_be_bytes());
    frame
}

/// Moves an identification, which counts in the machine's byte order.
pub(super) fn moved(id: &mut [u8], distance: u16) {
    let number = u16::from_ne_bytes([id[0], id[1]]).wrapping_add(distance);
    id.copy_from_slice(&number.to_ne_bytes());
}

/// Sums the header of an IPv4 packet.
pub(super) fn sum_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let field = checksum(sum(&[header]));
    header[10..12].copy_from_slice(&field.to_be_bytes());
}
