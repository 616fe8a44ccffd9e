//! Tables in plain maps, which a test can set as it likes, one by one.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use blixt_cases::network::{Net, nets};
use blixt_core::simulation::Buffer;
use blixt_packet::abi::{
    BACKEND_SERVING, BUDGETS, Backend, BackendId, Budget, Device, EndpointKey, Flow, FlowKey, Fragment,
    FragmentKey, Frontend, Hop, Limited, Link, OwnedAddress, Settings, V4, V6,
};
use blixt_packet::address::Address;
use blixt_packet::flow::lasting;
use blixt_packet::state::{Added, Entry, Route, Socket, State};
use blixt_packet::{DropReason, Verdict, forward, leave};

pub const CLIENT_SIDE: u32 = 1;
pub const BACKEND_SIDE: u32 = 2;
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const INNER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];
pub const FRONTEND_PORT: u16 = 80;
pub const BACKEND_PORT: u16 = 8080;

type Flows<A> = Rc<RefCell<BTreeMap<FlowKey<A>, Flow<A>>>>;

/// The tables of one family.
pub struct Tables<A: Ord> {
    pub flows: Flows<A>,
    pub fragments: RefCell<BTreeMap<FragmentKey<A>, Fragment>>,
    pub frontends: BTreeMap<EndpointKey<A>, Frontend>,
    pub addresses: BTreeMap<A, OwnedAddress>,
    pub endpoints: BTreeSet<EndpointKey<A>>,
    pub backends: Vec<Backend<A>>,
}

/// A balancer with one frontend, one backend and one address that only Blixt owns, in both families.
pub struct World {
    pub v4: Tables<V4>,
    pub v6: Tables<V6>,
    pub now: Cell<u32>,
    pub window: Cell<u32>,
    /// When a segment came from a backend without a flow.
    pub stray: Cell<u32>,
    pub mtu: Cell<u32>,
    /// Until when the hop to the backend is believed.
    pub deadline: Cell<u32>,
    /// What the kernel says.
    pub route: Cell<Route>,
    pub settings: Settings,
    pub budgets: [Cell<Budget>; BUDGETS as usize],
    /// Every address shares its bit with one that is known.
    pub knows_all: Cell<bool>,
    /// Connections that were counted.
    pub connections: Cell<u32>,
    /// What another CPU gets from the client's side at the moment that this one has read a flow and asks whether it is over.
    pub meanwhile: RefCell<Option<Vec<u8>>>,
}

impl World {
    /// `way` as in the ABI.
    pub fn new(way: u8) -> Self {
        let [v4, v6] = nets();
        Self {
            v4: Tables::new(&v4, way),
            v6: Tables::new(&v6, way),
            now: Cell::new(100),
            window: Cell::default(),
            stray: Cell::default(),
            mtu: Cell::new(1500),
            deadline: Cell::new(u32::MAX),
            route: Cell::new(Route::Unknown),
            settings: Settings::DEFAULT,
            budgets: Default::default(),
            knows_all: Cell::default(),
            connections: Cell::default(),
            meanwhile: RefCell::default(),
        }
    }

    /// A frame from the client's side.
    pub fn client_sends(&self, ip: &[u8]) -> (Verdict, Vec<u8>) {
        self.forward(CLIENT_SIDE, blixt_cases::packet::frame(OUR_MAC, CLIENT_MAC, ip))
    }

    /// A frame from the backend's side.
    pub fn backend_sends(&self, ip: &[u8]) -> (Verdict, Vec<u8>) {
        self.forward(BACKEND_SIDE, blixt_cases::packet::frame(INNER_MAC, BACKEND_MAC, ip))
    }

    /// A frame that leaves towards the client.
    pub fn leaving(&self, ip: &[u8]) -> (Verdict, Vec<u8>) {
        let bytes = blixt_cases::packet::frame(CLIENT_MAC, OUR_MAC, ip);
        let mut buffer: Buffer = buffer(CLIENT_SIDE, bytes);
        let verdict = leave(&mut buffer, self);
        (verdict, buffer.bytes)
    }

    pub fn forward(&self, ifindex: u32, bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        self.run(buffer::<true>(ifindex, bytes))
    }

    /// What XDP does with a frame.
    pub fn xdp(&self, ifindex: u32, bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        self.run(buffer::<false>(ifindex, bytes))
    }

    pub fn run<const EVERYWHERE: bool>(&self, mut buffer: Buffer<EVERYWHERE>) -> (Verdict, Vec<u8>) {
        let verdict = forward(&mut buffer, self);
        (verdict, buffer.bytes)
    }
}

impl<A: Family> Tables<A> {
    fn new(net: &Net, way: u8) -> Self {
        let endpoint = |address, port: u16, protocol| EndpointKey {
            address: A::of(address),
            port: port.to_be(),
            protocol,
        };
        let frontend = Frontend { ring: 1, slots: 1, route: 1, reserved: 0 };
        let backend = Backend {
            address: A::of(net.backend),
            source: A::of(net.source),
            port: BACKEND_PORT.to_be(),
            incarnation: 1,
            state: BACKEND_SERVING,
            way,
            hop: 1,
            route: 1,
            ..Backend::default()
        };
        Self {
            flows: Rc::default(),
            fragments: RefCell::default(),
            frontends: [6, 17]
                .map(|protocol| (endpoint(net.frontend, FRONTEND_PORT, protocol), frontend))
                .into(),
            addresses: [(A::of(net.owned), OwnedAddress { ifindex: CLIENT_SIDE, reserved: 0 })].into(),
            endpoints: [6, 17].map(|protocol| endpoint(net.backend, BACKEND_PORT, protocol)).into(),
            backends: vec![Backend::default(), backend],
        }
    }
}

