//! Clients that a backend would answer past the balancer: pods beside it, and the balancer itself.

use std::net::{IpAddr, UdpSocket};

use blixt_lab::{Answer, Family, Lab, Machine, Protocol, Server, address, connect, exchange_on};

use crate::balancing::{ask, echo_on, everything};
use crate::manifests::{Endpoint, Manifests, Service, State, TARGET};
use crate::world::{Hook, World, at, until, vip};

on_both_hooks!(a_pod_reaches_a_pod_beside_it_and_itself_with_the_nodes_address);

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
            let any: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0; 16].into() };
            let socket = machine.run(|| UdpSocket::bind(at(any, 0))).unwrap();
            exchange_on(&socket, vip(family), b"hello").unwrap()
        }
    }
}
