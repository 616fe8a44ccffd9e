//! Frames that are not for this machine alone: an interface may see them all the same.

use blixt_core::tables::Way;

use super::neighbour::{asks, solicitation};
use super::{Talk, case, of_each};
use crate::case::{Case, Step, client_sends, enters};
use crate::network::{BACKEND_MAC, BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, nets, tables};
use crate::packet::{ACK, frame, icmp, icmp_number, ip};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each("a packet in a frame for another machine passes, its flow known or not", Way::Nat, |talk| {
            unforwarded(talk, ANOTHER)
        }),
        of_each("a packet in a frame for all machines passes, its flow known or not", Way::Nat, |talk| {
            unforwarded(talk, ALL)
        }),
        of_each(
            "a packet in a frame for a group of machines passes, its flow known or not",
            Way::Nat,
            |talk| unforwarded(talk, GROUP),
        ),
        vec![case(
            "what another machine or all of them are asked passes, but for a question about a neighbour",
            tables(Way::Nat),
            questions(),
        )],
    ]
    .concat()
}

/// Both directions of a connection in frames to `mac`, before it is known and after.
fn unforwarded(talk: &Talk, mac: [u8; 6]) -> Vec<Step> {
    let (request, reply) = (talk.request(), talk.reply().flags(ACK));
    let owned = talk.request_to(talk.net.owned, 9).bytes();
    let passing = [
        enters(CLIENT_SIDE, frame(mac, CLIENT_MAC, &request.bytes())),
        enters(CLIENT_SIDE, frame(mac, CLIENT_MAC, &owned)),
        enters(CLIENT_SIDE, frame(mac, CLIENT_MAC, &owned[..owned.len() - 1])),
        enters(BACKEND_SIDE, frame(mac, BACKEND_MAC, &reply.bytes())),
    ];
    let passing = passing.map(|given| given.passes());
    let known = client_sends(&request.bytes()).reaches_backend(&talk.natted(&request));
    [&passing[..], &[known], &passing].concat()
}

fn questions() -> Vec<Step> {
    let [v4, v6] = nets();
    let mut steps = Vec::new();
    for mac in [ANOTHER, ALL, GROUP] {
        for net in [v4, v6] {
            let kind = if net.client.is_ipv4() { 8 } else { 128 };
            let echo = icmp(net.client, net.owned, kind, 0, [0, 1, 0, 1], b"echo");
            let packet = ip(net.client, net.owned, icmp_number(net.client), 64, &echo);
            steps.push(enters(CLIENT_SIDE, frame(mac, CLIENT_MAC, &packet)).passes());
        }
    }
    for mut question in [asks(v4.client, v4.owned), solicitation(v6.client, v6.owned)] {
        question[..6].copy_from_slice(&ANOTHER);
        steps.push(enters(CLIENT_SIDE, question).passes());
    }
    steps
}

const ANOTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ALL: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
