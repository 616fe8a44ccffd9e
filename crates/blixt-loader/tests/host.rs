//! What netlink says, followed in network namespaces of their own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blixt_core::config::{Endpoint, Protocol};
use blixt_core::host::{Mac, Path};
use blixt_lab::{Machine, Offload, PacketSocket, XdpPass};
use blixt_loader::host::{
    Interest, LinkKind, Observation, Watcher, announce, announcements, listening_sockets, release_neighbours,
};
use globset::{Glob, GlobSet};

/// A busy machine must not turn a test red; what is measured here takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_path_has_its_device_next_hop_source_and_mtu() {
    let world = World::new();
    let watcher =
        world.watch(&["192.0.2.2", "198.51.100.9", "2001:db8:2::2", "203.0.113.1", "192.0.2.1"], &[]);
    let observation = watcher.now();
    let device = observation.links.values().find(|link| link.name == "eth0").unwrap();
    assert_eq!((&device.kind, device.mtu, device.up), (&LinkKind::Veth, 1400, true));
    let direct = Path {
        device: device.ifindex,
        next_hop: address("192.0.2.2"),
        source: address("192.0.2.1"),
        mtu: 1400,
        local: false,
    };
    let paths = &observation.host.paths;
    assert_eq!(paths[&address("192.0.2.2")], direct);
    let routed = Path { source: address("192.0.2.1"), mtu: 1300, ..direct.clone() };
    assert_eq!(paths[&address("198.51.100.9")], routed, "by a gateway, with the route's own mtu");
    assert_eq!(paths[&address("2001:db8:2::2")].source, address("2001:db8:2::1"));
    assert_eq!(paths.get(&address("203.0.113.1")), None, "no route");
    assert!(paths[&address("192.0.2.1")].local);
    assert!(observation.host.addresses.contains(&address("2001:db8:2::1")));
}

#[test]
fn neighbours_are_found_without_traffic_and_kept_by_the_kernel() {
    let world = World::new();
    let watcher = world.watch(&["192.0.2.2", "2001:db8:2::2"], &[]);
    let mac = Mac(world.far.mac("eth0").unwrap());
    for text in ["192.0.2.2", "2001:db8:2::2"] {
        let found =
            watcher.until("a neighbour is found", |observation| neighbour(observation, text).is_some());
        assert_eq!(neighbour(&found, text), Some(mac));
    }
    eventually("the neighbour is managed", || world.neighbours().contains("managed"));
}

#[test]
fn a_neighbour_that_moves_is_followed_and_one_that_is_silent_keeps_its_address_for_a_while() {
    let world = World::new();
    let watcher = world.watch(&["192.0.2.2"], &[]);
    let old = watcher.until("the neighbour is found", |seen| neighbour(seen, "192.0.2.2").is_some());
    let old = neighbour(&old, "192.0.2.2");
    world.near.ip("neigh replace 192.0.2.2 dev eth0 lladdr 02:00:00:00:00:99 nud reachable").unwrap();
    watcher.until("the new address is seen", |seen| {
        neighbour(seen, "192.0.2.2") == Some(Mac([2, 0, 0, 0, 0, 0x99]))
    });
    world.near.ip("neigh del 192.0.2.2 dev eth0").unwrap();
    let again = watcher.until("it is asked for again", |seen| neighbour(seen, "192.0.2.2") == old);
    assert!(neighbour(&again, "192.0.2.2").is_some());
    world.near.ip("neigh replace 192.0.2.2 dev eth0 nud failed").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(neighbour(&watcher.now(), "192.0.2.2"), old, "a guess is better than silence");
}

#[test]
fn neighbours_that_nobody_needs_are_released() {
    let world = World::new();
    let watcher = world.watch(&["192.0.2.2"], &[]);
    eventually("the neighbour is managed", || world.neighbours().contains("managed"));
    drop(watcher);
    assert!(world.neighbours().contains("managed"), "forwarding goes on without the process");
    let watcher = world.watch(&[], &[]);
    eventually("the next process releases it", || !world.neighbours().contains("managed"));
    watcher.follow(&["2001:db8:2::2"], &[]);
    eventually("another is managed", || world.neighbours().contains("managed"));
    drop(watcher);
    assert_eq!(world.near.run(release_neighbours).unwrap(), 1);
    assert!(!world.neighbours().contains("managed"));
    assert_eq!(world.near.run(release_neighbours).unwrap(), 0);
}

