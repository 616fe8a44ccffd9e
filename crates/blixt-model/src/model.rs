//! The model: one packet after the other, from its first byte to what must become of it.

mod answer;
mod connect;
mod control;
mod neighbour;
mod send;

use std::collections::BTreeMap;
use std::net::IpAddr;

use blixt_core::config::{Endpoint, Protocol};
use blixt_core::tables::{BackendEntry, BackendSlot, BackendState, Tables, Way};
use blixt_packet::DropReason;
use blixt_packet::abi::{BackendId, Link, Settings, WINDOW_BITS};

use crate::flow::{End, Half, Tuple};
use crate::outcome::Outcome;
use crate::packet::{Ethernet, Packet, RST, SYN, TCP, UDP, Unread};

/// Seconds that the parts of a packet may be apart.
const PARTS_LIFETIME: u32 = 30;

/// A machine that runs Blixt.
#[derive(Clone)]
pub struct Model {
    /// What user space has written.
    pub tables: Tables,
    /// What the program was loaded with.
    pub settings: Settings,
    /// The clock, in seconds.
    pub now: u32,
    /// The flow table.
    pub flows: BTreeMap<Tuple, Half>,
    /// Something happened that the kernel would have been asked about: what follows is not decided here.
    pub asks_kernel: bool,
    /// Whether something was noted hung on a part of a second: no clock but the model's can be held to that.
    pub is_close: bool,
    /// A backend's SYN took the end of its flow out of the table. Where XDP leaves that to TC, it is looked at again, without a flow: then
    /// the kernel would be asked.
    pub has_late_syn: bool,
    /// The first parts of packets, by addresses, identification and protocol.
    parts: BTreeMap<PartKey, FirstPart>,
    /// When a segment came from a backend without a flow.
    stray: u32,
    /// Answers made in a second.
    answers: (u32, u32),
    /// Flows that may still begin, and the window in which that was so.
    new_flows: (u64, u64),
}

type PartKey = (IpAddr, IpAddr, u32, u8);

/// What the first part of a packet said.
#[derive(Clone, Copy)]
struct FirstPart {
    ports: [u16; 2],
    end: usize,
    seen: u32,
}

/// Whom a frame is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addressee {
    Us,
    Group,
    Another,
}

/// A packet of ours that goes no further: why, what would have gone through, and the flow that it was of.
struct Refusal {
    reason: DropReason,
    mtu: u32,
    flow: Option<Half>,
}

impl Refusal {
    fn new(reason: DropReason) -> Self {
        Self { reason, mtu: 0, flow: None }
    }
}

/// What the flow table says of a packet.
enum Found {
    /// It is decided.
    Outcome(Outcome),
    /// It begins a connection, or is not ours.
    Nothing,
    /// It goes no further.
    Refused(Refusal),
}

impl Model {
    /// A machine without flows.
    pub fn new(tables: Tables, settings: Settings, now: u32) -> Self {
        Self {
            tables,
            settings,
            now,
            flows: BTreeMap::new(),
            asks_kernel: false,
            is_close: false,
            has_late_syn: false,
            parts: BTreeMap::new(),
            stray: 0,
            answers: (0, 0),
            new_flows: (0, 0),
        }
    }

    /// A frame comes in by a device.
    pub fn enters(&mut self, frame: &[u8], ifindex: u32, segment: u32) -> Outcome {
        let Some(ethernet) = Ethernet::read(frame, ifindex) else { return Outcome::Pass };
        match ethernet.ethertype {
            0x0800 | 0x86dd => self.ip_enters(Packet::read(frame, ethernet, segment as usize), ethernet),
            0x0806 => self.arp(frame, &ethernet),
            _ => Outcome::Pass,
        }
    }

    /// A frame is about to leave by a device: only what backends on this machine answer is ours.
    pub fn leaves(&mut self, frame: &[u8], ifindex: u32, segment: u32) -> Outcome {
        let Some(ethernet) = Ethernet::read(frame, ifindex) else { return Outcome::Pass };
        if ![0x0800, 0x86dd].contains(&ethernet.ethertype) {
            return Outcome::Pass;
        }
        let Ok(mut packet) = Packet::read(frame, ethernet, segment as usize) else { return Outcome::Pass };
        if packet.tuple.protocol == packet.icmp() {
            return self.error_leaves(&packet);
        }
        if self.find_ports(&mut packet).is_err() {
            return Outcome::Pass;
        }
        let key = packet.tuple;
        let Some(flow) = self.flows.get(&key).copied() else { return Outcome::Pass };
        if flow.is_request || !flow.is_to_stack {
            return Outcome::Pass;
        }
        if self.has_ended(&packet, &flow) {
            return self.late(&packet);
        }
        if self.living(&flow).is_none() {
            let refusal = Refusal { flow: Some(flow), ..Refusal::new(DropReason::BackendGone) };
            return self.refuse_leaving(&packet, &refusal);
        }
        let flow = self.note(&packet, flow);
        self.remember_part(&packet);
        Outcome::Deliver(send::rewritten(&packet, flow.from, flow.to, false))
    }

