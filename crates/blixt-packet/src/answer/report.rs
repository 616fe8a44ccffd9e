//! ICMP errors of our own: what kept a packet from going on.

use super::{is_answerable, pseudo_header, turn_frame};
use crate::abi::FlowKey;
use crate::checksum::Delta;
use crate::headers::{Headers, TCP};
use crate::icmp::{HEADER, Icmp};
use crate::packet::{MAX_SUM, Packet};
use crate::state::{Entry, State};
use crate::{DropReason, Refusal};

/// Makes an ICMP error of a TCP or UDP packet, or says what to count.
///
/// It embeds the packet's IP headers and its transport header without options: what the sender needs to find the
/// connection. More would not do, since an unfinished checksum of the packet covers whatever is embedded.
#[inline(always)]
pub(super) fn report<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
    refusal: &Refusal,
) -> Result<(), DropReason> {
    let transport = if headers.protocol() == TCP { TCP_BYTES } else { UDP_BYTES };
    let network = headers.transport - headers.network;
    if network > MAX_SUM - TCP_BYTES || headers.payload() < transport as u32 || !is_answerable(headers) {
        return Err(refusal.reason);
    }
    if !state.take_answer() {
        return Err(DropReason::AnswerLimited);
    }

    let embedded = if pkt.is_partial() {
        // The sender finishes the sum when the packet leaves, over what is then left of it: the transport header's words
        // and the finished sum together are the complement of what the field holds now.
        let unfinished = u16::from_ne_bytes(pkt.read(headers.checksum_at())?);
        pkt.sum(headers.network, network)?.add(!unfinished as u32)
    } else {
        pkt.sum(headers.network, network + transport)?
    };
    pkt.truncate(headers.transport + transport)?;
    pkt.grow(headers.network, A::HEADER + HEADER)?;

    let from = sender(state, headers);
    let to = headers.key.source;
    let length = (HEADER + network + transport) as u32;
    turn_frame(pkt)?;
    A::write_header(pkt, headers.network, from, to, A::ICMP, length)?;
    let [kind, rest] = A::error(refusal);
    let pseudo = if A::SUMS_ADDRESSES {
        let key = FlowKey { source: from, destination: to, ..FlowKey::default() };
        pseudo_header(&key, A::ICMP, length)
    } else {
        Delta::default()
    };
    let [high, low] = (!embedded.plus(pseudo).add_all([kind, rest]).fold()).to_ne_bytes();
    let [kind, code, _, _] = kind.to_ne_bytes();
    let at = headers.network + A::HEADER;
    pkt.write_words(at, [u32::from_ne_bytes([kind, code, high, low]), rest])
}

/// Who speaks: whom the packet was sent to. That is the client itself where a backend's reply names it (`Transparent`);
/// there the frontend speaks.
#[inline(always)]
fn sender<A: Icmp, S: State<A>>(state: &S, headers: &Headers<A>) -> A {
    let destination = headers.key.destination;
    match state.flow(&headers.key).map(|entry| entry.read()) {
        Some(flow) if !flow.is_request() && flow.destination == destination => flow.source,
        _ => destination,
    }
}

/// Bytes of a UDP header.
const UDP_BYTES: usize = 8;
/// Bytes of a TCP header without options: the checksum in it, which may be unfinished, cannot be cut off.
const TCP_BYTES: usize = 20;
