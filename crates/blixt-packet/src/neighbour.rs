//! Who has this address? An address that only Blixt owns is answered for on the link of its device, by ARP for IPv4
//! and by neighbour discovery for IPv6. Other addresses are none of our business.

mod advertisement;

pub(crate) use advertisement::{SOLICITATION, solicited};

use crate::abi::{Link, V4};
use crate::address::Address;
use crate::frame::{Addressee, Frame};
use crate::packet::Packet;
use crate::state::State;
use crate::{DropReason, Verdict};

/// Type of an ARP packet, host order.
pub const ARP: u16 = 0x0806;

/// Answers an ARP request for an address that is ours to answer for.
#[inline(always)]
pub fn arp<P: Packet, S: State<V4>>(pkt: &mut P, state: &S) -> Verdict {
    match reply(pkt, state) {
        Ok(true) => Verdict::Answer(None),
        Ok(false) => Verdict::Pass,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// False: the packet asks for nothing of ours.
#[inline(always)]
fn reply<P: Packet, S: State<V4>>(pkt: &mut P, state: &S) -> Result<bool, DropReason> {
    if Addressee::of(pkt, state) == Addressee::Another {
        return Ok(false);
    }
    let frame = Frame::parse(pkt)?;
    let Ok([kinds, operation, first, second, third, _, target]) = pkt.words::<7>(frame.network) else {
        return Ok(false);
    };
    if kinds != u32::from_ne_bytes(ETHERNET_IPV4) || operation != u32::from_ne_bytes(REQUEST) {
        return Ok(false);
    }
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    let [i, j, _, _] = third.to_ne_bytes();
    if u32::from_ne_bytes([g, h, i, j]) == target {
        // An announcement: somebody else says that the address is his, and asks nothing.
        return Ok(false);
    }
    let Some([o, p, q, r, s, t]) = mac(state, V4([target]), frame.link) else {
        return Ok(false);
    };
    let [w, x, y, z] = target.to_ne_bytes();
    pkt.write(0, [a, b, c, d, e, f, o, p, q, r, s, t])?;
    let at = frame.network;
    pkt.write(at + 6, [0, 2, o, p, q, r, s, t, w, x, y, z, a, b, c, d, e, f, g, h, i, j])?;
    Ok(true)
}

/// The MAC address that answers for an address on a link.
#[inline(always)]
fn mac<A: Address, S: State<A>>(state: &S, target: A, link: Link) -> Option<[u8; 6]> {
    let ifindex = link.ifindex();
    // The tagged frames of a link are those of another device.
    if link.vlan() != 0 || state.address(&target)?.ifindex != ifindex {
        return None;
    }
    let [[a, b], [c, d], [e, f]] = state.device(ifindex)?.mac.map(u16::to_ne_bytes);
    Some([a, b, c, d, e, f])
}

/// Hardware type, protocol type.
const ETHERNET_IPV4: [u8; 4] = [0, 1, 8, 0];
/// Lengths of a hardware and of a protocol address, operation.
const REQUEST: [u8; 4] = [6, 4, 0, 1];