#[test]
fn the_kernels_table_of_neighbours_is_not_filled_by_backends() {
    let world = World::new();
    world.near.ip("addr add 10.200.0.1/16 dev eth0").unwrap();
    let backends: Vec<String> =
        (0..700).map(|number| format!("10.200.{}.{}", 1 + number / 250, 1 + number % 250)).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).chain(["2001:db8:2::2"]).collect();
    let watcher = world.watch(&backends, &[]);
    watcher.until("every path is found", |seen| seen.host.paths.len() == backends.len());
    let kept = || world.neighbours().lines().filter(|line| line.contains("managed")).count();
    // Half of the usual 1024, and the one of the other family.
    eventually("as many as there is room for are kept", || kept() >= 513);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(kept(), 513);
    // It is far from full for everybody else.
    assert_eq!(world.near.run(release_neighbours).unwrap(), 513);
}

#[test]
fn a_neighbour_that_somebody_fixed_is_left_as_it_is() {
    let world = World::new();
    world.near.ip("neigh add 192.0.2.2 dev eth0 lladdr 02:00:00:00:00:77 nud permanent").unwrap();
    let watcher = world.watch(&["192.0.2.2"], &[]);
    let seen = watcher.until("the neighbour is seen", |seen| neighbour(seen, "192.0.2.2").is_some());
    assert_eq!(neighbour(&seen, "192.0.2.2"), Some(Mac([2, 0, 0, 0, 0, 0x77])));
    assert!(world.neighbours().contains("PERMANENT"));
}

#[test]
fn routes_that_change_are_followed() {
    let world = World::new();
    let watcher = world.watch(&["198.51.100.9"], &[]);
    let next_hop =
        |seen: &Observation| seen.host.paths.get(&address("198.51.100.9")).map(|path| path.next_hop);
    assert_eq!(next_hop(&watcher.now()), Some(address("192.0.2.2")));
    world.near.ip("route replace 198.51.100.0/24 via 192.0.2.3").unwrap();
    watcher.until("the other gateway is seen", |seen| next_hop(seen) == Some(address("192.0.2.3")));
    world.near.ip("rule add to 198.51.100.9 prohibit").unwrap();
    watcher.until("a rule counts too", |seen| next_hop(seen).is_none());
    world.near.ip("rule del to 198.51.100.9 prohibit").unwrap();
    watcher.until("the rule is gone", |seen| next_hop(seen).is_some());
}

#[test]
fn devices_that_go_and_come_back_are_followed() {
    let world = World::new();
    let watcher = world.watch(&["192.0.2.2"], &[]);
    let seen = watcher.until("the neighbour is found", |seen| neighbour(seen, "192.0.2.2").is_some());
    let before = seen.host.paths[&address("192.0.2.2")].device;
    world.near.ip("link del eth0").unwrap();
    let seen = watcher.until("the device is gone", |seen| !seen.host.devices.contains_key(&before));
    assert!(seen.host.paths.is_empty());
    world.connect();
    let seen = watcher.until("everything is back", |seen| neighbour(seen, "192.0.2.2").is_some());
    assert_ne!(seen.host.paths[&address("192.0.2.2")].device, before);
    world.near.ip("link set eth0 down").unwrap();
    watcher.until("a device that is down leads nowhere", |seen| seen.host.paths.is_empty());
    world.near.ip("link set eth0 address 02:00:00:00:00:55").unwrap();
    watcher.until("its new address is seen", |seen| {
        seen.host.devices.values().any(|device| device.mac == Mac([2, 0, 0, 0, 0, 0x55]))
    });
}

#[test]
fn an_owned_address_belongs_to_the_link_of_its_subnet() {
    let world = World::new();
    let watcher = world.watch(&[], &["192.0.2.99", "2001:db8:2::99", "10.99.0.1", "192.0.2.1"]);
    let observation = watcher.now();
    let device = observation.links.values().find(|link| link.name == "eth0").unwrap().ifindex;
    let expected = [(address("192.0.2.99"), device), (address("2001:db8:2::99"), device)];
    assert_eq!(observation.host.on_link, expected.into());
    world.near.ip("addr add 192.0.2.99/24 dev eth0").unwrap();
    watcher.until("an address that the machine takes is its own", |seen| seen.host.on_link.len() == 1);
}

