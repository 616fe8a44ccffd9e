//! Fragments: only the first part of a packet has ports, the table `FRAGMENTS_*` lends them to the others.
//!
//! Parts are translated one by one, never put together: the receiver does that. A part that says other than what the
//! first one said is refused, since the receiver might put together what no rule here has seen (RFC 1858, RFC 3128,
//! RFC 5722).

use crate::DropReason;
use crate::abi::{Fragment, V4};
use crate::address::{Address, avalanche, mix};
use crate::headers::Headers;
use crate::state::State;

/// Seconds that the parts of a packet may take: as long as Linux keeps the parts of an IPv4 packet.
const LIFETIME: u32 = 30;
/// The shortest transport header: a first part without one is not honest.
const SHORTEST: u32 = 8;

/// The identification of the parts of an IPv4 packet, once another source stands in the place of its own: all who got that
/// source must not number their packets alike, and many count from the same beginning (RFC 6864, section 5.3). Different for each
/// packet of a sender, as before, and the same for all parts of one. Of the 32 bits of IPv6 nobody needs to take such care.
#[inline(always)]
pub fn translated_id(id: u16, source: V4) -> u16 {
    id.wrapping_add(distance(source))
}

/// The identification that the sender at `source` gave a packet, of what [`translated_id`] made of it.
#[inline(always)]
pub fn original_id(id: u16, source: V4) -> u16 {
    id.wrapping_sub(distance(source))
}

#[inline(always)]
fn distance(source: V4) -> u16 {
    avalanche(mix(0, source.0[0])) as u16
}

/// Gives a part of a TCP or UDP packet its ports.
#[inline(always)]
pub fn admit<A: Address, S: State<A>>(state: &S, headers: &mut Headers<A>) -> Result<(), DropReason> {
    if headers.part.is_later() {
        headers.key.ports = recall(state, headers)?;
    } else if headers.payload() < SHORTEST {
        return Err(DropReason::FragmentOverlap);
    }
    Ok(())
}

/// Remembers the ports of a first part that is ours; anything else is no matter.
#[inline(always)]
pub fn remember<A: Address, S: State<A>>(state: &S, headers: &Headers<A>) {
    if headers.part.more && !headers.part.is_later() {
        let fragment = Fragment { ports: headers.key.ports, end: headers.payload(), seen: state.now() };
        state.set_fragment(&headers.fragment_key(), &fragment);
    }
}

/// The ports of a later part. Whether it is ours to drop if they are unknown, the caller must say.
#[inline(always)]
pub fn recall<A: Address, S: State<A>>(state: &S, headers: &Headers<A>) -> Result<[u16; 2], DropReason> {
    let Some(fragment) = state.fragment(&headers.fragment_key()) else {
        return Err(DropReason::FragmentUnknown);
    };
    if state.now().wrapping_sub(fragment.seen) > LIFETIME {
        return Err(DropReason::FragmentUnknown);
    }
    if headers.part.offset < fragment.end {
        return Err(DropReason::FragmentOverlap);
    }
    Ok(fragment.ports)
}
