//! ICMP: errors in both directions, TTL, path MTU, echo.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use blixt_lab::{Family, Lab, Machine, PacketSocket, Server, address, connect, tally};
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::balancing::udp_socket;
use crate::frames::{Oddity, WAIT, ask, datagram, ttl_of, udp_of};
use crate::manifests::{Endpoint, Manifests, Service, State, TARGET, owned};
use crate::world::{Hook, World, at, vip};

on_both_hooks!(
    a_closed_port_at_a_backend_refuses_the_clients_datagram,
    a_narrow_path_behind_the_balancer_is_discovered_by_the_client,
    a_narrow_path_before_the_balancer_is_discovered_by_the_backend,
    a_narrow_device_of_the_balancer_is_discovered_by_the_client,
    a_narrow_device_of_the_balancer_is_discovered_by_full_segments,
    the_last_hop_of_a_ttl_is_answered_with_time_exceeded,
    the_ttl_is_one_less_behind_the_balancer,
    an_echo_to_an_owned_address_is_answered,
);

fn a_closed_port_at_a_backend_refuses_the_clients_datagram(hook: Hook) {
    let mut world = World::usual(hook);
    world.servers.clear();
    // Linux sends some six such errors to one address, then one a second: chance must not decide who gets more.
    for backend in &world.lab.backends {
        backend.sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
        backend.sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
    }
    for family in Family::ALL {
        let tally = tally(&world.lab.client, blixt_lab::Protocol::Udp, vip(family), 30);
        assert_eq!(tally.refused(), 30, "{family:?}: {tally:?}");
    }
}

fn a_narrow_path_behind_the_balancer_is_discovered_by_the_client(hook: Hook) {
    let mut world = World::idle(hook, Manifests::usual());
    let far = Machine::new("far").unwrap();
    // balancer -- backend 1, which is only a router here -- far
    let router = &world.lab.backends[0];
    router.wire("far", &far, "eth0", NARROW).unwrap();
    route_through(router, "far", &far);
    let sockets = Family::ALL.map(|family| at(address(family, FAR, Lab::OTHER), TARGET));
    let _server = Server::start(&far, "far", &sockets).unwrap();
    for family in Family::ALL {
        let line = format!("route add {} via {}", net(family, FAR), address(family, 1, Lab::OTHER));
        world.lab.balancer.ip(&line).unwrap();
        // The far end believes in a wide path, so that the client must learn.
        let line = format!("route change default via {} advmss 1440", address(family, FAR, Lab::BALANCER));
        far.ip(&line).unwrap();
    }
    let endpoints =
        Family::ALL.map(|family| Endpoint { address: address(family, FAR, Lab::OTHER), state: State::Ready });
    world.change(|manifests| manifests.services[0].endpoints = endpoints.to_vec());
    world.start();
    for family in Family::ALL {
        assert_eq!(bulk(&world.lab.client, vip(family)), "far", "{family:?}");
        assert!(has_learned(&world, vip(family).ip(), NARROW), "{family:?}");
    }
}

fn a_narrow_path_before_the_balancer_is_discovered_by_the_backend(hook: Hook) {
    let world = World::usual(hook);
    let far = Machine::new("far").unwrap();
    // far -- client, which is only a router here -- balancer
    let router = &world.lab.client;
    router.wire("far", &far, "eth0", NARROW).unwrap();
    route_through(router, "far", &far);
    for family in Family::ALL {
        let line = format!("route add {} via {}", net(family, FAR), address(family, 0, Lab::OTHER));
        world.lab.balancer.ip(&line).unwrap();
        // The far end believes in a wide path, so that the backend must learn.
        let line = format!("route change default via {} advmss 1440", address(family, FAR, Lab::BALANCER));
        far.ip(&line).unwrap();
        let backend = bulk(&far, vip(family));
        assert!(backend.starts_with("backend-"), "{family:?}: {backend}");
    }
}

