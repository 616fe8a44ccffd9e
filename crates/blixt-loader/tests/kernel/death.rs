//! A process that dies between any two of its writes to the maps: what packets meet there, and that the next process makes the
//! maps what they should be, with nothing of the dead one left.

mod writes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use aya::programs::SchedClassifier;
use blixt_cases::host::{Clock, begin, show};
use blixt_cases::network::{BACKEND_SIDE, CLIENT_SIDE, INNER_MAC, Net, OUR_MAC, PROTOCOLS, UNLIMITED, nets};
use blixt_cases::packet::{ACK, IpPacket};
use blixt_cases::{Given, client_sends};
use blixt_core::compile::{Compilation, compile, with_slots};
use blixt_core::config::{Backend, Config, Endpoint, Forwarding, Frontend, Pool, Protocol, RouteName, Share};
use blixt_core::diff::diff;
use blixt_core::host::{Device, Host, Mac, Path};
use blixt_core::tables::{BackendState, Tables};
use blixt_loader::{Dataplane, Options};
use blixt_packet::Verdict;
use blixt_packet::abi::RING_CHUNK;

use crate::apply::{endpoints, expected_endpoints, ring_map};
use crate::cases::program::{Programs, TC_ACT_SHOT, run_ingress, wire_network};
use crate::world::{World, options};

/// A port of the address, and the shares of its connections: weights, and numbers of backends.
type Asked = (u16, &'static [(u32, &'static [u8])]);

const ALL: &[(u32, &[u8])] = &[(1, &[1, 2, 3])];
const TWO: &[(u32, &[u8])] = &[(1, &[1, 2])];
const OTHERS: &[(u32, &[u8])] = &[(1, &[4, 5, 6, 7])];

#[test]
fn the_first_tables_are_written() {
    check(&wanted(&[]), &wanted(&[(80, ALL), (81, TWO)]));
}

#[test]
fn a_route_is_added() {
    check(&wanted(&[(80, ALL)]), &wanted(&[(80, ALL), (81, OTHERS)]));
}

#[test]
fn a_backend_is_removed() {
    check(&wanted(&[(80, ALL), (81, TWO)]), &wanted(&[(80, TWO), (81, TWO)]));
}

/// The ring keeps its size, so that it is overwritten in place: nothing else keeps connections from a newcomer.
#[test]
fn a_backend_gives_way_to_another() {
    check(&wanted(&[(80, ALL), (81, TWO)]), &wanted(&[(80, &[(1, &[1, 2, 4])]), (81, TWO)]));
}

#[test]
fn a_backend_drains() {
    let mut after = wanted(&[(80, TWO), (81, TWO)]);
    after.drain(80, 3);
    check(&wanted(&[(80, ALL), (81, TWO)]), &after);
}

#[test]
fn weights_change() {
    check(&wanted(&[(80, &[(1, &[1]), (1, &[2])])]), &wanted(&[(80, &[(1, &[1]), (9, &[2])])]));
}

#[test]
fn a_service_loses_its_last_backend() {
    check(&wanted(&[(80, ALL), (81, TWO)]), &wanted(&[(80, &[(1, &[])]), (81, TWO)]));
}

#[test]
fn the_last_route_goes_and_its_address_with_it() {
    check(&wanted(&[(80, ALL)]), &wanted(&[]));
}

#[test]
fn everything_is_replaced() {
    let mut after = wanted(&[(81, OTHERS), (82, &[(1, &[7]), (2, &[8])])]);
    after.host.devices.get_mut(&BACKEND_SIDE).unwrap().mtu = 1300;
    after.host.neighbours.values_mut().for_each(|Mac(mac)| mac[4] = 9);
    check(&wanted(&[(80, ALL), (81, TWO)]), &after);
}

/// What the maps should hold.
#[derive(Clone, Default)]
struct Wanted {
    config: Config,
    host: Host,
}

