//! The way of one packet, from its first byte to the verdict.
//!
//! A packet whose tuple is in the flow table costs one hash lookup; everything else is a function of its own.

use crate::abi::{BACKEND_DRAINING, BURST, Backend, Flow, V4, V6, WAY_LOCAL, WAY_NAT};
use crate::address::Address;
use crate::connect::source;
use crate::flow::{end, has_ended, refresh};
use crate::frame::Addressee;
use crate::headers::{Headers, SYN, TCP, UDP};
use crate::icmp::{self, Icmp};
use crate::known::ethertype;
use crate::neighbour::{ARP, arp};
use crate::packet::Packet;
use crate::part::{self, Part, Parts};
use crate::rewrite::rewrite;
use crate::room::{Room, Rooms};
use crate::select::living;
use crate::send::{send, way_to_backend, way_to_client};
use crate::source_port::ATTEMPTS;
use crate::state::{Entry, State};
use crate::step::Step;
use crate::{DropReason, Refusal, Verdict, fragment};

/// Decides about a packet that came in by a device, and changes it as the verdict says.
pub fn forward<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S) -> Verdict {
    match ethertype(pkt, state) {
        V4::ETHERTYPE => enter::<V4>(&mut Here { pkt, state, room: Rooms::default().v4 }),
        V6::ETHERTYPE => enter::<V6>(&mut Here { pkt, state, room: Rooms::default().v6 }),
        ARP => arp(pkt, state),
        _ => Verdict::Pass,
    }
}

/// Decides about a packet that leaves by a device: only replies of backends on this machine are ours.
pub fn leave<P: Packet, S: State<V4> + State<V6>>(pkt: &mut P, state: &S) -> Verdict {
    match ethertype(pkt, state) {
        V4::ETHERTYPE => exit::<V4>(&mut Here { pkt, state, room: Rooms::default().v4 }),
        V6::ETHERTYPE => exit::<V6>(&mut Here { pkt, state, room: Rooms::default().v6 }),
        _ => Verdict::Pass,
    }
}

/// The way of an IP packet that came in.
#[inline(always)]
pub fn enter<A>(parts: &mut impl Parts<A>) -> Verdict {
    let mut step = parts.run(Part::Follow);
    if step.is_unknown() {
        step = begin(parts);
    }
    if step.is_control() {
        step = parts.run(Part::Control);
        if step.is_icmp_error() {
            step = parts.run(Part::Translate);
            if step.is_unknown() {
                step = parts.run(Part::Carry);
            }
        }
    } else if step.is_refused() {
        step = parts.run(Part::Refuse);
    }
    step.verdict()
}

/// The way of an IP packet that leaves.
#[inline(always)]
pub fn exit<A>(parts: &mut impl Parts<A>) -> Verdict {
    let mut step = parts.run(Part::Leave);
    if step.is_icmp_error() {
        step = parts.run(Part::TranslateLeaving);
        if step.is_unknown() {
            step = parts.run(Part::CarryLeaving);
        }
    } else if step.is_refused() {
        step = parts.run(Part::RefuseLeaving);
    }
    step.verdict()
}

/// Begins a connection, and sends its first packet on.
#[inline(always)]
fn begin<A>(parts: &mut impl Parts<A>) -> Step {
    let mut step = parts.run(Part::Connect);
    // Of a range with two ends the verifier follows more.
    for _ in 0..ATTEMPTS + 1 {
        if !step.is_unclaimed() {
            break;
        }
        step = parts.run(Part::Claim);
    }
    if step.is_unknown() {
        step = parts.run(Part::FollowNew);
        if step.is_unknown() {
            // The flow was put into the table a moment ago, and is gone: so full is it.
            return Verdict::Drop(DropReason::TableFull).into();
        }
    }
    step
}

/// The parts as plain calls.
struct Here<'a, A, P, S> {
    pkt: &'a mut P,
    state: &'a S,
    room: Room<A>,
}

impl<A: Icmp, P: Packet, S: State<A>> Parts<A> for Here<'_, A, P, S> {
    fn run(&mut self, part: Part) -> Step {
        part::run(part, self.pkt, self.state, &mut self.room)
    }
}

/// Sends a packet of a known flow on. An unknown step: it begins a connection, or is not ours.
#[inline(always)]
pub(crate) fn follow<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) -> Step {
    match admit(pkt, state, room) {
        // Looking a SYN of a flood up takes most of the time that dropping it saves.
        Ok(()) if room.headers.is_syn() && is_flooded::<A, P, S>(state, &room.headers) => {
            DropReason::Flood.into()
        }
        Ok(()) => established(pkt, state, room, false).unwrap_or_else(Step::from),
        Err(step) => step,
    }
}

/// The packet is for a frontend, and this CPU begins no connections by SYN now. The last share of a burst is for segments whose half the
/// table gave away, and for UDP; the one before for SYNs that XDP let in, and TC behind it meets again.
#[inline(never)]
fn is_flooded<A: Address, P: Packet, S: State<A>>(state: &S, headers: &Headers<A>) -> bool {
    let shares = if P::GOES_EVERYWHERE { BURST - 1 } else { BURST - 2 };
    !state.has_new_flow(shares) && state.frontend(&headers.key.destination()).is_some()
}

/// Sends a packet on whose flow was made for it, and whose headers are known.
#[inline(always)]
pub(crate) fn follow_new<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Step {
    established(pkt, state, room, true).unwrap_or_else(Step::from)
}

/// Translates a reply of a backend on this machine.
#[inline(always)]
pub(crate) fn leave_reply<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Step {
    match admit_leaving(pkt, state, room) {
        Ok(()) => leaving(pkt, state, room).unwrap_or_else(Step::from),
        Err(step) => step,
    }
}

