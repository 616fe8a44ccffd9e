//! Who has this address? ARP (RFC 826) and neighbour discovery (RFC 4861), for addresses that only Blixt owns.

use std::net::{IpAddr, Ipv6Addr};

use blixt_packet::DropReason;
use blixt_packet::abi::Link;

use super::answer::made;
use super::{Addressee, Model, is_host};
use crate::outcome::Outcome;
use crate::packet::{Ethernet, Packet};
use crate::sum::{checksum, octets, pseudo_header, sum};

/// Longest solicitation that is looked at.
const LONGEST: usize = 512;

impl Model {
    /// Answers an ARP request.
    pub(super) fn arp(&self, frame: &[u8], ethernet: &Ethernet) -> Outcome {
        let at = ethernet.network;
        if self.addressee(ethernet) == Addressee::Another || frame.len() < at + 28 {
            return Outcome::Pass;
        }
        let (fixed, sender, target) = (&frame[at..at + 8], &frame[at + 8..at + 18], &frame[at + 24..at + 28]);
        // Ethernet, IPv4, their lengths, and a request; not one that says who has its sender's address.
        let is_request = fixed == [0, 1, 8, 0, 6, 4, 0, 1] && &sender[6..] != target;
        let address = IpAddr::from([target[0], target[1], target[2], target[3]]);
        let Some(mac) = self.mac_for(address, ethernet.link).filter(|_| is_request) else {
            return Outcome::Pass;
        };
        let head = [&sender[..6], &mac, &frame[12..at]].concat();
        let reply = [&fixed[..7], &[2], &mac, target, sender].concat();
        Outcome::Answer(None, [&head[..], &reply, &frame[at + 28..]].concat())
    }

    /// Answers a neighbour solicitation, if it is a valid one (RFC 4861, section 7.1.1).
    pub(super) fn solicitation(&self, packet: &Packet) -> Outcome {
        let message = packet.payload();
        let is_plain = packet.transport == packet.ethernet.network + 40;
        if !is_plain || packet.hops != 255 || !(24..=LONGEST).contains(&message.len()) || message[1] != 0 {
            return Outcome::Pass;
        }
        let target = Ipv6Addr::from(<[u8; 16]>::try_from(&message[8..24]).expect("16 bytes"));
        let Some(mac) = self.mac_for(target.into(), packet.ethernet.link) else { return Outcome::Pass };
        let (from, to) = (packet.tuple.from.0, packet.tuple.to.0);
        let is_probe = from.is_unspecified();
        if is_probe && to != IpAddr::V6(solicited_node(target)) || !is_probe && !is_host(from) {
            return Outcome::Pass;
        }
        if sum(&[&pseudo_header(from, to, 58, message.len()), message]) != 0xffff {
            return Outcome::Drop(DropReason::BadChecksum);
        }
        // Who has no address yet is answered by an answer to all.
        let all: IpAddr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into();
        let (to, to_mac) =
            if is_probe { (all, [0x33, 0x33, 0, 0, 0, 1]) } else { (from, packet.ethernet.source) };
        let flags = if is_probe { 0x20 } else { 0x60 };
        let mut answer =
            [&[136, 0, 0, 0, flags, 0, 0, 0], &octets(target.into())[..], &[2, 1], &mac].concat();
        let field = checksum(sum(&[&pseudo_header(target.into(), to, 58, answer.len()), &answer]));
        answer[2..4].copy_from_slice(&field.to_be_bytes());
        let mut ip = made(target.into(), to, 58, &answer);
        ip[7] = 255;
        let ethertype = &packet.frame[12..packet.ethernet.network];
        Outcome::Answer(None, [&to_mac[..], &mac, ethertype, &ip].concat())
    }

    /// The MAC address that answers for an address on a link; that of a VLAN is none of ours.
    fn mac_for(&self, address: IpAddr, link: Link) -> Option<[u8; 6]> {
        let ifindex = *self.tables.addresses.get(&address)?;
        let is_there = link == Link::new(ifindex, 0) && ifindex != 0;
        Some(self.tables.devices.get(&ifindex).filter(|_| is_there)?.mac.0)
    }
}

/// The group in which the neighbours of an address listen (RFC 4291, section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}
