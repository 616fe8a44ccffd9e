//! ICMPv6 (RFC 4443) and the IPv6 header of answers.

use super::{Embedded, Icmp};
use crate::abi::{FlowKey, V6};
use crate::address::{Address, extensions};
use crate::answer::HOPS;
use crate::checksum::Delta;
use crate::headers::Headers;
use crate::neighbour::{SOLICITATION, solicited};
use crate::packet::Packet;
use crate::state::State;
use crate::{DropReason, Refusal, Verdict};

impl Icmp for V6 {
    const HEADER: usize = 40;
    const SUMS_ADDRESSES: bool = true;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn error(refusal: &Refusal) -> [u32; 2] {
        let (kind, code, rest) = match refusal.reason {
            DropReason::TtlExceeded => (TIME_EXCEEDED, 0, 0),
            DropReason::TooBig => (TOO_BIG, 0, refusal.mtu.to_be()),
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
        let [high, low] = (length as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
        let second = u32::from_ne_bytes([high, low, protocol, HOPS]);
        let [s0, s1, s2, s3] = source.0;
        let [d0, d1, d2, d3] = destination.0;
        pkt.write_words(at, [first, second, s0, s1, s2, s3, d0, d1, d2, d3])
    }

    #[inline(always)]
    fn reflect<P: Packet>(pkt: &mut P, headers: &Headers<Self>) -> Result<(), DropReason> {
        // In one piece: for the verifier two offsets that lie close together are two relations to keep.
        let at = headers.network + 4;
        let [high, low, next, _] = pkt.read(at)?;
        let second = u32::from_ne_bytes([high, low, next, HOPS]);
        let [s0, s1, s2, s3] = headers.key.destination.0;
        let [d0, d1, d2, d3] = headers.key.source.0;
        pkt.write_words(at, [second, s0, s1, s2, s3, d0, d1, d2, d3])
    }

    #[inline(always)]
    fn embedded<P: Packet>(pkt: &P, at: usize) -> Result<Embedded<Self>, DropReason> {
        let [first, second, s0, s1, s2, s3, d0, d1, d2, d3]: [u32; 10] = pkt.words(at)?;
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return Err(DropReason::BadLength);
        }
        let [high, low, next, _] = second.to_ne_bytes();
        let mut headers = Headers::<Self> {
            network: at,
            total: 40 + u16::from_be_bytes([high, low]) as u32,
            ..Headers::default()
        };
        extensions(pkt, &mut headers, next)?;
        if headers.part.is_later() {
            // A part without ports.
            return Err(DropReason::IcmpUnrelated);
        }
        let key = FlowKey {
            source: Self([s0, s1, s2, s3]),
            destination: Self([d0, d1, d2, d3]),
            ports: [0; 2],
            protocol: headers.key.protocol,
        };
        Ok(Embedded { key, transport: headers.transport })
    }

    #[inline(always)]
    fn write_embedded<P: Packet>(
        pkt: &mut P,
        at: usize,
        old: &FlowKey<Self>,
        new: &FlowKey<Self>,
    ) -> Result<Delta, DropReason> {
        let [s0, s1, s2, s3] = new.source.0;
        let [d0, d1, d2, d3] = new.destination.0;
        pkt.write_words(at + 8, [s0, s1, s2, s3, d0, d1, d2, d3])?;
        Ok(old.destination.replaced(new.destination, old.source.replaced(new.source, Delta::default())))
    }

    #[inline(always)]
    fn solicitation<P: Packet, S: State<Self>>(
        pkt: &mut P,
        state: &S,
        headers: &Headers<Self>,
        kind: u8,
    ) -> Option<Verdict> {
        (kind == SOLICITATION).then(|| solicited(pkt, state, headers))
    }
}

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const NO_PORT: u8 = 4;