/// Reads the headers, and finds the ports of a part of a packet.
#[inline(always)]
fn admit<A: Icmp, P: Packet, S: State<A>>(pkt: &P, state: &S, room: &mut Room<A>) -> Result<(), Step> {
    let others = Step::from(Verdict::Pass);
    let headers = &mut room.headers;
    // First, since the verifier follows what comes after an answer once for each that there is.
    let parsed = Headers::parse(pkt, headers);
    let addressee = Addressee::of(pkt, state);
    if addressee == Addressee::Another {
        return Err(others);
    }
    // Neighbours are asked for in frames for all.
    if addressee == Addressee::Group && (parsed.is_err() || headers.protocol() != A::ICMP) {
        return Err(others);
    }
    if let Err(reason) = parsed {
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
    if flow.is_anothers(headers.flags) {
        end(state, &headers.key, flow);
        return Ok(Step::UNKNOWN);
    }
    let Some(backend) = living(state, flow.backend) else {
        // A SYN is a new connection, and a datagram finds another backend.
        if flow.is_request() && !is_new && (headers.protocol() == UDP || headers.is_syn()) {
            return Ok(Step::UNKNOWN);
        }
        return Err(DropReason::BackendGone.into());
    };
    if !flow.is_request() && flow.is_to_stack() {
        // It is translated where it leaves, so that the stack sees both directions alike.
        return Ok(Verdict::Pass.into());
    }
    let now = state.now();
    if !flow.is_request()
        && flow.destination == headers.key.destination
        && has_ended(state, headers, flow, now)
    {
        return Ok(late_reply(state, headers));
    }
    if !is_new && (has_ended(state, headers, flow, now) || !stays(headers, flow, &backend)) {
        return Ok(Step::UNKNOWN);
    }
    note(state, room, now);
    let headers = &room.headers;
    let flow = &room.flow;
    if headers.part.is_fragment() {
        fragment::remember(state, headers);
    }
    let is_request = flow.is_request();
    let way =
        if is_request { way_to_backend(state, flow, &backend, now) } else { way_to_client(state, flow) };
    if !way.is_open(pkt, headers) {
        return Ok(Verdict::Pass.into());
    }
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
    Headers::parse(pkt, headers).map_err(|_| others)?;
    if headers.protocol() == A::ICMP {
        return Err(icmp::leave(pkt, headers));
    }
    if headers.part.is_fragment() {
        fragment::admit(state, headers).map_err(|_| others)?;
    }
    room.flow = state.flow(&headers.key).ok_or(others)?.read();
    let flow = &room.flow;
    if flow.is_request() || !flow.is_to_stack() {
        return Err(others);
    }
    if has_ended(state, headers, flow, state.now()) {
        return Err(late_reply(state, headers));
    }
    Ok(())
}

#[inline(always)]
fn leaving<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Result<Step, DropReason> {
    let backend: Backend<A> = living(state, room.flow.backend).ok_or(DropReason::BackendGone)?;
    note(state, room, state.now());
    let headers = &room.headers;
    if headers.part.is_fragment() {
        fragment::remember(state, headers);
    }
    rewrite(pkt, headers, &room.flow, false)?;
    state.count_reply(backend.route, headers.total);
    Ok(Verdict::Deliver.into())
}

/// A reply to a client's own address whose connection has ended. From the backend's address the client would not take it. But a SYN
/// says that the two talk past Blixt: then the tuple is theirs from now on.
#[inline(always)]
fn late_reply<A: Address, S: State<A>>(state: &S, headers: &Headers<A>) -> Step {
    if headers.flags & SYN == 0 {
        return DropReason::NoFlow.into();
    }
    state.remove_flow(&headers.key);
    Verdict::Pass.into()
}

/// A packet that cannot be forwarded is dropped if it was for us, and the stack's business otherwise.
#[inline(always)]
fn drop_ours<A: Address, S: State<A>>(state: &S, headers: &Headers<A>, reason: DropReason) -> Verdict {
    let key = &headers.key;
    let is_ours = headers.transport != 0
        && (state.address(&key.destination).is_some() || state.frontend(&key.destination()).is_some());
    if is_ours { Verdict::Drop(reason) } else { Verdict::Pass }
}

/// The packet is one of its flow: no new connection with an old tuple, and no datagram that must find a new backend.
#[inline(always)]
fn stays<A: Address>(headers: &Headers<A>, flow: &Flow<A>, backend: &Backend<A>) -> bool {
    if !flow.is_request() {
        return true;
    }
    if headers.protocol() == TCP {
        return !(headers.is_syn() && flow.yields_to_syn());
    }
    // Of a client that moved it is decided anew whether its backend would answer past us.
    let is_where_it_was = backend.way == WAY_NAT || flow.client == headers.link;
    let way = if flow.is_masked() { WAY_NAT } else { backend.way };
    backend.state != BACKEND_DRAINING
        && is_where_it_was
        && flow.is_to_stack() == (way == WAY_LOCAL)
        && flow.source == source(&headers.key, backend, way)
}

/// Keeps what changes in a flow: when its last packet came, TCP's state, and where its client sits.
#[inline(always)]
fn note<A: Address, S: State<A>>(state: &S, room: &mut Room<A>, now: u32) {
    let headers = &room.headers;
    let flow = &mut room.flow;
    let after = flow.state_after(headers.flags);
    let has_moved = flow.is_request() && (flow.client != headers.link || flow.client_mac != headers.mac);
    let is_recent = now.wrapping_sub(flow.seen) < flow.precision(headers.protocol(), state.lasting());
    if is_recent && flow.state == after && !has_moved {
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
