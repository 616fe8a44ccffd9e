//! The address family as a type parameter: [`V4`] and [`V6`].

use core::hint::black_box;

use crate::DropReason;
use crate::abi::{V4, V6};
use crate::checksum::Delta;
use crate::fragment::translated_id;
use crate::headers::{Headers, Part, TCP, UDP};
use crate::packet::Packet;

/// What differs between IPv4 and IPv6.
pub trait Address: Copy + Eq + Default {
    /// The type field of the Ethernet header, host order.
    const ETHERTYPE: u16;
    /// The protocol number of ICMP in this family.
    const ICMP: u8;
    /// Offset of the source address in the IP header; the destination follows it at once.
    const SOURCE_AT: usize;

    /// Reads the IP header (and what stands between it and the transport header) at `headers.network`.
    fn parse<P: Packet>(pkt: &P, headers: &mut Headers<Self>) -> Result<(), DropReason>;

    /// Source, destination and what the IP header at `network` says that follows it, without a look at whether that is so.
    fn ends<P: Packet>(pkt: &P, network: usize) -> Result<(Self, Self, u8), DropReason>;

    /// Behind an IP header that says so a control message may follow.
    fn may_be_control(protocol: u8) -> bool;

    /// Writes both addresses into the IP header at `network`, and takes one hop off if the packet is `routed`.
    fn write<P: Packet>(
        pkt: &mut P,
        headers: &Headers<Self>,
        source: Self,
        destination: Self,
        routed: bool,
    ) -> Result<(), DropReason>;

    /// The words of the address added to a sum.
    fn sum(self, sum: Delta) -> Delta;

    /// How the sum changes when this address gives way to `new`.
    fn replaced(self, new: Self, delta: Delta) -> Delta;

    /// Mixes the address into a hash.
    fn hash(self, hash: u32) -> u32;

    /// A cheap hash whose high bits depend on every bit of the address.
    fn spread(self) -> u32;

    /// It can be the source of a packet for a frontend: one machine's, and not a loopback one.
    fn is_host(self) -> bool;

    /// The words, the first one in front; IPv4 fills only that.
    fn to_words(self) -> [u32; 4];
}

/// A round of a multiplicative hash: the constant is 2^32 divided by the golden ratio, made odd.
#[inline(always)]
pub(crate) const fn mix(hash: u32, word: u32) -> u32 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b1);
    mixed ^ (mixed >> 15)
}

