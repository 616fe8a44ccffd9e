//! Neighbours, devices and routes that come, go and change; addresses on the link.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use blixt_lab::{Busy, Family, Lab, Machine, PacketSocket, Protocol, XdpPass, address, tally};

use crate::changes::{assert_unharmed, is_of};
use crate::elsewhere::Elsewhere;
use crate::frames::WAIT;
use crate::manifests::{Manifests, PORT, Service};
use crate::world::{Hook, World, at, until, vip};

on_both_hooks!(
    an_owned_address_on_the_link_is_answered_for_and_announced,
    who_looks_for_an_owned_ipv6_address_is_heard_as_long_as_it_is_owned,
    an_owned_address_is_announced_anew_when_its_device_changes,
    a_backend_that_changes_its_mac_address_is_found_again,
    a_device_that_is_removed_and_made_anew_is_used_again,
    a_device_that_vanishes_and_comes_back_disturbs_no_other,
    an_interface_that_goes_down_and_up_is_used_again,
    a_route_that_changes_is_followed,
    a_device_that_appears_later_is_used_too,
    a_client_that_changes_its_mac_address_gets_its_answers,
);

/// Longer than announcements are repeated.
const ANNOUNCED: Duration = Duration::from_millis(2500);

/// A host number in the client's network that nobody has.
const FREE: u8 = 100;

fn an_owned_address_on_the_link_is_answered_for_and_announced(hook: Hook) {
    let mut manifests = Manifests::usual();
    let free = Family::ALL.map(|family| address(family, 0, FREE));
    manifests.gateways[0].addresses = free.to_vec();
    let mut world = World::idle(hook, manifests);
    let socket = PacketSocket::open(&world.lab.client, "eth0").unwrap();
    world.start();
    for address in free {
        let announced = socket.receive_if(WAIT, |frame| announces(frame, address)).unwrap();
        assert!(announced.is_some(), "{address} was not announced");
    }
    for address in free {
        for protocol in Protocol::ALL {
            let tally = tally(&world.lab.client, protocol, at(address, PORT), 20);
            assert_eq!(tally.answered(), 20, "{protocol} {address}: {tally:?}");
        }
    }
    // And it goes with its Gateway: whoever takes it next is not disturbed.
    world.change(|manifests| manifests.gateways.clear());
    world.lab.client.ip("neigh flush dev eth0").unwrap();
    until("nobody answers for the address any more", || {
        let _ = world.lab.client.ip("neigh flush dev eth0");
        tally(&world.lab.client, Protocol::Udp, at(free[0], PORT), 1).answered() == 0
    });
}

fn who_looks_for_an_owned_ipv6_address_is_heard_as_long_as_it_is_owned(hook: Hook) {
    let mut manifests = Manifests::usual();
    manifests.gateways[0].addresses = vec![address(Family::V6, 0, FREE)];
    let mut world = World::with(hook, manifests.clone());
    let is_joined = |world: &World| {
        let mut command = std::process::Command::new("ip");
        let shown =
            world.lab.balancer.output(command.args(["maddr", "show", "dev", &Lab::device(0)])).unwrap();
        // The last three bytes of the address.
        shown.contains(&format!("33:33:ff:00:00:{FREE:02x}"))
    };
    until("the device has joined the group", || is_joined(&world));
    world.process().kill().unwrap();
    assert!(is_joined(&world), "forwarding goes on without the process, and so does this");
    world.start();
    assert!(is_joined(&world));
    world.change(|manifests| manifests.gateways.clear());
    until("the group is left with the address", || !is_joined(&world));
    world.change(|now| *now = manifests);
    until("it is joined again", || is_joined(&world));
    world.process().kill().unwrap();
    assert!(world.blixt(&["cleanup"]).status.success());
    assert!(!is_joined(&world), "left behind");
}

