//! How connections end.

use blixt_core::config::Protocol;
use blixt_core::tables::{BackendState, Way};

use super::{CLIENT_PORT, Talk, of};
use crate::case::{Case, Step, backend_sends, changes, client_sends, waits};
use crate::network::{BACKEND_PORT, OUR_PORT, SETTINGS, moves};
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