/// Spreads every bit over all bits: clients take their ports one after another, and the high bits choose the slot.
/// The finalizer of MurmurHash3 (Appleby, 2011).
#[inline(always)]
pub(crate) const fn avalanche(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

impl Address for V4 {
    const ETHERTYPE: u16 = 0x0800;
    const ICMP: u8 = 1;
    const SOURCE_AT: usize = 12;

    #[inline(always)]
    fn parse<P: Packet>(pkt: &P, headers: &mut Headers<Self>) -> Result<(), DropReason> {
        let words: [u32; 5] = pkt.words(headers.network)?;
        headers.key.source = Self([words[3]]);
        headers.key.destination = Self([words[4]]);
        headers.transport = headers.network + 20;
        let [version, _, total_high, total_low] = words[0].to_ne_bytes();
        let [_, _, offset_high, offset_low] = words[1].to_ne_bytes();
        let [hops, protocol, _, _] = words[2].to_ne_bytes();
        headers.hops = hops;
        headers.key.protocol = protocol as u32;

        let length = (version & 0x0f) as usize * 4;
        if version >> 4 != 4 || length < 20 {
            return Err(DropReason::BadLength);
        }
        let sum = if length > 20 {
            headers.transport = headers.network + pkt.forget(length as u32) as usize;
            pkt.sum(headers.network, length)?
        } else {
            Delta::default().add_all(words)
        };
        if sum.fold() != 0xffff {
            return Err(DropReason::BadChecksum);
        }

        let available = (pkt.len() - headers.network) as u32;
        let total = u16::from_be_bytes([total_high, total_low]) as u32;
        // A packet that is cut later may be larger than the field can say; then it is 0.
        headers.total = if total == 0 && pkt.is_segmented() { available } else { total };
        if headers.total < length as u32 {
            return Err(DropReason::BadLength);
        }
        if headers.total > available {
            return Err(DropReason::Truncated);
        }

        let offset = u16::from_be_bytes([offset_high, offset_low]);
        if offset & (V4_MORE | V4_OFFSET) != 0 {
            let [id_high, id_low, _, _] = words[1].to_ne_bytes();
            headers.part = Part {
                id: u16::from_be_bytes([id_high, id_low]) as u32,
                offset: (offset & V4_OFFSET) as u32 * 8,
                more: offset & V4_MORE != 0,
            };
        }
        Ok(())
    }

    #[inline(always)]
    fn ends<P: Packet>(pkt: &P, network: usize) -> Result<(Self, Self, u8), DropReason> {
        let [middle, source, destination] = pkt.words(network + 8)?;
        let [_, protocol, _, _] = middle.to_ne_bytes();
        Ok((Self([source]), Self([destination]), protocol))
    }

    #[inline(always)]
    fn may_be_control(protocol: u8) -> bool {
        protocol == Self::ICMP
    }

    #[inline(always)]
    fn write<P: Packet>(
        pkt: &mut P,
        headers: &Headers<Self>,
        source: Self,
        destination: Self,
        routed: bool,
    ) -> Result<(), DropReason> {
        let [_, second, middle]: [u32; 3] = pkt.words(headers.network)?;
        let [hops, protocol, sum_high, sum_low] = middle.to_ne_bytes();
        let left = if routed { hops.wrapping_sub(1) } else { hops };
        let sum = headers.key.source.replaced(source, Delta::default());
        let sum = headers.key.destination.replaced(destination, sum);
        let sum = sum.replace(
            u16::from_ne_bytes([hops, protocol]) as u32,
            u16::from_ne_bytes([left, protocol]) as u32,
        );
        let [id_high, id_low, offset_high, offset_low] = second.to_ne_bytes();
        let id = u16::from_ne_bytes([id_high, id_low]);
        let is_renumbered = headers.part.is_fragment() && source != headers.key.source;
        let new_id = if is_renumbered { translated_id(id, headers.key.source) } else { id };
        let sum = sum.replace(id as u32, new_id as u32);
        let [sum_high, sum_low] = sum.apply(u16::from_ne_bytes([sum_high, sum_low])).to_ne_bytes();
        let middle = u32::from_ne_bytes([left, protocol, sum_high, sum_low]);
        let [id_high, id_low] = new_id.to_ne_bytes();
        let second = u32::from_ne_bytes([id_high, id_low, offset_high, offset_low]);
        pkt.write_words(headers.network + 4, [second, middle, source.0[0], destination.0[0]])
    }

    #[inline(always)]
    fn sum(self, sum: Delta) -> Delta {
        sum.add_all(self.0)
    }

    #[inline(always)]
    fn replaced(self, new: Self, delta: Delta) -> Delta {
        delta.replace_all(self.0, new.0)
    }

    #[inline(always)]
    fn hash(self, hash: u32) -> u32 {
        mix(hash, self.0[0])
    }

    #[inline(always)]
    fn spread(self) -> u32 {
        u32::from_be(self.0[0]).wrapping_mul(0x9e37_79b1)
    }

    #[inline(always)]
    fn is_host(self) -> bool {
        let first = self.0[0].to_ne_bytes()[0];
        // 0/8 is nobody, 127/8 this machine itself, 224/3 are groups, reserved and broadcast addresses.
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn to_words(self) -> [u32; 4] {
        [self.0[0], 0, 0, 0]
    }
}

impl Address for V6 {
    const ETHERTYPE: u16 = 0x86dd;
    const ICMP: u8 = 58;
    const SOURCE_AT: usize = 8;

    #[inline(always)]
    fn parse<P: Packet>(pkt: &P, headers: &mut Headers<Self>) -> Result<(), DropReason> {
        let [first, second, s0, s1, s2, s3, d0, d1, d2, d3]: [u32; 10] = pkt.words(headers.network)?;
        headers.key.source = Self([s0, s1, s2, s3]);
        headers.key.destination = Self([d0, d1, d2, d3]);
        headers.transport = headers.network + 40;
        let [length_high, length_low, next, hops] = second.to_ne_bytes();
        headers.hops = hops;
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return Err(DropReason::BadLength);
        }
        let available = (pkt.len() - headers.network) as u32;
        let length = u16::from_be_bytes([length_high, length_low]) as u32;
        headers.total = if length == 0 && pkt.is_segmented() { available } else { 40 + length };
        if headers.total > available {
            return Err(DropReason::Truncated);
        }
        headers.key.protocol = next as u32;
        if matches!(next, TCP | UDP | Self::ICMP) {
            return Ok(());
        }
        extensions(pkt, headers, next)
    }

    #[inline(always)]
    fn ends<P: Packet>(pkt: &P, network: usize) -> Result<(Self, Self, u8), DropReason> {
        let [second, s0, s1, s2, s3, d0, d1, d2, d3] = pkt.words(network + 4)?;
        let [_, _, next, _] = second.to_ne_bytes();
        Ok((Self([s0, s1, s2, s3]), Self([d0, d1, d2, d3]), next))
    }

    /// Extension headers may stand before it.
    #[inline(always)]
    fn may_be_control(protocol: u8) -> bool {
        !matches!(protocol, TCP | UDP)
    }

    #[inline(always)]
    fn write<P: Packet>(
        pkt: &mut P,
        headers: &Headers<Self>,
        source: Self,
        destination: Self,
        routed: bool,
    ) -> Result<(), DropReason> {
        let key = &headers.key;
        let mut change = key.destination.replaced(destination, key.source.replaced(source, Delta::default()));
        if routed {
            let left = headers.hops.wrapping_sub(1);
            pkt.write(headers.network + 7, [left])?;
            let word = |hops| u16::from_ne_bytes([0, hops]) as u32;
            change = change.replace(word(headers.hops), word(left));
        }
        pkt.shift_sum(change);
        let [s0, s1, s2, s3] = source.0;
        let [d0, d1, d2, d3] = destination.0;
        pkt.write_words(headers.network + 8, [s0, s1, s2, s3, d0, d1, d2, d3])
    }

    #[inline(always)]
    fn sum(self, sum: Delta) -> Delta {
        sum.add_all(self.0)
    }

    #[inline(always)]
    fn replaced(self, new: Self, delta: Delta) -> Delta {
        delta.replace_all(self.0, new.0)
    }

    #[inline(always)]
    fn hash(self, hash: u32) -> u32 {
        let [a, b, c, d] = self.0;
        mix(mix(mix(mix(hash, a), b), c), d)
    }

    #[inline(always)]
    fn spread(self) -> u32 {
        let [a, b, c, d] = self.0;
        let double = |first: u32, second: u32| u64::from_be(first as u64 | (second as u64) << 32);
        // Two sums of products meet seldom, whatever the addresses have in common; the factors are any odd numbers.
        let network = double(a, b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let host = double(c, d).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (network.wrapping_add(host) >> 32) as u32
    }

    #[inline(always)]
    fn is_host(self) -> bool {
        let [a, b, c, d] = self.0;
        let first = a.to_ne_bytes()[0];
        let is_low = a == 0 && b == 0 && c == 0 && u32::from_be(d) <= 1;
        first != 0xff && !is_low
    }

    #[inline(always)]
    fn to_words(self) -> [u32; 4] {
        self.0
    }
}

/// Follows the chain of extension headers to the transport header.
#[inline(always)]
pub(crate) fn extensions<P: Packet>(pkt: &P, headers: &mut Headers<V6>, first: u8) -> Result<(), DropReason> {
    let mut next = first;
    let mut at = headers.network + 40;
    // Of a range with two ends the verifier follows more.
    for _ in 0..MAX_EXTENSIONS + 1 {
        at = pkt.forget(at as u32) as usize;
        headers.key.protocol = next as u32;
        headers.transport = at;
        if (at - headers.network) as u32 > headers.total {
            return Err(DropReason::BadLength);
        }
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION => {
                let [following, length] = pkt.read(at)?;
                let units = length as usize;
                at += if next == AUTHENTICATION { (units + 2) * 4 } else { (units + 1) * 8 };
                next = following;
            }
            FRAGMENT => {
                // Linux 6.1 knows of a number that is read from the stack again no bounds that were checked before.
                let [word, id]: [u32; 2] = pkt.words(black_box(at))?;
                let [following, _, offset_high, offset_low] = word.to_ne_bytes();
                let offset = u16::from_be_bytes([offset_high, offset_low]);
                headers.part = Part {
                    id: u32::from_be(id),
                    offset: (offset & V6_OFFSET) as u32,
                    more: offset & V6_MORE != 0,
                };
                at += 8;
                next = following;
                if headers.part.is_later() {
                    headers.key.protocol = next as u32;
                    headers.transport = at;
                    return Ok(());
                }
            }
            _ => return Ok(()),
        }
    }
    Err(DropReason::TooManyHeaders)
}

/// IPv4's bit for "more fragments".
const V4_MORE: u16 = 0x2000;
/// IPv4's fragment offset, in units of 8 bytes.
const V4_OFFSET: u16 = 0x1fff;
/// Extension headers of IPv6 that are followed.
const MAX_EXTENSIONS: usize = 6;
/// IPv6's bit for "more fragments".
const V6_MORE: u16 = 1;
/// IPv6's fragment offset; the lowest 3 bits are 0, so it counts bytes.
const V6_OFFSET: u16 = 0xfff8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
