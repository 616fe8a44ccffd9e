//! There and back.

use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::Verdict;
use blixt_packet::abi::Link;

use super::{CLIENT_PORT, Talk, by, of, of_each};
use crate::case::{Case, Hook, backend_sends, client_sends, enters, leaves};
use crate::network::{
    BACKEND_MAC, BACKEND_SIDE, CLIENT_MAC, CLIENT_SIDE, INNER_MAC, OUR_MAC, from_client, to_backend,
    to_client,
};
use crate::packet::{ACK, frame};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each("full NAT there and back", Way::Nat, |talk| {
            let (request, reply) = (talk.request(), talk.reply().flags(ACK));
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)),
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
            ]
        }),
        of_each("an address that only Blixt owns is served like any other", Way::Nat, |talk| {
            let request = talk.request_to(talk.net.owned, 80);
            let reply = talk.reply().flags(ACK);
            let restored = reply.routed((talk.net.owned, 80), talk.client()).bytes();
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).reaches_client(&restored),
            ]
        }),
        of_each("the client's address is kept where forwarding is transparent", Way::Transparent, |talk| {
            let request = talk.request();
            let reply = talk.reply_to(talk.net.client, CLIENT_PORT).flags(ACK);
            vec![
                client_sends(&request.bytes())
                    .reaches_backend(&request.routed(talk.client(), talk.backend()).bytes()),
                backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)),
            ]
        }),
        of_each(
            "the stack delivers to a backend of this machine, and its reply is translated as it leaves",
            Way::Local,
            local,
        ),
        of_each("a client that moves to another MAC address gets its replies there", Way::Nat, |talk| {
            let (request, reply) = (talk.request(), talk.reply().flags(ACK));
            let moved = frame(OUR_MAC, [2, 0, 0, 0, 0, 9], &request.bytes());
            let back = frame([2, 0, 0, 0, 0, 9], OUR_MAC, &talk.restored(&reply));
            let client_side = Verdict::Send(Link::new(CLIENT_SIDE, 0));
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                enters(CLIENT_SIDE, moved).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).becomes(client_side, Some(back)),
            ]
        }),
        of_each("a client on the backends' side is served back out of the same device", Way::Nat, |talk| {
            let (request, reply) = (talk.request(), talk.reply().flags(ACK));
            let inner = Verdict::Send(Link::new(BACKEND_SIDE, 0));
            vec![
                enters(BACKEND_SIDE, frame(INNER_MAC, CLIENT_MAC, &request.bytes()))
                    .becomes(inner, Some(to_backend(&talk.natted(&request)))),
                enters(BACKEND_SIDE, frame(INNER_MAC, BACKEND_MAC, &reply.bytes()))
                    .becomes(inner, Some(frame(CLIENT_MAC, INNER_MAC, &talk.restored(&reply)))),
            ]
        }),
        by(
            Hook::TAG_IN_FRAME,
            of_each(
                "a VLAN's tag is taken off towards the backend and put back towards the client",
                Way::Nat,
                |talk| {
                    let (request, reply) = (talk.request(), talk.reply().flags(ACK));
                    let client_side = Verdict::Send(Link::new(CLIENT_SIDE, 42));
                    vec![
                        enters(CLIENT_SIDE, tagged(from_client(&request.bytes())))
                            .reaches_backend(&talk.natted(&request)),
                        backend_sends(&reply.bytes())
                            .becomes(client_side, Some(tagged(to_client(&talk.restored(&reply))))),
                    ]
                },
            ),
        ),
        of("an established connection stays, however long it is silent", Protocol::Tcp, Way::Nat, |talk| {
            use crate::case::waits;
            let (request, reply) = (talk.request(), talk.reply().flags(ACK));
            let later = talk.request().flags(ACK);
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)),
                client_sends(&later.bytes()).reaches_backend(&talk.natted(&later)),
                waits(30 * 24 * 3600),
                backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)),
                client_sends(&later.bytes()).reaches_backend(&talk.natted(&later)),
            ]
        }),
    ]
    .concat()
}

fn local(talk: &Talk) -> Vec<crate::case::Step> {
    let request = talk.request();
    let reply = talk.reply_to(talk.net.client, CLIENT_PORT).flags(ACK);
    vec![
        client_sends(&request.bytes())
            .delivered(from_client(&request.translated(talk.client(), talk.backend()).bytes())),
        backend_sends(&reply.bytes()).passes(),
        leaves(&reply.bytes())
            .delivered(to_client(&reply.translated(talk.frontend(), talk.client()).bytes())),
    ]
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, 42]);
    frame
}
