//! Whether a packet may be ours at all: asked of every packet first, and answered by one bit of an address.
//!
//! A TCP or UDP packet is ours only if it goes to an address of a frontend, or to one that only Blixt owns, or comes from a
//! backend. User space sets a bit for each of these addresses (`KNOWN_*`), before anything leads there, and never takes it back: a
//! flow may outlive what it led to. Where addresses share a bit a packet that is not ours is looked at in vain, and passes later.

use crate::abi::{KNOWN_WORDS, V4, V6};
use crate::address::Address;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::state::State;

/// Bits of an element of `KNOWN_*`.
const BITS: u32 = u64::BITS;

/// Where the bit of an address is: the element, and the bit in it.
#[inline(always)]
pub fn place<A: Address>(address: A) -> (u32, u64) {
    // Of a product the high bits depend on all bits of the factors.
    let bit = address.spread() >> (u32::BITS - (KNOWN_WORDS * BITS).ilog2());
    (bit / BITS, 1 << (bit % BITS))
}

/// What a frame carries that may be ours, host order; 0 if it is not, or too short to say.
#[inline(always)]
pub fn ethertype<P: Packet, S: State<V4> + State<V6>>(pkt: &P, state: &S) -> u16 {
    let Ok(frame) = Frame::parse(pkt) else { return 0 };
    let is_foreign = match frame.ethertype {
        V4::ETHERTYPE => is_foreign::<V4, P, S>(pkt, state, frame.network),
        V6::ETHERTYPE => is_foreign::<V6, P, S>(pkt, state, frame.network),
        _ => false,
    };
    if is_foreign { 0 } else { frame.ethertype }
}

/// The packet is between others. A control message is looked at all the same: what it speaks of may be ours.
#[inline(always)]
fn is_foreign<A: Address, P: Packet, S: State<A>>(pkt: &P, state: &S, network: usize) -> bool {
    let Ok((source, destination, protocol)) = A::ends(pkt, network) else {
        return false;
    };
    !(state.knows(destination) || state.knows(source) || A::may_be_control(protocol))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    extern crate std;

    #[test]
    fn addresses_of_one_network_hardly_share_a_bit() {
        let v4 = |host: u32| V4([(0x0a63_0000 + host).to_be()]);
        let v6 = |host: u32| V6([0xfd00_0010_u32, 0x0244_0000 + (host >> 8), 0, host & 0xff].map(u32::to_be));
        check(v4);
        check(v6);
    }

    /// 10 000 addresses over 2^20 places: 48 pairs meet where the places are drawn by lot.
    fn check<A: Address>(address: impl Fn(u32) -> A) {
        let places: BTreeSet<(u32, u64)> = (0..10_000).map(|host| place(address(host))).collect();
        assert!(places.len() > 9_900, "{} of 10 000", places.len());
        assert!(places.iter().all(|(element, _)| *element < KNOWN_WORDS));
    }
}