#[test]
fn an_owned_address_belongs_to_a_device_that_is_hooked_if_there_is_one() {
    let world = World::new();
    world.near.wire("eth1", &world.far, "eth1", 1500).unwrap();
    world.far.ip("link set eth1 up").unwrap();
    // A smaller subnet, but nobody there would get an answer.
    world
        .near
        .ip("addr add 192.0.2.65/26 dev eth1\naddr add 203.0.113.1/24 dev eth1\nlink set eth1 up")
        .unwrap();
    let seen = world.watch_on("eth0", &[], &["192.0.2.99", "203.0.113.99", "10.99.0.1"]).now();
    let index = |name: &str| seen.links.values().find(|link| link.name == name).unwrap().ifindex;
    assert_eq!(seen.host.on_link, [(address("192.0.2.99"), index("eth0"))].into());
    assert_eq!(seen.unanswered, [(address("203.0.113.99"), index("eth1"))].into());
    let seen = world.watch(&[], &["192.0.2.99", "203.0.113.99"]).now();
    let both = ["192.0.2.99", "203.0.113.99"].map(|text| (address(text), index("eth1")));
    assert_eq!((&seen.host.on_link, &seen.unanswered), (&both.into(), &[].into()));
}

#[test]
fn the_primary_address_is_that_of_the_default_route_or_the_first_global_one() {
    let world = World::new();
    world.near.wire("eth1", &world.far, "eth1", 1500).unwrap();
    world.far.ip("link set eth1 up").unwrap();
    world.near.ip("addr add 203.0.113.77/24 dev eth1\nlink set eth1 up").unwrap();
    let watcher = world.watch(&[], &[]);
    assert_eq!(watcher.now().primary, [address("192.0.2.1"), address("2001:db8:2::1")]);
    world.near.ip("route add default via 203.0.113.1").unwrap();
    watcher.until("the default route counts", |seen| seen.primary[0] == address("203.0.113.77"));
}

#[test]
fn what_xdp_can_send_by_a_veth_follows_its_other_end() {
    let world = World::new();
    let watcher = world.watch(&[], &[]);
    let flags = |seen: &Observation| {
        let device = seen.host.devices.values().find(|device| device.name == "eth0").unwrap();
        (device.xdp_target, device.xdp_sender)
    };
    assert_eq!(flags(&watcher.now()), (false, false));
    // GRO at the other end takes what is redirected, and leaves what is sent back where it is.
    world.far.offload("eth0", Offload::Receive, true).unwrap();
    watcher.until("GRO takes frames that are redirected", |seen| flags(seen) == (true, false));
    world.far.offload("eth0", Offload::Receive, false).unwrap();
    watcher.until("nothing takes frames", |seen| flags(seen) == (false, false));
    for _ in 0..3 {
        let pass = XdpPass::attach(&world.far, "eth0").unwrap();
        watcher.until("the program takes all frames", |seen| flags(seen) == (true, true));
        drop(pass);
        watcher.until("the program is gone", |seen| flags(seen) == (false, false));
    }
    // With GRO behind the program the device takes redirected frames all the time.
    world.near.wire_like("eth0").unwrap();
    let pass = XdpPass::attach(&world.far, "eth0").unwrap();
    world.far.offload("eth0", Offload::Receive, true).unwrap();
    watcher.until("the program takes all frames", |seen| flags(seen) == (true, true));
    drop(pass);
    watcher.until("GRO is left", |seen| flags(seen) == (true, false));
}

/// 4000 addresses, from 198.51.100.0 on.
fn thousands() -> Vec<String> {
    (0..4000).map(|number| format!("198.51.{}.{}", 100 + number / 250, number % 250)).collect()
}

