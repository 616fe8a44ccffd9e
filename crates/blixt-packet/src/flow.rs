//! The two halves of a connection: how one follows from the other, its state, and when a flow is over.

use crate::abi::{EndpointKey, FLOW_MASKED, FLOW_REQUEST, FLOW_TO_STACK, Flow, FlowKey};
use crate::address::Address;
use crate::headers::{FIN, Headers, RST, SYN, TCP};
use crate::room::Room;
use crate::state::{Entry, State};

/// The backend has answered.
pub const REPLIED: u8 = 1;
/// The client has sent a FIN.
pub const REQUEST_FIN: u8 = 2;
/// The backend has sent a FIN.
pub const REPLY_FIN: u8 = 4;
/// One of them has sent a RST.
pub const RESET: u8 = 8;
/// The client has gone on after the backend's answer: it is where it says that it is.
pub const CONFIRMED: u8 = 16;

/// It was picked up in the middle: its first packet was no SYN.
pub const PICKED_UP: u8 = 32;

/// Seconds after which it is noted that a confirmed connection of TCP is in use, and its other half found again. It never idles out, so
/// nothing but its place in the table hangs on that; and with many connections both halves are far away in memory.
const LASTING: u32 = 8;
/// The same once a segment came from a backend without a flow: the other half of some connection was lost, and its client waits.
const LASTING_AFTER_STRAY: u32 = 1;
/// Seconds for which a stray segment counts. A client that has no answer asks again after 0.2, 0.6 and 1.4 seconds, and its backend, too.
const STRAY: u32 = 3;
/// Seconds that a TCP connection may be silent before its client goes on: an answer and what follows it are under way for less.
const TCP_PATIENCE: u32 = 2;
/// Seconds that a UDP flow may be silent whose client never went on: it may have asked for a stream and only listen.
const UDP_PATIENCE: u32 = 10;

/// Seconds after which it is noted that a confirmed connection of TCP is in use, where the last stray segment came at `stray`.
#[inline(always)]
pub const fn lasting(now: u32, stray: u32) -> u32 {
    if now.wrapping_sub(stray) < STRAY { LASTING_AFTER_STRAY } else { LASTING }
}

/// The silences that end a flow; the settings say how long each is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// Of UDP: `udp_idle`.
    Udp,
    /// Of TCP that was closed: `closed_idle`.
    Closed,
    /// Of TCP whose client never went on: `syn_idle`.
    Unconfirmed,
    /// Of TCP that is open: none ends it.
    Lasting,
}

impl<A: Address> FlowKey<A> {
    /// What the packet dials.
    #[inline(always)]
    pub fn destination(&self) -> EndpointKey<A> {
        EndpointKey { address: self.destination, port: self.ports[1], protocol: self.protocol as u16 }
    }

    /// Who sent the packet.
    #[inline(always)]
    pub fn source(&self) -> EndpointKey<A> {
        EndpointKey { address: self.source, port: self.ports[0], protocol: self.protocol as u16 }
    }
}

