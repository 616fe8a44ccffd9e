//! The packet that an ICMP error carries, and its translation.

use super::{HEADER, Icmp};
use crate::DropReason;
use crate::abi::{Flow, FlowKey};
use crate::checksum::Delta;
use crate::headers::{Headers, TCP, UDP};
use crate::packet::Packet;

/// What of an embedded packet is needed to find its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Embedded<A> {
    /// Its tuple.
    pub key: FlowKey<A>,
    /// Offset of its transport header.
    pub transport: usize,
}

impl<A: Icmp> Embedded<A> {
    /// Reads the packet that an error carries. A [`DropReason::IcmpUnrelated`] is one that no flow could have.
    #[inline(always)]
    pub fn parse<P: Packet>(pkt: &P, headers: &Headers<A>) -> Result<Self, DropReason> {
        let mut embedded = A::embedded(pkt, headers.transport + HEADER)?;
        if embedded.key.protocol != TCP as u32 && embedded.key.protocol != UDP as u32 {
            return Err(DropReason::IcmpUnrelated);
        }
        // RFC 792: at least 8 bytes of what follows the IP header.
        if embedded.transport + 8 > headers.network + headers.total as usize {
            return Err(DropReason::BadLength);
        }
        let [a, b, c, d] = pkt.read(embedded.transport)?;
        embedded.key.ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
        // An error goes to whom the packet came from; one that does not was made up.
        if embedded.key.source != headers.key.destination {
            return Err(DropReason::IcmpUnrelated);
        }
        Ok(embedded)
    }

    /// The tuple of the flow that goes the error's way.
    #[inline(always)]
    pub fn opposite_key(&self) -> FlowKey<A> {
        let FlowKey { source, destination, ports: [from, to], protocol } = self.key;
        FlowKey { source: destination, destination: source, ports: [to, from], protocol }
    }

    /// Makes the embedded packet what it was on the other side of the flow, whose opposite it belongs to. Says how the sum
    /// over the error changes by it.
    #[inline(always)]
    pub fn translate<P: Packet>(
        &self,
        pkt: &mut P,
        headers: &Headers<A>,
        flow: &Flow<A>,
    ) -> Result<Delta, DropReason> {
        let old = &self.key;
        let new = flow.opposite_key(old.protocol);
        let pseudo =
            old.destination.replaced(new.destination, old.source.replaced(new.source, Delta::default()));
        let network = A::write_embedded(pkt, headers.transport + HEADER, old, &new)?;

        let [[a, b], [c, d]] = old.ports.map(u16::to_ne_bytes);
        let [[e, f], [g, h]] = new.ports.map(u16::to_ne_bytes);
        pkt.write(self.transport, [e, f, g, h])?;
        let ports =
            Delta::default().replace(u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));

        let is_tcp = old.protocol == TCP as u32;
        let at = self.transport + if is_tcp { 16 } else { 6 };
        if at + 2 > headers.network + headers.total as usize {
            return Ok(network.plus(ports));
        }
        let before = u16::from_ne_bytes(pkt.read(at)?);
        let after = match pseudo.plus(ports).apply(before) {
            _ if before == 0 && !is_tcp => 0,
            0 if !is_tcp => 0xffff,
            after => after,
        };
        pkt.write(at, after.to_ne_bytes())?;
        Ok(network.plus(ports).replace(before as u32, after as u32))
    }
}
