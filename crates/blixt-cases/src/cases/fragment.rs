//! Packets in parts.

use std::net::IpAddr;

use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of};
use crate::case::{Case, Step, backend_sends, client_sends, leaves};
use crate::network::{from_client, to_client};
use crate::packet::{UDP, icmp, icmp_number, ip, part, renumbered};

pub(super) fn cases() -> Vec<Case> {
    [
        of(
            "every part of a datagram goes the first one's way, there and back",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let request = talk.request().payload(&[3; 1992]);
                let sent = request.body();
                let there = request.translated((talk.net.source, CLIENT_PORT), talk.backend()).body();
                let reply = talk.reply().payload(&[4; 1992]);
                let answered = reply.body();
                let back = reply.translated(talk.frontend(), talk.client()).body();
                let net = &talk.net;
                let mut steps = Vec::new();
                let parts =
                    translated((net.client, net.frontend), (net.source, net.backend), 63, &sent, &there);
                steps.extend(parts.map(|(input, output)| client_sends(&input).reaches_backend(&output)));
                let parts =
                    translated((net.backend, net.source), (net.frontend, net.client), 63, &answered, &back);
                steps.extend(parts.map(|(input, output)| backend_sends(&input).reaches_client(&output)));
                steps
            },
        ),
        of(
            "the parts of a local backend's datagrams are translated as they leave",
            Protocol::Udp,
            Way::Local,
            |talk| {
                let (request, reply) =
                    (talk.request(), talk.reply_to(talk.net.client, CLIENT_PORT).payload(&[4; 1992]));
                let answered = reply.body();
                let back = reply.translated(talk.frontend(), talk.client()).body();
                let net = &talk.net;
                let local = request.translated(talk.client(), talk.backend()).bytes();
                let mut steps = vec![client_sends(&request.bytes()).delivered(from_client(&local))];
                let parts =
                    translated((net.backend, net.client), (net.frontend, net.client), 64, &answered, &back);
                steps.extend(parts.map(|(input, output)| leaves(&input).delivered(to_client(&output))));
                steps
            },
        ),
        of(
            "a part whose first one is unknown is dropped where only Blixt owns the address, else the host's",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let net = &talk.net;
                let later = |to| part(net.client, to, UDP, 64, 1000, false, b"rest");
                vec![
                    client_sends(&later(net.owned)).dropped(DropReason::FragmentUnknown),
                    client_sends(&later(net.frontend)).passes(),
                ]
            },
        ),
        of(
            "a whole packet that may be fragmented keeps its identification",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let (net, request, reply) = (&talk.net, talk.request(), talk.reply());
                let there = request.translated((net.source, CLIENT_PORT), talk.backend()).body();
                let back = reply.translated(talk.frontend(), talk.client()).body();
                let whole = |from, to, hops, body: &[u8]| part(from, to, UDP, hops, 0, false, body);
                vec![
                    client_sends(&whole(net.client, net.frontend, 64, &request.body()))
                        .reaches_backend(&whole(net.source, net.backend, 63, &there)),
                    backend_sends(&whole(net.backend, net.source, 64, &reply.body())).reaches_client(&whole(
                        net.frontend,
                        net.client,
                        63,
                        &back,
                    )),
                ]
            },
        ),
        of(
            "an error about a part carries the part as its sender numbered it",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let net = &talk.net;
                let request = talk.request().payload(&[3; 1992]);
                let there = request.translated((net.source, CLIENT_PORT), talk.backend()).body();
                let sent = part(net.client, net.frontend, UDP, 64, 0, true, &request.body()[..1000]);
                let seen =
                    renumbered(net.client, part(net.source, net.backend, UDP, 64, 0, true, &there[..1000]));
                let error = |to, hops, about: &[u8]| {
                    let kind = if net.client.is_ipv4() { 11 } else { 3 };
                    let body = icmp(net.router, to, kind, 0, [0; 4], &about[..500]);
                    ip(net.router, to, icmp_number(to), hops, &body)
                };
                vec![
                    first(talk),
                    backend_sends(&error(net.source, 64, &seen))
                        .reaches_client(&error(net.client, 63, &sent)),
                ]
            },
        ),
        of("a part over the first one is dropped", Protocol::Udp, Way::Nat, |talk| {
            vec![first(talk), later(talk, 992, Err(DropReason::FragmentOverlap)), later(talk, 1000, Ok(()))]
        }),
        of("a first part without its transport header is dropped", Protocol::Tcp, Way::Nat, |talk| {
            let net = &talk.net;
            let body = talk.request().body();
            let short = part(net.client, net.frontend, 6, 64, 0, true, &body[..16]);
            vec![client_sends(&short).dropped(DropReason::BadLength)]
        }),
    ]
    .concat()
}

/// The parts of a datagram as they are sent, and as they go on between other addresses.
fn translated<'a>(
    sent: (IpAddr, IpAddr),
    translated: (IpAddr, IpAddr),
    hops: u8,
    before: &'a [u8],
    after: &'a [u8],
) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'a {
    [(0, 0..1000, true), (1000, 1000..2000, false)].into_iter().map(move |(offset, range, more)| {
        let input = part(sent.0, sent.1, UDP, 64, offset, more, &before[range.clone()]);
        let output = part(translated.0, translated.1, UDP, hops, offset, more, &after[range]);
        (input, renumbered(sent.0, output))
    })
}

fn first(talk: &Talk) -> Step {
    let request = talk.request().payload(&[3; 1992]);
    let there = request.translated((talk.net.source, CLIENT_PORT), talk.backend()).body();
    let net = &talk.net;
    client_sends(&part(net.client, net.frontend, UDP, 64, 0, true, &request.body()[..1000])).reaches_backend(
        &renumbered(net.client, part(net.source, net.backend, UDP, 63, 0, true, &there[..1000])),
    )
}

fn later(talk: &Talk, offset: u16, fate: Result<(), DropReason>) -> Step {
    let net = &talk.net;
    let given = client_sends(&part(net.client, net.frontend, UDP, 64, offset, false, b"rest"));
    match fate {
        Ok(()) => given.reaches_backend(&renumbered(
            net.client,
            part(net.source, net.backend, UDP, 63, offset, false, b"rest"),
        )),
        Err(reason) => given.dropped(reason),
    }
}
