//! What cannot be right.

use std::net::IpAddr;

use blixt_core::config::Protocol;
use blixt_core::tables::Way;
use blixt_packet::DropReason;

use super::{CLIENT_PORT, Talk, of_each};
use crate::case::{Case, Step, backend_sends, client_sends};
use crate::network::FRONTEND_PORT;
use crate::packet::{ACK, IpPacket};

pub(super) fn cases() -> Vec<Case> {
    [
        of_each("a packet shorter than it says is dropped", Way::Nat, |talk| {
            let mut packet = talk.request_to(talk.net.owned, 80).bytes();
            packet.truncate(packet.len() - 2);
            vec![client_sends(&packet).dropped(DropReason::Truncated)]
        }),
        of_each("a packet that ends within its transport header is dropped", Way::Nat, |talk| {
            let request = talk.request_to(talk.net.owned, 80);
            let mut packet = request.bytes();
            let network = packet.len() - request.body().len();
            packet.truncate(network + 6);
            set_length(&mut packet, network);
            // An skb may be as short as this; the XDP program sees the end of the frame.
            vec![client_sends(&packet).dropped(DropReason::Truncated)]
        }),
        of_each("a transport length that contradicts the packet's is dropped", Way::Nat, |talk| {
            let request = talk.request_to(talk.net.owned, 80);
            let packet = request.bytes();
            let transport = packet.len() - request.body().len();
            let damaged = |at: usize, value: u8| {
                let mut packet = packet.clone();
                packet[transport + at] = value;
                client_sends(&packet).dropped(DropReason::BadLength)
            };
            match talk.protocol {
                Protocol::Tcp => vec![damaged(12, 0x40), damaged(12, 0xf0)],
                Protocol::Udp => vec![damaged(5, 7), damaged(4, 1)],
            }
        }),
        of_each(
            "an IPv4 header with a wrong sum is dropped where only Blixt owns the address",
            Way::Nat,
            |talk| {
                let wrong = |to| {
                    let mut packet = talk.request_to(to, 9).bytes();
                    packet[10] ^= 1;
                    client_sends(&packet)
                };
                if talk.net.client.is_ipv6() {
                    return Vec::new();
                }
                vec![wrong(talk.net.owned).dropped(DropReason::BadChecksum), wrong(talk.net.router).passes()]
            },
        ),
        of_each(
            "a header length that is too short is dropped where only Blixt owns the address",
            Way::Nat,
            |talk| {
                let mut packet = talk.request_to(talk.net.owned, 80).bytes();
                packet[0] = if talk.net.client.is_ipv4() { 0x44 } else { 0x50 };
                vec![client_sends(&packet).dropped(DropReason::BadLength)]
            },
        ),
        of_each("a land attack is dropped", Way::Nat, |talk| vec![martian(talk, talk.net.frontend)]),
        of_each("a source that is nobody's, this machine's or a group's is dropped", Way::Nat, |talk| {
            let sources: &[&str] = if talk.net.client.is_ipv4() {
                &["0.0.0.0", "127.0.0.1", "224.0.0.9", "255.255.255.255"]
            } else {
                &["::", "::1", "ff02::9"]
            };
            sources.iter().map(|source| martian(talk, source.parse().unwrap())).collect()
        }),
        of_each(
            "a backend's packet of no flow to an address of full NAT is dropped, never the host's to answer",
            Way::Nat,
            |talk| vec![backend_sends(&talk.reply().flags(ACK).bytes()).dropped(DropReason::NoFlow)],
        ),
    ]
    .concat()
    .into_iter()
    .filter(|case| !case.steps.is_empty())
    .collect()
}

fn martian(talk: &Talk, source: IpAddr) -> Step {
    let from = (source, if source == talk.net.frontend { FRONTEND_PORT } else { CLIENT_PORT });
    client_sends(&IpPacket::new(talk.protocol, from, talk.frontend()).bytes()).dropped(DropReason::BadAddress)
}

/// Makes the IP header say how long the packet is.
fn set_length(packet: &mut [u8], network: usize) {
    let length = packet.len();
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&((length - network) as u16).to_be_bytes());
        return;
    }
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..network]).ones_complement();
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
}
