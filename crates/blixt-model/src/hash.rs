//! The hash of a tuple. Which one it is matters to users: nodes with the same tables choose the same backends, so it must stay
//! the same from one version to the next.
//!
//! Words are taken as they lie in the packet and read in the machine's byte order. Each is mixed in by a multiplication with
//! 2^32 divided by the golden ratio; the end is MurmurHash3's finalizer.

use std::net::IpAddr;

use crate::flow::Tuple;
use crate::sum::octets;

/// Of a client's tuple.
pub fn hash(tuple: &Tuple) -> u32 {
    let mut words = vec![];
    for address in [tuple.from.0, tuple.to.0] {
        words.extend(octets(address).chunks(4).map(|word| word_of([word[0], word[1], word[2], word[3]])));
    }
    let [from, to] = [tuple.from.1, tuple.to.1].map(|port| u32::from(u16::from_ne_bytes(port.to_be_bytes())));
    words.push((from << 16) + to);
    finalized(words.into_iter().fold(u32::from(tuple.protocol), mixed))
}

/// By how much the identifications of an IPv4 sender's parts are moved.
pub fn distance(source: IpAddr) -> u16 {
    let octets = octets(source);
    let moved = finalized(mixed(0, word_of([octets[0], octets[1], octets[2], octets[3]])));
    // Added to numbers as they lie in the packet, in the machine's byte order.
    moved as u16
}

fn word_of(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

fn mixed(hash: u32, word: u32) -> u32 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b1);
    product ^ product >> 15
}

fn finalized(mut hash: u32) -> u32 {
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
