//! ARP and neighbour discovery.

use std::net::{IpAddr, Ipv6Addr};

use blixt_cases::network::{Net, nets};
use blixt_cases::packet::{arp, frame, icmp, ip};
use blixt_packet::abi::WAY_NAT;
use blixt_packet::{DropReason, Verdict};

use crate::world::{BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, OUR_MAC, World};

const ALL: [u8; 6] = [0xff; 6];
const NOBODY: [u8; 6] = [0; 6];
const ICMP: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

fn v4(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    address.octets()
}

fn v6(address: IpAddr) -> [u8; 16] {
    let IpAddr::V6(address) = address else { panic!("{address} is not of IPv6") };
    address.octets()
}

fn request(net: &Net, sender: [u8; 4], target: IpAddr) -> Vec<u8> {
    let mut request = arp(ALL, CLIENT_MAC, 1, (CLIENT_MAC, sender), (NOBODY, v4(target)));
    // Ethernet's shortest frame.
    request.resize(60, 0);
    assert!(net.client.is_ipv4());
    request
}

#[test]
fn arp_for_an_owned_address_is_answered_on_its_link() {
    let [net, _] = nets();
    for sender in [v4(net.client), [0; 4]] {
        let (verdict, answer) = World::new(WAY_NAT).forward(CLIENT_SIDE, request(&net, sender, net.owned));
        assert_eq!(verdict, Verdict::Answer(None));
        let mut expected = arp(CLIENT_MAC, OUR_MAC, 2, (OUR_MAC, v4(net.owned)), (CLIENT_MAC, sender));
        expected.resize(60, 0);
        assert_eq!(answer, expected);
    }
}

#[test]
fn arp_for_anything_else_is_left_alone() {
    let [net, _] = nets();
    let tagged = {
        let mut frame = request(&net, v4(net.client), net.owned);
        frame.splice(12..12, [0x81, 0, 0, 42]);
        frame
    };
    let mut reply = request(&net, v4(net.client), net.owned);
    reply[21] = 2;
    for (ifindex, frame) in [
        (CLIENT_SIDE, request(&net, v4(net.client), net.source)),
        (BACKEND_SIDE, request(&net, v4(net.client), net.owned)),
        (CLIENT_SIDE, request(&net, v4(net.owned), net.owned)),
        (CLIENT_SIDE, tagged),
        (CLIENT_SIDE, reply),
        (CLIENT_SIDE, request(&net, v4(net.client), net.owned)[..40].to_vec()),
    ] {
        assert_eq!(World::new(WAY_NAT).forward(ifindex, frame.clone()), (Verdict::Pass, frame));
    }
}

fn solicitation(source: IpAddr, target: IpAddr, hops: u8, options: &[u8]) -> Vec<u8> {
    let low = v6(target);
    let group: IpAddr =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | low[13] as u16, u16::from_be_bytes([low[14], low[15]]))
            .into();
    let payload = [&low[..], options].concat();
    let body = icmp(source, group, SOLICITATION, 0, [0; 4], &payload);
    frame([0x33, 0x33, 0xff, low[13], low[14], low[15]], CLIENT_MAC, &ip(source, group, ICMP, hops, &body))
}

fn advertisement(mac: [u8; 6], net: &Net, to: IpAddr, flags: u8) -> Vec<u8> {
    let payload = [&v6(net.owned)[..], &[2, 1], &OUR_MAC].concat();
    let body = icmp(net.owned, to, ADVERTISEMENT, 0, [flags, 0, 0, 0], &payload);
    frame(mac, OUR_MAC, &ip(net.owned, to, ICMP, 255, &body))
}

#[test]
fn a_solicitation_for_an_owned_address_is_answered_on_its_link() {
    let [_, net] = nets();
    let with_mac = [&[1, 1][..], &CLIENT_MAC].concat();
    let with_more = [&with_mac[..], &[14, 1, 1, 2, 3, 4, 5, 6]].concat();
    for options in [&with_mac[..], &with_more, &[]] {
        let input = solicitation(net.client, net.owned, 255, options);
        let (verdict, answer) = World::new(WAY_NAT).forward(CLIENT_SIDE, input);
        assert_eq!(verdict, Verdict::Answer(None));
        assert_eq!(answer, advertisement(CLIENT_MAC, &net, net.client, 0x60));
    }
}

#[test]
fn who_wants_the_owned_address_for_himself_hears_that_it_is_taken() {
    let [_, net] = nets();
    let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let all = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let (verdict, answer) =
        World::new(WAY_NAT).forward(CLIENT_SIDE, solicitation(nobody, net.owned, 255, &[]));
    assert_eq!(verdict, Verdict::Answer(None));
    assert_eq!(answer, advertisement([0x33, 0x33, 0, 0, 0, 1], &net, all, 0x20));
}

#[test]
fn a_solicitation_for_anything_else_or_from_afar_is_left_alone() {
    let [_, net] = nets();
    let mut short = solicitation(net.client, net.owned, 255, &[]);
    short[19] = 20;
    for (ifindex, frame) in [
        (CLIENT_SIDE, solicitation(net.client, net.source, 255, &[])),
        (BACKEND_SIDE, solicitation(net.client, net.owned, 255, &[])),
        (CLIENT_SIDE, solicitation(net.client, net.owned, 254, &[])),
        (CLIENT_SIDE, short),
    ] {
        assert_eq!(World::new(WAY_NAT).forward(ifindex, frame.clone()), (Verdict::Pass, frame));
    }
}

#[test]
fn a_solicitation_with_a_wrong_sum_is_dropped() {
    let [_, net] = nets();
    let mut frame = solicitation(net.client, net.owned, 255, &[]);
    frame[57] ^= 1;
    assert_eq!(World::new(WAY_NAT).forward(CLIENT_SIDE, frame).0, Verdict::Drop(DropReason::BadChecksum));
}
