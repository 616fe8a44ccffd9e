//! The source port of a new connection, and with it the half that replies will find.
//!
//! The client's own port if it is free; in full NAT otherwise one of a range, probed from a hash of the client's tuple, so that a
//! connection whose other half was evicted finds it again. A client that keeps its address keeps its port: where another connection
//! of it has the place, by another address of ours to the same backend, full NAT takes over, as far as a way leads there.

use crate::DropReason;
use crate::abi::{FLOW_MASKED, FLOW_REQUEST, Flow, FlowKey, WAY_LOCAL};
use crate::address::Address;
use crate::flow::end;
use crate::headers::TCP;
use crate::room::Room;
use crate::select::{hash, living};
use crate::state::{Added, Entry, Socket, State};
use crate::step::Step;

/// Ports that are tried until a free one is found, the client's own included. With 9 of 10 ports of the range in use for one
/// backend, 1 connection in 30 finds none of 32.
const FREE_ATTEMPTS: u32 = 33;
/// Ports that are tried then for one whose holder gives way, from the client's own on. In a flood that is nearly all of them.
const TAKING_ATTEMPTS: u32 = 8;
/// Ports that are tried at all.
pub(crate) const ATTEMPTS: u32 = FREE_ATTEMPTS + TAKING_ATTEMPTS;

/// In the protocol of a tuple: no packet's, but the mark of who gives the place of that tuple to another connection.
const MARK: u32 = 1 << 16;

/// Tries the next source port for the room's flow. An unclaimed step: it is taken. An unknown one: both halves are in the
/// table.
#[inline(always)]
pub(crate) fn claim<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) -> Step {
    let attempt = room.attempts;
    if attempt >= ATTEMPTS || attempt > 0 && !is_nat(room) && !mask(state, room) {
        return DropReason::PortsExhausted.into();
    }
    let key = &room.headers.key;
    room.attempts = attempt + 1;
    let is_taking = attempt >= FREE_ATTEMPTS;
    let attempt = if is_taking { attempt - FREE_ATTEMPTS } else { attempt };
    room.flow.ports[0] = if attempt > 0 { candidate(state, hash(key), attempt) } else { key.ports[0] };
    match reserve(state, room, is_taking) {
        Claim::New => {
            let slot = room.flow.backend.slot();
            if let Some(backend) = state.backend(slot)
                && !room.flow.is_picked_up()
            {
                state.count_connection(backend.route, slot);
            }
        }
        Claim::Found => {}
        Claim::Taken => return Step::UNCLAIMED,
        Claim::Full => return DropReason::TableFull.into(),
    }
    // Who is looked at does not give way to the other half, which is the next to want a place.
    if state.flow(&room.opposite_key).is_none() {
        return DropReason::TableFull.into();
    }
    match state.set_flow(&room.headers.key, &room.flow) {
        Ok(()) => Step::UNKNOWN,
        Err(reason) => reason.into(),
    }
}

/// Only full NAT gives the packet another source, and may give it another port.
#[inline(always)]
fn is_nat<A: Address>(room: &Room<A>) -> bool {
    room.flow.is_masked() || room.flow.source != room.headers.key.source
}

/// Has a flow to a backend on this machine take full NAT, if a way leads there.
#[inline(always)]
fn mask<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) -> bool {
    match living(state, room.flow.backend) {
        Some(backend) if backend.way == WAY_LOCAL && backend.hop != 0 && backend.source != A::default() => {
            room.flow.source = backend.source;
            room.flow.flags = FLOW_REQUEST | FLOW_MASKED;
            true
        }
        _ => false,
    }
}

/// How the place of the reply half was come by.
enum Claim {
    /// Nobody had it.
    New,
    /// The other half of this very connection was still there.
    Found,
    /// It is another connection's.
    Taken,
    /// The table took no entry.
    Full,
}

