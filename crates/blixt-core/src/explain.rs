//! What happens to one packet, and why: the data plane's own `forward`, told in words.

mod packet;
mod tuple;

use std::fmt;

use blixt_packet::abi::{BackendId, FlowKey, Settings, V4, V6};
use blixt_packet::{DropReason, Verdict, select};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Endpoint, RouteName};
use crate::host::Mac;
use crate::simulation::{AddressFamily, Memory, Simulation};
use crate::tables::{BackendSlot, BackendState, Tables, Way};

pub use tuple::{Tuple, TupleError};

/// The whole way of one packet. Steps that it does not come to are `None`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet: a TCP SYN or a UDP datagram.
    pub packet: Tuple,
    /// What becomes of it.
    pub verdict: Outcome,
    /// The reason, in a sentence; a drop's by the name of its counter.
    pub why: String,
    /// Name of the drop reason.
    pub reason: Option<String>,
    /// The packet belongs to a connection that is in the flow table.
    pub flow: Option<FlowStep>,
    /// What the client dials.
    pub frontend: Option<FrontendStep>,
    /// Who gets it.
    pub backend: Option<BackendStep>,
    /// Its addresses and ports when it leaves.
    pub rewritten: Option<Tuple>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Not Blixt's: the machine's own stack takes it, untouched.
    Passed,
    /// Sent to a next hop.
    Sent,
    /// Rewritten; the machine's own stack delivers it.
    Delivered,
    /// Answered at once, with RST or an ICMP error.
    Refused,
    /// Dropped.
    Dropped,
}

/// The flow table's part in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowStep {
    /// It is a packet of the client; else of the backend.
    pub request: bool,
    /// Seconds since its last packet.
    pub idle: u32,
}

/// The frontend's part in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontendStep {
    /// What the client dials.
    pub endpoint: String,
    /// Who asked for it.
    pub listener: Option<String>,
    /// Who serves it.
    pub route: Option<RouteName>,
    /// Id of its ring; 0: it has none.
    pub ring: u32,
    /// Slots of the ring.
    pub slots: u32,
    /// The slot that a new connection with this tuple falls into.
    pub slot: Option<u32>,
}

/// The backend's part in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackendStep {
    /// Its address, port and protocol.
    pub endpoint: String,
    /// Its slot in the table.
    pub slot: u32,
    /// Which of those that stood in the slot.
    pub incarnation: u8,
    /// Serving or draining.
    pub state: BackendState,
    /// How packets reach it.
    pub way: Way,
    /// Slots of the frontend's ring that are its own.
    pub share: Option<u32>,
    /// Index of the device that packets leave by.
    pub device: Option<u32>,
    /// The neighbour's MAC address, where it is known.
    pub neighbour: Option<Mac>,
    /// Whatever the way, this client is hidden behind the machine's address: the backend would answer it past us.
    #[serde(default)]
    pub masked: bool,
}

/// Runs the packet through the data plane.
pub fn explain(
    tuple: &Tuple,
    tables: &Tables,
    config: &Config,
    memory: &dyn Memory,
    settings: Settings,
) -> Explanation {
    if tuple.source.is_ipv4() {
        explain_family::<V4>(tuple, tables, config, memory, settings)
    } else {
        explain_family::<V6>(tuple, tables, config, memory, settings)
    }
}

fn explain_family<A: AddressFamily>(
    tuple: &Tuple,
    tables: &Tables,
    config: &Config,
    memory: &dyn Memory,
    settings: Settings,
) -> Explanation {
    let simulation = Simulation::new(tables, memory, settings);
    let key = tuple.key::<A>();
    let before = key.and_then(|key| simulation.flow_of(&key));
    let mut pkt = packet::first(tuple, tables, before.map(|flow| flow.client));
    let verdict = simulation.enters(&mut pkt);
    let after = key.and_then(|key| simulation.flow_of(&key));
    let dialled = Endpoint {
        address: tuple.destination.ip(),
        port: tuple.destination.port(),
        protocol: tuple.protocol,
    };
    let flow = before
        .map(|flow| FlowStep { request: flow.is_request(), idle: memory.now().saturating_sub(flow.seen) });
    let frontend = frontend_step(&dialled, key.filter(|_| before.is_none()).as_ref(), tables, config);
    let chosen = after.map(|flow| flow.backend);
    let mut backend = chosen.and_then(|id| backend_step::<A>(id, frontend.as_ref(), tables));
    if let (Some(backend), Some(flow)) = (&mut backend, after) {
        backend.masked = flow.is_masked();
    }
    let outcome = outcome(verdict);
    let is_on = matches!(outcome, Outcome::Sent | Outcome::Delivered);
    Explanation {
        packet: *tuple,
        verdict: outcome,
        why: why(verdict, &flow, frontend.as_ref(), tables.addresses.contains_key(&dialled.address)),
        reason: verdict.reason().map(|reason| reason.label().to_owned()),
        flow,
        frontend,
        backend,
        rewritten: if is_on { packet::tuple(&pkt, tuple.protocol) } else { None },
    }
}

