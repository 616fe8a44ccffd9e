//! ICMP and ICMPv6: echo, and errors about packets that were sent on.

use blixt_packet::DropReason;

use super::send::{framed, moved, rewritten};
use super::{Model, Refusal};
use crate::flow::{Half, Tuple};
use crate::hash::distance;
use crate::outcome::Outcome;
use crate::packet::{Chain, Packet, TCP, UDP, be16};
use crate::sum::{carried, octets, pseudo_header, sum};

/// The packet that an error quotes.
struct Quoted {
    tuple: Tuple,
    /// Where its IP header begins, and where that ends.
    ip: usize,
    transport: usize,
    is_first_part: bool,
}

impl Model {
    /// ICMP comes in; `is_to_us`: in a frame for this machine alone.
    pub(super) fn control(&mut self, packet: &Packet, is_to_us: bool) -> Outcome {
        let is_owned = is_to_us && self.tables.addresses.contains_key(&packet.tuple.to.0);
        if packet.part.offset != 0 {
            return if is_owned { self.echo(packet) } else { Outcome::Pass };
        }
        let is_v4 = packet.tuple.from.0.is_ipv4();
        if packet.payload().len() < 8 {
            return if is_owned { Outcome::Drop(DropReason::BadLength) } else { Outcome::Pass };
        }
        let kind = packet.payload()[0];
        match kind {
            135 if !is_v4 => self.solicitation(packet),
            _ if is_to_us && is_error(kind, is_v4) && !packet.part.is_fragment() => self.error_enters(packet),
            8 if is_owned && is_v4 => self.echo(packet),
            128 if is_owned && !is_v4 => self.echo(packet),
            _ if is_owned => Outcome::Drop(DropReason::Refused),
            _ => Outcome::Pass,
        }
    }

    /// ICMP leaves: only errors of backends on this machine are ours.
    pub(super) fn error_leaves(&mut self, packet: &Packet) -> Outcome {
        let is_v4 = packet.tuple.from.0.is_ipv4();
        let is_error = packet.payload().first().is_some_and(|kind| is_error(*kind, is_v4));
        if packet.part.is_fragment() || !is_error {
            return Outcome::Pass;
        }
        let Ok((quoted, flow)) = self.related(packet) else { return Outcome::Pass };
        if !flow.is_to_stack || flow.is_request {
            return Outcome::Pass;
        }
        if self.living(&flow).is_none() {
            return Outcome::Drop(DropReason::BackendGone);
        }
        Outcome::Deliver(translated(packet, &quoted, &flow, false))
    }

    fn error_enters(&mut self, packet: &Packet) -> Outcome {
        let (quoted, flow) = match self.related(packet) {
            Ok(related) => related,
            Err(reason) if self.tables.addresses.contains_key(&packet.tuple.to.0) => {
                return Outcome::Drop(reason);
            }
            Err(_) => return Outcome::Pass,
        };
        if flow.is_to_stack && !flow.is_request {
            // Translated where it leaves.
            return Outcome::Pass;
        }
        let Some(backend) = self.living(&flow) else { return Outcome::Drop(DropReason::BackendGone) };
        if flow.is_to_stack {
            return Outcome::Deliver(translated(packet, &quoted, &flow, false));
        }
        let hop = self.hop(&flow, &backend);
        // No error is answered with an error (RFC 1122, section 3.2.2).
        if let Err(Refusal { reason, .. }) = self.fits(packet, &hop) {
            return Outcome::Drop(reason);
        }
        let frame = framed(translated(packet, &quoted, &flow, true), packet, &hop);
        Outcome::Send(hop.link, frame)
    }

    /// The packet that an error quotes, and the half that goes the error's way: its packets carry the reverse of what is quoted.
    fn related(&self, packet: &Packet) -> Result<(Quoted, Half), DropReason> {
        let quoted = if packet.tuple.from.0.is_ipv4() { quoted_v4(packet) } else { quoted_v6(packet) }?;
        // An error goes to whom the packet was from.
        if quoted.tuple.from.0 != packet.tuple.to.0 {
            return Err(DropReason::IcmpUnrelated);
        }
        let flow = self.flows.get(&quoted.tuple.reversed()).copied().ok_or(DropReason::IcmpUnrelated)?;
        Ok((quoted, flow))
    }
}

/// Destination unreachable, time exceeded, parameter problem, in IPv6 packet too big.
fn is_error(kind: u8, is_v4: bool) -> bool {
    if is_v4 { [3, 11, 12].contains(&kind) } else { [1, 2, 3, 4].contains(&kind) }
}