    fn ip_enters(&mut self, read: Result<Packet, Unread>, ethernet: Ethernet) -> Outcome {
        let addressee = self.addressee(&ethernet);
        let is_control = read.as_ref().is_ok_and(|packet| packet.tuple.protocol == packet.icmp());
        if addressee == Addressee::Another || addressee == Addressee::Group && !is_control {
            return Outcome::Pass;
        }
        let mut packet = match read {
            Ok(packet) => packet,
            Err((_, None)) => return Outcome::Pass,
            Err((reason, Some(packet))) => return self.drop_if_ours(&packet, reason),
        };
        if is_control {
            return self.control(&packet, addressee == Addressee::Us);
        }
        if ![TCP, UDP].contains(&packet.tuple.protocol) {
            return self.drop_if_ours(&packet, DropReason::Refused);
        }
        if let Err(reason) = self.find_ports(&mut packet) {
            // What overlaps a part of ours is ours.
            if reason == DropReason::FragmentOverlap && packet.part.offset != 0 {
                return Outcome::Drop(reason);
            }
            return self.drop_if_ours(&packet, reason);
        }
        if packet.is_syn() && self.is_flooded(&packet) {
            return self.refuse(&packet, &Refusal::new(DropReason::Flood));
        }
        let found = match self.follow(&packet, false) {
            Found::Nothing => match self.connect(&packet) {
                Ok(Some(())) => self.follow(&packet, true),
                Ok(None) => return Outcome::Pass,
                Err(reason) => Found::Refused(Refusal::new(reason)),
            },
            found => found,
        };
        match found {
            Found::Outcome(outcome) => outcome,
            Found::Refused(refusal) => self.refuse(&packet, &refusal),
            Found::Nothing => unreachable!("the flow was put into the table"),
        }
    }

    /// Sends a packet of a known flow on; `is_new`: of one that it began itself.
    fn follow(&mut self, packet: &Packet, is_new: bool) -> Found {
        let key = packet.tuple;
        let Some(flow) = self.flows.get(&key).copied() else { return Found::Nothing };
        // Its client closed the connection: whoever sent the SYN that this answers has the tuple from somebody else.
        if !flow.is_request && packet.flags & SYN != 0 && flow.progress.is_closed() && flow.progress.confirmed
        {
            self.end(&key, &flow);
            return Found::Nothing;
        }
        let Some(backend) = self.living(&flow) else {
            if flow.is_request && (key.protocol == UDP || packet.is_syn()) {
                return Found::Nothing;
            }
            return Found::Refused(Refusal { flow: Some(flow), ..Refusal::new(DropReason::BackendGone) });
        };
        if !flow.is_request && flow.is_to_stack {
            return Found::Outcome(Outcome::Pass);
        }
        let has_ended = self.has_ended(packet, &flow);
        // A client whose own address the backend knows.
        if !flow.is_request && flow.to.0 == key.to.0 && has_ended {
            return Found::Outcome(self.late(packet));
        }
        if !is_new && (has_ended || flow.is_request && !self.stays(packet, &flow, &backend)) {
            return Found::Nothing;
        }
        let flow = self.note(packet, flow);
        self.remember_part(packet);
        match self.send(packet, &flow, &backend) {
            Ok(outcome) => Found::Outcome(outcome),
            Err(refusal) => Found::Refused(Refusal { flow: Some(flow), ..refusal }),
        }
    }

    /// The request is one of its flow.
    fn stays(&self, packet: &Packet, flow: &Half, backend: &BackendEntry) -> bool {
        if packet.tuple.protocol == TCP {
            return !(packet.is_syn() && flow.yields_to_syn());
        }
        // A datagram is at home nowhere: whatever is not as it would be decided now is decided anew.
        let way = if flow.is_masked { Way::Nat } else { backend.way };
        let source = if way == Way::Nat { backend.source } else { packet.tuple.from.0 };
        backend.state == BackendState::Serving
            && (backend.way == Way::Nat || flow.client == packet.ethernet.link)
            && flow.is_to_stack == (way == Way::Local)
            && flow.from.0 == source
    }