fn a_narrow_device_of_the_balancer_is_discovered_by_the_client(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.services = vec![Service::new("web", &[1])];
    let mut world = World::idle(hook, manifests);
    // Both ends of the wire, as on any link: a device takes no frame that is longer than its own MTU.
    world.lab.balancer.ip(&format!("link set {} mtu {NARROW}", Lab::device(1))).unwrap();
    world.lab.backends[0].ip(&format!("link set eth0 mtu {NARROW}")).unwrap();
    world.start();
    for family in Family::ALL {
        let socket = udp_socket(&world, family);
        socket.connect(vip(family)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // The first datagram is too long for the path, the kernel learns, and the next is fragmented or refused here.
        let long = [7; 1400];
        let mut answer = [0; 2000];
        let came = (0..3).any(|_| socket.send(&long).is_ok() && socket.recv(&mut answer).is_ok());
        assert!(came, "{family:?}: no long datagram got through");
        assert_eq!(bulk(&world.lab.client, vip(family)), "backend-1", "{family:?}");
    }
}

fn a_narrow_device_of_the_balancer_is_discovered_by_full_segments(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.services = vec![Service::new("web", &[1])];
    let mut world = World::idle(hook, manifests);
    world.lab.balancer.ip(&format!("link set {} mtu {NARROW}", Lab::device(1))).unwrap();
    world.lab.backends[0].ip(&format!("link set eth0 mtu {NARROW}")).unwrap();
    for family in Family::ALL {
        // The backend believes in a wide path, so that the client must learn.
        let line = format!("route add {} dev eth0 advmss 1440", address(family, 1, Lab::BALANCER));
        world.lab.backends[0].ip(&line).unwrap();
    }
    world.start();
    for family in Family::ALL {
        let mut connection = connect(&world.lab.client, vip(family)).unwrap();
        // So much at once leaves as large packets, each of them cut into full segments later.
        connection.stream.write_all(&[0x5a; 20_000]).unwrap();
        connection.stream.set_read_timeout(Some(WAIT)).unwrap();
        connection.stream.read_exact(&mut [0; 20_000]).expect("the connection stalled in full segments");
        assert!(has_learned(&world, vip(family).ip(), NARROW), "{family:?}");
    }
}

fn the_last_hop_of_a_ttl_is_answered_with_time_exceeded(hook: Hook) {
    let world = World::usual(hook);
    for family in Family::ALL {
        let socket = PacketSocket::open(&world.lab.client, "eth0").unwrap();
        let udp = udp_socket(&world, family);
        udp.connect(vip(family)).unwrap();
        set_ttl(&udp, family, 1);
        udp.send(b"near").unwrap();
        let answer = socket.receive_if(WAIT, is_time_exceeded).unwrap();
        let answer = answer.unwrap_or_else(|| panic!("{family:?}: no time exceeded"));
        // The program knows no address of the device: the one that was dialed answers.
        assert_eq!(source_of(&answer), Some(owned(family)), "{family:?}");
        set_ttl(&udp, family, 2);
        udp.set_read_timeout(Some(WAIT)).unwrap();
        // The error may be reported once before the answer.
        let _ = udp.take_error();
        udp.send(b"far").unwrap();
        let mut buffer = [0; 100];
        let length = udp.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"backend-"), "{family:?}");
    }
}

fn the_ttl_is_one_less_behind_the_balancer(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.services = vec![Service::new("web", &[1])];
    let world = World::with(hook, manifests);
    let backend = PacketSocket::open(&world.lab.backends[0], "eth0").unwrap();
    for family in Family::ALL {
        let (from, to) = (at(address(family, 0, Lab::OTHER), 4250), vip(family));
        let frame = datagram(&world, from, to, b"ttl", Oddity::None);
        let (answer, _) = ask(&world, &frame, from, to).expect("no answer");
        let request =
            backend.receive_if(WAIT, |frame| udp_of(frame).is_some_and(|udp| udp.2 == b"ttl")).unwrap();
        assert_eq!(ttl_of(&request.expect("no request")), Some(63), "{family:?}");
        assert_eq!(ttl_of(&answer), Some(63), "{family:?}");
    }
}