/// A family as the tests need it.
pub trait Family: Address + Ord + 'static {
    fn of(address: IpAddr) -> Self;
    fn tables(world: &World) -> &Tables<Self>;
}

impl Family for V4 {
    fn of(address: IpAddr) -> Self {
        let IpAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
        Self([u32::from_ne_bytes(address.octets())])
    }

    fn tables(world: &World) -> &Tables<Self> {
        &world.v4
    }
}

impl Family for V6 {
    fn of(address: IpAddr) -> Self {
        let IpAddr::V6(address) = address else { panic!("{address} is not of IPv6") };
        let octets = address.octets();
        Self([0, 4, 8, 12].map(|at| u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap())))
    }

    fn tables(world: &World) -> &Tables<Self> {
        &world.v6
    }
}

/// An entry of a flow table, by its key.
pub struct Kept<A: Ord>(Flows<A>, FlowKey<A>, Flow<A>);

impl<A: Family> Entry<A> for Kept<A> {
    fn read(&self) -> Flow<A> {
        self.0.borrow().get(&self.1).copied().unwrap_or(self.2)
    }

    fn write(&self, flow: &Flow<A>) {
        if let Some(there) = self.0.borrow_mut().get_mut(&self.1) {
            *there = *flow;
        }
    }
}

impl<A: Family> State<A> for World {
    type Entry = Kept<A>;

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn window(&self) -> u32 {
        self.window.get()
    }

    fn lasting(&self) -> u32 {
        lasting(self.now.get(), self.stray.get())
    }

    fn note_stray(&self) {
        self.stray.set(self.now.get());
    }

    fn setting<T: Copy>(&self, field: impl Fn(&Settings) -> &T) -> T {
        let asked = field(&self.settings);
        if std::ptr::from_ref(asked).cast::<u32>() == &raw const self.settings.syn_idle
            && let Some(packet) = self.meanwhile.take()
        {
            let (verdict, _) = self.client_sends(&packet);
            assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
        }
        *asked
    }

    /// No backend of it ever goes altogether.
    fn knows(&self, address: A) -> bool {
        let tables = A::tables(self);
        let serves = |key: &EndpointKey<A>| key.address == address;
        self.knows_all.get()
            || tables.frontends.keys().chain(&tables.endpoints).any(serves)
            || tables.backends.iter().any(|backend| backend.address == address)
            || tables.addresses.contains_key(&address)
    }

    fn flow(&self, key: &FlowKey<A>) -> Option<Kept<A>> {
        let flows = &A::tables(self).flows;
        let found = flows.borrow().get(key).copied()?;
        Some(Kept(Rc::clone(flows), *key, found))
    }

    fn set_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), DropReason> {
        A::tables(self).flows.borrow_mut().insert(*key, *flow);
        Ok(())
    }

    fn add_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Added {
        let mut flows = A::tables(self).flows.borrow_mut();
        if flows.contains_key(key) {
            return Added::Exists;
        }
        flows.insert(*key, *flow);
        Added::New
    }

    fn remove_flow(&self, key: &FlowKey<A>) {
        A::tables(self).flows.borrow_mut().remove(key);
    }

    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment> {
        A::tables(self).fragments.borrow().get(key).copied()
    }

    fn set_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment) {
        A::tables(self).fragments.borrow_mut().insert(*key, *fragment);
    }

    fn frontend(&self, key: &EndpointKey<A>) -> Option<Frontend> {
        A::tables(self).frontends.get(key).copied()
    }

    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool {
        A::tables(self).endpoints.contains(key)
    }

    fn address(&self, address: &A) -> Option<OwnedAddress> {
        A::tables(self).addresses.get(address).copied()
    }

    fn ring(&self, ring: u32, slot: u32) -> Option<BackendId> {
        (ring == 1 && slot == 0).then(|| BackendId::new(1, 1))
    }

    fn backend(&self, slot: u32) -> Option<Backend<A>> {
        A::tables(self).backends.get(slot as usize).copied()
    }

    fn hop(&self, id: u32) -> Option<Hop> {
        (id == 1).then(|| Hop {
            link: Link::new(BACKEND_SIDE, 0),
            deadline: self.deadline.get(),
            mtu: self.mtu.get(),
            destination: mac(BACKEND_MAC),
            source: mac(INNER_MAC),
        })
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        let address = match ifindex {
            CLIENT_SIDE => OUR_MAC,
            BACKEND_SIDE => INNER_MAC,
            _ => return None,
        };
        Some(Device { ifindex, mtu: 1500, mac: mac(address), flags: 0 })
    }

    fn route(&self, _source: A, _destination: A) -> Route {
        self.route.get()
    }

    fn socket(&self, _key: &FlowKey<A>) -> Socket {
        Socket::None
    }

    fn count_request(&self, _route: u32, _bytes: u32) {}

    fn count_reply(&self, _route: u32, _bytes: u32) {}

    fn count_connection(&self, _route: u32, _slot: u32) {
        self.connections.set(self.connections.get() + 1);
    }

    fn count_refused(&self, _route: u32) {}

    fn budget(&self, of: Limited) -> Budget {
        self.budgets[of as usize].get()
    }

    fn set_budget(&self, of: Limited, budget: Budget) {
        self.budgets[of as usize].set(budget);
    }
}

fn mac(bytes: [u8; 6]) -> [u16; 3] {
    let [a, b, c, d, e, f] = bytes;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
}

/// A frame that came by a device.
pub fn buffer<const EVERYWHERE: bool>(ifindex: u32, bytes: Vec<u8>) -> Buffer<EVERYWHERE> {
    Buffer { bytes, link: Link::new(ifindex, 0), ..Buffer::default() }
}