fn quoted_v4(packet: &Packet) -> Result<Quoted, DropReason> {
    let ip = packet.transport + 8;
    let header = packet.frame.get(ip..ip + 20).ok_or(DropReason::Truncated)?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(DropReason::BadLength);
    }
    let offset = u16::from_be_bytes([header[6], header[7]]);
    if offset & 0x1fff != 0 {
        return Err(DropReason::IcmpUnrelated);
    }
    let address = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]].into();
    let tuple = Tuple { from: (address(12), 0), to: (address(16), 0), protocol: header[9] };
    with_ports(packet, Quoted { tuple, ip, transport: ip + length, is_first_part: offset & 0x2000 != 0 })
}

fn quoted_v6(packet: &Packet) -> Result<Quoted, DropReason> {
    let ip = packet.transport + 8;
    let header = packet.frame.get(ip..ip + 40).ok_or(DropReason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::BadLength);
    }
    // It may be cut short anywhere: its own length says where its headers may be.
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut chain = Chain::new(header[6], ip + 40, ip + 40 + length);
    chain.follow(&packet.frame)?;
    if chain.part.offset != 0 {
        return Err(DropReason::IcmpUnrelated);
    }
    let address = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).expect("16 bytes").into();
    let tuple = Tuple { from: (address(8), 0), to: (address(24), 0), protocol: chain.next };
    with_ports(packet, Quoted { tuple, ip, transport: chain.at, is_first_part: false })
}

fn with_ports(packet: &Packet, mut quoted: Quoted) -> Result<Quoted, DropReason> {
    if ![TCP, UDP].contains(&quoted.tuple.protocol) {
        return Err(DropReason::IcmpUnrelated);
    }
    let at = quoted.transport;
    if at + 8 > packet.ethernet.network + packet.total {
        return Err(DropReason::BadLength);
    }
    let port = |at| be16(&packet.frame, at).ok_or(DropReason::Truncated);
    (quoted.tuple.from.1, quoted.tuple.to.1) = (port(at)?, port(at + 2)?);
    Ok(quoted)
}

/// The error in the terms of whom it goes to: it quotes the packet as that one sent it.
fn translated(packet: &Packet, quoted: &Quoted, flow: &Half, routed: bool) -> Vec<u8> {
    let mut frame = packet.frame.clone();
    let end = packet.ethernet.network + packet.total;
    let old = quoted.tuple;
    let new = flow.other_key(old.protocol);
    quote(&mut frame[quoted.ip..end], quoted, &new);

    // Only the machine that the quoted packet was for is shown as who that was for: a router keeps its own address.
    let from = if packet.tuple.from.0 == old.to.0 { flow.from.0 } else { packet.tuple.from.0 };
    let pseudo = |source, destination| match packet.icmp() {
        1 => vec![],
        icmp => pseudo_header(source, destination, icmp, packet.payload().len()),
    };
    let before = sum(&[&pseudo(packet.tuple.from.0, packet.tuple.to.0), packet.payload()]);
    let message = &mut frame[packet.transport..end];
    message[2..4].fill(0);
    let field = carried(before, sum(&[&pseudo(from, flow.to.0), message]));
    message[2..4].copy_from_slice(&field.to_be_bytes());
    rewritten(&Packet { frame, ..packet.clone() }, (from, 0), (flow.to.0, 0), routed)
}

/// Gives a quoted packet, which may end anywhere behind its ports, another tuple.
fn quote(bytes: &mut [u8], quoted: &Quoted, new: &Tuple) {
    let Quoted { tuple: old, ip, transport, is_first_part } = *quoted;
    let (header, body) = bytes.split_at_mut(transport - ip);
    if old.from.0.is_ipv4() {
        let before = sum(&[header]);
        // Parts were numbered anew when they were sent.
        if is_first_part && new.from.0 != old.from.0 {
            moved(&mut header[4..6], distance(new.from.0).wrapping_neg());
        }
        header[12..20].copy_from_slice(&[octets(new.from.0), octets(new.to.0)].concat());
        header[10..12].fill(0);
        let field = carried(before, sum(&[header]));
        header[10..12].copy_from_slice(&field.to_be_bytes());
    } else {
        header[8..40].copy_from_slice(&[octets(new.from.0), octets(new.to.0)].concat());
    }
    let at = if old.protocol == TCP { 16 } else { 6 };
    let has_sum = body.len() >= at + 2 && !(old.protocol == UDP && body[at..at + 2] == [0, 0]);
    let pseudo = |tuple: &Tuple| pseudo_header(tuple.from.0, tuple.to.0, old.protocol, 0);
    let before = sum(&[&pseudo(&old), body]);
    body[..2].copy_from_slice(&new.from.1.to_be_bytes());
    body[2..4].copy_from_slice(&new.to.1.to_be_bytes());
    if has_sum {
        body[at..at + 2].fill(0);
        let field = carried(before, sum(&[&pseudo(new), body]));
        let field = if old.protocol == UDP && field == 0 { 0xffff } else { field };
        body[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }
}
