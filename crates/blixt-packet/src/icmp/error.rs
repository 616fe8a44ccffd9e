//! ICMP errors on their way to the client or to the backend.
//!
//! Two parts do it one after the other: the first translates what the error carries, the second sends the error on, to whom
//! its flow leads: one that came in, or (`LEAVING`) one that a backend on this machine sends.

use super::{Embedded, Icmp};
use crate::abi::{Backend, Flow};
use crate::checksum::Delta;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::room::Room;
use crate::select::living;
use crate::send::{Way, send, way_to_backend, way_to_client};
use crate::state::{Entry, State};
use crate::step::Step;
use crate::{DropReason, Refusal, Verdict};

/// Translates the embedded packet, and says in the flow where the error goes. An unknown step: it is to be sent there.
#[inline(always)]
pub(crate) fn translate<A: Icmp, P: Packet, S: State<A>, const LEAVING: bool>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Step {
    pkt.gather();
    let headers = &room.headers;
    let found = Embedded::parse(pkt, headers).and_then(|embedded| {
        room.opposite_key = embedded.opposite_key();
        let entry = state.flow(&room.opposite_key).ok_or(DropReason::IcmpUnrelated)?;
        Ok((embedded, entry))
    });
    let (embedded, entry) = match found {
        Ok(found) => found,
        Err(reason) => {
            let is_ours = !LEAVING && state.address(&headers.key.destination).is_some();
            return if is_ours { Verdict::Drop(reason).into() } else { Verdict::Pass.into() };
        }
    };
    room.flow = entry.read();
    // Replies of a backend on this machine are translated where they leave, and so are its errors.
    let leaves = room.flow.is_to_stack() && !room.flow.is_request();
    if leaves != LEAVING {
        return Verdict::Pass.into();
    }
    if !P::GOES_EVERYWHERE
        && let Some(backend) = living(state, room.flow.backend)
        && !way::<A, S, LEAVING>(state, &room.flow, &backend).is_open(pkt, headers)
    {
        return Verdict::Pass.into();
    }
    match rewrite(pkt, headers, &embedded, &mut room.flow) {
        Ok(()) => Step::UNKNOWN,
        Err(reason) => Verdict::Drop(reason).into(),
    }
}

/// Sends the error on.
#[inline(always)]
pub(crate) fn carry<A: Icmp, P: Packet, S: State<A>, const LEAVING: bool>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Step {
    match sent::<A, P, S, LEAVING>(pkt, state, room) {
        Ok(verdict) => verdict.into(),
        // An error is never answered with an error.
        Err(refusal) => Verdict::Drop(refusal.reason).into(),
    }
}

#[inline(always)]
fn sent<A: Icmp, P: Packet, S: State<A>, const LEAVING: bool>(
    pkt: &mut P,
    state: &S,
    room: &Room<A>,
) -> Result<Verdict, Refusal> {
    let flow = &room.flow;
    let backend = living(state, flow.backend).ok_or(DropReason::BackendGone)?;
    let way = way::<A, S, LEAVING>(state, flow, &backend);
    let verdict = send(pkt, &room.headers, flow, &way)?;
    if flow.is_request() {
        state.count_request(backend.route, room.headers.total);
    } else {
        state.count_reply(backend.route, room.headers.total);
    }
    Ok(verdict)
}

/// Where an error goes.
#[inline(always)]
fn way<A: Icmp, S: State<A>, const LEAVING: bool>(state: &S, flow: &Flow<A>, backend: &Backend<A>) -> Way {
    if LEAVING {
        Way::STACK
    } else if flow.is_request() {
        way_to_backend(state, flow, backend, state.now())
    } else {
        way_to_client(state, flow)
    }
}

/// Translates the embedded packet, and the sum for what will be the error's own addresses: `flow` then says those. Its
/// source stays, unless it was the very machine that the embedded packet was sent to.
#[inline(always)]
fn rewrite<A: Icmp, P: Packet>(
    pkt: &mut P,
    headers: &Headers<A>,
    embedded: &Embedded<A>,
    flow: &mut Flow<A>,
) -> Result<(), DropReason> {
    let change = embedded.translate(pkt, headers, flow)?;
    let key = &headers.key;
    if key.source != embedded.key.destination {
        flow.source = key.source;
    }
    let pseudo = if A::SUMS_ADDRESSES {
        key.destination.replaced(flow.destination, key.source.replaced(flow.source, Delta::default()))
    } else {
        Delta::default()
    };
    pkt.patch_sum(headers.transport + 2, pseudo, change, false)
}
