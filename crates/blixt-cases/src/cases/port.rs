//! The source port of full NAT.

use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of, of_each};
use crate::case::{Case, Step, backend_sends, client_sends, waits};
use crate::network::{FRONTEND_PORT, OUR_PORT, SETTINGS};
use crate::packet::{ACK, IpPacket};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each(
            "of two clients with one port the second gets a port of ours, and each its own replies",
            Way::Nat,
            |talk| {
                let mut steps = two_clients(talk);
                let first = talk.reply().flags(ACK);
                let second = talk.reply_to(talk.net.source, OUR_PORT).flags(ACK);
                let to_other = second.routed(talk.frontend(), (talk.net.other_client, CLIENT_PORT)).bytes();
                steps.push(backend_sends(&first.bytes()).reaches_client(&talk.restored(&first)));
                steps.push(backend_sends(&second.bytes()).reaches_client(&to_other));
                steps
            },
        ),
        of_each("the connection after the last free port is dropped for its reason", Way::Nat, |talk| {
            let mut steps = two_clients(talk);
            steps.extend(confirmed(talk));
            let third = from(talk, talk.net.router);
            steps.push(client_sends(&third.bytes()).dropped(DropReason::PortsExhausted));
            steps
        }),
        of(
            "where no port is free a connection just begun keeps its own, since its answer may be under way",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let mut steps = two_clients(talk);
                let third = from(talk, talk.net.router);
                steps.push(client_sends(&third.bytes()).dropped(DropReason::PortsExhausted));
                steps
            },
        ),
        of(
            "where no port is free a stray segment's gives way at once, unless it was of a connection that goes on",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let stray = talk.request().flags(ACK);
                let kept = from(talk, talk.net.other_client).flags(ACK);
                let third = from(talk, talk.net.router);
                let kept_reply = talk.reply_to(talk.net.source, OUR_PORT).flags(ACK);
                let to_kept = kept_reply.routed(talk.frontend(), (talk.net.other_client, CLIENT_PORT)).bytes();
                vec![
                    client_sends(&stray.bytes()).reaches_backend(&talk.natted(&stray)),
                    client_sends(&kept.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &kept)),
                    backend_sends(&kept_reply.bytes()).reaches_client(&to_kept),
                    client_sends(&kept.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &kept)),
                    client_sends(&third.bytes()).reaches_backend(&talk.natted(&third)),
                    client_sends(&stray.bytes()).dropped(DropReason::PortsExhausted),
                    backend_sends(&kept_reply.bytes()).reaches_client(&to_kept),
                ]
            },
        ),
        of(
            "where no port is free a client that asked once and only listens keeps its stream",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let (reply, third) = (talk.reply(), from(talk, talk.net.router));
                let other = talk.reply_to(talk.net.source, OUR_PORT);
                let to_other = other.routed(talk.frontend(), (talk.net.other_client, CLIENT_PORT)).bytes();
                let mut steps = two_clients(talk);
                for _ in 0..3 {
                    steps.push(waits(9));
                    steps.push(backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)));
                    steps.push(backend_sends(&other.bytes()).reaches_client(&to_other));
                    steps.push(client_sends(&third.bytes()).dropped(DropReason::PortsExhausted));
                }
                steps
            },
        ),
        of_each(
            "where no port is free a connection that its client never confirmed gives way, and disturbs nobody",
            Way::Nat,
            |talk| {
                let mut steps = two_clients(talk);
                steps.push(waits(11));
                let third = from(talk, talk.net.router);
                steps.push(client_sends(&third.bytes()).reaches_backend(&talk.natted(&third)));
                let reply = talk.reply().flags(ACK);
                let to_third = reply.routed(talk.frontend(), (talk.net.router, CLIENT_PORT));
                steps.push(backend_sends(&reply.bytes()).reaches_client(&to_third.bytes()));
                if talk.protocol == Protocol::Tcp {
                    let late = talk.request().flags(ACK);
                    steps.push(client_sends(&late.bytes()).dropped(DropReason::PortsExhausted));
                }
                steps
            },
        ),
        of(
                "an answered connection that its client never confirms is over soon, a confirmed one is not",
                Protocol::Tcp,
                Way::Nat,
                |talk| {
                    let mut steps = two_clients(talk);
                    let reply = talk.reply().flags(ACK);
                    steps.push(backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)));
                    steps.push(waits(SETTINGS.syn_idle + 1));
                    let third = from(talk, talk.net.router);
                    steps.push(client_sends(&third.bytes()).reaches_backend(&talk.natted(&third)));
                    let to_third = reply.routed(talk.frontend(), (talk.net.router, CLIENT_PORT));
                    steps.push(backend_sends(&reply.bytes()).reaches_client(&to_third.bytes()));
                    let ack = third.flags(ACK);
                    steps.push(client_sends(&ack.bytes()).reaches_backend(&talk.natted(&ack)));
                    steps.push(waits(SETTINGS.syn_idle + 1));
                    steps.push(backend_sends(&reply.bytes()).reaches_client(&to_third.bytes()));
                    steps
                },
            ),
        of_each("a port is free again once its connection is over", Way::Nat, |talk| {
                let mut steps = two_clients(talk);
                let third = from(talk, talk.net.router);
                steps.push(waits(SETTINGS.udp_idle.max(SETTINGS.syn_idle) + 1));
                steps.push(client_sends(&third.bytes()).reaches_backend(&talk.natted(&third)));
                steps
            }),
        of_each("who comes back after another got its port gets one of its own", Way::Nat, |talk| {
                let (first, second) = (talk.request(), from(talk, talk.net.other_client));
                let reply = talk.reply().flags(ACK);
                let to_second = reply.routed(talk.frontend(), (talk.net.other_client, CLIENT_PORT));
                vec![
                    client_sends(&first.bytes()).reaches_backend(&talk.natted(&first)),
                    waits(SETTINGS.udp_idle.max(SETTINGS.syn_idle) + 1),
                    client_sends(&second.bytes()).reaches_backend(&talk.natted(&second)),
                    client_sends(&first.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &first)),
                    backend_sends(&reply.bytes()).reaches_client(&to_second.bytes()),
                ]
            }),
        of_each("one client's connections to two frontends do not meet", Way::Nat, |talk| {
            let (one, two) = (talk.request(), talk.request_to(talk.net.owned, FRONTEND_PORT));
            vec![
                client_sends(&one.bytes()).reaches_backend(&talk.natted(&one)),
                client_sends(&two.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &two)),
            ]
        }),
    ]
    .concat()
}

/// Both of them are answered, and go on.
fn confirmed(talk: &Talk) -> Vec<Step> {
    let (first, second) = (talk.request().flags(ACK), from(talk, talk.net.other_client).flags(ACK));
    let reply = talk.reply().flags(ACK);
    let other = talk.reply_to(talk.net.source, OUR_PORT).flags(ACK);
    let to_other = other.routed(talk.frontend(), (talk.net.other_client, CLIENT_PORT)).bytes();
    vec![
        backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)),
        backend_sends(&other.bytes()).reaches_client(&to_other),
        client_sends(&first.bytes()).reaches_backend(&talk.natted(&first)),
        client_sends(&second.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &second)),
    ]
}

fn two_clients(talk: &Talk) -> Vec<Step> {
    let (first, second) = (talk.request(), from(talk, talk.net.other_client));
    vec![
        client_sends(&first.bytes()).reaches_backend(&talk.natted(&first)),
        client_sends(&second.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &second)),
    ]
}

fn from(talk: &Talk, client: std::net::IpAddr) -> IpPacket {
    IpPacket::new(talk.protocol, (client, CLIENT_PORT), talk.frontend())
}
