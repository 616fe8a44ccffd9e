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
use crate::icmp::{self, Icmp, pass_on};
use crate::neighbour::{ARP, arp};
use crate::packet::Packet;
use crate::rewrite::rewrite;
use crate::room::{Room, Rooms};
use crate::select::living;
use crate::send::{send, way_to_backend, way_to_client};
use crate::state::{Entry, State};
use crate::step::Step;
use crate::{DropReason, Refusal, Verdict, fragment};

/// Decides about a packet that came in by a device, and changes it as the verdict says.
pub fn forward<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S) -> Verdict {
    forward_in(pkt, state, &mut Rooms::default())
}

/// Decides about a packet that leaves by a device: only replies of backends on this machine are ours.
pub fn leave<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S) -> Verdict {
    leave_in(pkt, state, &mut Rooms::default())
}

/// [`forward`], with room that the caller has.
#[inline(always)]
pub fn forward_in<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S, rooms: &mut Rooms) -> Verdict {
    let Ok(frame) = Frame::parse(pkt) else {
        return Verdict::Pass;
    };
    match frame.ethertype {
        V4::ETHERTYPE => {
            rooms.v4.frame = frame;
            enter(pkt, state, &mut rooms.v4)
        }
        V6::ETHERTYPE => {
            rooms.v6.frame = frame;
            enter(pkt, state, &mut rooms.v6)
        }
        ARP => arp(pkt, state, &frame),
        _ => Verdict::Pass,
    }
}

/// [`leave`], with room that the caller has.
#[inline(always)]
pub fn leave_in<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S, rooms: &mut Rooms) -> Verdict {
    let Ok(frame) = Frame::parse(pkt) else {
        return Verdict::Pass;
    };
    match frame.ethertype {
        V4::ETHERTYPE => {
            rooms.v4.frame = frame;
            exit(pkt, state, &mut rooms.v4)
        }
        V6::ETHERTYPE => {
            rooms.v6.frame = frame;
            exit(pkt, state, &mut rooms.v6)
        }
        _ => Verdict::Pass,
    }
}

/// What is rare is done in subprograms that stand beside each other, not within each other: a chain of calls has 512
/// bytes of stack in all.
#[inline(always)]
fn enter<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) -> Verdict {
    follow(pkt, state, room, false);
    if room.step.is_unknown() {
        begin(state, room);
        if room.step.is_unknown() {
            follow(pkt, state, room, true);
            if room.step.is_unknown() {
                // The flow was put into the table a moment ago, and is gone: so full is it.
                return Verdict::Drop(DropReason::TableFull);
            }
        }
    }
    if room.step.is_control() {
        control(pkt, state, room);
        if room.step.is_icmp_error() {
            pass_on::<A, P, S, false>(pkt, state, room);
        }
    } else if room.step.refusal().is_some() {
        refuse(pkt, state, room);
    }
    room.step.verdict()
}

#[inline(always)]
fn exit<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) -> Verdict {
    translate_reply(pkt, state, room);
    if room.step.is_icmp_error() {
        pass_on::<A, P, S, true>(pkt, state, room);
    }
    room.step.verdict()
}

/// Sends a packet of a known flow on. `is_new`: the flow was made for this very packet, whose headers are known.
#[inline(never)]
fn follow<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>, is_new: bool) {
    if !is_new && let Err(step) = admit(pkt, state, room) {
        room.step = step;
        return;
    }
    room.step = match established(pkt, state, room, is_new) {
        Ok(step) => step,
        Err(refusal) => refusal.into(),
    };
}

/// Begins the connection of a packet without a flow.
#[inline(never)]
fn begin<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) {
    room.step = match connect(state, room) {
        Ok(Owner::Frontend) => Step::UNKNOWN,
        Ok(Owner::Others) => Verdict::Pass.into(),
        Err(reason) => reason.into(),
    };
}

#[inline(never)]
fn control<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) {
    room.step = icmp::receive(pkt, state, &room.headers);
}

#[inline(never)]
fn refuse<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) {
    if let Some(refusal) = room.step.refusal() {
        room.step = answer(pkt, state, &room.headers, &refusal).into();
    }
}

