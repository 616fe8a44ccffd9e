//! What is not Blixt's passes untouched.

use blixt_core::config::Protocol;
use blixt_core::tables::Way;

use super::{CLIENT_PORT, case, of, of_each};
use crate::case::{Case, backend_sends, client_sends, enters, leaves};
use crate::network::{CLIENT_MAC, CLIENT_SIDE, OUR_MAC, tables};
use crate::packet::{ACK, IpPacket, ip};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each("packets between others pass untouched, in both directions and out", Way::Nat, |talk| {
            let net = &talk.net;
            let there = IpPacket::new(talk.protocol, (net.client, CLIENT_PORT), (net.router, 80));
            let back = IpPacket::new(talk.protocol, (net.router, 80), (net.client, CLIENT_PORT)).flags(ACK);
            vec![
                client_sends(&there.bytes()).passes(),
                backend_sends(&back.bytes()).passes(),
                leaves(&back.bytes()).passes(),
            ]
        }),
        of("what is wrong with a packet between others is no matter", Protocol::Udp, Way::Nat, |talk| {
            let net = &talk.net;
            let foreign = |protocol, bytes: &[u8]| ip(net.client, net.router, protocol, 64, bytes);
            let mut cut = foreign(6, &[0; 40]);
            cut.truncate(cut.len() - 30);
            let mut version = foreign(17, &[0; 40]);
            version[0] ^= 0x70;
            let wrong = [foreign(6, &[0; 8]), foreign(17, &[0xff; 8]), foreign(132, &[0; 32]), cut, version];
            let seen = |packet: &Vec<u8>| [client_sends(packet).passes(), leaves(packet).passes()];
            wrong.iter().flat_map(seen).collect()
        }),
        of_each("the host's own ports stay the host's on its own address", Way::Nat, |talk| {
            vec![client_sends(&talk.request_to(talk.net.frontend, 22).bytes()).passes()]
        }),
        of(
            "a port is a listener's in the listener's protocol only: others are the host's",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let net = &talk.net;
                let sctp = 132;
                vec![client_sends(&ip(net.client, net.frontend, sctp, 64, &[0; 32])).passes()]
            },
        ),
        of_each("what the machine itself sends leaves untouched", Way::Local, |talk| {
            vec![leaves(&talk.reply_to(talk.net.client, CLIENT_PORT).bytes()).passes()]
        }),
        vec![case("frames of other kinds pass untouched", tables(Way::Nat), {
            let kinds: [[u8; 2]; 4] = [[0x88, 0xcc], [0x88, 0x63], [0, 46], [0x86, 0xdc]];
            let frame = |kind: [u8; 2]| [&OUR_MAC[..], &CLIENT_MAC, &kind, &[0x45; 60]].concat();
            kinds.map(|kind| enters(CLIENT_SIDE, frame(kind)).passes()).into()
        })],
    ]
    .concat()
}