/// Puts the reply half of the flow into the table, if its place is free. `is_taking`: a new connection may have the place of one
/// that gives way.
#[inline(always)]
fn reserve<A: Address, S: State<A>>(state: &S, room: &mut Room<A>, is_taking: bool) -> Claim {
    let key = &room.headers.key;
    room.opposite_key = room.flow.opposite_key(key.protocol);
    room.opposite = room.flow.opposite(key);
    if is_nat(room) && state.socket(&room.opposite_key) == Socket::Bound {
        return Claim::Taken;
    }
    match state.add_flow(&room.opposite_key, &room.opposite) {
        Added::New => return Claim::New,
        Added::Full => return Claim::Full,
        Added::Exists => {}
    }
    let Some(entry) = state.flow(&room.opposite_key) else {
        return Claim::Taken;
    };
    let there = entry.read();
    let is_ours = there.says_the_same(&room.opposite);
    // What is left of an older connection with the same tuple is void.
    let is_new = is_new(room);
    if is_ours {
        let is_over = there.is_over(key.protocol as u8, room.flow.seen, state);
        let is_found = !is_over && !(is_new && (there.yields_to_syn() || there.backend != room.flow.backend));
        if is_found {
            room.opposite.state = there.state;
            room.flow.state = there.state;
        }
        entry.write(&room.opposite);
        return if is_found { Claim::Found } else { Claim::New };
    }
    if yields(state, room, &there, is_taking) {
        return take_over(state, room, is_taking);
    }
    Claim::Taken
}

/// The packet begins a connection.
#[inline(always)]
fn is_new<A: Address>(room: &Room<A>) -> bool {
    room.headers.protocol() != TCP || room.headers.is_syn()
}

/// The connection that has the place of the reply half loses it to the room's flow.
#[inline(always)]
fn yields<A: Address, S: State<A>>(state: &S, room: &Room<A>, there: &Flow<A>, is_taking: bool) -> bool {
    let (protocol, now) = (room.headers.protocol(), room.flow.seen);
    // A client that keeps its address knows its own connections: whatever it asked before from that port has its answer by now.
    let is_void = || {
        !is_nat(room)
            && (there.is_closed() || there.gives_way(TCP, now) || living(state, there.backend).is_none())
    };
    there.is_over(protocol, now, state)
        || is_new(room) && (is_taking && there.gives_way(protocol, now) || is_void())
}

/// Gives the place of the reply half, which another connection has lost, to the room's flow.
///
/// Other CPUs may be about to do the same for other connections. Only who gets a mark into the table empties the place: what
/// stands there once it did so was put there by somebody who found it empty, and stays.
#[inline(always)]
fn take_over<A: Address, S: State<A>>(state: &S, room: &Room<A>, is_taking: bool) -> Claim {
    let key = &room.opposite_key;
    let mark = FlowKey { protocol: key.protocol | MARK, ..*key };
    if state.add_flow(&mark, &room.opposite) != Added::New {
        return Claim::Taken;
    }
    if let Some(entry) = state.flow(key) {
        let there = entry.read();
        // Another CPU may have been faster, or a packet may have come.
        if yields(state, room, &there, is_taking) {
            end(state, key, &there);
        }
    }
    let added = state.add_flow(key, &room.opposite);
    state.remove_flow(&mark);
    match added {
        Added::New => Claim::New,
        Added::Exists => Claim::Taken,
        Added::Full => Claim::Full,
    }
}

/// The port of the range that is tried next, as it lies in the packet.
#[inline(always)]
fn candidate<A: Address, S: State<A>>(state: &S, hash: u32, attempt: u32) -> u16 {
    let first = state.setting(|settings| &settings.first_port) as u32;
    let last = state.setting(|settings| &settings.last_port) as u32;
    let ports = if last > first { last - first + 1 } else { 1 };
    // The high bits of the hash have chosen the ring slot: the clients of one backend share them.
    let offset = (hash.rotate_left(16) as u16 as u32 + attempt) % ports;
    ((first + offset) as u16).to_be()
}