/// Translates a reply of a backend on this machine.
#[inline(never)]
fn translate_reply<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) {
    room.step = match admit_leaving(pkt, state, room) {
        Ok(()) => match leaving(pkt, state, room) {
            Ok(verdict) => verdict.into(),
            Err(reason) => Verdict::Drop(reason).into(),
        },
        Err(step) => step,
    };
}

/// Reads the headers, and finds the ports of a part of a packet.
#[inline(always)]
fn admit<A: Icmp, P: Packet, S: State<A>>(pkt: &P, state: &S, room: &mut Room<A>) -> Result<(), Step> {
    let headers = &mut room.headers;
    *headers = Headers::default();
    if let Err(reason) = Headers::parse(pkt, &room.frame, headers) {
        return Err(drop_ours(state, headers, reason).into());
    }
    match headers.protocol() {
        TCP | UDP => {}
        protocol if protocol == A::ICMP => return Err(Step::CONTROL),
        _ => return Err(drop_ours(state, headers, DropReason::Refused).into()),
    }
    if headers.part.is_fragment()
        && let Err(reason) = fragment::admit(state, headers)
    {
        return Err(match reason {
            DropReason::FragmentOverlap if headers.part.is_later() => Verdict::Drop(reason).into(),
            reason => drop_ours(state, headers, reason).into(),
        });
    }
    Ok(())
}

#[inline(always)]
fn established<A: Address, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
    is_new: bool,
) -> Result<Step, Refusal> {
    let headers = &room.headers;
    let Some(entry) = state.flow(&headers.key) else {
        return Ok(Step::UNKNOWN);
    };
    room.flow = entry.read();
    let flow = &room.flow;
    let Some(backend) = living(state, flow.backend) else {
        // A SYN is a new connection, and a datagram finds another backend.
        if flow.is_request() && !is_new && (headers.protocol() == UDP || headers.is_syn()) {
            return Ok(Step::UNKNOWN);
        }
        return Err(DropReason::BackendGone.into());
    };
    if !is_new && !stays(headers, flow, &backend) {
        return Ok(Step::UNKNOWN);
    }
    if !flow.is_request() && flow.is_to_stack() {
        // It is translated where it leaves, so that the stack sees both directions alike.
        return Ok(Verdict::Pass.into());
    }
    note(state, room);
    let headers = &room.headers;
    let flow = &room.flow;
    if headers.part.is_fragment() {
        fragment::remember(state, headers);
    }
    let is_request = flow.is_request();
    let way = if is_request { way_to_backend(state, flow, &backend) } else { way_to_client(state, flow) };
    let verdict = send(pkt, headers, flow, &way)?;
    if is_request {
        state.count_request(backend.route, headers.total);
    } else {
        state.count_reply(backend.route, headers.total);
    }
    Ok(verdict.into())
}

/// Finds the flow of a reply that leaves, if it is one of a backend on this machine.
#[inline(always)]
fn admit_leaving<A: Icmp, P: Packet, S: State<A>>(
    pkt: &P,
    state: &S,
    room: &mut Room<A>,
) -> Result<(), Step> {
    let others = Step::from(Verdict::Pass);
    let headers = &mut room.headers;
    *headers = Headers::default();
    Headers::parse(pkt, &room.frame, headers).map_err(|_| others)?;
    if headers.protocol() == A::ICMP {
        return Err(icmp::leave(pkt, headers));
    }
    if headers.part.is_fragment() {
        fragment::admit(state, headers).map_err(|_| others)?;
    }
    room.flow = state.flow(&headers.key).ok_or(others)?.read();
    if room.flow.is_request() || !room.flow.is_to_stack() {
        return Err(others);
    }
    Ok(())
}

#[inline(always)]
fn leaving<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Result<Verdict, DropReason> {
    let backend: Backend<A> = living(state, room.flow.backend).ok_or(DropReason::BackendGone)?;
    note(state, room);
    let headers = &room.headers;
    if headers.part.is_fragment() {
        fragment::remember(state, headers);
    }
    rewrite(pkt, headers, &room.flow, false)?;
    state.count_reply(backend.route, headers.total);
    Ok(Verdict::Deliver)
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
fn note<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) {
    let headers = &room.headers;
    let flow = &mut room.flow;
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
    refresh(state, room);
}
