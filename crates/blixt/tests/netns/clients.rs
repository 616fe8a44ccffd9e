//! Clients that a backend would answer past the balancer: pods beside it, and the balancer itself.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use blixt_lab::{Answer, Failure, Family, Lab, Machine, Protocol, Server, address, connect, exchange_on};

use crate::balancing::{ask, echo_on, everything};
use crate::manifests::{Endpoint, Manifests, Service, State, TARGET};
use crate::world::{Hook, PATIENCE, World, at, until, vip};

on_both_hooks!(
    a_pod_reaches_a_pod_beside_it_and_itself_with_the_nodes_address,
    a_process_of_the_balancer_reaches_backends_elsewhere,
    a_process_of_the_balancer_reaches_a_pod_of_it,
    the_wire_outlives_the_process_and_not_its_removal,
);

/// The network of the pods, behind a bridge of the balancer.
const PODS: u8 = 9;
/// What slices call the balancer.
const NODE: &str = "here";

fn a_pod_reaches_a_pod_beside_it_and_itself_with_the_nodes_address(hook: Hook) {
    let (world, [client, backend], _server) = with_pods(hook);
    for (protocol, family) in everything() {
        for pod in [&client, &backend] {
            for _ in 0..5 {
                let answer = ask_from(pod, protocol, family);
                assert_eq!(answer.backend, "pod", "{protocol} {family:?} from {}", pod.name());
                let node = address(family, PODS, Lab::BALANCER);
                assert_eq!(answer.seen.ip(), node, "{protocol} {family:?} from {}", pod.name());
            }
        }
        // Whoever comes from elsewhere goes by the stack, and is seen as who he is.
        let answer = ask(&world, protocol, family);
        assert_eq!(answer.seen.ip(), address(family, 0, Lab::OTHER), "{protocol} {family:?}");
    }
    let status = String::from_utf8(world.blixt(&["status"]).stdout).unwrap();
    assert!(status.contains("local (nat from cni0"), "{status}");
    for family in Family::ALL {
        let mut connection = connect(&client, vip(family)).unwrap();
        echo_on(&mut connection, 1 << 20);
    }
}

fn a_process_of_the_balancer_reaches_backends_elsewhere(hook: Hook) {
    for forwarding in ["Nat", "Transparent"] {
        let world = World::with(hook, Manifests { forwarding, ..Manifests::usual() });
        let balancer = &world.lab.balancer;
        until_wired(&world);
        for (protocol, family) in everything() {
            for _ in 0..5 {
                let answer = ask_from(balancer, protocol, family);
                let network = answer.backend.strip_prefix("backend-").unwrap().parse().unwrap();
                let own = address(family, network, Lab::BALANCER);
                assert_eq!(answer.seen.ip(), own, "{forwarding} {protocol} {family:?}");
            }
        }
        for family in Family::ALL {
            echo_on(&mut connect(balancer, vip(family)).unwrap(), 1 << 20);
            // What no listener owns is refused to it as to anybody.
            let other = connect(balancer, at(vip(family).ip(), 81)).err();
            assert_eq!(other, Some(Failure::Refused), "{family:?}");
        }
        // A datagram socket that is not connected would get the backend's answer itself, had it the same port there.
        for family in Family::ALL {
            let socket = balancer.run(|| UdpSocket::bind(at(any(family), 0))).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"hello", vip(family)).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 100]).unwrap();
            assert_eq!(from, vip(family));
        }
    }
}

fn a_process_of_the_balancer_reaches_a_pod_of_it(hook: Hook) {
    let (world, _pods, _server) = with_pods(hook);
    let balancer = &world.lab.balancer;
    until_wired(&world);
    for (protocol, family) in everything() {
        for _ in 0..5 {
            let answer = ask_from(balancer, protocol, family);
            assert_eq!(answer.seen.ip(), address(family, PODS, Lab::BALANCER), "{protocol} {family:?}");
        }
    }
    for family in Family::ALL {
        echo_on(&mut connect(balancer, vip(family)).unwrap(), 1 << 20);
    }
    let status = String::from_utf8(world.blixt(&["status"]).stdout).unwrap();
    assert!(status.contains("local (nat from cni0, this machine)"), "{status}");
}

