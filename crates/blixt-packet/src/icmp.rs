//! ICMP and ICMPv6: echo, neighbours, and errors about packets that were sent on.
//!
//! An error carries the packet that it speaks of, as it was on the far side of Blixt. Reversed, its tuple is the key of
//! the flow that goes the error's way: that flow says how the carried packet looks on the near side, and where the
//! error goes.

mod embedded;
mod error;
mod v4;
mod v6;

pub(crate) use embedded::Embedded;
pub(crate) use error::{carry, translate};

use crate::abi::FlowKey;
use crate::address::Address;
use crate::answer::echo;
use crate::checksum::Delta;
use crate::frame::Addressee;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::state::State;
use crate::step::Step;
use crate::{DropReason, Refusal, Verdict};

/// Bytes of an ICMP header.
pub(crate) const HEADER: usize = 8;

/// What differs between ICMP and ICMPv6, and between the headers that answers get.
pub trait Icmp: Address {
    /// Bytes of the IP header that answers get.
    const HEADER: usize;
    /// The checksum covers the addresses.
    const SUMS_ADDRESSES: bool;
    /// Type of an echo request.
    const ECHO_REQUEST: u8;
    /// Type of its reply.
    const ECHO_REPLY: u8;

    /// The type is that of an error that is worth sending on.
    fn is_error(kind: u8) -> bool;

    /// The two words in front of the embedded packet of an error that tells of a refusal; the sum is 0.
    fn error(refusal: &Refusal) -> [u32; 2];

    /// Writes the IP header of a packet of ours that carries `length` bytes.
    fn write_header<P: Packet>(
        pkt: &mut P,
        at: usize,
        source: Self,
        destination: Self,
        protocol: u8,
        length: u32,
    ) -> Result<(), DropReason>;

    /// Swaps the addresses of a packet, and gives it the hops of a new one.
    fn reflect<P: Packet>(pkt: &mut P, headers: &Headers<Self>) -> Result<(), DropReason>;

    /// Reads the packet that an error carries at `at`.
    fn embedded<P: Packet>(pkt: &P, at: usize) -> Result<Embedded<Self>, DropReason>;

    /// Writes the addresses of an embedded packet, and says how the sum over its IP header changes by it.
    fn write_embedded<P: Packet>(
        pkt: &mut P,
        at: usize,
        old: &FlowKey<Self>,
        new: &FlowKey<Self>,
    ) -> Result<Delta, DropReason>;

    /// What becomes of a packet that asks for the MAC address of a neighbour; nothing if it does not.
    fn solicitation<P: Packet, S: State<Self>>(
        pkt: &mut P,
        state: &S,
        headers: &Headers<Self>,
        kind: u8,
    ) -> Option<Verdict>;
}

/// Decides about an ICMP packet that came in by a device, unless it is an error.
#[inline(always)]
pub(crate) fn receive<A: Icmp, P: Packet, S: State<A>>(pkt: &mut P, state: &S, headers: &Headers<A>) -> Step {
    let is_to_us = Addressee::of(pkt, state) == Addressee::Us;
    let is_owned = is_to_us && state.address(&headers.key.destination).is_some();
    if headers.part.is_later() {
        return if is_owned { echo(pkt, state, headers).into() } else { Verdict::Pass.into() };
    }
    pkt.gather();
    let kind = match kind(pkt, headers) {
        Ok(kind) => kind,
        Err(reason) if is_owned => return Verdict::Drop(reason).into(),
        Err(_) => return Verdict::Pass.into(),
    };
    if let Some(verdict) = A::solicitation(pkt, state, headers, kind) {
        return verdict.into();
    }
    if is_to_us && A::is_error(kind) && !headers.part.is_fragment() {
        return Step::ICMP_ERROR;
    }
    match is_owned {
        true if kind == A::ECHO_REQUEST => echo(pkt, state, headers).into(),
        true => Verdict::Drop(DropReason::Refused).into(),
        false => Verdict::Pass.into(),
    }
}

/// The type of a message. What follows the packet in its frame is none of it.
#[inline(always)]
fn kind<A: Address, P: Packet>(pkt: &P, headers: &Headers<A>) -> Result<u8, DropReason> {
    if headers.payload() < HEADER as u32 {
        return Err(DropReason::BadLength);
    }
    let [kind] = pkt.read(headers.transport)?;
    Ok(kind)
}

/// Decides about an ICMP packet that leaves by a device: only the errors of backends on this machine are ours.
#[inline(always)]
pub(crate) fn leave<A: Icmp, P: Packet>(pkt: &P, headers: &Headers<A>) -> Step {
    match pkt.read(headers.transport) {
        Ok([kind]) if A::is_error(kind) && !headers.part.is_fragment() => Step::ICMP_ERROR,
        _ => Verdict::Pass.into(),
    }
}
