//! A packet without a flow: which connection it begins, and the source port that this gets.

use blixt_core::tables::{BackendEntry, FrontendEntry, Way};
use blixt_packet::DropReason;
use blixt_packet::abi::{BackendId, Link};

use super::{Model, endpoint, has_reset, is_host, is_of_host};
use crate::flow::{Half, Progress, Tuple};
use crate::hash::hash;
use crate::packet::{FIN, Packet, RST, SYN, TCP};

/// Ports that are tried until a free one is found, the client's own the first of them.
const FREE_ATTEMPTS: u32 = 33;
/// Ports that are tried then for one whose holder gives way.
const TAKING_ATTEMPTS: u32 = 8;

/// What became of an attempt to get the place of a reply half.
enum Claim {
    Got,
    Taken,
}

impl Model {
    /// Puts both halves of a new connection into the table. `None`: the packet is not ours.
    pub(super) fn connect(&mut self, packet: &Packet) -> Result<Option<()>, DropReason> {
        let Tuple { from, to, protocol } = packet.tuple;
        let frontend = endpoint(to, protocol).and_then(|to| self.tables.frontends.get(&to).cloned());
        if let Some(frontend) = frontend {
            let flow = self.request(packet, &frontend)?;
            return self.claim_ports(packet, flow).map(Some);
        }
        if self.tables.addresses.contains_key(&to.0) {
            return Err(DropReason::Refused);
        }
        // This machine has no sockets here, and forwards nothing: its stack would answer a backend's stray segment.
        let mut backends = self.tables.backends.values();
        let is_backend = backends.any(|backend| {
            backend.state != blixt_core::tables::BackendState::Gone
                && Some(backend.endpoint) == endpoint(from, protocol)
        });
        if is_backend && is_host(to.0) {
            // Unless this machine forwards it: to another backend it might.
            let mut backends = self.tables.backends.values();
            self.asks_kernel |= backends.any(|backend| backend.endpoint.address == to.0);
            if protocol == TCP && packet.flags & (SYN | RST | FIN) == 0 {
                self.stray = self.now;
            }
            return Err(DropReason::NoFlow);
        }
        Ok(None)
    }

    /// The request half, with the client's own port.
    fn request(&mut self, packet: &Packet, frontend: &FrontendEntry) -> Result<Half, DropReason> {
        let Tuple { from, to, protocol } = packet.tuple;
        if !is_host(from.0) || from.0 == to.0 {
            return Err(DropReason::BadAddress);
        }
        if has_reset(packet) {
            return Err(DropReason::NoFlow);
        }
        let (id, backend) = self.choose(frontend, &packet.tuple)?;
        let link = packet.ethernet.link;
        let is_masked = backend.way != Way::Nat && self.answers_past_us(link, &backend);
        let way = if is_masked { Way::Nat } else { backend.way };
        let source = if way == Way::Nat { backend.source } else { from.0 };
        if source.is_unspecified() {
            return Err(DropReason::NoWay);
        }
        if is_masked && backend.hop == 0 {
            return Err(DropReason::Refused);
        }
        if !self.take_new_flow() {
            return Err(DropReason::Flood);
        }
        Ok(Half {
            from: (source, from.1),
            to: (backend.endpoint.address, backend.endpoint.port),
            backend: id,
            client: link,
            client_mac: packet.ethernet.source,
            is_request: true,
            is_to_stack: way == Way::Local,
            is_masked: is_masked || way == Way::Nat && source == from.0,
            progress: Progress { picked_up: protocol == TCP && !packet.is_syn(), ..Progress::default() },
            seen: self.now,
        })
    }

    fn choose(
        &self,
        frontend: &FrontendEntry,
        tuple: &Tuple,
    ) -> Result<(BackendId, BackendEntry), DropReason> {
        if frontend.slots == 0 {
            return Err(DropReason::Refused);
        }
        // The slots divide the hashes into equal shares.
        let slot = (u64::from(hash(tuple)) * u64::from(frontend.slots)) >> 32;
        let slots = self.tables.rings.get(&frontend.ring).and_then(|ring| ring.slots.as_ref());
        let id = *slots.and_then(|slots| slots.get(slot as usize)).ok_or(DropReason::Internal)?;
        if id == BackendId::REFUSE {
            return Err(DropReason::Refused);
        }
        let backend = self.backend(id, tuple.to.0.is_ipv4()).ok_or(DropReason::Internal)?;
        Ok((id, backend))
    }

