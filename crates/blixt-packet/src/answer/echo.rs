//! Echo: an address that only Blixt owns answers a ping.

use super::{is_answerable, turn_frame};
use crate::checksum::Delta;
use crate::fragment;
use crate::headers::Headers;
use crate::icmp::Icmp;
use crate::packet::Packet;
use crate::state::State;
use crate::{DropReason, Verdict};

/// Sends an echo request back as the reply. Of a fragmented one each part goes back by itself.
#[inline(always)]
pub(crate) fn echo<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, headers: &Headers<A>) -> Verdict {
    match make(pkt, state, headers) {
        Ok(()) => Verdict::Answer(None),
        Err(reason) => Verdict::Drop(reason),
    }
}

#[inline(always)]
fn make<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    headers: &Headers<A>,
) -> Result<(), DropReason> {
    if headers.part.is_later() {
        fragment::recall(state, headers)?;
    } else if !is_answerable(headers) {
        return Err(DropReason::BadAddress);
    }
    if !state.take_answer() {
        return Err(DropReason::AnswerLimited);
    }
    if !headers.part.is_later() {
        let [old]: [u32; 1] = pkt.words(headers.transport)?;
        let [_, code, high, low] = old.to_ne_bytes();
        let word = |kind| u16::from_ne_bytes([kind, code]) as u32;
        let change = Delta::default().replace(word(A::ECHO_REQUEST), word(A::ECHO_REPLY));
        // A reply of zeros alone would need the other zero, which is as good everywhere else.
        let sum = match change.apply(u16::from_ne_bytes([high, low])) {
            0 => 0xffff,
            sum => sum,
        };
        let [high, low] = sum.to_ne_bytes();
        pkt.write(headers.transport, [A::ECHO_REPLY, code, high, low])?;
        fragment::remember(state, headers);
    }
    turn_frame(pkt)?;
    A::reflect(pkt, headers)
}
