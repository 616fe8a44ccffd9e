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
    ]
}

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
    let low = octets_v6(target);
    let last = u16::from_be_bytes([low[14], low[15]]);
    let group = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(low[13]), last));
    let payload = [&low[..], &[1, 1], &CLIENT_MAC].concat();
    let body = icmp(source, group, 135, 0, [0; 4], &payload);
    frame(
        [0x33, 0x33, 0xff, low[13], low[14], low[15]],
        CLIENT_MAC,
        &ip(source, group, icmp_number(source), 255, &body),
    )
}

fn octets_v4(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    address.octets()
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    let IpAddr::V6(address) = address else { panic!("{address} is not of IPv6") };
    address.octets()
}
