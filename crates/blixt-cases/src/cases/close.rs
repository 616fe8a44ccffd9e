//! How connections end.

use blixt_core::config::Protocol;
use blixt_core::tables::{BackendState, Way};
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of};
use crate::case::{Case, Step, backend_sends, changes, client_sends, leaves, waits};
use crate::network::{BACKEND_PORT, OUR_PORT, SETTINGS, from_client, moves, to_client};
use crate::packet::{ACK, FIN, IpPacket, RST, SYN};

pub(super) fn cases() -> Vec<Case> {
    [
        of("both sides close at once and every segment arrives", Protocol::Tcp, Way::Nat, |talk| {
            let mut steps = opened(talk);
            steps.extend(both(talk, FIN | ACK));
            steps.extend(both(talk, ACK));
            steps
        }),
        of("after a half-close the other half goes on", Protocol::Tcp, Way::Nat, |talk| {
            let mut steps = opened(talk);
            steps.push(request(talk, FIN | ACK));
            steps.extend([reply(talk, ACK), reply(talk, ACK), reply(talk, FIN | ACK), request(talk, ACK)]);
            steps
        }),
        of(
            "a SYN with the tuple of a closed connection begins anew, and chooses anew",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let mut steps = opened(talk);
                steps.extend(both(talk, FIN | ACK));
                steps.push(changes(moves(Way::Nat, BackendState::Serving)));
                steps.push(anew(talk));
                steps
            },
        ),
        of("a SYN after a reset begins anew", Protocol::Tcp, Way::Nat, |talk| {
            let mut steps = opened(talk);
            steps.push(reply(talk, RST));
            steps.push(changes(moves(Way::Nat, BackendState::Serving)));
            steps.push(anew(talk));
            steps
        }),
        of(
            "a backend that answers a SYN with the tuple of a closed connection answers somebody else",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let mut steps = opened(talk);
                steps.extend(both(talk, FIN | ACK));
                steps.push(reply(talk, ACK));
                let answer = |flags| backend_sends(&talk.reply().flags(flags).bytes());
                steps.extend([SYN | ACK, ACK].map(|flags| answer(flags).dropped(DropReason::NoFlow)));
                steps.push(request(talk, SYN));
                steps.push(reply(talk, SYN | ACK));
                steps
            },
        ),
        of("a SYN that ends a connection as well begins none", Protocol::Tcp, Way::Local, |talk| {
            [SYN, SYN | RST, SYN | RST, SYN | FIN]
                .map(|flags| {
                    let request = talk.request().flags(flags);
                    let seen = request.translated(talk.client(), talk.backend());
                    client_sends(&request.bytes()).delivered(from_client(&seen.bytes()))
                })
                .into()
        }),
        of("a reset that neither side believes ends nothing", Protocol::Tcp, Way::Nat, |talk| {
            let other = IpPacket::new(talk.protocol, (talk.net.other_client, CLIENT_PORT), talk.frontend());
            let mut steps = opened(talk);
            steps.extend([reply(talk, RST), request(talk, ACK)]);
            steps.push(waits(SETTINGS.closed_idle + 1));
            steps.push(client_sends(&other.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &other)));
            steps.push(changes(moves(Way::Nat, BackendState::Serving)));
            steps.extend(both(talk, ACK));
            steps
        }),
        of(
            "a long silence after a reset that neither side believes ends nothing",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let mut steps = opened(talk);
                for first in [request, reply] {
                    steps.extend([request(talk, RST), waits(SETTINGS.closed_idle + 1)]);
                    steps.push(changes(moves(Way::Nat, BackendState::Serving)));
                    steps.push(first(talk, ACK));
                    steps.extend(both(talk, ACK));
                }
                steps
            },
        ),
        of(
            "a late segment does not reach the client from the backend's own address",
            Protocol::Tcp,
            Way::Transparent,
            |talk| {
                let request = |flags| {
                    let request = talk.request().flags(flags);
                    client_sends(&request.bytes())
                        .reaches_backend(&request.routed(talk.client(), talk.backend()).bytes())
                };
                let segment = |flags| talk.reply_to(talk.net.client, CLIENT_PORT).flags(flags);
                let reply = |flags| {
                    let reply = segment(flags);
                    backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply))
                };
                let opened =
                    vec![request(SYN), reply(SYN | ACK), request(ACK), request(FIN | ACK), reply(FIN | ACK)];
                let late = backend_sends(&segment(FIN | ACK).bytes());
                [opened, vec![waits(SETTINGS.closed_idle + 1), late.dropped(DropReason::NoFlow)]].concat()
            },
        ),
        of(
            "a late segment of a local backend does not leave with its own address",
            Protocol::Tcp,
            Way::Local,
            |talk| {
                let request = |flags| {
                    let request = talk.request().flags(flags);
                    client_sends(&request.bytes())
                        .delivered(from_client(&request.translated(talk.client(), talk.backend()).bytes()))
                };
                let segment = |flags| talk.reply_to(talk.net.client, CLIENT_PORT).flags(flags);
                let reply = |flags| {
                    let reply = segment(flags);
                    leaves(&reply.bytes())
                        .delivered(to_client(&reply.translated(talk.frontend(), talk.client()).bytes()))
                };
                let opened =
                    vec![request(SYN), reply(SYN | ACK), request(ACK), request(FIN | ACK), reply(FIN | ACK)];
                let late = leaves(&segment(FIN | ACK).bytes());
                let direct = [SYN | ACK, ACK].map(|flags| leaves(&segment(flags).bytes()).passes());
                [
                    opened,
                    vec![waits(SETTINGS.closed_idle + 1), late.dropped(DropReason::NoFlow)],
                    direct.to_vec(),
                ]
                .concat()
            },
        ),
        of(
            "a datagram after a long silence does not reach the client from the backend's own address",
            Protocol::Udp,
            Way::Transparent,
            |talk| {
                let (request, late) = (talk.request(), talk.reply_to(talk.net.client, CLIENT_PORT));
                vec![
                    client_sends(&request.bytes())
                        .reaches_backend(&request.routed(talk.client(), talk.backend()).bytes()),
                    waits(SETTINGS.udp_idle + 1),
                    backend_sends(&late.bytes()).dropped(DropReason::NoFlow),
                ]
            },
        ),
        of("a SYN on a living connection stays with its backend", Protocol::Tcp, Way::Nat, |talk| {
            let mut steps = opened(talk);
            steps.push(changes(moves(Way::Nat, BackendState::Serving)));
            steps.push(request(talk, SYN));
            steps
        }),
    ]
    .concat()
}

fn opened(talk: &Talk) -> Vec<Step> {
    vec![request(talk, SYN), reply(talk, SYN | ACK), request(talk, ACK)]
}

fn both(talk: &Talk, flags: u8) -> [Step; 2] {
    [request(talk, flags), reply(talk, flags)]
}

fn request(talk: &Talk, flags: u8) -> Step {
    let request = talk.request().flags(flags);
    client_sends(&request.bytes()).reaches_backend(&talk.natted(&request))
}

fn reply(talk: &Talk, flags: u8) -> Step {
    let reply = talk.reply().flags(flags);
    backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply))
}

/// A SYN that goes where the ring leads by now.
fn anew(talk: &Talk) -> Step {
    let request = talk.request();
    let source = (talk.net.source, CLIENT_PORT);
    client_sends(&request.bytes())
        .reaches_backend(&request.routed(source, (talk.net.other_backend, BACKEND_PORT)).bytes())
}
