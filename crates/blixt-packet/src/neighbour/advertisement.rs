//! Neighbour advertisements (RFC 4861).

use super::mac;
use crate::abi::{FlowKey, V6};
use crate::address::Address;
use crate::answer::pseudo_header;
use crate::headers::Headers;
use crate::icmp::Icmp;
use crate::packet::{MAX_SUM, Packet};
use crate::state::State;
use crate::{DropReason, Verdict};

/// ICMPv6's type of a neighbour solicitation.
pub(crate) const SOLICITATION: u8 = 135;

/// Answers a neighbour solicitation for an address that is ours to answer for.
#[inline(always)]
pub(crate) fn solicited<P: Packet, S: State<V6>>(pkt: &mut P, state: &S, headers: &Headers<V6>) -> Verdict {
    match advertise(pkt, state, headers) {
        Ok(true) => Verdict::Answer(None),
        Ok(false) => Verdict::Pass,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// False: the packet asks for nothing of ours, or is not valid (section 7.1.1) and the stack will ignore it as well. Its options are not
/// looked at.
#[inline(always)]
fn advertise<P: Packet, S: State<V6>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<V6>,
) -> Result<bool, DropReason> {
    let length = headers.payload();
    let is_plain = headers.transport == headers.network + V6::HEADER;
    if !is_plain || headers.hops != HOPS || length < LENGTH - OPTION || length as usize > MAX_SUM {
        return Ok(false);
    }
    let Ok([first, _, t0, t1, t2, t3]) = pkt.words::<6>(headers.transport) else {
        return Ok(false);
    };
    let [_, code, _, _] = first.to_ne_bytes();
    let target = V6([t0, t1, t2, t3]);
    // Who has no address yet asks whether another has it: all hear the answer.
    let source = headers.key.source;
    let is_probe = source == V6::default();
    let is_from_somebody =
        if is_probe { headers.key.destination == listeners(target) } else { source.is_host() };
    if code != 0 || !is_from_somebody {
        return Ok(false);
    }
    let Some([a, b, c, d, e, f]) = mac(state, target, headers.link) else {
        return Ok(false);
    };
    let sum =
        pseudo_header(&headers.key, V6::ICMP, length).plus(pkt.sum(headers.transport, length as usize)?);
    if sum.fold() != 0xffff {
        return Err(DropReason::BadChecksum);
    }

    let end = headers.transport + LENGTH as usize;
    if pkt.len() > end {
        pkt.truncate(end)?;
    } else if pkt.len() < end {
        pkt.grow(headers.network, end - pkt.len())?;
    }

    let to = if is_probe { ALL_NODES } else { source };
    let [first, second, third] = if is_probe { ALL_NODES_MAC } else { headers.mac };
    let [[g, h], [i, j], [k, l]] = [first, second, third].map(u16::to_ne_bytes);
    pkt.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])?;
    V6::write_header(pkt, headers.network, target, to, V6::ICMP, LENGTH)?;
    pkt.write(headers.network + 7, [HOPS])?;

    let flags = u32::from_ne_bytes([if is_probe { OVERRIDE } else { SOLICITED | OVERRIDE }, 0, 0, 0]);
    let option = u32::from_ne_bytes([TARGET_MAC, 1, a, b]);
    let mac = u32::from_ne_bytes([c, d, e, f]);
    let key = FlowKey { source: target, destination: to, ..FlowKey::default() };
    let sum = pseudo_header(&key, V6::ICMP, LENGTH)
        .add(u32::from_ne_bytes([ADVERTISEMENT, 0, 0, 0]))
        .add_all(target.0)
        .add_all([flags, option, mac]);
    let [high, low] = (!sum.fold()).to_ne_bytes();
    let kind = u32::from_ne_bytes([ADVERTISEMENT, 0, high, low]);
    pkt.write_words(headers.transport, [kind, flags, t0, t1, t2, t3, option, mac])?;
    Ok(true)
}

/// The group in which the neighbours of an address listen (RFC 4291, section 2.7.1): `ff02::1:ff00:0` and its last 24 bits.
#[inline(always)]
const fn listeners(V6([.., last]): V6) -> V6 {
    let [_, b, c, d] = last.to_ne_bytes();
    V6([u32::from_be(0xff02_0000), 0, u32::from_be(1), u32::from_ne_bytes([0xff, b, c, d])])
}

/// No router has touched the packet: it comes from this very link.
const HOPS: u8 = 255;
/// ICMPv6's type of a neighbour advertisement.
const ADVERTISEMENT: u8 = 136;
/// Bytes of an advertisement with the MAC address.
const LENGTH: u32 = 32;
/// Bytes of the option that holds the MAC address.
const OPTION: u32 = 8;
/// Type of that option.
const TARGET_MAC: u8 = 2;
/// Flag: it was asked for.
const SOLICITED: u8 = 0x40;
/// Flag: what the receiver knew of the address is void.
const OVERRIDE: u8 = 0x20;
/// `ff02::1`.
const ALL_NODES: V6 = V6([u32::from_be(0xff02_0000), 0, 0, u32::from_be(1)]);
/// `33:33:00:00:00:01`.
const ALL_NODES_MAC: [u16; 3] = [u16::from_be(0x3333), 0, u16::from_be(1)];
