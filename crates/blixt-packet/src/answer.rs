//! Packets of our own, each made in place out of the packet that it answers.
//!
//! What is answered is cut short and room is made in front of it, so nothing is ever copied. An answer goes back by
//! the link and to the MAC address that the packet came from, from the very address that it was sent to: no other
//! address of the machine shows.

mod echo;
mod report;
mod reset;

pub(crate) use echo::echo;

use crate::abi::FlowKey;
use crate::address::Address;
use crate::checksum::Delta;
use crate::headers::{Headers, TCP};
use crate::icmp::Icmp;
use crate::packet::Packet;
use crate::room::Room;
use crate::send::way_to_client;
use crate::state::State;
use crate::step::Step;
use crate::{DropReason, Verdict};

/// Tells the sender of a TCP or UDP packet that it is not sent on, where the reason is one to tell: a connection that
/// nobody takes (RST, or "port unreachable"), or a packet that cannot go on (an ICMP error). But that its backend is gone a
/// silent client would never hear: the first segment for it is what tells.
#[inline(always)]
pub(crate) fn answer<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, room: &mut Room<A>) -> Step {
    let refusal = &room.step.refusal();
    if reset::is_owed(room) {
        let way = way_to_client(state, &room.flow);
        if !way.is_open(pkt, &room.headers) {
            return Verdict::Pass.into();
        }
        if let Some(hop) = way.hop() {
            return match reset::pass_on(pkt, state, room, Some(hop)) {
                Ok(()) => Verdict::Reset(Some(hop.link)).into(),
                Err(reason) => Verdict::Drop(reason).into(),
            };
        }
    }
    let headers = &room.headers;
    let is_tcp = headers.protocol() == TCP;
    let made = match refusal.reason {
        DropReason::Refused | DropReason::BackendGone if is_tcp => {
            reset::reset(pkt, state, headers, refusal.reason)
        }
        DropReason::Refused | DropReason::TtlExceeded | DropReason::TooBig => {
            report::report(pkt, state, headers, refusal)
        }
        reason => Err(reason),
    };
    match made {
        Ok(()) => Verdict::Answer(Some(refusal.reason)).into(),
        Err(reason) => Verdict::Drop(reason).into(),
    }
}

/// As [`answer`], of a packet that leaves: its sender is this machine, which hears nothing.
#[inline(always)]
pub(crate) fn answer_leaving<A: Icmp, P: Packet, S: State<A>>(
    pkt: &mut P,
    state: &S,
    room: &mut Room<A>,
) -> Step {
    if !reset::is_owed(room) {
        return Verdict::Drop(room.step.refusal().reason).into();
    }
    match reset::pass_on(pkt, state, room, None) {
        Ok(()) => Verdict::Reset(None).into(),
        Err(reason) => Verdict::Drop(reason).into(),
    }
}

/// The packet, whose frame is for one machine, may be answered: it was sent by one machine to one machine, and it has its
/// transport header (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
#[inline(always)]
fn is_answerable<A: Address>(headers: &Headers<A>) -> bool {
    !headers.part.is_later() && headers.key.source.is_host() && headers.key.destination.is_host()
}

/// Sends the frame back to whom it came from.
#[inline(always)]
fn turn_frame<P: Packet>(pkt: &mut P) -> Result<(), DropReason> {
    let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; 12] = pkt.read(0)?;
    pkt.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])
}

/// The sum of the pseudo header of a packet between the addresses of `key`, whichever of them sends it.
#[inline(always)]
pub(crate) fn pseudo_header<A: Address>(key: &FlowKey<A>, protocol: u8, length: u32) -> Delta {
    key.destination.sum(key.source.sum(Delta::default())).add((protocol as u32).to_be()).add(length.to_be())
}

/// Hops that an answer may take: Linux' default.
pub(crate) const HOPS: u8 = 64;
