//! Backends that come and go under a connection.

use blixt_core::config::Protocol;
use blixt_core::tables::{BackendState, Way};
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of, of_each};
use crate::case::{Case, Step, backend_sends, changes, client_sends, leaves, waits};
use crate::network::{BACKEND_PORT, SETTINGS, from_client, moves, reroutes, to_client};
use crate::packet::{ACK, IpPacket, RST, Segment, TCP, ip, tcp};

pub(super) fn cases() -> Vec<Case> {
    [
        of(
            "a segment to a backend that is gone gets a RST from the frontend",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let request = talk.request().flags(ACK);
                let mut steps = moved(talk, BackendState::Gone);
                steps.push(
                    client_sends(&request.bytes()).answered(Some(DropReason::BackendGone), reset(talk)),
                );
                steps
            },
        ),
        of("a SYN to a backend that is gone goes to the one in its place", Protocol::Tcp, Way::Nat, |talk| {
            let mut steps = moved(talk, BackendState::Gone);
            steps.push(elsewhere(talk));
            steps
        }),
        of("the datagrams of a backend that is gone move", Protocol::Udp, Way::Nat, |talk| {
            let mut steps = moved(talk, BackendState::Gone);
            steps.push(elsewhere(talk));
            steps
        }),
        of("a draining backend keeps its connection", Protocol::Tcp, Way::Nat, |talk| {
            let request = talk.request().flags(ACK);
            let mut steps = moved(talk, BackendState::Draining);
            steps.push(client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)));
            steps
        }),
        of("the datagrams of a draining backend move", Protocol::Udp, Way::Nat, |talk| {
            let mut steps = moved(talk, BackendState::Draining);
            steps.push(elsewhere(talk));
            steps
        }),
        of_each("a draining backend gets nothing new, and its replies still arrive", Way::Nat, |talk| {
            let other = IpPacket::new(talk.protocol, (talk.net.other_client, CLIENT_PORT), talk.frontend());
            let reply = talk.reply().flags(ACK);
            let mut steps = moved(talk, BackendState::Draining);
            steps.push(client_sends(&other.bytes()).reaches_backend(
                &other.routed((talk.net.source, CLIENT_PORT), (talk.net.other_backend, BACKEND_PORT)).bytes(),
            ));
            steps.push(backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)));
            steps
        }),
        [
            of(
                "datagrams after a long silence find the backend that a new flow finds",
                Protocol::Udp,
                Way::Nat,
                |talk| {
                    let (request, late) = (talk.request(), talk.reply());
                    let mut steps = moved(talk, BackendState::Serving);
                    steps.push(waits(SETTINGS.udp_idle - 1));
                    steps.push(client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)));
                    steps.push(waits(SETTINGS.udp_idle + 1));
                    steps.push(backend_sends(&late.bytes()).dropped(DropReason::NoFlow));
                    steps.push(elsewhere(talk));
                    steps
                },
            ),
            of(
                "a local backend's datagram after a long silence does not leave with the backend's address",
                Protocol::Udp,
                Way::Local,
                |talk| {
                    let (request, late) = (talk.request(), talk.reply_to(talk.net.client, CLIENT_PORT));
                    let local = request.translated(talk.client(), talk.backend()).bytes();
                    let back = to_client(&late.translated(talk.frontend(), talk.client()).bytes());
                    vec![
                        client_sends(&request.bytes()).delivered(from_client(&local)),
                        waits(SETTINGS.udp_idle - 1),
                        leaves(&late.bytes()).delivered(back),
                        waits(SETTINGS.udp_idle + 1),
                        leaves(&late.bytes()).dropped(DropReason::NoFlow),
                    ]
                },
            ),
        ]
        .concat(),
        of_each("a changed ring leaves a connection where it is", Way::Nat, |talk| {
            let request = talk.request().flags(ACK);
            let mut steps = moved(talk, BackendState::Serving);
            steps.push(client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)));
            steps
        }),
        of_each(
            "no connection begins while its backend has no way, and the first packet after does",
            Way::Nat,
            |talk| {
                let request = talk.request();
                vec![
                    changes(reroutes(Way::Nat, |_| None)),
                    client_sends(&request.bytes()).dropped(DropReason::NoWay),
                    changes(reroutes(Way::Nat, |net| Some(net.source))),
                    client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                ]
            },
        ),
        of("datagrams follow the source of full NAT", Protocol::Udp, Way::Nat, |talk| {
            let request = talk.request();
            let there = request.routed((talk.net.router, CLIENT_PORT), talk.backend()).bytes();
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                changes(reroutes(Way::Nat, |net| Some(net.router))),
                client_sends(&request.bytes()).reaches_backend(&there),
            ]
        }),
        of("datagrams follow a backend that moves onto this machine", Protocol::Udp, Way::Nat, |talk| {
            let request = talk.request();
            let there = request.translated(talk.client(), talk.backend()).bytes();
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                changes(reroutes(Way::Local, |net| Some(net.source))),
                client_sends(&request.bytes()).delivered(from_client(&there)),
            ]
        }),
    ]
    .concat()
}

/// A connection, after which the ring leads to the other backend and its own one becomes what `state` says.
fn moved(talk: &Talk, state: BackendState) -> Vec<Step> {
    let request = talk.request();
    vec![
        client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
        changes(moves(Way::Nat, state)),
    ]
}

fn elsewhere(talk: &Talk) -> Step {
    let request = talk.request();
    let there = request.routed((talk.net.source, CLIENT_PORT), (talk.net.other_backend, BACKEND_PORT));
    client_sends(&request.bytes()).reaches_backend(&there.bytes())
}

fn reset(talk: &Talk) -> Vec<u8> {
    let segment = Segment { ports: [80, CLIENT_PORT], sequence: 99, flags: RST, ..Segment::default() };
    let (from, to) = (talk.net.frontend, talk.net.client);
    to_client(&ip(from, to, TCP, 64, &tcp(from, to, segment, b"")))
}
