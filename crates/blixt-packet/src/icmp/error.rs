//! ICMP errors on their way to the client or to the backend.

use super::{Embedded, Icmp};
use crate::abi::{Backend, Flow};
use crate::checksum::Delta;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::select::living;
use crate::send::{send, way_to_backend, way_to_client};
use crate::state::{Entry, State};
use crate::{DropReason, Refusal, Verdict};

/// Sends an error that came in to whom its flow leads. A reason is returned where it belongs to no flow; then the packet
/// is as it was.
#[inline(always)]
pub(super) fn receive<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
) -> Result<Verdict, DropReason> {
    let mut verdict = Verdict::Pass;
    forward(pkt, state, headers, &mut verdict).map(|()| verdict)
}

/// Translates an error that leaves, if it comes from a backend on this machine.
#[inline(always)]
pub(super) fn leave<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
) -> Verdict {
    match translate_reply(pkt, state, headers) {
        Ok(true) => Verdict::Deliver,
        Ok(false) => Verdict::Pass,
        Err(reason) => Verdict::Drop(reason),
    }
}

#[inline(never)]
fn forward<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
    verdict: &mut Verdict,
) -> Result<(), DropReason> {
    let embedded = Embedded::parse(pkt, headers)?;
    let Some(entry) = state.flow(&embedded.opposite_key()) else {
        return Err(DropReason::IcmpUnrelated);
    };
    let mut flow = entry.read();
    if flow.is_to_stack() && !flow.is_request() {
        // Translated where it leaves, like the replies of that backend.
        return Ok(());
    }
    let carried = match living(state, flow.backend) {
        Some(backend) => carry(pkt, state, headers, &embedded, &mut flow, &backend),
        None => Err(DropReason::BackendGone.into()),
    };
    *verdict = match carried {
        Ok(sent) => sent,
        // An error is never answered with an error.
        Err(refusal) => Verdict::Drop(refusal.reason),
    };
    Ok(())
}

#[inline(always)]
fn carry<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
    embedded: &Embedded<A>,
    flow: &mut Flow<A>,
    backend: &Backend<A>,
) -> Result<Verdict, Refusal> {
    translate(pkt, headers, embedded, flow)?;
    if flow.is_request() {
        state.count_request(backend.route, headers.total);
        return send(pkt, headers, flow, way_to_backend(state, flow, backend));
    }
    state.count_reply(backend.route, headers.total);
    send(pkt, headers, flow, way_to_client(state, flow))
}

/// False: the error is not ours.
#[inline(never)]
fn translate_reply<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
) -> Result<bool, DropReason> {
    let Ok(embedded) = Embedded::parse(pkt, headers) else {
        return Ok(false);
    };
    let Some(entry) = state.flow(&embedded.opposite_key()) else {
        return Ok(false);
    };
    let mut flow = entry.read();
    if flow.is_request() || !flow.is_to_stack() {
        return Ok(false);
    }
    translate(pkt, headers, &embedded, &mut flow)?;
    A::write(pkt, headers, flow.source, flow.destination, false)?;
    Ok(true)
}

/// Translates the embedded packet, and the sum for what will be the error's own addresses: `flow` then says those. Its
/// source stays, unless it was the very machine that the embedded packet was sent to.
#[inline(always)]
fn translate<A: Icmp, P: Packet>(
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
