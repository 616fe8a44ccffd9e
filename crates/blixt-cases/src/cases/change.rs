//! Backends that come and go under a connection.

use blixt_core::config::Protocol;
use blixt_core::tables::{BackendState, Way};
use blixt_packet::abi::Link;
use blixt_packet::{DropReason, Verdict};

use super::{CLIENT_PORT, Talk, of, of_each};
use crate::case::{Case, Step, backend_sends, changes, client_sends, leaves, waits};
use crate::network::{
    BACKEND_PORT, CLIENT_SIDE, FRONTEND_PORT, SETTINGS, from_client, moves, reroutes, to_backend, to_client,
};
use crate::packet::{ACK, IpPacket, RST, SYN, Segment, TCP, ip, tcp};

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
        silent_clients(),
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

/// Who waits for the backend to speak first hears of its end by what the backend sends.
fn silent_clients() -> Vec<Case> {
    let name =
        "the first segment of a backend that is gone becomes a RST for its client, and the next gets one";
    let ways = [
        of(&format!("{name}, by full NAT"), Protocol::Tcp, Way::Nat, |talk| {
            let request =
                client_sends(&talk.request().bytes()).reaches_backend(&talk.natted(&talk.request()));
            told(talk, Way::Nat, request, talk.reply())
        }),
        of(&format!("{name}, transparently"), Protocol::Tcp, Way::Transparent, |talk| {
            let there = talk.request().routed(talk.client(), talk.backend());
            let request = client_sends(&talk.request().bytes()).reaches_backend(&there.bytes());
            told(talk, Way::Transparent, request, talk.reply_to(talk.net.client, CLIENT_PORT))
        }),
        of(&format!("{name}, from a pod of this machine"), Protocol::Tcp, Way::Local, |talk| {
            told(talk, Way::Local, locally(talk), talk.reply_to(talk.net.client, CLIENT_PORT))
        }),
        of(
            "the first segment that a process sends for a backend that is gone leaves as a RST for its client, the next does not leave",
            Protocol::Tcp,
            Way::Local,
            |talk| {
                let segment = talk.reply_to(talk.net.client, CLIENT_PORT).flags(ACK);
                vec![
                    locally(talk),
                    changes(moves(Way::Local, BackendState::Gone)),
                    leaves(&segment.bytes()).becomes(Verdict::Reset(None), Some(news(talk))),
                    leaves(&segment.bytes()).dropped(DropReason::BackendGone),
                ]
            },
        ),
        of("a RST of a backend that is gone is not answered", Protocol::Tcp, Way::Nat, |talk| {
            let reset = talk.reply().flags(RST);
            let mut steps = moved(talk, BackendState::Gone);
            steps.push(backend_sends(&reset.bytes()).dropped(DropReason::BackendGone));
            steps
        }),
        of("a datagram of a backend that is gone goes nowhere", Protocol::Udp, Way::Nat, |talk| {
            let mut steps = moved(talk, BackendState::Gone);
            steps.push(backend_sends(&talk.reply().bytes()).dropped(DropReason::BackendGone));
            steps
        }),
    ];
    ways.concat()
}

/// A connection whose backend goes and then sends segments.
fn told(talk: &Talk, way: Way, request: Step, reply: IpPacket) -> Vec<Step> {
    let (from, to) = (reply.destination(), talk.net.backend);
    let mut steps = vec![request, changes(moves(way, BackendState::Gone))];
    let link = Some(Link::new(CLIENT_SIDE, 0));
    // Without its options, of the IP header too, and without its payload.
    let segment = reply.clone().flags(SYN | ACK).options(&[1, 1, 1, 0]);
    let segment = if to.is_ipv4() { segment.between(&[1, 1, 1, 0]) } else { segment };
    steps.push(backend_sends(&segment.bytes()).becomes(Verdict::Reset(link), Some(news(talk))));
    let answer =
        Segment { ports: [CLIENT_PORT, BACKEND_PORT], sequence: 99, flags: RST, ..Segment::default() };
    let answer = to_backend(&ip(from, to, TCP, 64, &tcp(from, to, answer, b"")));
    steps.push(backend_sends(&segment.bytes()).answered(Some(DropReason::BackendGone), answer));
    // The client knows, and what it sends all the same is answered as ever.
    let late = talk.request().flags(ACK);
    steps.push(client_sends(&late.bytes()).answered(Some(DropReason::BackendGone), reset(talk)));
    steps
}

/// A connection to a backend on this machine.
fn locally(talk: &Talk) -> Step {
    let there = talk.request().translated(talk.client(), talk.backend());
    client_sends(&talk.request().bytes()).delivered(from_client(&there.bytes()))
}

/// What a client hears in the place of a segment with the number 7 that acknowledges 99.
fn news(talk: &Talk) -> Vec<u8> {
    let segment = Segment {
        ports: [FRONTEND_PORT, CLIENT_PORT],
        sequence: 7,
        acknowledgement: 99,
        flags: RST | ACK,
        ..Segment::default()
    };
    let (from, to) = (talk.net.frontend, talk.net.client);
    to_client(&ip(from, to, TCP, 64, &tcp(from, to, segment, b"")))
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
