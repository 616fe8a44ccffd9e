//! ARP and neighbour discovery.

use std::net::{IpAddr, Ipv6Addr};

use blixt_core::tables::Way;

use super::case;
use crate::case::{Case, enters};
use crate::network::{BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, OUR_MAC, nets, tables};
use crate::packet::{arp, frame, icmp, icmp_number, ip};

pub(super) fn cases() -> Vec<Case> {
    let [v4, v6] = nets();
    let mut says =
        arp(CLIENT_MAC, OUR_MAC, 2, (OUR_MAC, octets_v4(v4.owned)), (CLIENT_MAC, octets_v4(v4.client)));
    says.resize(60, 0);
    let advertisement = {
        let payload = [&octets_v6(v6.owned)[..], &[2, 1], &OUR_MAC].concat();
        let body = icmp(v6.owned, v6.client, 136, 0, [0x60, 0, 0, 0], &payload);
        frame(CLIENT_MAC, OUR_MAC, &ip(v6.owned, v6.client, 58, 255, &body))
    };
    vec![
        case(
            "ARP for an address that only Blixt owns is answered on its link, any other left alone",
            tables(Way::Nat),
            vec![
                enters(CLIENT_SIDE, asks(v4.client, v4.owned)).answered(None, says),
                enters(BACKEND_SIDE, asks(v4.client, v4.owned)).passes(),
                enters(CLIENT_SIDE, asks(v4.client, v4.frontend)).passes(),
            ],
        ),
        case(
            "a solicitation for an address that only Blixt owns is answered on its link, any other left alone",
            tables(Way::Nat),
            vec![
                enters(CLIENT_SIDE, solicitation(v6.client, v6.owned)).answered(None, advertisement),
                enters(BACKEND_SIDE, solicitation(v6.client, v6.owned)).passes(),
                enters(CLIENT_SIDE, solicitation(v6.client, v6.frontend)).passes(),
            ],
        ),
        case(
            "a solicitation that is not valid is left alone (RFC 4861, section 7.1.1)",
            tables(Way::Nat),
            vec![
                enters(CLIENT_SIDE, solicits(v6.client, group(v6.owned), 1, v6.owned)).passes(),
                enters(CLIENT_SIDE, solicits(Ipv6Addr::LOCALHOST.into(), group(v6.owned), 0, v6.owned))
                    .passes(),
                enters(CLIENT_SIDE, solicits(ALL_NODES.into(), group(v6.owned), 0, v6.owned)).passes(),
                // Who asks for its own address asks its neighbours.
                enters(CLIENT_SIDE, solicits(Ipv6Addr::UNSPECIFIED.into(), v6.owned, 0, v6.owned)).passes(),
            ],
        ),
    ]
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An ARP request.
pub(super) fn asks(source: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut frame =
        arp([0xff; 6], CLIENT_MAC, 1, (CLIENT_MAC, octets_v4(source)), ([0; 6], octets_v4(target)));
    // Ethernet's shortest frame.
    frame.resize(60, 0);
    frame
}

/// A neighbour solicitation.
pub(super) fn solicitation(source: IpAddr, target: IpAddr) -> Vec<u8> {
    solicits(source, group(target), 0, target)
}

/// One with another destination, or another code.
fn solicits(source: IpAddr, destination: IpAddr, code: u8, target: IpAddr) -> Vec<u8> {
    let low = octets_v6(target);
    let payload = [&low[..], &[1, 1], &CLIENT_MAC].concat();
    let body = icmp(source, destination, 135, code, [0; 4], &payload);
    frame(
        [0x33, 0x33, 0xff, low[13], low[14], low[15]],
        CLIENT_MAC,
        &ip(source, destination, icmp_number(source), 255, &body),
    )
}

/// Where the neighbours of an address listen.
fn group(address: IpAddr) -> IpAddr {
    let low = octets_v6(address);
    let last = u16::from_be_bytes([low[14], low[15]]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(low[13]), last).into()
}

fn octets_v4(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    address.octets()
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    let IpAddr::V6(address) = address else { panic!("{address} is not of IPv6") };
    address.octets()
}