fn an_echo_to_an_owned_address_is_answered(hook: Hook) {
    let world = World::usual(hook);
    let socket = PacketSocket::open(&world.lab.client, "eth0").unwrap();
    let (source, destination) =
        (world.lab.client.mac("eth0").unwrap(), world.lab.balancer.mac("client").unwrap());
    let ethernet = || PacketBuilder::ethernet2(source, destination);
    for length in [0_usize, 1, 56, 1400] {
        let payload = vec![0xa5; length];
        let mut frame = Vec::new();
        match (address(Family::V4, 0, Lab::OTHER), owned(Family::V4)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let builder =
                    ethernet().ipv4(from.octets(), to.octets(), 64).icmpv4_echo_request(7, length as u16);
                builder.write(&mut frame, &payload).unwrap();
            }
            _ => unreachable!("both are IPv4"),
        }
        socket.send(&frame).unwrap();
        let answer = socket.receive_if(WAIT, |frame| is_echo_reply(frame, &payload)).unwrap();
        assert!(answer.is_some(), "no echo of {length} bytes over IPv4");
        let mut frame = Vec::new();
        match (address(Family::V6, 0, Lab::OTHER), owned(Family::V6)) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let builder =
                    ethernet().ipv6(from.octets(), to.octets(), 64).icmpv6_echo_request(7, length as u16);
                builder.write(&mut frame, &payload).unwrap();
            }
            _ => unreachable!("both are IPv6"),
        }
        socket.send(&frame).unwrap();
        let answer = socket.receive_if(WAIT, |frame| is_echo_reply(frame, &payload)).unwrap();
        assert!(answer.is_some(), "no echo of {length} bytes over IPv6");
    }
}

/// The smallest MTU that IPv6 allows, and some.
const NARROW: u32 = 1300;
/// The network behind a router.
const FAR: u8 = 9;

/// Makes a machine a router to a machine behind it.
fn route_through(router: &Machine, device: &str, far: &Machine) {
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    router.ip(&format!("link set {device} up")).unwrap();
    far.ip("link set eth0 up").unwrap();
    for family in Family::ALL {
        let prefix = if family == Family::V4 { 24 } else { 64 };
        let (near, other) = (address(family, FAR, Lab::BALANCER), address(family, FAR, Lab::OTHER));
        router.ip(&format!("addr add {near}/{prefix} dev {device} nodad")).unwrap();
        far.ip(&format!("addr add {other}/{prefix} dev eth0 nodad\nroute add default via {near}")).unwrap();
    }
}

fn net(family: Family, network: u8) -> String {
    match family {
        Family::V4 => format!("{}/24", address(family, network, 0)),
        Family::V6 => format!("{}/64", address(family, network, 0)),
    }
}

/// Echoes much data in full segments, both ways; says who answered.
fn bulk(machine: &Machine, to: SocketAddr) -> String {
    let mut connection = connect(machine, to).unwrap();
    connection.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sent = vec![0x5a; 200_000];
    let mut writer = connection.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent));
        let mut echo = vec![0; sent.len()];
        connection.stream.read_exact(&mut echo).expect("the connection stalled in full segments");
    });
    connection.answer.backend
}

/// The client has learned this MTU of its path to an address.
fn has_learned(world: &World, to: IpAddr, mtu: u32) -> bool {
    let mut command = Command::new("ip");
    command.args(["-oneline", "route", "get", &to.to_string()]);
    let output = world.lab.client.run(|| command.output()).unwrap();
    String::from_utf8_lossy(&output.stdout).contains(&format!(" mtu {mtu} "))
}

fn set_ttl(socket: &std::net::UdpSocket, family: Family, ttl: u32) {
    match family {
        Family::V4 => socket.set_ttl(ttl).unwrap(),
        Family::V6 => socket2::SockRef::from(socket).set_unicast_hops_v6(ttl).unwrap(),
    }
}

fn is_time_exceeded(frame: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
    match packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => matches!(icmp.icmp_type(), Icmpv4Type::TimeExceeded(_)),
        Some(TransportSlice::Icmpv6(icmp)) => matches!(icmp.icmp_type(), Icmpv6Type::TimeExceeded(_)),
        _ => false,
    }
}

fn is_echo_reply(frame: &[u8], payload: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
    match packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => {
            matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(_)) && icmp.payload() == payload
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            matches!(icmp.icmp_type(), Icmpv6Type::EchoReply(_)) && icmp.payload() == payload
        }
        _ => false,
    }
}

fn source_of(frame: &[u8]) -> Option<IpAddr> {
    match SlicedPacket::from_ethernet(frame).ok()?.net? {
        NetSlice::Ipv4(ip) => Some(ip.header().source_addr().into()),
        NetSlice::Ipv6(ip) => Some(ip.header().source_addr().into()),
        NetSlice::Arp(_) => None,
    }
}
