//! Clients whom a backend would answer past us: they get full NAT, whatever way leads to the backend otherwise.

use blixt_core::config::Protocol;
use blixt_core::tables::{Tables, Way};
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of, of_each};
use crate::case::{Case, backend_sends, changes, client_sends, waits};
use crate::network::{CLIENT_SIDE, FRONTEND_PORT, OUR_PORT, from_backend, from_client, renews, to_client};
use crate::packet::{ACK, IpPacket, RST, Segment, TCP, ip, tcp};

pub(super) fn cases() -> Vec<Case> {
    [beside_the_backend(), by_two_addresses(), on_this_machine()].concat()
}

fn beside_the_backend() -> Vec<Case> {
    [
        of_each("a client beside a backend of this machine gets full NAT", Way::Local, |talk| {
            let (request, reply) = (talk.request(), talk.reply().flags(ACK));
            let next = talk.request().flags(ACK);
            vec![
                backend_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).reaches_backend(&talk.restored(&reply)),
                backend_sends(&next.bytes()).reaches_backend(&talk.natted(&next)),
            ]
        }),
        of(
            "datagrams follow a client that moves away from beside a backend of this machine",
            Protocol::Udp,
            Way::Local,
            |talk| {
                let request = talk.request();
                let beside = backend_sends(&request.bytes()).reaches_backend(&talk.natted(&request));
                let away = client_sends(&request.bytes()).delivered(from_client(&locally(talk, &request)));
                vec![beside.clone(), away, beside]
            },
        ),
        of(
            "a connection to a backend of this machine stays with the stack when its client comes to sit beside it",
            Protocol::Tcp,
            Way::Local,
            |talk| {
                let (request, next) = (talk.request(), talk.request().flags(ACK));
                vec![
                    client_sends(&request.bytes()).delivered(from_client(&locally(talk, &request))),
                    backend_sends(&next.bytes()).delivered(from_backend(&locally(talk, &next))),
                ]
            },
        ),
    ]
    .concat()
}

/// A client may use one port towards several addresses, which lead to one backend: of its tuples there only one can be.
fn by_two_addresses() -> Vec<Case> {
    let other = |talk: &Talk| talk.request_to(talk.net.owned, FRONTEND_PORT);
    [
        of_each(
            "the second of one client's connections to a backend of this machine gets full NAT while the first is there",
            Way::Local,
            move |talk| {
                let (one, two, next) = (talk.request(), other(talk), talk.request().flags(ACK));
                vec![
                    client_sends(&one.bytes()).delivered(from_client(&locally(talk, &one))),
                    client_sends(&two.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &two)),
                    client_sends(&next.bytes()).delivered(from_client(&locally(talk, &next))),
                ]
            },
        ),
        of(
            "once the first of one client's connections to a backend of this machine is closed the second keeps its address",
            Protocol::Tcp,
            Way::Local,
            move |talk| {
                let (one, two, end) = (talk.request(), other(talk), talk.request().flags(RST));
                vec![
                    client_sends(&one.bytes()).delivered(from_client(&locally(talk, &one))),
                    client_sends(&end.bytes()).delivered(from_client(&locally(talk, &end))),
                    client_sends(&two.bytes()).delivered(from_client(&locally(talk, &two))),
                ]
            },
        ),
        of_each(
            "what a client began a moment ago and did not go on with takes no address from the next",
            Way::Local,
            move |talk| {
                let (one, two) = (talk.request(), other(talk));
                vec![
                    client_sends(&one.bytes()).delivered(from_client(&locally(talk, &one))),
                    waits(3),
                    client_sends(&two.bytes()).delivered(from_client(&locally(talk, &two))),
                ]
            },
        ),
        of_each(
            "what is left of a connection to a backend that went takes no address from one to the next of its address",
            Way::Local,
            move |talk| {
                let (one, two) = (talk.request(), other(talk));
                vec![
                    client_sends(&one.bytes()).delivered(from_client(&locally(talk, &one))),
                    changes(renews(Way::Local)),
                    client_sends(&two.bytes()).delivered(from_client(&locally(talk, &two))),
                ]
            },
        ),
    ]
    .concat()
}

fn on_this_machine() -> Vec<Case> {
    let mut cases = Vec::new();
    for (way, name) in [(Way::Nat, "full NAT"), (Way::Transparent, "transparently"), (Way::Local, "locally")]
    {
        let name = format!("a client on this machine gets full NAT to a backend that others reach by {name}");
        cases.extend(of_each(&name, way, |talk| {
            let (request, reply) = (own_request(talk), talk.reply().flags(ACK));
            let next = own_request(talk).flags(ACK);
            let back = reply.routed(talk.frontend(), (talk.net.source, CLIENT_PORT)).bytes();
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).reaches_client(&back),
                client_sends(&next.bytes()).reaches_backend(&talk.natted(&next)),
            ]
        }));
    }
    cases.extend(of_each(
        "a client on this machine whose port is taken towards the backend gets a port of ours",
        Way::Nat,
        |talk| {
            let (other, request) = (talk.request(), own_request(talk));
            vec![
                client_sends(&other.bytes()).reaches_backend(&talk.natted(&other)),
                client_sends(&request.bytes()).reaches_backend(&talk.natted_by(OUR_PORT, &request)),
            ]
        },
    ));
    let processes = of(
        "a client on this machine is refused by a backend that is a process of this machine",
        Protocol::Tcp,
        Way::Local,
        |talk| {
            let (from, to) = (talk.net.frontend, talk.net.source);
            let answer = Segment {
                ports: [FRONTEND_PORT, CLIENT_PORT],
                // The number 7, a SYN, and three bytes.
                acknowledgement: 11,
                flags: RST | ACK,
                ..Segment::default()
            };
            let answer = to_client(&ip(from, to, TCP, 64, &tcp(from, to, answer, b"")));
            vec![client_sends(&own_request(talk).bytes()).answered(Some(DropReason::Refused), answer)]
        },
    );
    cases.extend(processes.into_iter().map(|mut case| {
        case.tables.backends.values_mut().for_each(|entry| entry.hop = 0);
        case
    }));
    cases.into_iter().map(|case| Case { tables: of_host(case.tables), ..case }).collect()
}

/// What comes in on the client's side was sent by this machine.
fn of_host(mut tables: Tables) -> Tables {
    tables.devices.get_mut(&CLIENT_SIDE).unwrap().of_host = true;
    tables
}

/// From the very address that full NAT uses.
fn own_request(talk: &Talk) -> IpPacket {
    IpPacket::new(talk.protocol, (talk.net.source, CLIENT_PORT), talk.frontend())
}

fn locally(talk: &Talk, request: &IpPacket) -> Vec<u8> {
    request.translated(talk.client(), talk.backend()).bytes()
}
