//! New addresses, ports and hop count for a packet, and the checksums that follow from them.

use crate::DropReason;
use crate::abi::Flow;
use crate::address::Address;
use crate::checksum::Delta;
use crate::headers::{Headers, UDP};
use crate::packet::Packet;

/// Gives a packet the addresses and ports of its flow; `routed`: it goes on to another machine, which takes one hop off.
///
/// The transport checksum comes last: in TC it needs helpers after which the packet must be found anew.
#[inline(always)]
pub fn rewrite<A: Address, P: Packet>(
    pkt: &mut P,
    headers: &Headers<A>,
    flow: &Flow<A>,
    routed: bool,
) -> Result<(), DropReason> {
    let key = &headers.key;
    A::write(pkt, headers, flow.source, flow.destination, routed)?;
    if headers.part.is_later() || headers.protocol() == A::ICMP {
        // Without ports; the sum of an ICMP error follows its embedded packet.
        return Ok(());
    }
    let old = word(key.ports);
    let new = word(flow.ports);
    pkt.write_words(headers.transport, [new])?;
    let pseudo =
        key.destination.replaced(flow.destination, key.source.replaced(flow.source, Delta::default()));
    let header = Delta::default().replace(old, new);
    pkt.patch_sum(headers.checksum_at(), pseudo, header, headers.protocol() == UDP)
}

/// Writes the MAC addresses of a frame.
#[inline(always)]
pub fn address_frame<P: Packet>(
    pkt: &mut P,
    destination: [u16; 3],
    source: [u16; 3],
) -> Result<(), DropReason> {
    let [a, b, c] = destination;
    let [d, e, f] = source;
    pkt.write_words(0, [word([a, b]), word([c, d]), word([e, f])])
}

#[inline(always)]
fn word([first, second]: [u16; 2]) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
