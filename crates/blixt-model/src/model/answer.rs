//! Packets that Blixt makes: RST (RFC 9293, section 3.10.7.1), ICMP errors (RFC 792, RFC 4443), echo replies.

use std::net::IpAddr;

use blixt_packet::DropReason;

use super::send::{framed, sum_header};
use super::{Model, Refusal, has_reset, is_host};
use crate::flow::{End, Half};
use crate::outcome::Outcome;
use crate::packet::{ACK, FIN, Packet, RST, SYN, TCP};
use crate::sum::{carried, checksum, octets, pseudo_header, sum};

/// TTL or hop limit of what we make.
const HOPS: u8 = 64;
/// Most bytes of a quoted packet's IP headers: longer ones are not quoted.
const MOST_QUOTED: usize = 492;

impl Model {
    /// Answers a packet that goes no further, if its end is one to tell; a client that waits for its backend is told instead.
    pub(super) fn refuse(&mut self, packet: &Packet, refusal: &Refusal) -> Outcome {
        if let Some(flow) = owed_reset(packet, refusal) {
            if !self.take_answer() {
                return Outcome::Drop(DropReason::AnswerLimited);
            }
            let hop = self.hop_to_client(&flow);
            let frame = framed(last_words(packet, &flow), packet, &hop);
            self.note_reset(packet, flow);
            return Outcome::Reset(Some(hop.link), frame);
        }
        let is_tcp = packet.tuple.protocol == TCP;
        let answer = match refusal.reason {
            DropReason::Refused | DropReason::BackendGone if is_tcp && !has_reset(packet) => reset(packet),
            DropReason::Refused if is_tcp => None,
            DropReason::Refused | DropReason::TtlExceeded | DropReason::TooBig => self.error(packet, refusal),
            _ => None,
        };
        match answer {
            Some(frame) if is_answerable(packet) => {
                if !self.take_answer() {
                    return Outcome::Drop(DropReason::AnswerLimited);
                }
                Outcome::Answer(Some(refusal.reason), frame)
            }
            _ => Outcome::Drop(refusal.reason),
        }
    }

    /// The same at egress, where nobody hears an answer.
    pub(super) fn refuse_leaving(&mut self, packet: &Packet, refusal: &Refusal) -> Outcome {
        let Some(flow) = owed_reset(packet, refusal) else { return Outcome::Drop(refusal.reason) };
        if !self.take_answer() {
            return Outcome::Drop(DropReason::AnswerLimited);
        }
        let frame = last_words(packet, &flow);
        self.note_reset(packet, flow);
        Outcome::Reset(None, frame)
    }

    fn note_reset(&mut self, packet: &Packet, flow: Half) {
        let noted = Half { progress: flow.progress.after(flow.is_request, RST), seen: self.now, ..flow };
        self.keep(&packet.tuple, noted);
    }

    /// An ICMP error about a packet. It quotes the IP headers and what finds the connection: 8 bytes of UDP, the header of TCP.
    fn error(&self, packet: &Packet, refusal: &Refusal) -> Option<Vec<u8>> {
        let ip = &packet.frame[packet.ethernet.network..packet.transport];
        let quoted = if packet.tuple.protocol == TCP { 20 } else { 8 };
        if ip.len() > MOST_QUOTED || packet.payload().len() < quoted {
            return None;
        }
        let is_v4 = packet.tuple.from.0.is_ipv4();
        let [mtu_low, mtu] =
            [(refusal.mtu as u16).to_be_bytes().to_vec(), refusal.mtu.to_be_bytes().to_vec()];
        let (kind, code, rest) = match (refusal.reason, is_v4) {
            (DropReason::TtlExceeded, true) => (11, 0, vec![0; 4]),
            (DropReason::TtlExceeded, false) => (3, 0, vec![0; 4]),
            (DropReason::TooBig, true) => (3, 4, [vec![0; 2], mtu_low].concat()),
            (DropReason::TooBig, false) => (2, 0, mtu),
            (_, true) => (3, 3, vec![0; 4]),
            (_, false) => (1, 4, vec![0; 4]),
        };
        let mut message = [&[kind, code, 0, 0], &rest[..], ip, &packet.payload()[..quoted]].concat();
        // Whom the packet was for speaks; where that is the client's own address, its frontend.
        let speaker = match self.flows.get(&packet.tuple) {
            Some(flow) if !flow.is_request && flow.to.0 == packet.tuple.to.0 => flow.from.0,
            _ => packet.tuple.to.0,
        };
        let to = packet.tuple.from.0;
        let pseudo = if is_v4 { vec![] } else { pseudo_header(speaker, to, packet.icmp(), message.len()) };
        let field = checksum(sum(&[&pseudo, &message]));
        message[2..4].copy_from_slice(&field.to_be_bytes());
        Some(turned(packet, &made(speaker, to, packet.icmp(), &message)))
    }

