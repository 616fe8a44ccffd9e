//! What is refused, and how its sender learns of it.

use std::net::IpAddr;

use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of, of_each};
use crate::case::{Case, Step, backend_sends, client_sends};
use crate::network::{BACKEND_MAC, INNER_MAC, MTU, Net, REFUSED_PORT, ROUTELESS_PORT, to_client};
use crate::packet::{ACK, IpPacket, RST, Segment, TCP, UDP, frame, icmp, icmp_number, ip, part, tcp};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each("the refused share is answered at once", Way::Nat, |talk| {
            vec![refused(talk, talk.net.frontend, REFUSED_PORT), refused(talk, talk.net.owned, REFUSED_PORT)]
        }),
        of_each("a listener without a route refuses", Way::Nat, |talk| {
            vec![refused(talk, talk.net.frontend, ROUTELESS_PORT)]
        }),
        of_each(
            "a port that no listener owns is refused on an address that only Blixt owns",
            Way::Nat,
            |talk| vec![refused(talk, talk.net.owned, 9999)],
        ),
        of(
            "a segment of no connection to a port that nobody owns gets a RST where its sender waits",
            Protocol::Tcp,
            Way::Nat,
            |talk| {
                let segment = talk.request_to(talk.net.owned, 9999).flags(ACK);
                let reset = reset(
                    talk,
                    talk.net.owned,
                    9999,
                    Segment { sequence: 99, flags: RST, ..Segment::default() },
                );
                vec![client_sends(&segment.bytes()).answered(Some(DropReason::Refused), reset)]
            },
        ),
        of("a RST is never answered", Protocol::Tcp, Way::Nat, |talk| {
            let segment = talk.request_to(talk.net.owned, 9999).flags(RST);
            vec![client_sends(&segment.bytes()).dropped(DropReason::Refused)]
        }),
        of_each("the last hop of a request is answered by the frontend", Way::Nat, |talk| {
            let request = talk.request().hops(1);
            let kind = if talk.net.client.is_ipv4() { 11 } else { 3 };
            let answer = error(talk, talk.net.frontend, (kind, 0), [0; 4], &request);
            vec![client_sends(&request.bytes()).answered(Some(DropReason::TtlExceeded), answer)]
        }),
        of_each("the last hop of a reply is answered on the backend's side", Way::Nat, |talk| {
            let request = talk.request();
            let reply = talk.reply().flags(ACK).hops(1);
            let kind = if talk.net.client.is_ipv4() { 11 } else { 3 };
            let (from, to) = (talk.net.source, talk.net.backend);
            let body = icmp(from, to, kind, 0, [0; 4], &reply.head());
            let answer = frame(BACKEND_MAC, INNER_MAC, &ip(from, to, icmp_number(from), 64, &body));
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).answered(Some(DropReason::TtlExceeded), answer),
            ]
        }),
        of_each("the sender of a packet that is too big learns what fits", Way::Nat, |talk| {
            let request = talk.request().payload(&vec![1; MTU as usize]);
            let kind = if talk.net.client.is_ipv4() { (3, 4) } else { (2, 0) };
            let [high, low] = (MTU as u16).to_be_bytes();
            let answer = error(talk, talk.net.frontend, kind, [0, 0, high, low], &request);
            vec![client_sends(&request.bytes()).answered(Some(DropReason::TooBig), answer)]
        }),
        of(
            "a packet that is too big is not cut where it might be: its sender learns what fits",
            Protocol::Udp,
            Way::Nat,
            |talk| {
                let Net { client, frontend, .. } = talk.net;
                let body = talk.request().payload(&vec![1; 2 * MTU as usize]).body();
                // Without "don't fragment", as every part of a packet.
                let packet = part(client, frontend, UDP, 64, 0, true, &body[..MTU as usize]);
                let (kind, code, head) = if client.is_ipv4() { (3, 4, 20) } else { (2, 0, 48) };
                let [high, low] = (MTU as u16).to_be_bytes();
                let error = icmp(frontend, client, kind, code, [0, 0, high, low], &packet[..head + 8]);
                let answer = to_client(&ip(frontend, client, icmp_number(client), 64, &error));
                vec![client_sends(&packet).answered(Some(DropReason::TooBig), answer)]
            },
        ),
        of_each(
            "of a packet that is cut later the segments must fit, or its sender learns what does",
            Way::Nat,
            |talk| {
                let options: &[u8] = if talk.protocol == Protocol::Tcp { &[1, 1, 1, 0] } else { &[] };
                let request = talk.request().options(options).payload(&vec![1; 2 * MTU as usize]);
                let room = MTU - (request.head().len() + options.len()) as u32;
                let kind = if talk.net.client.is_ipv4() { (3, 4) } else { (2, 0) };
                let [high, low] = (MTU as u16).to_be_bytes();
                let answer = error(talk, talk.net.frontend, kind, [0, 0, high, low], &request);
                let given = client_sends(&request.bytes());
                vec![
                    given.clone().cut_into(room).reaches_backend(&talk.natted(&request)),
                    given.clone().cut_into(room + 1).answered(Some(DropReason::TooBig), answer),
                    given.cut_into(room).reaches_backend(&talk.natted(&request)),
                ]
            },
        ),
        of_each("a packet as big as the way allows goes on", Way::Nat, |talk| {
            let room = MTU as usize - (talk.request().head().len());
            let request = talk.request().payload(&vec![1; room]);
            vec![client_sends(&request.bytes()).reaches_backend(&talk.natted(&request))]
        }),
    ]
    .concat()
}

fn refused(talk: &Talk, address: IpAddr, port: u16) -> Step {
    let request = talk.request_to(address, port);
    let answer = match talk.protocol {
        // Behind the SYN and the 3 bytes of its payload.
        Protocol::Tcp => {
            let segment = Segment { acknowledgement: 7 + 1 + 3, flags: RST | ACK, ..Segment::default() };
            reset(talk, address, port, segment)
        }
        Protocol::Udp => {
            let kind = if address.is_ipv4() { (3, 3) } else { (1, 4) };
            error(talk, address, kind, [0; 4], &request)
        }
    };
    client_sends(&request.bytes()).answered(Some(DropReason::Refused), answer)
}

fn reset(talk: &Talk, from: IpAddr, port: u16, segment: Segment) -> Vec<u8> {
    let segment = Segment { ports: [port, CLIENT_PORT], ..segment };
    let to = talk.net.client;
    to_client(&ip(from, to, TCP, 64, &tcp(from, to, segment, b"")))
}

fn error(talk: &Talk, from: IpAddr, kind: (u8, u8), rest: [u8; 4], about: &IpPacket) -> Vec<u8> {
    let to = talk.net.client;
    let body = icmp(from, to, kind.0, kind.1, rest, &about.head());
    to_client(&ip(from, to, icmp_number(from), 64, &body))
}