#[test]
fn thousands_of_backends_and_a_storm_of_routes_are_followed() {
    let world = World::new();
    let many = thousands();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.near.ip("route add 198.51.0.0/16 via 192.0.2.2").unwrap();
    let watcher = world.watch(&many, &[]);
    assert_eq!(watcher.now().host.paths.len(), 4000);
    let storm: String = (0..20_000)
        .map(|number| format!("route add 10.{}.{}.0/24 via 192.0.2.2\n", number / 250, number % 250))
        .collect();
    world.near.ip(&storm).unwrap();
    world.near.ip("route replace 198.51.0.0/16 via 192.0.2.3").unwrap();
    world.near.ip("route del 198.51.100.0/24").unwrap();
    watcher.until("the last change is seen", |seen| {
        seen.host.paths.values().all(|path| path.next_hop == address("192.0.2.3"))
    });
}

#[test]
fn who_is_asked_for_while_all_paths_are_looked_up_is_found_and_nobody_is_lost() {
    /// A fifth of the time all paths are looked up: some changes come just then.
    const CHANGES: usize = 100;

    let world = World::new();
    let many = thousands();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.near.ip("route del 198.51.100.0/24\nroute add 198.51.0.0/16 via 192.0.2.2").unwrap();
    let watcher = world.watch(&many[CHANGES..], &[]);
    for number in 0..CHANGES {
        world.near.ip(&format!("route replace 198.51.0.0/16 via 192.0.2.{}", 3 + number % 2)).unwrap();
        let wanted = [&many[..=number], &many[2 * CHANGES + number..]].concat();
        watcher.follow(&wanted, &[]);
        let seen = watcher.now();
        let wanted: BTreeSet<IpAddr> = wanted.into_iter().map(address).collect();
        assert!(seen.host.paths.keys().eq(&wanted), "{} of {}", seen.host.paths.len(), wanted.len());
    }
    watcher.until("the last change is seen", |seen| {
        let is_last = |path: &Path| path.next_hop == address("192.0.2.4");
        seen.host.paths.len() == many.len() + 1 - 2 * CHANGES && seen.host.paths.values().all(is_last)
    });
}

#[test]
fn a_backend_behind_a_new_device_is_seen_together_with_that_device() {
    let world = World::new();
    let many = thousands();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.near.ip("route del 198.51.100.0/24\nroute add 198.51.0.0/16 via 192.0.2.2").unwrap();
    let watcher = world.watch(&many, &[]);
    for number in 1..6 {
        let backend = format!("203.0.113.{number}");
        let device = format!("new{number}");
        world
            .near
            .ip(&format!(
                "link add {device} type veth peer name {device}-peer\nlink set {device}-peer up\nlink set {device} up\nroute add {backend}/32 dev {device}"
            ))
            .unwrap();
        watcher.follow(&[&many[..], &[&backend]].concat(), &[]);
        let seen = watcher.now();
        let path = &seen.host.paths[&address(&backend)];
        let shown = seen.host.devices.get(&path.device).map(|shown| shown.name.as_str());
        assert_eq!(shown, Some(device.as_str()), "{path:?}");
        assert!(seen.links.contains_key(&path.device), "{path:?}");
    }
}

#[test]
fn an_address_that_is_taken_is_announced_three_times() {
    let world = World::new();
    let watcher = world.watch(&[], &["192.0.2.99", "2001:db8:2::99"]);
    let seen = watcher.now();
    let frames = PacketSocket::open(&world.far, "eth0").unwrap();
    let found = announcements(&seen.host.on_link, &seen.links);
    assert_eq!(found.len(), 2);
    world.near.run(|| runtime().block_on(announce(found.into_iter().collect()))).unwrap();
    let mut count = [0; 3];
    while let Some(frame) = frames.receive(Duration::from_millis(200)).unwrap() {
        let sender = [192, 0, 2, 99];
        if frame[12..14] == [8, 6] && frame[28..32] == sender && frame[38..42] == sender {
            count[usize::from(frame[21]) - 1] += 1;
        }
        // An unsolicited advertisement to all nodes, of our address, that overrides what is known.
        if frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 136 && frame[58] == 0x20 {
            count[2] += 1;
        }
    }
    assert_eq!(count, [3, 3, 3], "requests, replies, advertisements");
    let learned = world.far.output(std::process::Command::new("ip").args(["neigh"])).unwrap();
    assert!(!learned.contains("FAILED"), "{learned}");
}

