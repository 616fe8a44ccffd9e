//! Full NAT of a known flow, and nothing else: no states, no counters, no clock, no backend that may be gone.

use aya_ebpf::bindings::BPF_F_PSEUDO_HDR;
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use blixt_packet::abi::{Flow, FlowKey, V4};
use blixt_packet::checksum::Delta;

use crate::headers::{Headers, place};

/// Keys, values and, once it is loaded, size of the product's table.
#[btf_map]
pub static FLOOR_FLOWS: LruHashMap<FlowKey<V4>, Flow<V4>, 65_536> = LruHashMap::new();

/// EtherType of IPv4.
const IPV4: u16 = 0x0800_u16.to_be();
/// IPv4, five words of header.
const VERSION: u8 = 0x45;
/// Offset of a fragment, and the flag that more follow.
const FRAGMENT: u16 = 0x3fff_u16.to_be();
/// TCP's protocol number.
const TCP: u8 = 6;
/// Offset of the IPv4 header's checksum in the frame.
const NETWORK_SUM: u32 = 14 + 10;
/// Offset of TCP's checksum in the frame.
const TRANSPORT_SUM: u32 = 14 + 20 + 16;
/// The two MAC addresses of the frame, whichever.
const MACS: ([u16; 3], [u16; 3]) = ([0x02; 3], [0x04; 3]);

/// Translates the packet and sends it on; `None`: not a packet for the floor.
#[inline(always)]
pub fn translate(ctx: &TcContext) -> Option<i32> {
    let headers: *mut Headers = place(ctx)?;
    // SAFETY: `place` has checked that all of it lies in the packet.
    let headers = unsafe { &mut *headers };
    let is_plain = headers.ethertype == IPV4
        && headers.version == VERSION
        && headers.fragment & FRAGMENT == 0
        && headers.protocol == TCP;
    if !is_plain {
        return None;
    }
    let key = FlowKey {
        source: V4([word(headers.source_high, headers.source_low)]),
        destination: V4([headers.destination]),
        ports: [headers.source_port, headers.destination_port],
        protocol: TCP as u32,
    };
    // SAFETY: copied at once.
    let flow = *unsafe { FLOOR_FLOWS.get(&key) }?;
    let [source, destination] = [flow.source.0[0], flow.destination.0[0]];
    let addresses =
        Delta::default().replace(key.source.0[0], source).replace(key.destination.0[0], destination);
    let ports =
        Delta::default().replace(word(key.ports[0], key.ports[1]), word(flow.ports[0], flow.ports[1]));
    (headers.frame_destination, headers.frame_source) = MACS;
    [headers.source_high, headers.source_low] = halves(source);
    headers.destination = destination;
    [headers.source_port, headers.destination_port] = flow.ports;
    let skb = ctx.skb.skb;
    // SAFETY: the context is the program's own; with size 0 and nothing old the new value is a difference.
    unsafe {
        bpf_l3_csum_replace(skb, NETWORK_SUM, 0, addresses.wide() as u64, 0);
        bpf_l4_csum_replace(skb, TRANSPORT_SUM, 0, addresses.wide() as u64, BPF_F_PSEUDO_HDR as u64);
        bpf_l4_csum_replace(skb, TRANSPORT_SUM, 0, ports.wide() as u64, 0);
        Some(bpf_redirect(flow.client.ifindex(), 0) as i32)
    }
}

#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