    /// A packet of the tuple is of another connection, or of none. Of one that its client confirmed and nobody but a RST ended, a
    /// segment goes on.
    fn has_ended(&self, packet: &Packet, flow: &Half) -> bool {
        let is_kept = packet.tuple.protocol == TCP
            && packet.flags & SYN == 0
            && flow.progress.confirmed
            && !flow.progress.is_finished();
        !is_kept && self.is_over(packet.tuple.protocol, flow)
    }

    /// The flow was silent for too long.
    fn is_over(&self, protocol: u8, flow: &Half) -> bool {
        let idle = self.now.saturating_sub(flow.seen);
        match protocol {
            TCP if flow.progress.is_closed() => idle > self.settings.closed_idle,
            TCP => !flow.progress.confirmed && idle > self.settings.syn_idle,
            _ => idle > self.settings.udp_idle,
        }
    }

    /// What a backend says to a client's own address after the end: not to be seen with the backend's address. But a SYN says that
    /// the two talk past us.
    fn late(&mut self, packet: &Packet) -> Outcome {
        if packet.flags & SYN == 0 {
            return Outcome::Drop(DropReason::NoFlow);
        }
        self.flows.remove(&packet.tuple);
        self.has_late_syn = true;
        Outcome::Pass
    }

    /// Keeps in both halves that a packet was seen.
    fn note(&mut self, packet: &Packet, flow: Half) -> Half {
        let mut noted =
            Half { progress: flow.progress.after(flow.is_request, packet.flags), seen: self.now, ..flow };
        if flow.is_request {
            (noted.client, noted.client_mac) = (packet.ethernet.link, packet.ethernet.source);
        }
        // When a connection that only lasts was last seen is no matter up to 8 seconds, unless the half of one was missed lately.
        let lasts = packet.tuple.protocol == TCP && flow.progress.confirmed && !flow.progress.is_closed();
        let is_calm = self.now - self.stray >= 3;
        let (age, precision) = (self.now - flow.seen, if lasts && is_calm { 8 } else { 1 });
        if (Half { seen: flow.seen, ..noted }) == flow {
            // The clock of the kernel may be a second further by now.
            self.is_close |= lasts && is_calm && age == precision - 1;
            if age < precision {
                return flow;
            }
        }
        self.keep(&packet.tuple, noted)
    }

    /// Writes both halves, given one; the other one that was lost is there again unless the connection is closed.
    fn keep(&mut self, key: &Tuple, mut flow: Half) -> Half {
        let other_key = flow.other_key(key.protocol);
        match self.flows.get(&other_key).copied() {
            Some(there) if there.says_the_same(&flow.other(key)) => {
                let (a, b) = (flow.progress, there.progress);
                flow.progress.replied = a.replied || b.replied;
                flow.progress.request_fin = a.request_fin || b.request_fin;
                flow.progress.reply_fin = a.reply_fin || b.reply_fin;
                flow.progress.confirmed = a.confirmed || b.confirmed;
                flow.progress.picked_up = a.picked_up || b.picked_up;
                self.flows.insert(other_key, flow.other(key));
            }
            Some(_) => {}
            None if flow.progress.is_closed() => {}
            None => {
                self.flows.insert(other_key, flow.other(key));
            }
        }
        self.flows.insert(*key, flow);
        flow
    }

    /// Gives a part of a packet the ports of its first part, which is no longer than it says.
    fn find_ports(&self, packet: &mut Packet) -> Result<(), DropReason> {
        let part = packet.part;
        if part.offset == 0 {
            // Eight bytes hold the ports and, in UDP, the whole header.
            let is_short = part.is_fragment() && packet.payload().len() < 8;
            return if is_short { Err(DropReason::FragmentOverlap) } else { Ok(()) };
        }
        [packet.tuple.from.1, packet.tuple.to.1] = self.first_part(packet)?;
        Ok(())
    }

    fn first_part(&self, packet: &Packet) -> Result<[u16; 2], DropReason> {
        let first = self.parts.get(&part_key(packet)).ok_or(DropReason::FragmentUnknown)?;
        if self.now - first.seen > PARTS_LIFETIME {
            return Err(DropReason::FragmentUnknown);
        }
        if packet.part.offset < first.end {
            return Err(DropReason::FragmentOverlap);
        }
        Ok(first.ports)
    }

