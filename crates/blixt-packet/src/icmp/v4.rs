//! ICMP (RFC 792) and the IPv4 header of answers.

use super::{Embedded, Icmp};
use crate::abi::{FlowKey, V4};
use crate::address::Address;
use crate::answer::HOPS;
use crate::checksum::Delta;
use crate::fragment::original_id;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::state::State;
use crate::{DropReason, Refusal, Verdict};

impl Icmp for V4 {
    const HEADER: usize = 20;
    const SUMS_ADDRESSES: bool = false;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn error(refusal: &Refusal) -> [u32; 2] {
        let [_, _, high, low] = refusal.mtu.to_be_bytes();
        let (kind, code, rest) = match refusal.reason {
            DropReason::TtlExceeded => (TIME_EXCEEDED, 0, 0),
            DropReason::TooBig => (UNREACHABLE, MUST_FRAGMENT, u32::from_ne_bytes([0, 0, high, low])),
            _ => (UNREACHABLE, NO_PORT, 0),
        };
        [u32::from_ne_bytes([kind, code, 0, 0]), rest]
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        pkt: &mut P,
        at: usize,
        source: Self,
        destination: Self,
        protocol: u8,
        length: u32,
    ) -> Result<(), DropReason> {
        let [high, low] = (length as u16 + Self::HEADER as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, 0, high, low]);
        let second = u32::from_ne_bytes(DO_NOT_FRAGMENT);
        let third = u32::from_ne_bytes([HOPS, protocol, 0, 0]);
        let sum = destination.sum(source.sum(Delta::default())).add_all([first, second, third]);
        let [high, low] = (!sum.fold()).to_ne_bytes();
        let third = u32::from_ne_bytes([HOPS, protocol, high, low]);
        pkt.write_words(at, [first, second, third, source.0[0], destination.0[0]])
    }

    #[inline(always)]
    fn reflect<P: Packet>(pkt: &mut P, headers: &Headers<Self>) -> Result<(), DropReason> {
        let [hops, protocol, high, low] = pkt.read(headers.network + 8)?;
        let word = |hops| u16::from_ne_bytes([hops, protocol]) as u32;
        let change = Delta::default().replace(word(hops), word(HOPS));
        let [high, low] = change.apply(u16::from_ne_bytes([high, low])).to_ne_bytes();
        let middle = u32::from_ne_bytes([HOPS, protocol, high, low]);
        pkt.write_words(headers.network + 8, [middle, headers.key.destination.0[0], headers.key.source.0[0]])
    }

    #[inline(always)]
    fn embedded<P: Packet>(pkt: &P, at: usize) -> Result<Embedded<Self>, DropReason> {
        let [first, second, third, source, destination]: [u32; 5] = pkt.words(at)?;
        let [version, ..] = first.to_ne_bytes();
        let length = (version & 0x0f) as usize * 4;
        if version >> 4 != 4 || length < 20 {
            return Err(DropReason::BadLength);
        }
        let [_, _, high, low] = second.to_ne_bytes();
        if u16::from_be_bytes([high, low]) & OFFSET != 0 {
            // A part without ports.
            return Err(DropReason::IcmpUnrelated);
        }
        let [_, protocol, _, _] = third.to_ne_bytes();
        let key = FlowKey {
            source: Self([source]),
            destination: Self([destination]),
            ports: [0; 2],
            protocol: protocol as u32,
        };
        Ok(Embedded { key, transport: at + pkt.forget(length as u32) as usize })
    }

    #[inline(always)]
    fn write_embedded<P: Packet>(
        pkt: &mut P,
        at: usize,
        old: &FlowKey<Self>,
        new: &FlowKey<Self>,
    ) -> Result<Delta, DropReason> {
        let [second, middle]: [u32; 2] = pkt.words(at + 4)?;
        let [id_high, id_low, offset_high, offset_low] = second.to_ne_bytes();
        let id = u16::from_ne_bytes([id_high, id_low]);
        let is_fragment = u16::from_be_bytes([offset_high, offset_low]) & (MORE | OFFSET) != 0;
        let new_id = if is_fragment && new.source != old.source { original_id(id, new.source) } else { id };
        let [hops, protocol, high, low] = middle.to_ne_bytes();
        let before = u16::from_ne_bytes([high, low]);
        let addresses =
            old.destination.replaced(new.destination, old.source.replaced(new.source, Delta::default()));
        let change = addresses.replace(id as u32, new_id as u32);
        let after = change.apply(before);
        let [id_high, id_low] = new_id.to_ne_bytes();
        let second = u32::from_ne_bytes([id_high, id_low, offset_high, offset_low]);
        let [high, low] = after.to_ne_bytes();
        let middle = u32::from_ne_bytes([hops, protocol, high, low]);
        pkt.write_words(at + 4, [second, middle, new.source.0[0], new.destination.0[0]])?;
        Ok(change.replace(before as u32, after as u32))
    }

    #[inline(always)]
    fn solicitation<P: Packet, S: State<Self>>(
        _pkt: &mut P,
        _state: &S,
        _headers: &Headers<Self>,
        _kind: u8,
    ) -> Option<Verdict> {
        // Neighbours of IPv4 ask by ARP, which is no IP packet.
        None
    }
}

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const NO_PORT: u8 = 3;
const MUST_FRAGMENT: u8 = 4;
/// Identification 0 and the bit "don't fragment": then the identification says nothing (RFC 6864).
const DO_NOT_FRAGMENT: [u8; 4] = [0, 0, 0x40, 0];
/// The bit "more fragments".
const MORE: u16 = 0x2000;
/// The fragment offset.
const OFFSET: u16 = 0x1fff;
