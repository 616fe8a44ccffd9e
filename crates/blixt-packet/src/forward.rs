//! The way of one packet, from its first byte to the verdict.
//!
//! A packet whose tuple is in the flow table costs one hash lookup; everything else is a function of its own.

use crate::abi::{BACKEND_DRAINING, Backend, Flow, V4, V6};
use crate::address::Address;
use crate::answer::answer;
use crate::connect::{Owner, connect};
use crate::flow::refresh;
use crate::frame::Frame;
use crate::headers::{Headers, TCP, UDP};
use crate::icmp::{self, Icmp};
use crate::neighbour::{ARP, arp};
use crate::packet::Packet;
use crate::rewrite::rewrite;
use crate::select::living;
use crate::send::{send, way_to_backend, way_to_client};
use crate::state::{Entry, State};
use crate::{DropReason, Refusal, Verdict, fragment};

/// Decides about a packet that came in by a device, and changes it as the verdict says.
#[inline(always)]
pub fn forward<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S) -> Verdict {
    let Ok(frame) = Frame::parse(pkt) else {
        return Verdict::Pass;
    };
    match frame.ethertype {
        V4::ETHERTYPE => enter::<V4, P, S>(pkt, state, &frame),
        V6::ETHERTYPE => enter::<V6, P, S>(pkt, state, &frame),
        ARP => arp(pkt, state, &frame),
        _ => Verdict::Pass,
    }
}

/// Decides about a packet that leaves by a device: only replies of backends on this machine are ours.
#[inline(always)]
pub fn leave<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S) -> Verdict {
    let Ok(frame) = Frame::parse(pkt) else {
        return Verdict::Pass;
    };
    match frame.ethertype {
        V4::ETHERTYPE => exit::<V4, P, S>(pkt, state, &frame),
        V6::ETHERTYPE => exit::<V6, P, S>(pkt, state, &frame),
        _ => Verdict::Pass,
    }
}

#[inline(always)]
fn enter<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, frame: &Frame) -> Verdict {
    let mut headers = Headers::default();
    if let Err(reason) = Headers::parse(pkt, frame, &mut headers) {
        return drop_ours(state, &headers, reason);
    }
    match headers.protocol() {
        TCP | UDP => {}
        protocol if protocol == A::ICMP => return icmp::receive(pkt, state, &headers),
        _ => return drop_ours(state, &headers, DropReason::Refused),
    }
    if headers.part.is_fragment()
        && let Err(reason) = fragment::admit(state, &mut headers)
    {
        return match reason {
            DropReason::FragmentOverlap if headers.part.is_later() => Verdict::Drop(reason),
            reason => drop_ours(state, &headers, reason),
        };
    }
    match follow(pkt, state, &headers) {
        Ok(verdict) => {
            if headers.part.is_fragment() && verdict != Verdict::Pass {
                fragment::remember(state, &headers);
            }
            verdict
        }
        Err(refusal) => answer(pkt, state, &headers, &refusal),
    }
}

#[inline(always)]
fn exit<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, frame: &Frame) -> Verdict {
    let mut headers = Headers::default();
    if Headers::parse(pkt, frame, &mut headers).is_err() {
        return Verdict::Pass;
    }
    if headers.protocol() == A::ICMP {
        return icmp::leave(pkt, state, &headers);
    }
    if headers.part.is_fragment() && fragment::admit(state, &mut headers).is_err() {
        return Verdict::Pass;
    }
    let Some(entry) = state.flow(&headers.key) else {
        return Verdict::Pass;
    };
    let flow = entry.read();
    if flow.is_request() || !flow.is_to_stack() {
        return Verdict::Pass;
    }
    let Some(backend) = living(state, flow.backend) else {
        return Verdict::Drop(DropReason::BackendGone);
    };
    note(state, &headers, flow);
    state.count_reply(backend.route, headers.total);
    if headers.part.is_fragment() {
        fragment::remember(state, &headers);
    }
    match rewrite(pkt, &headers, &flow, false) {
        Ok(()) => Verdict::Deliver,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// A packet that cannot be forwarded is dropped if it was for us, and the stack's business otherwise.
#[inline(always)]
fn drop_ours<A: Address, S: State<A>>(state: &S, headers: &Headers<A>, reason: DropReason) -> Verdict {
    let key = &headers.key;
    if state.address(&key.destination).is_some() || state.frontend(&key.destination()).is_some() {
        return Verdict::Drop(reason);
    }
    Verdict::Pass
}

#[inline(always)]
fn follow<A: Address, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
) -> Result<Verdict, Refusal> {
    let known = state.flow(&headers.key).map(|entry| entry.read());
    let mut flow = known.unwrap_or_default();
    let mut backend = known.and_then(|flow| living(state, flow.backend));
    if known.is_some()
        && backend.is_none()
        && (headers.protocol() == TCP && !headers.is_syn() || !flow.is_request())
    {
        return Err(DropReason::BackendGone.into());
    }
    if !backend.is_some_and(|backend| stays(headers, &flow, &backend)) {
        if connect(state, headers, &mut flow)? == Owner::Others {
            return Ok(Verdict::Pass);
        }
        backend = living(state, flow.backend);
    }
    let Some(backend) = backend else {
        return Err(DropReason::Internal.into());
    };
    if !flow.is_request() && flow.is_to_stack() {
        // It is translated where it leaves, so that the stack sees both directions alike.
        return Ok(Verdict::Pass);
    }
    note(state, headers, flow);
    let route =
        if flow.is_request() { way_to_backend(state, &flow, &backend) } else { way_to_client(state, &flow) };
    let verdict = send(pkt, headers, &flow, route)?;
    if flow.is_request() {
        state.count_request(backend.route, headers.total);
    } else {
        state.count_reply(backend.route, headers.total);
    }
    Ok(verdict)
}

/// The packet is one of its flow: no new connection with an old tuple, and no datagram that must find a new backend.
#[inline(always)]
fn stays<A: Address>(headers: &Headers<A>, flow: &Flow<A>, backend: &Backend<A>) -> bool {
    if !flow.is_request() {
        return true;
    }
    if headers.protocol() == TCP {
        return !(headers.is_syn() && flow.is_closed());
    }
    backend.state != BACKEND_DRAINING
}

/// Keeps what changes in a flow: the second of its last packet, TCP's state, and where its client sits.
#[inline(always)]
fn note<A: Address, S: State<A>>(state: &S, headers: &Headers<A>, mut flow: Flow<A>) {
    let now = state.now();
    let after = flow.state_after(headers.protocol(), headers.flags);
    let has_moved = flow.is_request() && (flow.client != headers.link || flow.client_mac != headers.mac);
    if flow.seen == now && flow.state == after && !has_moved {
        return;
    }
    if has_moved {
        flow.client = headers.link;
        flow.client_mac = headers.mac;
    }
    flow.seen = now;
    flow.state = after;
    refresh(state, &headers.key, &flow);
}
