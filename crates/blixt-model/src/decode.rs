//! Frames in words, for people.

use blixt_cases::{Given, Place};

use crate::packet::{Ethernet, Packet, TCP, UDP};
use crate::story::{Script, Step};

/// A script with a comment in front of each frame; it can be read back.
pub fn annotated(script: &Script) -> String {
    let text = script.to_string();
    let mut lines = text.lines();
    let mut told: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
    for (step, line) in script.steps.iter().zip(lines) {
        if let Step::Frame(given) = step {
            told.push(format!("# {}", words(given)));
        }
        told.push(line.to_owned());
    }
    told.join("\n")
}

fn words(given: &Given) -> String {
    let (Place::Enters(ifindex) | Place::Leaves(ifindex)) = given.place;
    let Some(ethernet) = Ethernet::read(&given.frame, ifindex) else { return "no frame".into() };
    let tag = match ethernet.link.vlan() {
        0 => String::new(),
        vlan => format!("VLAN {vlan} "),
    };
    if ethernet.ethertype == 0x0806 {
        return format!("{tag}ARP");
    }
    if ![0x0800, 0x86dd].contains(&ethernet.ethertype) {
        return format!("{tag}type {:#06x}", ethernet.ethertype);
    }
    let (flaw, packet) = match Packet::read(&given.frame, ethernet, given.segment as usize) {
        Ok(packet) => (String::new(), packet),
        Err((reason, Some(packet))) => (format!(", {}", reason.label()), *packet),
        Err((reason, None)) => return format!("{tag}{}", reason.label()),
    };
    let (from, to) = (packet.tuple.from, packet.tuple.to);
    let what = match packet.tuple.protocol {
        TCP => format!("TCP {}", flags(packet.flags)),
        UDP => "UDP".into(),
        number if number == packet.icmp() => {
            format!("ICMP type {}", packet.payload().first().copied().unwrap_or_default())
        }
        number => format!("protocol {number}"),
    };
    let part = match (packet.part.is_fragment(), packet.part.more) {
        (false, _) => String::new(),
        (true, more) => {
            format!(", part at {}{}", packet.part.offset, if more { ", more follow" } else { "" })
        }
    };
    let Packet { total, hops, .. } = packet;
    format!("{tag}{what} {}:{} > {}:{}, {total} bytes, {hops} hops{part}{flaw}", from.0, from.1, to.0, to.1)
}

fn flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let set: Vec<&str> =
        names.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "without flags".into() } else { set.join("+") }
}
