//! Headers of all lengths.

use blixt_core::config::Protocol;
use blixt_core::tables::Way;

use super::{Talk, of, of_each};
use crate::case::{Case, backend_sends, client_sends};
use crate::packet::ACK;

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for words in 1..=10 {
        let name =
            format!("{words} words of IPv4 options, or as many extension headers up to 6, are delivered");
        cases.extend(of_each(&name, Way::Nat, |talk| {
            let between = between(talk, words);
            let request = talk.request().between(&between);
            let reply = talk.reply().flags(ACK).between(&between);
            vec![
                client_sends(&request.bytes()).reaches_backend(&talk.natted(&request)),
                backend_sends(&reply.bytes()).reaches_client(&talk.restored(&reply)),
            ]
        }));
    }
    for words in [1, 3, 10] {
        let name = format!("{words} words of TCP options are delivered");
        cases.extend(of(&name, Protocol::Tcp, Way::Nat, |talk| {
            let request = talk.request().options(&[1, 1, 1, 0].repeat(words));
            vec![client_sends(&request.bytes()).reaches_backend(&talk.natted(&request))]
        }));
    }
    for length in [0, 1, 2, 1000] {
        let name = format!("{length} bytes of payload are delivered");
        cases.extend(of_each(&name, Way::Nat, |talk| {
            let request = talk.request().payload(&vec![0xff; length]);
            vec![client_sends(&request.bytes()).reaches_backend(&talk.natted(&request))]
        }));
    }
    cases.extend(of("a datagram without a sum stays without", Protocol::Udp, Way::Nat, |talk| {
        // Only IPv4 knows datagrams without a sum.
        let head = if talk.net.client.is_ipv4() { 20 } else { return Vec::new() };
        let (mut request, mut there) = (talk.request().bytes(), talk.natted(&talk.request()));
        request[head + 6..head + 8].fill(0);
        there[head + 6..head + 8].fill(0);
        vec![client_sends(&request).reaches_backend(&there)]
    }));
    cases.retain(|case| !case.steps.is_empty());
    cases
}

/// IPv4 options of so many words; in IPv6 destination options, one header each.
fn between(talk: &Talk, words: usize) -> Vec<u8> {
    if talk.net.client.is_ipv4() {
        return [1, 1, 1, 0].repeat(words);
    }
    let headers = words.min(6);
    let mut bytes = vec![DESTINATION_OPTIONS];
    for header in 1..=headers {
        let next = if header == headers { talk.protocol.number() } else { DESTINATION_OPTIONS };
        bytes.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    }
    bytes
}

const DESTINATION_OPTIONS: u8 = 60;