impl<A: Address> Flow<A> {
    /// It is the half from the client to the backend.
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        self.flags & FLOW_REQUEST != 0
    }

    /// The backend is on this machine.
    #[inline(always)]
    pub fn is_to_stack(&self) -> bool {
        self.flags & FLOW_TO_STACK != 0
    }

    /// It is full NAT's, although neither its backend's way nor its addresses say so.
    #[inline(always)]
    pub fn is_masked(&self) -> bool {
        self.flags & FLOW_MASKED != 0
    }

    /// The tuple that packets of the other half carry: what this half writes, the other way round.
    #[inline(always)]
    pub fn opposite_key(&self, protocol: u32) -> FlowKey<A> {
        let [source, destination] = self.ports;
        FlowKey { source: self.destination, destination: self.source, ports: [destination, source], protocol }
    }

    /// The other half, given the tuple that packets of this one carry.
    #[inline(always)]
    pub fn opposite(&self, key: &FlowKey<A>) -> Self {
        let [source, destination] = key.ports;
        Self {
            source: key.destination,
            destination: key.source,
            ports: [destination, source],
            flags: self.flags ^ FLOW_REQUEST,
            ..*self
        }
    }

    /// Both rewrite a packet in the same way, for the same connection.
    #[inline(always)]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.ports == other.ports
            && self.flags == other.flags
    }

    /// Seconds up to which it is known when its last packet came, given those of a connection that lasts.
    #[inline(always)]
    pub fn precision(&self, protocol: u8, lasting: u32) -> u32 {
        if protocol == TCP && self.is_confirmed() && !self.is_closed() { lasting } else { 1 }
    }

    /// Both sides closed it, or one reset it.
    #[inline(always)]
    pub fn is_closed(&self) -> bool {
        self.state & RESET != 0 || self.is_finished()
    }

    /// Both sides closed it.
    #[inline(always)]
    pub fn is_finished(&self) -> bool {
        self.state & (REQUEST_FIN | REPLY_FIN) == REQUEST_FIN | REPLY_FIN
    }

    /// A SYN of its tuple begins a connection.
    #[inline(always)]
    pub fn yields_to_syn(&self) -> bool {
        self.is_closed() || self.is_picked_up() && !self.is_confirmed()
    }

    /// A packet with these TCP flags is of a connection that others gave the same tuple, as connection tracking may choose a port
    /// that a closed connection still holds: a backend answers a SYN of ours only after that took the flow's place.
    #[inline(always)]
    pub fn is_anothers(&self, flags: u8) -> bool {
        flags & SYN != 0 && !self.is_request() && self.is_closed() && self.is_confirmed()
    }

    /// Its client went on after an answer. Anybody can send the rest with an address that is not his.
    #[inline(always)]
    pub fn is_confirmed(&self) -> bool {
        self.state & CONFIRMED != 0
    }

    /// It began elsewhere or long ago, or never.
    #[inline(always)]
    pub fn is_picked_up(&self) -> bool {
        self.state & PICKED_UP != 0
    }

    /// Its place, and the port of this machine that it holds, may go to a new connection that finds no free one: its client
    /// never went on, and by now no answer is under way and nobody listens to what the backend sends. Who never began has no patience.
    #[inline(always)]
    pub fn gives_way(&self, protocol: u8, now: u32) -> bool {
        let patience = if protocol == TCP { TCP_PATIENCE } else { UDP_PATIENCE };
        let is_due = self.is_picked_up() || now.saturating_sub(self.seen) > patience;
        is_due && !self.is_request() && !self.is_confirmed()
    }

    /// The state once a packet of this half with these TCP flags (none in UDP) has been seen.
    #[inline(always)]
    pub fn state_after(&self, flags: u8) -> u8 {
        let is_request = self.is_request();
        let mut state = self.state;
        if !is_request {
            state |= REPLIED;
        } else if state & REPLIED != 0 && flags & (SYN | RST) == 0 {
            state |= CONFIRMED;
        }
        if flags & FIN != 0 {
            state |= if is_request { REQUEST_FIN } else { REPLY_FIN };
        }
        if flags & RST != 0 {
            state |= RESET;
        } else if state & CONFIRMED != 0 {
            // Anybody can make a RST up, and ends that know better go on.
            state &= !RESET;
        }
        state
    }

    /// Packets of its tuple begin a connection; its place, and the port of this machine that it holds, may go to another.
    #[inline(always)]
    pub fn is_over<S: State<A>>(&self, protocol: u8, now: u32, state: &S) -> bool {
        let idle = now.saturating_sub(self.seen);
        match self.silence(protocol) {
            Silence::Udp => idle > state.setting(|settings| &settings.udp_idle),
            Silence::Closed => idle > state.setting(|settings| &settings.closed_idle),
            Silence::Unconfirmed => idle > state.setting(|settings| &settings.syn_idle),
            Silence::Lasting => false,
        }
    }

    /// Which silence ends it.
    #[inline(always)]
    pub fn silence(&self, protocol: u8) -> Silence {
        if protocol != TCP {
            Silence::Udp
        } else if self.is_closed() {
            Silence::Closed
        } else if self.is_confirmed() {
            Silence::Lasting
        } else {
            Silence::Unconfirmed
        }
    }
}

/// A packet of its tuple is of another connection, or of none. A segment in the middle of one that nothing but a RST has ended is
/// of that still, as long as its place is kept: neither end may have believed the RST.
#[inline(always)]
pub(crate) fn has_ended<A: Address, S: State<A>>(
    state: &S,
    headers: &Headers<A>,
    flow: &Flow<A>,
    now: u32,
) -> bool {
    let is_kept =
        headers.protocol() == TCP && headers.flags & SYN == 0 && flow.is_confirmed() && !flow.is_finished();
    !is_kept && flow.is_over(headers.protocol(), now, state)
}

/// Ends a connection, given its reply half and the tuple of that: no packet of its client is sent on by the other half any more.
#[inline(always)]
pub(crate) fn end<A: Address, S: State<A>>(state: &S, key: &FlowKey<A>, reply: &Flow<A>) {
    let request_key = reply.opposite_key(key.protocol);
    // The client may have begun anew since, and hold another port: then that is the other half of another connection.
    if let Some(entry) = state.flow(&request_key)
        && entry.read().opposite_key(key.protocol) == *key
    {
        state.remove_flow(&request_key);
    }
    state.remove_flow(key);
}

/// Notes in both halves that the connection lives, and puts the other half back if the table had given its place away:
/// only one half may be in use, in a stream without answers.
///
/// It runs at most once a second for a connection, and seldom for one that lasts, beside the few packets that change its state: hence
/// a function of its own, which keeps the fast path small.
#[inline(never)]
pub(crate) fn refresh<A: Address, S: State<A>>(state: &S, room: &mut Room<A>) {
    let key = &room.headers.key;
    room.opposite_key = room.flow.opposite_key(key.protocol);
    room.opposite = room.flow.opposite(key);
    match state.flow(&room.opposite_key) {
        Some(entry) => {
            let there = entry.read();
            if there.says_the_same(&room.opposite) {
                // A RST is the only thing that is taken back.
                let state = room.flow.state | there.state & !RESET;
                room.flow.state = state;
                room.opposite.state = state;
                entry.write(&room.opposite);
            }
        }
        None => {
            if !room.flow.is_closed() {
                // Whether it went in or not: nothing else would be done about it, and the next second tries again.
                let _ = state.add_flow(&room.opposite_key, &room.opposite);
            }
        }
    }
    if let Some(entry) = state.flow(key) {
        entry.write(&room.flow);
    }
}