fn an_owned_address_is_announced_anew_when_its_device_changes(hook: Hook) {
    let mut manifests = Manifests::usual();
    let free = Family::ALL.map(|family| address(family, 0, FREE));
    manifests.gateways[0].addresses = free.to_vec();
    let mut world = World::with(hook, manifests);
    let balancer = world.lab.balancer.clone();
    let device = Lab::device(0);
    let ipv6 = format!("addr replace {}/64 dev {device} nodad", address(Family::V6, 0, Lab::BALANCER));
    // What is announced from here on, with the MAC address that it has then.
    let assert_announced = |world: &World, why: &str, event: &dyn Fn()| {
        thread::sleep(ANNOUNCED);
        event();
        // A socket of a device that was down is of no use; what it missed is repeated.
        let socket = PacketSocket::open(&world.lab.client, "eth0").unwrap();
        let mac = balancer.mac(&device).unwrap();
        for address in free {
            let announced = socket
                .receive_if(WAIT, |frame| announces(frame, address) && frame.get(6..12) == Some(&mac))
                .unwrap();
            assert!(announced.is_some(), "{address} was not announced: {why}");
            assert_eq!(tally(&world.lab.client, Protocol::Tcp, at(address, PORT), 5).answered(), 5, "{why}");
        }
    };
    assert_announced(&world, "another MAC address", &|| {
        balancer.ip(&format!("link set {device} address 02:00:00:00:ba:01")).unwrap();
    });
    assert_announced(&world, "the link was lost", &|| {
        world.lab.client.ip("link set eth0 down").unwrap();
        let ipv6 = format!("addr replace {}/64 dev eth0 nodad", address(Family::V6, 0, Lab::OTHER));
        world.lab.client.ip(&format!("link set eth0 up\n{ipv6}")).unwrap();
    });
    assert_announced(&world, "the device was down", &|| {
        balancer.ip(&format!("link set {device} down\nlink set {device} up\n{ipv6}")).unwrap();
    });
    // Nobody could see what changed while it was away.
    world.process().kill().unwrap();
    balancer.ip(&format!("link set {device} address 02:00:00:00:ba:02")).unwrap();
    let socket = PacketSocket::open(&world.lab.client, "eth0").unwrap();
    world.start();
    for address in free {
        let announced = socket.receive_if(WAIT, |frame| announces(frame, address)).unwrap();
        assert!(announced.is_some(), "{address} was not announced by the next process");
    }
}

fn a_backend_that_changes_its_mac_address_is_found_again(hook: Hook) {
    let world = World::with(hook, only_one());
    let busy = Busy::start(&world.lab.client, vip(Family::V4), 5, PAUSE).unwrap();
    let backend = &world.lab.backends[0];
    // The kernel tells the neighbours by gratuitous ARP and NDP, as it does on a take-over.
    backend.sysctl("net/ipv4/conf/eth0/arp_notify", "1").unwrap();
    backend.sysctl("net/ipv6/conf/eth0/ndisc_notify", "1").unwrap();
    backend.ip("link set eth0 address 02:00:00:00:be:01").unwrap();
    for family in Family::ALL {
        until("the backend answers at its new address", || {
            world.dial(Protocol::Udp, family, 1).answered() == 1
        });
    }
    let before = busy.now();
    until("connections go on", || {
        busy.now().iter().zip(&before).all(|(now, before)| now.messages > before.messages + 2)
    });
    assert_unharmed(&busy.finish());
}

fn a_client_that_changes_its_mac_address_gets_its_answers(hook: Hook) {
    let world = World::usual(hook);
    let busy = Busy::start(&world.lab.client, vip(Family::V6), 5, PAUSE).unwrap();
    world.lab.client.ip("link set eth0 address 02:00:00:00:c1:02").unwrap();
    let before = busy.now();
    until("connections go on", || {
        busy.now().iter().zip(&before).all(|(now, before)| now.messages > before.messages + 2)
    });
    assert_unharmed(&busy.finish());
}

fn a_device_that_is_removed_and_made_anew_is_used_again(hook: Hook) {
    let mut world = World::with(hook, only_one());
    for network in [1, 0] {
        world.lab.disconnect(network).unwrap();
        world.lab.connect(network).unwrap();
        for family in Family::ALL {
            until("new connections get through", || world.dial(Protocol::Udp, family, 1).answered() == 1);
            let tally = world.dial(Protocol::Tcp, family, 10);
            assert_eq!(tally.answered(), 10, "{family:?}: {tally:?}");
        }
    }
}

fn a_device_that_vanishes_and_comes_back_disturbs_no_other(hook: Hook) {
    let mut world = World::usual(hook);
    let busy = Family::ALL.map(|family| Busy::start(&world.lab.client, vip(family), 30, PAUSE).unwrap());
    let is_reached =
        |world: &World, family| tally(&world.lab.client, Protocol::Udp, vip(family), 10).of("backend-1") > 0;
    for _ in 0..3 {
        world.lab.disconnect(1).unwrap();
        for family in Family::ALL {
            until("nobody reaches the backend behind it", || !is_reached(&world, family));
        }
        world.lab.connect(1).unwrap();
        for family in Family::ALL {
            until("the backend behind it is reached again", || is_reached(&world, family));
        }
    }
    for busy in busy {
        let (behind_it, others): (Vec<_>, Vec<_>) =
            busy.finish().into_iter().partition(|one| is_of(one, "backend-1"));
        assert!(!behind_it.is_empty(), "backend-1 had no connection");
        assert_unharmed(&others);
    }
}

