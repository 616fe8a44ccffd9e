//! Connections as the flow table has them: two halves, each under the tuple that its packets carry.

use std::net::IpAddr;

use blixt_packet::abi::{BackendId, FLOW_MASKED, FLOW_REQUEST, FLOW_TO_STACK, Link};

use crate::packet::{FIN, RST, SYN, TCP};

/// An address and a port.
pub type End = (IpAddr, u16);

/// What a packet of TCP or UDP says of itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tuple {
    /// Who sends.
    pub from: End,
    /// Whom to.
    pub to: End,
    /// IP protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// That of the answer.
    pub fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, protocol: self.protocol }
    }
}

/// What is done with the packets of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Half {
    /// Who they are from afterwards.
    pub from: End,
    /// Whom to.
    pub to: End,
    /// Who serves.
    pub backend: BackendId,
    /// Where the client's packets come by.
    pub client: Link,
    /// Who sends them there.
    pub client_mac: [u8; 6],
    /// From the client to the backend.
    pub is_request: bool,
    /// The backend is behind this machine's stack.
    pub is_to_stack: bool,
    /// Full NAT although neither the backend's way nor the addresses say so.
    pub is_masked: bool,
    /// How far the connection came.
    pub progress: Progress,
    /// The second of the last packet.
    pub seen: u32,
}

/// How far a connection came, as both halves keep it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The backend has answered.
    pub replied: bool,
    /// The client has closed its side.
    pub request_fin: bool,
    /// The backend has closed its side.
    pub reply_fin: bool,
    /// One of them has sent a RST.
    pub reset: bool,
    /// The client has gone on after an answer.
    pub confirmed: bool,
    /// It did not begin with a SYN.
    pub picked_up: bool,
}

impl Progress {
    /// Both sides have closed.
    pub fn is_finished(self) -> bool {
        self.request_fin && self.reply_fin
    }

    /// Finished, or reset.
    pub fn is_closed(self) -> bool {
        self.is_finished() || self.reset
    }

    /// After a packet of this direction with these flags.
    pub fn after(mut self, is_request: bool, flags: u8) -> Self {
        if is_request && self.replied && flags & (SYN | RST) == 0 {
            self.confirmed = true;
        }
        self.replied |= !is_request;
        self.request_fin |= is_request && flags & FIN != 0;
        self.reply_fin |= !is_request && flags & FIN != 0;
        // A RST may be made up: whoever goes on after it has not believed it.
        self.reset = flags & RST != 0 || self.reset && !self.confirmed;
        self
    }

    /// As the map has it: the first of them is the lowest bit.
    pub fn bits(self) -> u8 {
        let Self { replied, request_fin, reply_fin, reset, confirmed, picked_up } = self;
        let bits = [replied, request_fin, reply_fin, reset, confirmed, picked_up];
        bits.iter().enumerate().map(|(bit, is_set)| u8::from(*is_set) << bit).sum()
    }
}

impl Half {
    /// The tuple that packets carry once they were sent on.
    pub fn written(&self, protocol: u8) -> Tuple {
        Tuple { from: self.from, to: self.to, protocol }
    }

    /// The tuple of the other direction's packets.
    pub fn other_key(&self, protocol: u8) -> Tuple {
        self.written(protocol).reversed()
    }

    /// The other direction, if packets of this one carry `key`.
    pub fn other(&self, key: &Tuple) -> Self {
        Self { from: key.to, to: key.from, is_request: !self.is_request, ..*self }
    }

    /// It does with a packet what another one does.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.from, self.to, self.flags()) == (other.from, other.to, other.flags())
    }

    /// As the map has them.
    pub fn flags(&self) -> u8 {
        [(self.is_request, FLOW_REQUEST), (self.is_to_stack, FLOW_TO_STACK), (self.is_masked, FLOW_MASKED)]
            .into_iter()
            .filter_map(|(is_set, flag)| is_set.then_some(flag))
            .sum()
    }

    /// A SYN of its tuple begins a connection: it is closed, or was never a proper one.
    pub fn yields_to_syn(&self) -> bool {
        let Progress { picked_up, confirmed, .. } = self.progress;
        self.progress.is_closed() || picked_up && !confirmed
    }

    /// Its client never went on, and nobody is waiting any more: the port goes to who finds none.
    pub fn gives_way(&self, protocol: u8, now: u32) -> bool {
        let Progress { picked_up, confirmed, .. } = self.progress;
        let patience = if protocol == TCP { 2 } else { 10 };
        !self.is_request && !confirmed && (picked_up || now.saturating_sub(self.seen) > patience)
    }
}
