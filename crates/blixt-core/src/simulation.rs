//! The data plane on the host: the very `forward` of the kernel program, over [`Tables`] and a packet in a buffer.
//!
//! What it does stays its own: flows that it begins are seen by its next packets and by nobody else. It counts
//! nothing, and knows no sockets of the machine.

mod buffer;
mod family;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use blixt_packet::abi::{
    BACKEND_DRAINING, BACKEND_GONE, BACKEND_SERVING, BUDGETS, Backend, BackendId, Budget, DEVICE_OF_HOST,
    DEVICE_XDP_SENDER, DEVICE_XDP_TARGET, Device, EndpointKey, Flow, FlowKey, Fragment, FragmentKey,
    Frontend, Hop, Limited, Link, OwnedAddress, Settings, V4, V6, WAY_LOCAL, WAY_NAT, WAY_TRANSPARENT,
    WINDOW_BITS,
};
use blixt_packet::flow::lasting;
use blixt_packet::state::{Added, Entry, Route, Socket, State};
use blixt_packet::{DropReason, Verdict, forward, leave};

use crate::config::Endpoint;
use crate::host::Mac;
use crate::tables::{BackendEntry, BackendSlot, BackendState, Tables, Way};

pub use buffer::Buffer;
pub use family::AddressFamily;

/// Flows that the data plane has already, and its clock.
pub trait Memory {
    /// Seconds of the coarse monotonic clock.
    fn now(&self) -> u32;
    /// There may be flows of this address although no table names it any more.
    fn knows(&self, address: IpAddr) -> bool;
    /// A flow of IPv4.
    fn flow_v4(&self, key: &FlowKey<V4>) -> Option<Flow<V4>>;
    /// A flow of IPv6.
    fn flow_v6(&self, key: &FlowKey<V6>) -> Option<Flow<V6>>;
}

/// No flows yet: the data plane of manifests that nobody serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoMemory;

/// One run of the data plane.
pub struct Simulation<'a> {
    tables: &'a Tables,
    memory: &'a dyn Memory,
    settings: Settings,
    endpoints: HashSet<Endpoint>,
    /// Addresses that are served, or were.
    known: HashSet<IpAddr>,
    budgets: [Cell<Budget>; BUDGETS as usize],
    /// When a segment came from a backend without a flow.
    stray: Cell<u32>,
    v4: Flows<V4>,
    v6: Flows<V6>,
}

/// What was written, and (none) what was taken out.
type Written<A> = Rc<RefCell<BTreeMap<FlowKey<A>, Option<Flow<A>>>>>;

/// What was written in a run.
pub struct Flows<A> {
    written: Written<A>,
    fragments: RefCell<BTreeMap<FragmentKey<A>, Fragment>>,
}

impl<'a> Simulation<'a> {
    /// Over these tables, with what `memory` remembers.
    pub fn new(tables: &'a Tables, memory: &'a dyn Memory, settings: Settings) -> Self {
        let standing = tables.backends.values().filter(|entry| entry.state != BackendState::Gone);
        Self {
            tables,
            memory,
            settings,
            endpoints: standing.map(|entry| entry.endpoint).collect(),
            known: served(tables).collect(),
            budgets: Default::default(),
            stray: Cell::default(),
            v4: Flows::default(),
            v6: Flows::default(),
        }
    }

    /// The same run after user space has written other tables: the flows stay.
    pub fn over<'b>(self, tables: &'b Tables) -> Simulation<'b>
    where
        'a: 'b,
    {
        let Self { memory, settings, budgets, stray, v4, v6, mut known, .. } = self;
        known.extend(served(tables));
        Simulation { budgets, stray, v4, v6, known, ..Simulation::new(tables, memory, settings) }
    }

    /// A packet comes in by its device.
    pub fn enters(&self, pkt: &mut Buffer) -> Verdict {
        forward(pkt, self)
    }

    /// A packet is about to leave by its device.
    pub fn leaves(&self, pkt: &mut Buffer) -> Verdict {
        leave(pkt, self)
    }

    /// The flows that this run began and did not end.
    pub fn flows<A: AddressFamily>(&self) -> Vec<(FlowKey<A>, Flow<A>)> {
        let written = A::flows(self).written.borrow();
        written.iter().filter_map(|(key, flow)| Some((*key, (*flow)?))).collect()
    }

    /// The flow of a tuple: from this run, else remembered.
    pub(crate) fn flow_of<A: AddressFamily>(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        let written = A::flows(self).written.borrow().get(key).copied();
        written.unwrap_or_else(|| A::remembered(self.memory, key))
    }
}

/// Addresses whose packets may be ours.
fn served(tables: &Tables) -> impl Iterator<Item = IpAddr> {
    let backends = tables.backends.values().map(|entry| entry.endpoint.address);
    let frontends = tables.frontends.keys().map(|endpoint| endpoint.address);
    backends.chain(frontends).chain(tables.addresses.keys().copied())
}

impl<A> Default for Flows<A> {
    fn default() -> Self {
        Self { written: Rc::default(), fragments: RefCell::default() }
    }
}

/// An entry of the flow table, by its key.
pub struct Kept<A: AddressFamily> {
    written: Written<A>,
    key: FlowKey<A>,
    found: Flow<A>,
}

impl<A: AddressFamily> Entry<A> for Kept<A> {
    fn read(&self) -> Flow<A> {
        self.written.borrow().get(&self.key).copied().flatten().unwrap_or(self.found)
    }

    fn write(&self, flow: &Flow<A>) {
        let mut written = self.written.borrow_mut();
        if written.get(&self.key) != Some(&None) {
            written.insert(self.key, Some(*flow));
        }
    }
}