/// Dies after every number of writes that the change from `old` to `new` takes: its operations in batches, as they always are, and
/// one by one, so that every prefix of them is seen.
fn check(old: &Wanted, new: &Wanted) {
    World::run(|world| {
        wire_network(world);
        let mut stage = Stage::new(world);
        let usual = Death { old, new, next: new, in_batches: true, is_last: true };
        // One family and protocol is all that these need, and they take long.
        let [old, new] = [old, new].map(Wanted::of_one_kind);
        let (old, new) = (&old, &new);
        let one_by_one = Death { old, new, next: new, in_batches: false, is_last: false };
        // What the next process is told may be that all should be as it was.
        let undone = Death { next: old, ..one_by_one };
        for death in [usual, one_by_one, undone] {
            let mut writes = 0;
            while stage.die(&death, writes) {
                writes += 1;
                assert!(writes < 1000, "the change does not come to its end");
            }
            println!("{writes} deaths");
            assert!(writes > 0, "nothing changes");
        }
    });
}

/// How a process dies that brings the maps from `old` to `new`.
#[derive(Clone, Copy)]
struct Death<'a> {
    old: &'a Wanted,
    new: &'a Wanted,
    /// What they should hold after it.
    next: &'a Wanted,
    in_batches: bool,
    /// Another process begins with what is pinned. Else the same one goes on, which knows no more after a write that failed: that
    /// takes less time.
    is_last: bool,
}

struct Stage<'a> {
    world: &'a World,
    dataplane: Option<Dataplane>,
    /// A program over the pinned maps, whoever is dead.
    program: SchedClassifier,
    /// The next source port: each connection has one of its own.
    port: u16,
}

impl<'a> Stage<'a> {
    fn new(world: &'a World) -> Self {
        let mut dataplane = open();
        let program = program(&mut dataplane, world);
        Self { world, dataplane: Some(dataplane), program, port: 1024 }
    }

    /// Dies after so many writes. False if that was the whole change.
    fn die(&mut self, death: &Death<'_>, writes: usize) -> bool {
        let Death { old, new, next, in_batches, is_last } = *death;
        let before = self.become_wanted(old);
        let target = compiled(new, &before);
        let ops = diff(&before, &target);
        let [first, second] = [self.connect(&before), self.connect(&before)];

        let mut dataplane = self.dataplane.take().unwrap();
        let died = writes::within(writes, || {
            if in_batches {
                dataplane.apply(&ops)
            } else {
                ops.iter().try_for_each(|op| dataplane.apply(slice::from_ref(op)))
            }
        });
        let torn = dataplane.read_back().unwrap().rings.into_iter().filter(|(_, ring)| ring.hash == TORN);
        torn.for_each(|(id, _)| self.write_half(id, &before, &target));
        let at = format!("after {writes} writes {}", if in_batches { "in batches" } else { "one by one" });
        let connections =
            self.clients().into_iter().chain(first.iter().map(Client::acknowledges)).collect::<Vec<_>>();
        for client in &connections {
            let seen = self.show(&client.now);
            let allowed = [client.over(&before, &before), client.over(&before, &target)];
            let refused = client.over(&before, &without_frontends(&before, &target));
            // Where one of the two serves nobody, nobody is served in between.
            let may_be_refused = [&before, &target].iter().any(|tables| !client.is_served(tables));
            assert!(
                allowed.contains(&seen) || may_be_refused && seen == refused,
                "{at}: {client:?}: {seen:02x?} instead of one of {allowed:02x?}"
            );
        }

        self.dataplane = Some(if is_last {
            drop(dataplane);
            open()
        } else {
            dataplane
        });
        let wanted = self.become_wanted(next);
        let found = self.dataplane.as_ref().unwrap().read_back().unwrap();
        assert_eq!(found, wanted, "{at}");
        assert_eq!(diff(&found, &compiled(next, &found)), [], "{at}");
        assert_eq!(sizes(&found), sizes(&compiled(next, &Tables::default())), "{at}: something is left");
        assert_eq!(endpoints(self.world), expected_endpoints(&found), "{at}");
        let connections =
            self.clients().into_iter().chain(second.iter().map(Client::acknowledges)).collect::<Vec<_>>();
        for client in &connections {
            assert_eq!(self.show(&client.now), client.over(&before, &wanted), "{at}, restarted: {client:?}");
        }
        died.is_err()
    }

    /// What the loop of the product does: compile for what the maps hold, and write what differs.
    fn become_wanted(&mut self, wanted: &Wanted) -> Tables {
        let dataplane = self.dataplane.as_mut().unwrap();
        let found = dataplane.read_back().unwrap();
        let tables = compiled(wanted, &found);
        dataplane.apply(&diff(&found, &tables)).unwrap();
        tables
    }
}