fn frontend_step<A: AddressFamily>(
    dialled: &Endpoint,
    key: Option<&FlowKey<A>>,
    tables: &Tables,
    config: &Config,
) -> Option<FrontendStep> {
    let entry = tables.frontends.get(dialled)?;
    let wanted = config.frontends.get(dialled);
    let route = wanted.and_then(|frontend| frontend.route.clone());
    Some(FrontendStep {
        endpoint: dialled.to_string(),
        listener: wanted.map(|frontend| frontend.listener.to_string()),
        route: route.or_else(|| tables.routes.get(&entry.route)?.name.clone()),
        ring: entry.ring,
        slots: entry.slots,
        slot: key.filter(|_| entry.slots > 0).map(|key| select::slot(select::hash(key), entry.slots)),
    })
}

fn backend_step<A: AddressFamily>(
    id: BackendId,
    frontend: Option<&FrontendStep>,
    tables: &Tables,
) -> Option<BackendStep> {
    let entry = tables.backends.get(&BackendSlot { family: A::FAMILY, slot: id.slot() })?;
    if entry.incarnation != id.incarnation() {
        return None;
    }
    let slots = frontend.and_then(|frontend| tables.rings.get(&frontend.ring)?.slots.as_ref());
    let hop = tables.hops.get(&entry.hop);
    Some(BackendStep {
        endpoint: entry.endpoint.to_string(),
        slot: id.slot(),
        incarnation: id.incarnation(),
        state: entry.state,
        way: entry.way,
        share: slots.map(|slots| slots.iter().filter(|slot| **slot == id).count() as u32),
        device: hop.map(|hop| hop.device),
        neighbour: hop.and_then(|hop| hop.destination),
        masked: false,
    })
}

const fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Pass => Outcome::Passed,
        Verdict::Deliver => Outcome::Delivered,
        Verdict::Send(_) | Verdict::Neighbour(_) => Outcome::Sent,
        Verdict::Answer(_) | Verdict::Reset(_) => Outcome::Refused,
        Verdict::Drop(_) => Outcome::Dropped,
    }
}

fn why(verdict: Verdict, flow: &Option<FlowStep>, frontend: Option<&FrontendStep>, is_owned: bool) -> String {
    match (verdict, flow, frontend) {
        (Verdict::Pass, _, None) => "no listener has this address, port and protocol: not Blixt's".to_owned(),
        (Verdict::Pass, _, Some(_)) => "the machine's own stack takes it".to_owned(),
        (Verdict::Answer(Some(DropReason::Refused)), _, None) if is_owned => {
            "only Blixt owns the address, and no listener has this port and protocol".to_owned()
        }
        (Verdict::Answer(Some(DropReason::Refused)), _, Some(FrontendStep { ring: 0, .. })) => {
            "the listener has no route with a backend that is ready".to_owned()
        }
        (Verdict::Answer(Some(DropReason::Refused)), _, Some(_)) => {
            "it falls into the share of a backendRef that is invalid or has no backend that is ready"
                .to_owned()
        }
        (Verdict::Answer(Some(reason)) | Verdict::Drop(reason), ..) => {
            reason.meaning().trim().trim_end_matches('.').to_owned()
        }
        (Verdict::Reset(_), ..) => {
            "the backend of its connection is gone, and its receiver hears that".to_owned()
        }
        (Verdict::Answer(None), ..) => "Blixt answers for an address of its own".to_owned(),
        (_, Some(FlowStep { request: true, .. }), _) => "its connection is in the flow table".to_owned(),
        (_, Some(FlowStep { request: false, .. }), _) => {
            "it is a reply of a connection that is in the flow table".to_owned()
        }
        (Verdict::Neighbour(_), ..) => {
            "a new connection; the kernel is asked for the neighbour, which is not resolved yet".to_owned()
        }
        (Verdict::Send(_) | Verdict::Deliver, ..) => "a new connection".to_owned(),
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "packet    {}", self.packet)?;
        if let Some(flow) = &self.flow {
            let direction = if flow.request { "of its client" } else { "of its backend" };
            writeln!(f, "flow      known, a packet {direction}, the last one {} s ago", flow.idle)?;
        }
        if let Some(frontend) = &self.frontend {
            write!(f, "frontend  {}", frontend.endpoint)?;
            if let Some(listener) = &frontend.listener {
                write!(f, ", listener {listener}")?;
            }
            writeln!(f)?;
            if let Some(route) = &frontend.route {
                writeln!(f, "route     {route}")?;
            }
            if let Some(slot) = frontend.slot {
                writeln!(f, "ring      {}, slot {slot} of {}", frontend.ring, frontend.slots)?;
            }
        }
        if let Some(backend) = &self.backend {
            write!(f, "backend   {}", backend.endpoint)?;
            if let (Some(share), Some(frontend)) = (backend.share, &self.frontend)
                && frontend.slots > 0
            {
                let percent = f64::from(share) * 100. / f64::from(frontend.slots);
                write!(f, ", {percent:.1} % of the connections")?;
            }
            writeln!(f, "{}", if backend.state == BackendState::Draining { ", draining" } else { "" })?;
            let way = match backend.way {
                Way::Local | Way::Transparent if backend.masked => {
                    "full NAT: the backend would answer this client past us, and sees this machine's address instead"
                }
                Way::Nat => "full NAT: the backend sees this machine's address",
                Way::Transparent => "transparent: the backend sees the client's address",
                Way::Local => "local: this machine's own stack delivers, the client's address is kept",
            };
            writeln!(f, "way       {way}")?;
        }
        if let Some(rewritten) = &self.rewritten {
            writeln!(f, "rewritten {rewritten}")?;
        }
        write!(f, "verdict   {}: {}", self.verdict, self.why)
    }
}

#[cfg(test)]
mod tests;