    fn remember_part(&mut self, packet: &Packet) {
        if packet.part.offset == 0 && packet.part.more {
            let ports = [packet.tuple.from.1, packet.tuple.to.1];
            let first = FirstPart { ports, end: packet.payload().len(), seen: self.now };
            self.parts.insert(part_key(packet), first);
        }
    }

    fn addressee(&self, ethernet: &Ethernet) -> Addressee {
        let device = self.tables.devices.get(&ethernet.link.ifindex());
        if ethernet.destination[0] & 1 != 0 {
            Addressee::Group
        } else if device.is_some_and(|device| device.mac.0 != ethernet.destination) {
            Addressee::Another
        } else {
            Addressee::Us
        }
    }

    /// What cannot be used is dropped if it was for us, and the stack's business otherwise.
    fn drop_if_ours(&self, packet: &Packet, reason: DropReason) -> Outcome {
        let Tuple { to, protocol, .. } = packet.tuple;
        let is_ours = self.tables.addresses.contains_key(&to.0)
            || endpoint(to, protocol).is_some_and(|to| self.tables.frontends.contains_key(&to));
        if is_ours { Outcome::Drop(reason) } else { Outcome::Pass }
    }

    /// The backend of a flow, if it is still the one that it was.
    fn living(&self, flow: &Half) -> Option<BackendEntry> {
        self.backend(flow.backend, flow.to.0.is_ipv4())
    }

    fn backend(&self, id: BackendId, is_v4: bool) -> Option<BackendEntry> {
        let backend = self.tables.backends.get(&slot(id, is_v4))?;
        let is_living = backend.state != BackendState::Gone && backend.incarnation == id.incarnation();
        is_living.then(|| backend.clone())
    }

    /// One answer of those that this second has.
    fn take_answer(&mut self) -> bool {
        let made = if self.answers.0 == self.now { self.answers.1 } else { 0 };
        if made >= self.settings.answers {
            return false;
        }
        self.answers = (self.now, made + 1);
        true
    }

    /// Flows that may still begin, and the window: a share more with each window, those of four windows at most.
    fn new_flows(&self) -> (u64, u64) {
        let window = u64::from(self.now) * 1_000_000_000 / (1 << WINDOW_BITS);
        let (left, before) = self.new_flows;
        let share = u64::from(self.settings.new_flows);
        ((left + share * (window - before)).min(4 * share), window)
    }

    /// One flow of those.
    fn take_new_flow(&mut self) -> bool {
        let (left, window) = self.new_flows();
        self.new_flows = (left.saturating_sub(1), window);
        left > 0
    }

    /// A SYN to a frontend is not even looked up when only the share is left that others have for themselves.
    fn is_flooded(&self, packet: &Packet) -> bool {
        let to = endpoint(packet.tuple.to, packet.tuple.protocol);
        self.new_flows().0 <= self.settings.new_flows.into()
            && to.is_some_and(|to| self.tables.frontends.contains_key(&to))
    }
}

fn part_key(packet: &Packet) -> PartKey {
    let Tuple { from, to, protocol } = packet.tuple;
    (from.0, to.0, packet.part.id, protocol)
}

fn slot(id: BackendId, is_v4: bool) -> BackendSlot {
    let family = if is_v4 { blixt_core::tables::Family::V4 } else { blixt_core::tables::Family::V6 };
    BackendSlot { family, slot: id.slot() }
}

fn endpoint((address, port): End, protocol: u8) -> Option<Endpoint> {
    let protocol = match protocol {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    Some(Endpoint { address, port, protocol })
}

/// The address can be one machine's, and is not the loopback.
fn is_host(address: IpAddr) -> bool {
    match address {
        // 0/8 says nobody, 240/4 is reserved, and in it lies broadcast.
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            !(address.is_loopback() || address.is_multicast() || first == 0 || first >= 240)
        }
        IpAddr::V6(address) => !(address.is_loopback() || address.is_multicast() || address.is_unspecified()),
    }
}

fn has_reset(packet: &Packet) -> bool {
    packet.flags & RST != 0
}

/// Where a client's packets come by, if that is a device of this machine's own processes.
fn is_of_host(tables: &Tables, link: Link) -> bool {
    tables.devices.get(&link.ifindex()).is_some_and(|device| device.of_host)
}