    /// A backend that knows the client's address would answer it past us: it sits behind the device that the client comes by, or
    /// the client is this machine itself.
    fn answers_past_us(&self, link: Link, backend: &BackendEntry) -> bool {
        let hop = self.tables.hops.get(&backend.hop);
        let is_neighbour =
            backend.way == Way::Local && hop.is_some_and(|hop| Link::new(hop.device, 0) == link);
        is_neighbour || is_of_host(&self.tables, link)
    }

    fn claim_ports(&mut self, packet: &Packet, mut flow: Half) -> Result<(), DropReason> {
        let own = packet.tuple.from.1;
        for attempt in 0..FREE_ATTEMPTS + TAKING_ATTEMPTS {
            if attempt > 0 && !is_nat(packet, &flow) {
                flow = self.masked(flow).ok_or(DropReason::PortsExhausted)?;
            }
            let is_taking = attempt >= FREE_ATTEMPTS;
            let nth = if is_taking { attempt - FREE_ATTEMPTS } else { attempt };
            flow.from.1 = if nth == 0 { own } else { self.candidate(&packet.tuple, nth) };
            if let Claim::Got = self.claim(packet, &mut flow, is_taking) {
                self.flows.insert(packet.tuple, flow);
                return Ok(());
            }
        }
        Err(DropReason::PortsExhausted)
    }

    /// A client that keeps its address has but one port. Where that is taken, full NAT leads to a local backend.
    fn masked(&self, flow: Half) -> Option<Half> {
        let backend = self.living(&flow)?;
        let is_reachable = backend.way == Way::Local && backend.hop != 0 && !backend.source.is_unspecified();
        let from = (backend.source, flow.from.1);
        is_reachable.then_some(Half { from, is_to_stack: false, is_masked: true, ..flow })
    }

    /// Gets the place of the reply half, for one that leaves by the port which the flow says.
    fn claim(&mut self, packet: &Packet, flow: &mut Half, is_taking: bool) -> Claim {
        let key = packet.tuple;
        let protocol = key.protocol;
        let reply_key = flow.other_key(protocol);
        let begins = protocol != TCP || packet.is_syn();
        if let Some(there) = self.flows.get(&reply_key).copied() {
            if there.says_the_same(&flow.other(&key)) {
                // Half of this connection, or what is left of an older one.
                let is_void = self.is_over(protocol, &there)
                    || begins && (there.yields_to_syn() || there.backend != flow.backend);
                if !is_void {
                    flow.progress = there.progress;
                }
            } else if self.yields(packet, flow, &there, is_taking, begins) {
                self.end(&reply_key, &there);
            } else {
                return Claim::Taken;
            }
        }
        self.flows.insert(reply_key, flow.other(&key));
        Claim::Got
    }

    /// Another connection loses its place to the flow.
    fn yields(&self, packet: &Packet, flow: &Half, there: &Half, is_taking: bool, begins: bool) -> bool {
        let protocol = packet.tuple.protocol;
        if self.is_over(protocol, there) {
            return true;
        }
        // A client that keeps its address asks by this port anew: what it asked before is answered, or never will be.
        let is_void = !is_nat(packet, flow)
            && (there.progress.is_closed() || there.gives_way(TCP, self.now) || self.living(there).is_none());
        begins && (is_taking && there.gives_way(protocol, self.now) || is_void)
    }

    /// Takes a connection out of the table, given one half.
    pub(super) fn end(&mut self, key: &Tuple, flow: &Half) {
        let other_key = flow.other_key(key.protocol);
        if self.flows.get(&other_key).is_some_and(|other| other.other_key(key.protocol) == *key) {
            self.flows.remove(&other_key);
        }
        self.flows.remove(key);
    }

    /// The port of ours that is tried next, from a place that the client's tuple decides.
    fn candidate(&self, tuple: &Tuple, nth: u32) -> u16 {
        let (first, last) = (u32::from(self.settings.first_port), u32::from(self.settings.last_port));
        let start = hash(tuple) >> 16;
        (first + (start + nth) % (last - first + 1)) as u16
    }
}

/// The client's address gives way to one of ours.
fn is_nat(packet: &Packet, flow: &Half) -> bool {
    flow.is_masked || flow.from.0 != packet.tuple.from.0
}