impl Stage<'_> {
    /// A ring that is rewritten in place is so by plain stores, no system calls: as a death among them leaves it.
    fn write_half(&self, id: u32, before: &Tables, target: &Tables) {
        let (Some(old), Some(new)) = (before.rings.get(&id), target.rings.get(&id)) else { return };
        if old.len != new.len {
            return;
        }
        let mut ring = ring_map(self.world, id);
        let slots = new.slots.as_deref().unwrap();
        for (chunk, slots) in (0..).zip(slots.chunks_exact(RING_CHUNK)).take(slots.len() / RING_CHUNK / 2) {
            ring.set(chunk, std::array::from_fn::<u32, RING_CHUNK, _>(|at| slots[at].0), 0).unwrap();
        }
    }

    /// Connections to every port that some change speaks of, the first packet of each yet to come.
    fn clients(&mut self) -> Vec<Client> {
        let mut clients = Vec::new();
        for net in nets() {
            for protocol in PROTOCOLS {
                for port in [80, 81, 82] {
                    for _ in 0..3 {
                        self.port += 1;
                        clients.push(Client::new(net, protocol, self.port, port));
                    }
                }
            }
        }
        clients
    }

    /// The same, begun.
    fn connect(&mut self, tables: &Tables) -> Vec<Client> {
        let clients = self.clients();
        for client in &clients {
            assert_eq!(self.show(&client.now), client.over(tables, tables), "{client:?}");
        }
        clients
    }

    /// What the program makes of a frame: what it returns, and the frame unless it goes nowhere.
    fn show(&self, given: &Given) -> (i32, Vec<u8>) {
        let (action, frame) = run_ingress(&self.program, given);
        (action, if action == TC_ACT_SHOT { Vec::new() } else { frame })
    }
}

#[derive(Debug)]
struct Client {
    dials: Endpoint,
    packet: IpPacket,
    /// What the connection began with, if it has.
    begun: Option<Given>,
    /// What it sends now.
    now: Given,
}

impl Client {
    fn new(net: Net, protocol: Protocol, from: u16, to: u16) -> Self {
        let packet = IpPacket::new(protocol, (net.client, from), (net.owned, to));
        let now = client_sends(&packet.bytes());
        Self { dials: Endpoint { address: net.owned, port: to, protocol }, packet, begun: None, now }
    }

    fn acknowledges(&self) -> Self {
        let packet = self.packet.clone().flags(ACK);
        let now = client_sends(&packet.bytes());
        Self { dials: self.dials, packet, begun: Some(self.now.clone()), now }
    }

    /// What becomes of its packet under `tables`, if it began under those `before`: by the library on the host.
    fn over(&self, before: &Tables, tables: &Tables) -> (i32, Vec<u8>) {
        let clock = Clock::default();
        let simulation = begin(before, &clock, UNLIMITED);
        if let Some(begun) = &self.begun {
            let _ = show(&simulation, begun);
        }
        match show(&simulation.over(tables), &self.now) {
            (Verdict::Drop(_), _) => (TC_ACT_SHOT, Vec::new()),
            (verdict, frame) => (Programs::tc_action(verdict), frame),
        }
    }

    fn is_served(&self, tables: &Tables) -> bool {
        tables.frontends.contains_key(&self.dials)
    }
}

/// The hash of a ring that is being written.
const TORN: u64 = u64::MAX;

fn open() -> Dataplane {
    // Nobody renews the next hops meanwhile.
    let mut options = Options { settings: UNLIMITED, hop_life: Duration::from_secs(24 * 3600), ..options() };
    options.capacity.flows = 65_536;
    Dataplane::open(&options).unwrap()
}

/// A program that stays when its loader is gone.
fn program(dataplane: &mut Dataplane, world: &World) -> SchedClassifier {
    let program = dataplane.programs().unwrap().program_mut("blixt_ingress").unwrap();
    let program: &mut SchedClassifier = program.try_into().unwrap();
    let pin = world.instance_directory().join("program");
    program.pin(&pin).unwrap();
    let stays = SchedClassifier::from_pin(&pin).unwrap();
    std::fs::remove_file(pin).unwrap();
    stays
}

