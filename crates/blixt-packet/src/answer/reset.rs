//! RST: there is no such connection (RFC 9293, section 3.10.7.1).

use super::{is_answerable, pseudo_header, turn_frame};
use crate::DropReason;
use crate::headers::{ACK, FIN, Headers, RST, SYN, TCP};
use crate::icmp::Icmp;
use crate::packet::Packet;
use crate::state::State;

/// Makes a RST of a TCP segment, unless it is one; else says what to count.
#[inline(always)]
pub(super) fn reset<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
    reason: DropReason,
) -> Result<(), DropReason> {
    if headers.flags & RST != 0 || !is_answerable(headers) {
        return Err(reason);
    }
    if !state.take_answer() {
        return Err(DropReason::AnswerLimited);
    }

    let [_, sequence, acknowledgement, rest]: [u32; 4] = pkt.words(headers.transport)?;
    let (sequence, acknowledgement, flags) = if headers.flags & ACK != 0 {
        (acknowledgement, 0, RST)
    } else {
        let words = rest.to_ne_bytes()[0] >> 4;
        let data = headers.payload().wrapping_sub(words as u32 * 4);
        let length = data + (headers.flags & SYN != 0) as u32 + (headers.flags & FIN != 0) as u32;
        (0, u32::from_be(sequence).wrapping_add(length).to_be(), RST | ACK)
    };
    let [source, destination] = headers.key.ports;
    let ports = join(destination, source);
    let offset_and_flags = u32::from_ne_bytes([(LENGTH / 4) << 4, flags, 0, 0]);

    let pseudo = pseudo_header(&headers.key, TCP, LENGTH as u32);
    let sum = if pkt.is_partial() {
        pseudo.fold()
    } else {
        !pseudo.add_all([ports, sequence, acknowledgement, offset_and_flags]).fold()
    };

    pkt.truncate(headers.transport + LENGTH as usize)?;
    let extra = (headers.transport - headers.network).wrapping_sub(A::HEADER);
    if extra != 0 {
        pkt.shrink(headers.network, extra)?;
    }
    turn_frame(pkt)?;
    A::write_header(pkt, headers.network, headers.key.destination, headers.key.source, TCP, LENGTH as u32)?;
    let at = headers.network + A::HEADER;
    pkt.write_words(at, [ports, sequence, acknowledgement, offset_and_flags, join(sum, 0)])
}

/// Two fields of 16 bits as they lie side by side.
#[inline(always)]
fn join(first: u16, second: u16) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Bytes of a TCP header without options.
const LENGTH: u8 = 20;
