//! RST: there is no such connection (RFC 9293, section 3.10.7.1), or no longer.

use super::{is_answerable, pseudo_header, turn_frame};
use crate::DropReason;
use crate::abi::{FlowKey, Hop};
use crate::flow::{self, refresh};
use crate::headers::{ACK, FIN, Headers, RST, SYN, TCP};
use crate::icmp::Icmp;
use crate::packet::Packet;
use crate::rewrite::address_frame;
use crate::room::Room;
use crate::state::State;

/// Makes a RST of a TCP segment, unless it is one; else says what to count.
#[inline(always)]
pub(super) fn reset<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
    reason: DropReason,
) -> Result<(), DropReason> {
    if headers.flags & RST != 0 || !is_answerable(headers) {
        return Err(reason);
    }
    if !state.take_answer() {
        return Err(DropReason::AnswerLimited);
    }

    let [_, sequence, acknowledgement, rest]: [u32; 4] = pkt.words(headers.transport)?;
    let (sequence, acknowledgement, flags) = if headers.flags & ACK != 0 {
        (acknowledgement, 0, RST)
    } else {
        let words = rest.to_ne_bytes()[0] >> 4;
        let data = headers.payload().wrapping_sub(words as u32 * 4);
        let length = data + (headers.flags & SYN != 0) as u32 + (headers.flags & FIN != 0) as u32;
        (0, u32::from_be(sequence).wrapping_add(length).to_be(), RST | ACK)
    };
    let key = &headers.key;
    let [source, destination] = key.ports;
    let back = FlowKey {
        source: key.destination,
        destination: key.source,
        ports: [destination, source],
        protocol: key.protocol,
    };
    turn_frame(pkt)?;
    replace(pkt, headers, &back, [sequence, acknowledgement], flags)
}

/// The room's packet is a segment for a client that has not heard yet that its backend is gone.
#[inline(always)]
pub(super) fn is_owed<A: Icmp>(room: &Room<A>) -> bool {
    let Room { headers, flow, .. } = room;
    room.step.refusal().reason == DropReason::BackendGone
        && headers.protocol() == TCP
        && headers.flags & RST == 0
        && !flow.is_request()
        && flow.state & flow::RESET == 0
        && is_answerable(headers)
}

/// Makes of a segment for a client the RST that ends its connection, and notes that in the flow. A RST with the segment's own
/// number is what a client believes that waits for this very segment.
#[inline(always)]
pub(super) fn pass_on<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
    hop: Option<Hop>,
) -> Result<(), DropReason> {
    if !state.take_answer() {
        return Err(DropReason::AnswerLimited);
    }
    let headers = &room.headers;
    let [_, sequence, acknowledgement]: [u32; 3] = pkt.words(headers.transport)?;
    let flow = &room.flow;
    let there = FlowKey {
        source: flow.source,
        destination: flow.destination,
        ports: flow.ports,
        protocol: headers.key.protocol,
    };
    if let Some(hop) = hop {
        address_frame(pkt, hop.destination, hop.source)?;
    }
    replace(pkt, headers, &there, [sequence, acknowledgement], RST | headers.flags & ACK)?;
    if let Some(hop) = hop
        && headers.link.vlan() != hop.link.vlan()
    {
        pkt.set_vlan(hop.link.vlan())?;
    }
    room.flow.state = flow.state_after(RST);
    room.flow.seen = state.now();
    refresh(state, room);
    Ok(())
}

/// Makes a TCP header and nothing behind it of a segment, in a packet of this tuple.
#[inline(always)]
fn replace<A: Icmp, P: Packet>(
    pkt: &mut P,
    headers: &Headers<A>,
    key: &FlowKey<A>,
    [sequence, acknowledgement]: [u32; 2],
    flags: u8,
) -> Result<(), DropReason> {
    let [source, destination] = key.ports;
    let ports = join(source, destination);
    let offset_and_flags = u32::from_ne_bytes([(LENGTH / 4) << 4, flags, 0, 0]);

    let pseudo = pseudo_header(key, TCP, LENGTH as u32);
    let sum = if pkt.is_partial() {
        pseudo.fold()
    } else {
        !pseudo.add_all([ports, sequence, acknowledgement, offset_and_flags]).fold()
    };

    pkt.truncate(headers.transport + LENGTH as usize)?;
    let extra = (headers.transport - headers.network).wrapping_sub(A::HEADER);
    if extra != 0 {
        pkt.shrink(headers.network, extra)?;
    }
    A::write_header(pkt, headers.network, key.source, key.destination, TCP, LENGTH as u32)?;
    let at = headers.network + A::HEADER;
    pkt.write_words(at, [ports, sequence, acknowledgement, offset_and_flags, join(sum, 0)])
}

/// Two fields of 16 bits as they lie side by side.
#[inline(always)]
fn join(first: u16, second: u16) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Bytes of a TCP header without options.
const LENGTH: u8 = 20;