    /// The reply to an echo request for an address that only Blixt owns. A part of one goes back by itself.
    pub(super) fn echo(&mut self, packet: &Packet) -> Outcome {
        if packet.part.offset != 0 {
            if let Err(reason) = self.first_part(packet) {
                return Outcome::Drop(reason);
            }
        } else if !is_answerable(packet) {
            return Outcome::Drop(DropReason::BadAddress);
        }
        if !self.take_answer() {
            return Outcome::Drop(DropReason::AnswerLimited);
        }
        self.remember_part(packet);
        let network = packet.ethernet.network;
        let mut frame = packet.frame.clone();
        frame[..12].copy_from_slice(&[packet.ethernet.source, packet.ethernet.destination].concat());
        let header = &mut frame[network..packet.transport];
        let (from, to) = (octets(packet.tuple.from.0), octets(packet.tuple.to.0));
        let is_v4 = packet.tuple.from.0.is_ipv4();
        if is_v4 {
            header[8] = HOPS;
            header[12..20].copy_from_slice(&[to, from].concat());
            sum_header(header);
        } else {
            header[7] = HOPS;
            header[8..40].copy_from_slice(&[to, from].concat());
        }
        if packet.part.offset == 0 {
            // The addresses change places, which no sum can tell.
            let message = &mut frame[packet.transport..network + packet.total];
            message[0] = if is_v4 { 0 } else { 129 };
            message[2..4].fill(0);
            let field = carried(sum(&[packet.payload()]), sum(&[message]));
            let field = if field == 0 { 0xffff } else { field };
            message[2..4].copy_from_slice(&field.to_be_bytes());
        }
        Outcome::Answer(None, frame)
    }
}

/// One machine sent it to one, and it says which connection it is of (RFC 1122, section 3.2.2).
pub(super) fn is_answerable(packet: &Packet) -> bool {
    packet.part.offset == 0 && is_host(packet.tuple.from.0) && is_host(packet.tuple.to.0)
}

/// The flow of a segment for a client that has not heard yet that its backend is gone.
fn owed_reset(packet: &Packet, refusal: &Refusal) -> Option<Half> {
    let is_told = refusal.reason == DropReason::BackendGone && packet.tuple.protocol == TCP;
    let flow = refusal.flow.filter(|flow| is_told && !flow.is_request && !flow.progress.reset)?;
    (!has_reset(packet) && is_answerable(packet)).then_some(flow)
}

/// The segment for a client as the RST that ends its connection, with the very number that it waits for.
fn last_words(packet: &Packet, flow: &Half) -> Vec<u8> {
    let numbers = &packet.payload()[4..12];
    let segment = segment(flow.from, flow.to, numbers, RST | packet.flags & ACK);
    let network = packet.ethernet.network;
    [&packet.frame[..network], &made(flow.from.0, flow.to.0, TCP, &segment)].concat()
}

/// The RST that answers a segment.
fn reset(packet: &Packet) -> Option<Vec<u8>> {
    let header = packet.payload();
    if packet.part.offset != 0 {
        return None;
    }
    let (numbers, flags) = if packet.flags & ACK != 0 {
        ([&header[8..12], &[0; 4]].concat(), RST)
    } else {
        let data = header.len() - usize::from(header[12] >> 4) * 4;
        let ends = [SYN, FIN].iter().filter(|flag| packet.flags & *flag != 0).count();
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let acknowledged = sequence.wrapping_add((data + ends) as u32);
        ([[0; 4], acknowledged.to_be_bytes()].concat(), RST | ACK)
    };
    let segment = segment(packet.tuple.to, packet.tuple.from, &numbers, flags);
    Some(turned(packet, &made(packet.tuple.to.0, packet.tuple.from.0, TCP, &segment)))
}

/// A header of TCP, summed. `numbers`: sequence and acknowledgement.
fn segment(from: End, to: End, numbers: &[u8], flags: u8) -> Vec<u8> {
    let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    bytes.extend(numbers);
    bytes.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let field = checksum(sum(&[&pseudo_header(from.0, to.0, TCP, bytes.len()), &bytes]));
    bytes[16..18].copy_from_slice(&field.to_be_bytes());
    bytes
}

/// An IP packet of ours.
pub(super) fn made(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut header = if from.is_ipv4() {
        let [high, low] = (20 + body.len() as u16).to_be_bytes();
        // Not to be fragmented, so its identification may be 0 (RFC 6864).
        vec![0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, protocol, 0, 0]
    } else {
        let [high, low] = (body.len() as u16).to_be_bytes();
        vec![0x60, 0, 0, 0, high, low, protocol, HOPS]
    };
    header.extend([octets(from), octets(to)].concat());
    if from.is_ipv4() {
        sum_header(&mut header);
    }
    [&header[..], body].concat()
}

/// A packet in the frame of another one, back to where that came from.
fn turned(packet: &Packet, ip: &[u8]) -> Vec<u8> {
    let ethernet = &packet.ethernet;
    [&ethernet.source[..], &ethernet.destination, &packet.frame[12..ethernet.network], ip].concat()
}