fn compiled(wanted: &Wanted, previous: &Tables) -> Tables {
    let Compilation { tables, problems } =
        compile(&wanted.config, &wanted.host, previous, &options().capacity.limits);
    assert_eq!(problems, []);
    // What is read back does not say what rings hold, and the simulation looks into them.
    with_slots(&tables, &wanted.config, &wanted.host, &options().capacity.limits)
}

/// Nobody is served, on the addresses of both.
fn without_frontends(before: &Tables, target: &Tables) -> Tables {
    let addresses = before.addresses.iter().chain(&target.addresses).map(|(address, on)| (*address, *on));
    Tables { frontends: BTreeMap::new(), addresses: addresses.collect(), ..target.clone() }
}

/// How much stands in each of the tables; slots of backends that are gone are never given back.
fn sizes(tables: &Tables) -> [usize; 7] {
    let Tables { devices, hops, routes, backends, rings, frontends, addresses } = tables;
    let standing = backends.values().filter(|entry| entry.state != BackendState::Gone).count();
    [devices.len(), hops.len(), routes.len(), standing, rings.len(), frontends.len(), addresses.len()]
}

/// The network of the cases, with eight backends of each family.
fn wanted(asked: &[Asked]) -> Wanted {
    let device = |name: &str, mac| Device {
        name: name.to_owned(),
        mac: Mac(mac),
        mtu: 1500,
        xdp_target: true,
        xdp_sender: true,
        of_host: false,
    };
    let devices = [(CLIENT_SIDE, device("outside", OUR_MAC)), (BACKEND_SIDE, device("inside", INNER_MAC))];
    let mut wanted = Wanted {
        config: Config::default(),
        host: Host { name: "here".to_owned(), devices: devices.into(), ..Host::default() },
    };
    for net in nets() {
        wanted.host.addresses.insert(net.source);
        for number in 1..=8 {
            let address = backend(&net, number).address;
            let path =
                Path { device: BACKEND_SIDE, next_hop: address, source: net.source, mtu: 1500, local: false };
            Arc::make_mut(&mut wanted.host.paths).insert(address, path);
            wanted.host.neighbours.insert((BACKEND_SIDE, address), Mac([2, 0, 0, 1, 0, number]));
        }
        for (port, shares) in asked {
            wanted.config.addresses.insert(net.owned);
            wanted.host.on_link.insert(net.owned, CLIENT_SIDE);
            for protocol in PROTOCOLS {
                let shares = shares.iter().map(|(weight, numbers)| Share {
                    weight: *weight,
                    backends: numbers.iter().map(|number| backend(&net, *number)).collect(),
                });
                let frontend = Frontend {
                    listener: format!("default/gateway/{port}").into(),
                    route: Some(RouteName {
                        kind: "Route".into(),
                        namespace: "default".into(),
                        name: format!("{protocol:?}-{port}").into(),
                    }),
                    forwarding: Forwarding::Nat,
                    pool: Pool { shares: shares.collect(), draining: Box::default() },
                };
                let endpoint = Endpoint { address: net.owned, port: *port, protocol };
                wanted.config.frontends.insert(endpoint, Arc::new(frontend));
            }
        }
    }
    wanted
}

impl Wanted {
    /// TCP over IPv4 alone.
    fn of_one_kind(&self) -> Self {
        let mut wanted = self.clone();
        let Config { frontends, addresses } = &mut wanted.config;
        frontends.retain(|endpoint, _| endpoint.address.is_ipv4() && endpoint.protocol == Protocol::Tcp);
        addresses.retain(IpAddr::is_ipv4);
        wanted
    }

    /// A backend takes nothing new at a port.
    fn drain(&mut self, port: u16, number: u8) {
        for (endpoint, frontend) in &mut self.config.frontends {
            if endpoint.port == port {
                let net = nets().into_iter().find(|net| net.owned == endpoint.address).unwrap();
                Arc::make_mut(frontend).pool.draining = [backend(&net, number)].into();
            }
        }
    }
}

fn backend(net: &Net, number: u8) -> Backend {
    let address = match net.client {
        IpAddr::V4(_) => IpAddr::from([10, 0, 1, number]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, number.into()]),
    };
    Backend { address, port: 8080, node: None }
}