impl<A: AddressFamily> State<A> for Simulation<'_> {
    type Entry = Kept<A>;

    fn now(&self) -> u32 {
        self.memory.now()
    }

    fn window(&self) -> u32 {
        (Duration::from_secs(self.memory.now().into()).as_nanos() >> WINDOW_BITS) as u32
    }

    fn lasting(&self) -> u32 {
        lasting(self.memory.now(), self.stray.get())
    }

    fn note_stray(&self) {
        self.stray.set(self.memory.now());
    }

    fn setting<T: Copy>(&self, field: impl Fn(&Settings) -> &T) -> T {
        *field(&self.settings)
    }

    fn knows(&self, address: A) -> bool {
        let address = address.to_ip();
        self.known.contains(&address) || self.memory.knows(address)
    }

    fn flow(&self, key: &FlowKey<A>) -> Option<Kept<A>> {
        let found = self.flow_of(key)?;
        Some(Kept { written: Rc::clone(&A::flows(self).written), key: *key, found })
    }

    fn set_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), DropReason> {
        A::flows(self).written.borrow_mut().insert(*key, Some(*flow));
        Ok(())
    }

    fn add_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Added {
        if self.flow_of(key).is_some() {
            return Added::Exists;
        }
        A::flows(self).written.borrow_mut().insert(*key, Some(*flow));
        Added::New
    }

    fn remove_flow(&self, key: &FlowKey<A>) {
        A::flows(self).written.borrow_mut().insert(*key, None);
    }

    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment> {
        A::flows(self).fragments.borrow().get(key).copied()
    }

    fn set_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment) {
        A::flows(self).fragments.borrow_mut().insert(*key, *fragment);
    }

    fn frontend(&self, key: &EndpointKey<A>) -> Option<Frontend> {
        let entry = self.tables.frontends.get(&family::endpoint(key)?)?;
        Some(Frontend { ring: entry.ring, slots: entry.slots, route: entry.route, reserved: 0 })
    }

    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool {
        family::endpoint(key).is_some_and(|endpoint| self.endpoints.contains(&endpoint))
    }

    fn address(&self, address: &A) -> Option<OwnedAddress> {
        let ifindex = *self.tables.addresses.get(&address.to_ip())?;
        Some(OwnedAddress { ifindex, reserved: 0 })
    }

    fn ring(&self, ring: u32, slot: u32) -> Option<BackendId> {
        self.tables.rings.get(&ring)?.slots.as_ref()?.get(slot as usize).copied()
    }

    fn backend(&self, slot: u32) -> Option<Backend<A>> {
        backend(self.tables.backends.get(&BackendSlot { family: A::FAMILY, slot })?)
    }

    fn hop(&self, id: u32) -> Option<Hop> {
        let entry = self.tables.hops.get(&id)?;
        // User space is there to renew the deadline of every hop that has a neighbour.
        Some(Hop {
            link: Link::new(entry.device, 0),
            deadline: entry.destination.map_or(0, |_| u32::MAX),
            mtu: entry.mtu,
            destination: words(entry.destination.unwrap_or_default()),
            source: words(entry.source),
        })
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        let entry = self.tables.devices.get(&ifindex)?;
        let flags = if entry.xdp_target { DEVICE_XDP_TARGET } else { 0 }
            | if entry.xdp_sender { DEVICE_XDP_SENDER } else { 0 }
            | if entry.of_host { DEVICE_OF_HOST } else { 0 };
        Some(Device { ifindex, mtu: entry.mtu, mac: words(entry.mac), flags })
    }

    /// The kernel would be asked for a backend's neighbour only: its device is known all the same.
    fn route(&self, _: A, destination: A) -> Route {
        let address: IpAddr = destination.to_ip();
        let mut hops = self.tables.backends.values().filter(|entry| entry.endpoint.address == address);
        let device = hops.find_map(|entry| Some(self.tables.hops.get(&entry.hop)?.device));
        device.map_or(Route::Unknown, Route::Device)
    }

    fn socket(&self, _: &FlowKey<A>) -> Socket {
        Socket::None
    }

    fn count_request(&self, _: u32, _: u32) {}

    fn count_reply(&self, _: u32, _: u32) {}

    fn count_connection(&self, _: u32, _: u32) {}

    fn count_refused(&self, _: u32) {}

    fn budget(&self, of: Limited) -> Budget {
        self.budgets[of as usize].get()
    }

    fn set_budget(&self, of: Limited, budget: Budget) {
        self.budgets[of as usize].set(budget);
    }
}

impl Memory for NoMemory {
    fn now(&self) -> u32 {
        0
    }

    fn knows(&self, _: IpAddr) -> bool {
        false
    }

    fn flow_v4(&self, _: &FlowKey<V4>) -> Option<Flow<V4>> {
        None
    }

    fn flow_v6(&self, _: &FlowKey<V6>) -> Option<Flow<V6>> {
        None
    }
}

fn backend<A: AddressFamily>(entry: &BackendEntry) -> Option<Backend<A>> {
    Some(Backend {
        address: A::from_ip(entry.endpoint.address)?,
        source: A::from_ip(entry.source)?,
        port: entry.endpoint.port.to_be(),
        incarnation: entry.incarnation,
        state: match entry.state {
            BackendState::Gone => BACKEND_GONE,
            BackendState::Serving => BACKEND_SERVING,
            BackendState::Draining => BACKEND_DRAINING,
        },
        way: match entry.way {
            Way::Nat => WAY_NAT,
            Way::Transparent => WAY_TRANSPARENT,
            Way::Local => WAY_LOCAL,
        },
        protocol: entry.endpoint.protocol.number(),
        reserved: 0,
        hop: entry.hop,
        route: entry.route,
    })
}

fn words(Mac([a, b, c, d, e, f]): Mac) -> [u16; 3] {
    [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes)
}