fn the_wire_outlives_the_process_and_not_its_removal(hook: Hook) {
    let mut world = World::usual(hook);
    until_wired(&world);
    let serves = |world: &World| {
        for (protocol, family) in everything() {
            ask_from(&world.lab.balancer, protocol, family);
        }
    };
    world.process().kill().unwrap();
    serves(&world);
    world.start();
    serves(&world);
    // An address that goes is not routed to it any more.
    world.change(|manifests| manifests.gateways[0].addresses.truncate(1));
    until("an address that is gone has no route", || !routes(&world).contains("fd00:99::1"));
    assert!(routes(&world).contains("10.99.0.1"), "{}", routes(&world));
    // Somebody takes it away, or down.
    for taken in ["link set blixt0 down", "link del blixt0"] {
        world.lab.balancer.ip(taken).unwrap();
        until("it is there again", || connect(&world.lab.balancer, vip(Family::V4)).is_ok());
    }
    world.process().signal(libc::SIGINT).unwrap();
    assert_eq!(world.wait_for_the_end(), Some(0));
    assert!(!devices(&world).contains("blixt"), "{}", devices(&world));
    // And by hand, after a hard end.
    world.start();
    until("it is there again", || connect(&world.lab.balancer, vip(Family::V4)).is_ok());
    assert!(devices(&world).contains("blixt0") && rules(&world).contains("9641"));
    world.process().kill().unwrap();
    assert!(world.blixt(&["cleanup"]).status.success());
    assert!(!devices(&world).contains("blixt"), "{}", devices(&world));
    assert!(!rules(&world).contains("9641"), "{}", rules(&world));
}

/// Waits until processes of the balancer are served.
fn until_wired(world: &World) {
    for family in Family::ALL {
        until("a process of the balancer is served", || connect(&world.lab.balancer, vip(family)).is_ok());
    }
}

fn routes(world: &World) -> String {
    let show = |family: &str| {
        let mut command = Command::new("ip");
        world
            .lab
            .balancer
            .output(command.args([family, "route", "show", "table", "all", "dev", "blixt0"]))
            .unwrap()
    };
    show("-4") + &show("-6")
}

fn rules(world: &World) -> String {
    let show =
        |family: &str| world.lab.balancer.output(Command::new("ip").args([family, "rule", "show"])).unwrap();
    show("-4") + &show("-6")
}

fn devices(world: &World) -> String {
    world.lab.balancer.output(Command::new("ip").arg("link")).unwrap()
}

/// A world whose only backend is a pod of the balancer; two pods, of which the second is that backend.
fn with_pods(hook: Hook) -> (World, [Machine; 2], Server) {
    let mut manifests = Manifests::usual();
    let endpoints = Family::ALL
        .map(|family| Endpoint { address: address(family, PODS, 3), state: State::Ready })
        .to_vec();
    manifests.services = vec![Service { name: "web".to_owned(), endpoints, node: Some(NODE) }];
    let mut world = World::idle(hook, manifests);
    let balancer = world.lab.balancer.clone();
    balancer.ip(&format!("link add cni0 type bridge\n{}", addresses("cni0", Lab::BALANCER))).unwrap();
    let pods = [2, 3].map(|host| {
        let pod = Machine::new(format!("pod-{host}")).unwrap();
        let device = format!("pod{host}");
        balancer.wire(&device, &pod, "eth0", 1500).unwrap();
        balancer.ip(&format!("link set {device} master cni0\nlink set {device} up")).unwrap();
        pod.ip(&addresses("eth0", host)).unwrap();
        for family in Family::ALL {
            let router = address(family, PODS, Lab::BALANCER);
            pod.ip(&format!("route add default via {router}")).unwrap();
        }
        if hook == Hook::Xdp {
            pod.wire_like("eth0").unwrap();
        }
        pod
    });
    let sockets = Family::ALL.map(|family| at(address(family, PODS, 3), TARGET));
    let server = Server::start(&pods[1], "pod", &sockets).unwrap();
    world.start_with(&["--node-name", NODE]);
    for family in Family::ALL {
        until("the pod serves", || world.dial(Protocol::Tcp, family, 1).answered() == 1);
    }
    (world, pods, server)
}

/// Lines of `ip` that start a device in the network of the pods.
fn addresses(device: &str, host: u8) -> String {
    let [v4, v6] = Family::ALL.map(|family| address(family, PODS, host));
    format!("addr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad\nlink set {device} up")
}

/// One new connection or datagram of a machine to the Gateway's address.
fn ask_from(machine: &Machine, protocol: Protocol, family: Family) -> Answer {
    match protocol {
        Protocol::Tcp => connect(machine, vip(family)).unwrap().answer,
        Protocol::Udp => {
            let socket = machine.run(|| UdpSocket::bind(at(any(family), 0))).unwrap();
            exchange_on(&socket, vip(family), b"hello").unwrap()
        }
    }
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => [0; 4].into(),
        Family::V6 => [0; 16].into(),
    }
}