#[test]
fn listening_sockets_are_known() {
    let world = World::new();
    world.near.run(|| {
        let tcp = TcpListener::bind("192.0.2.1:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let listening = listening_sockets().unwrap();
        let endpoint = |text: &str, port: u16, protocol| Endpoint { address: address(text), port, protocol };
        let (tcp, udp) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        for (expected, asked) in [
            (true, endpoint("192.0.2.1", tcp, Protocol::Tcp)),
            (false, endpoint("192.0.2.1", tcp, Protocol::Udp)),
            (false, endpoint("192.0.2.7", tcp, Protocol::Tcp)),
            (true, endpoint("2001:db8:2::1", udp, Protocol::Udp)),
            (true, endpoint("192.0.2.1", udp, Protocol::Udp)),
            (false, endpoint("192.0.2.1", udp, Protocol::Tcp)),
        ] {
            assert_eq!(listening.holds(&asked), expected, "{asked}");
        }
    });
}

/// Two machines on a wire: 192.0.2.1 and .2, 2001:db8:2::1 and ::2; a route by a gateway to 198.51.100.0/24.
struct World {
    near: Machine,
    far: Machine,
}

impl World {
    fn new() -> Self {
        let world = Self { near: Machine::new("near").unwrap(), far: Machine::new("far").unwrap() };
        world.connect();
        world
    }

    fn connect(&self) {
        self.near.wire("eth0", &self.far, "eth0", 1400).unwrap();
        let up = |number: u8| {
            format!(
                "addr add 192.0.2.{number}/24 dev eth0\naddr add 2001:db8:2::{number}/64 dev eth0 nodad\n\
                 link set eth0 up\n"
            )
        };
        self.far.ip(&up(2)).unwrap();
        self.near.ip(&(up(1) + "route add 198.51.100.0/24 via 192.0.2.2 mtu 1300\n")).unwrap();
    }

    fn watch(&self, backends: &[&str], addresses: &[&str]) -> Watch {
        self.watch_on("*", backends, addresses)
    }

    /// Where only devices of this name are hooked.
    fn watch_on(&self, interfaces: &str, backends: &[&str], addresses: &[&str]) -> Watch {
        let interfaces = GlobSet::new([Glob::new(interfaces).unwrap()]).unwrap();
        let watcher = self.near.run(|| Watcher::start("near", &interfaces)).unwrap();
        let watch = Watch { watcher, backends: RefCell::default() };
        watch.follow(backends, addresses);
        watch
    }

    fn neighbours(&self) -> String {
        self.near.output(std::process::Command::new("ip").args(["neigh", "show", "dev", "eth0"])).unwrap()
    }
}

struct Watch {
    watcher: Watcher,
    backends: RefCell<BTreeSet<IpAddr>>,
}

impl Watch {
    fn follow(&self, backends: &[&str], addresses: &[&str]) {
        let set = |texts: &[&str]| texts.iter().copied().map(address).collect::<BTreeSet<_>>();
        let wanted = set(backends);
        let last = self.backends.replace(wanted.clone());
        let fewer = last.iter().map(|address| (*address, -1));
        let mut backends: BTreeMap<IpAddr, i32> = fewer.collect();
        wanted.into_iter().for_each(|address| *backends.entry(address).or_default() += 1);
        let interest = Interest { backends, addresses: set(addresses) };
        let observe = self.watcher.observe(interest);
        runtime().block_on(async { tokio::time::timeout(PATIENCE, observe).await }).unwrap().unwrap();
    }

    fn now(&self) -> Arc<Observation> {
        self.watcher.observations().borrow().clone()
    }

    fn until(&self, what: &str, holds: impl Fn(&Observation) -> bool) -> Arc<Observation> {
        let mut observations = self.watcher.observations();
        runtime().block_on(async {
            let found = tokio::time::timeout(PATIENCE, observations.wait_for(|seen| holds(seen))).await;
            match found {
                Ok(seen) => seen.unwrap().clone(),
                Err(_) => panic!("not in time: {what}"),
            }
        })
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn neighbour(observation: &Observation, text: &str) -> Option<Mac> {
    let path = observation.host.paths.get(&address(text))?;
    observation.host.neighbours.get(&(path.device, path.next_hop)).copied()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