fn a_device_that_appears_later_is_used_too(hook: Hook) {
    let world = World::usual(hook);
    let late = Machine::new("late").unwrap();
    let balancer = &world.lab.balancer;
    balancer.wire("late", &late, "eth0", 1500).unwrap();
    balancer.ip("link set late up").unwrap();
    late.ip("link set eth0 up").unwrap();
    for family in Family::ALL {
        let prefix = if family == Family::V4 { 24 } else { 64 };
        let [near, far] = [Lab::BALANCER, Lab::OTHER].map(|host| address(family, 60, host));
        balancer.ip(&format!("addr add {near}/{prefix} dev late nodad")).unwrap();
        late.ip(&format!("addr add {far}/{prefix} dev eth0 nodad\nroute add default via {near}")).unwrap();
    }
    if hook == Hook::Xdp {
        late.wire_like("eth0").unwrap();
    }
    // What XDP redirects to a veth arrives only where the peer has a program too.
    let _pass = (hook == Hook::Xdp).then(|| XdpPass::attach(&late, "eth0").unwrap());
    for family in Family::ALL {
        until("the late client is served", || tally(&late, Protocol::Udp, vip(family), 1).answered() == 1);
        let tally = tally(&late, Protocol::Tcp, vip(family), 20);
        assert_eq!(tally.answered(), 20, "{family:?}: {tally:?}");
    }
}

fn an_interface_that_goes_down_and_up_is_used_again(hook: Hook) {
    let world = World::with(hook, only_one());
    let busy = Busy::start(&world.lab.client, vip(Family::V4), 5, PAUSE).unwrap();
    for network in [0, 1] {
        let device = Lab::device(network);
        world.lab.balancer.ip(&format!("link set {device} down")).unwrap();
        // IPv6 addresses go when a device goes down, and stay away; IPv4 ones stay.
        let line =
            format!("addr replace {}/64 dev {device} nodad", address(Family::V6, network, Lab::BALANCER));
        world.lab.balancer.ip(&format!("link set {device} up\n{line}")).unwrap();
        for family in Family::ALL {
            until("new connections get through", || world.dial(Protocol::Udp, family, 1).answered() == 1);
            let tally = world.dial(Protocol::Tcp, family, 10);
            assert_eq!(tally.answered(), 10, "{family:?}: {tally:?}");
        }
    }
    assert_unharmed(&busy.finish());
}

fn a_route_that_changes_is_followed(hook: Hook) {
    let mut world = World::idle(hook, only_one());
    let elsewhere = Elsewhere::new(&world);
    world.change(|manifests| manifests.services[0].endpoints = elsewhere.endpoints().to_vec());
    world.start();
    for family in Family::ALL {
        assert_eq!(world.dial(Protocol::Tcp, family, 5).of("first"), 5);
    }
    elsewhere.moves(&world);
    for family in Family::ALL {
        until("new connections take the new route", || {
            world.dial(Protocol::Tcp, family, 1).of("second") == 1
        });
        assert_eq!(world.dial(Protocol::Udp, family, 5).of("second"), 5);
    }
}

const PAUSE: Duration = Duration::from_millis(20);

/// The usual manifests with backend 1 alone.
fn only_one() -> Manifests {
    let mut manifests = Manifests::usual();
    manifests.services = vec![Service::new("web", &[1])];
    manifests
}

/// Whether a frame is an unsolicited ARP or neighbour advertisement of an address, to all.
fn announces(frame: &[u8], address: IpAddr) -> bool {
    match address {
        // To all, ARP, sender address at 28.
        IpAddr::V4(address) => {
            frame.starts_with(&[0xff; 6])
                && frame.get(12..14) == Some(&[0x08, 0x06])
                && frame.get(28..32) == Some(&address.octets())
        }
        // To all nodes, IPv6, ICMPv6 neighbour advertisement (136), target address at 62.
        IpAddr::V6(address) => {
            frame.starts_with(&[0x33, 0x33])
                && frame.get(12..14) == Some(&[0x86, 0xdd])
                && frame.get(20) == Some(&58)
                && frame.get(54) == Some(&136)
                && frame.get(62..78) == Some(&address.octets())
        }
    }
}
