//! ICMP: errors in both directions, and echo.

use std::net::IpAddr;

use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of, of_each};
use crate::case::{Case, Step, backend_sends, client_sends, enters, leaves};
use crate::network::{CLIENT_SIDE, Net, from_client, to_client};
use crate::packet::{IpPacket, icmp, icmp_number, ip};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each(
            "an error from the way to the backend reaches the client in its own terms",
            Way::Nat,
            |talk| {
                errors(talk, |kind, length| {
                    let (seen, sent) = (inner(talk), talk.request());
                    backend_sends(&error(talk.net.router, talk.net.source, 64, kind, &seen, length))
                        .reaches_client(&error(talk.net.router, talk.net.client, 63, kind, &sent, length))
                })
            },
        ),
        of_each("an error of the backend itself comes from the frontend", Way::Nat, |talk| {
            errors(talk, |kind, length| {
                let (seen, sent) = (inner(talk), talk.request());
                backend_sends(&error(talk.net.backend, talk.net.source, 64, kind, &seen, length))
                    .reaches_client(&error(talk.net.frontend, talk.net.client, 63, kind, &sent, length))
            })
        }),
        of_each("an error of the client reaches the backend in its own terms", Way::Nat, |talk| {
            errors(talk, |kind, length| {
                let sent = talk.reply();
                let seen = sent.translated(talk.frontend(), talk.client());
                client_sends(&error(talk.net.client, talk.net.frontend, 64, kind, &seen, length))
                    .reaches_backend(&error(talk.net.source, talk.net.backend, 63, kind, &sent, length))
            })
        }),
        of_each(
            "an error from the way to the client reaches the backend from the router",
            Way::Transparent,
            |talk| {
                let request = talk.request();
                let sent = talk.reply_to(talk.net.client, CLIENT_PORT);
                let seen = sent.translated(talk.frontend(), talk.client());
                let kind = kinds(&talk.net)[0];
                vec![
                    client_sends(&request.bytes())
                        .reaches_backend(&request.routed(talk.client(), talk.backend()).bytes()),
                    client_sends(&error(talk.net.router, talk.net.frontend, 64, kind, &seen, 500))
                        .reaches_backend(&error(talk.net.router, talk.net.backend, 63, kind, &sent, 500)),
                ]
            },
        ),
        of_each("the errors of a local backend are translated as they leave", Way::Local, |talk| {
            let request = talk.request();
            let seen = request.translated(talk.client(), talk.backend());
            let kind = kinds(&talk.net)[1];
            let own = error(talk.net.backend, talk.net.client, 64, kind, &seen, 500);
            let told = error(talk.net.frontend, talk.net.client, 64, kind, &request, 500);
            vec![
                client_sends(&request.bytes()).delivered(from_client(&seen.bytes())),
                backend_sends(&own).passes(),
                leaves(&own).delivered(to_client(&told)),
            ]
        }),
        of_each(
            "an error about no flow is the host's, unless only Blixt owns the address",
            Way::Nat,
            |talk| {
                let net = &talk.net;
                let kind = kinds(net)[0];
                let about = |from| IpPacket::new(talk.protocol, (from, 22), (net.client, CLIENT_PORT));
                let host = error(net.client, net.source, 64, kind, &about(net.source), 500);
                let owned = error(net.client, net.owned, 64, kind, &about(net.owned), 500);
                vec![client_sends(&host).passes(), client_sends(&owned).dropped(DropReason::IcmpUnrelated)]
            },
        ),
        of(
            "an address that only Blixt owns answers echo, the host's own is left to the host",
            Protocol::Udp,
            Way::Nat,
            |talk| [0, 3, 1000].into_iter().flat_map(|length| echo(&talk.net, length)).collect(),
        ),
        of(
            "what follows a packet in its frame is no ICMP message, nor part of one",
            Protocol::Udp,
            Way::Nat,
            |talk| (0..8).flat_map(|length| short(&talk.net, length)).collect(),
        ),
    ]
    .concat()
}

/// A connection, and then every kind of error about it in every length.
fn errors(talk: &Talk, step: impl Fn((u8, u8), usize) -> Step) -> Vec<Step> {
    let request = talk.request();
    let header = if talk.net.client.is_ipv4() { 20 } else { 40 };
    let mut steps = vec![client_sends(&request.bytes()).reaches_backend(&talk.natted(&request))];
    for kind in kinds(&talk.net) {
        steps.extend([header + 8, header + 20, 500].map(|length| step(*kind, length)));
    }
    steps
}

/// Unreachable, a path too narrow, out of hops, a bad parameter.
fn kinds(net: &Net) -> &'static [(u8, u8)] {
    if net.client.is_ipv4() {
        &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]
    } else {
        &[(1, 4), (2, 0), (3, 0), (4, 1)]
    }
}

/// The request as full NAT sends it on, but for its hops.
fn inner(talk: &Talk) -> IpPacket {
    talk.request().translated((talk.net.source, CLIENT_PORT), talk.backend())
}

fn error(from: IpAddr, to: IpAddr, hops: u8, kind: (u8, u8), about: &IpPacket, length: usize) -> Vec<u8> {
    let about = about.bytes();
    let body = icmp(from, to, kind.0, kind.1, [0, 0, 5, 100], &about[..length.min(about.len())]);
    ip(from, to, icmp_number(from), hops, &body)
}

/// An echo request of which the packet holds so many bytes, and the frame all.
fn short(net: &Net, length: usize) -> [Step; 2] {
    let kind = if net.client.is_ipv4() { 8 } else { 128 };
    let frame = |to| {
        let message = icmp(net.client, to, kind, 0, [0x12, 0x34, 0, 1], b"echo");
        let packet = ip(net.client, to, icmp_number(net.client), 64, &message[..length]);
        enters(CLIENT_SIDE, [&from_client(&packet), &message[length..]].concat())
    };
    [frame(net.owned).dropped(DropReason::BadLength), frame(net.frontend).passes()]
}

fn echo(net: &Net, length: usize) -> [Step; 2] {
    let (request, reply) = if net.client.is_ipv4() { (8, 0) } else { (128, 129) };
    let ping = |from, to, kind, hops| {
        ip(from, to, icmp_number(from), hops, &icmp(from, to, kind, 0, [0x12, 0x34, 0, 1], &vec![9; length]))
    };
    let answer = to_client(&ping(net.owned, net.client, reply, 64));
    [
        client_sends(&ping(net.client, net.owned, request, 3)).answered(None, answer),
        client_sends(&ping(net.client, net.frontend, request, 3)).passes(),
    ]
}
