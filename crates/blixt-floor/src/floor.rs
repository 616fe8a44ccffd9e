//! What balancing needs at the least, step by step: a frontend that is looked up, full NAT of a known flow, a flow that begins.
//! No states, no backend that may be gone, no fragments, no answers.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_PSEUDO_HDR};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_coarse_ns, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use blixt_packet::abi::{Flow, FlowKey, V4};
use blixt_packet::checksum::Delta;

use crate::headers::{Frame, Headers, place};

/// Keys, values and, once it is loaded, size of the product's table.
#[btf_map]
pub static FLOOR_FLOWS: LruHashMap<Key, Flow<V4>, 65_536> = LruHashMap::new();
/// Address, port and protocol, to a number.
#[btf_map]
pub static FLOOR_FRONTENDS: HashMap<[u32; 2], u32, 4096> = HashMap::new();
/// Backends of the only frontend: address and port.
#[btf_map]
pub static FLOOR_RING: Array<[u32; 2], 4096> = Array::new();
/// Packets, bytes and when the last one came.
#[btf_map]
pub static FLOOR_COUNTERS: PerCpuArray<[u64; 3], 1> = PerCpuArray::new();

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
/// The machine's own address: the source of a flow that begins here.
const OWN: u32 = u32::from_ne_bytes([10, 0, 1, 1]);

/// What of a flow is put into the table.
pub enum Halves {
    /// The way to the backend, as where backends answer clients themselves.
    One,
    /// The way back as well.
    Both,
}

/// The bytes of a [`FlowKey`] in two words, as the verifier lets them be written on the stack: addresses, then ports and
/// protocol.
type Key = [u64; 2];
const _: () = assert!(size_of::<Key>() == size_of::<FlowKey<V4>>());

/// Full NAT of a known flow by the kernel's helpers for checksums; `None`: not a packet for the floor.
#[inline(always)]
pub fn translate(ctx: &TcContext) -> Option<i32> {
    let headers = headers(ctx)?;
    let key = key(headers)?;
    // SAFETY: copied at once.
    let flow = *unsafe { FLOOR_FLOWS.get(&key) }?;
    let (addresses, ports) = changes(headers, &flow);
    write(headers, &flow);
    let skb = ctx.skb.skb;
    // SAFETY: the context is the program's own; with size 0 and nothing old the new value is a difference.
    unsafe {
        bpf_l3_csum_replace(skb, NETWORK_SUM, 0, addresses.wide() as u64, 0);
        bpf_l4_csum_replace(skb, TRANSPORT_SUM, 0, addresses.wide() as u64, BPF_F_PSEUDO_HDR as u64);
        bpf_l4_csum_replace(skb, TRANSPORT_SUM, 0, ports.wide() as u64, 0);
        Some(bpf_redirect(flow.client.ifindex(), 0) as i32)
    }
}

/// Full NAT of a known flow with checksums written directly.
#[inline(always)]
pub fn translate_directly(ctx: &impl Frame) -> Option<()> {
    let headers = headers(ctx)?;
    let key = key(headers)?;
    // SAFETY: copied at once.
    let flow = *unsafe { FLOOR_FLOWS.get(&key) }?;
    rewrite(headers, &flow);
    Some(())
}

/// The same, and what a balancer cannot do without: it is counted, and when.
#[inline(always)]
pub fn translate_and_count(ctx: &impl Frame) -> Option<()> {
    translate_directly(ctx)?;
    count(ctx)
}

/// A frontend is looked up, and nothing found.
#[inline(always)]
pub fn look(ctx: &impl Frame) -> Option<()> {
    let headers = headers(ctx)?;
    key(headers)?;
    frontend(headers).is_none().then_some(())
}

/// A flow that begins: frontend, backend, one half or both halves into the table, full NAT.
#[inline(always)]
pub fn begin(ctx: &impl Frame, halves: Halves) -> Option<()> {
    let headers = headers(ctx)?;
    let key = key(headers)?;
    // SAFETY: copied at once.
    if unsafe { FLOOR_FLOWS.get(&key) }.is_some() {
        return None;
    }
    let slots = frontend(headers)?;
    let [address, port] = *FLOOR_RING.get(hash(headers) % slots.max(1))?;
    let port = port as u16;
    let client = word(headers.source_high, headers.source_low);
    let ports = [headers.source_port, port];
    let flow = Flow { source: V4([OWN]), destination: V4([address]), ports, ..Flow::default() };
    FLOOR_FLOWS.insert(&key, &flow, BPF_ANY as u64).ok()?;
    if matches!(halves, Halves::Both) {
        let back_key = [pair(address, OWN), pair(word(port, headers.source_port), TCP as u32)];
        let back = Flow {
            source: V4([headers.destination]),
            destination: V4([client]),
            ports: [headers.destination_port, headers.source_port],
            ..Flow::default()
        };
        FLOOR_FLOWS.insert(&back_key, &back, BPF_ANY as u64).ok()?;
    }
    rewrite(headers, &flow);
    count(ctx)
}

#[inline(always)]
fn frontend(headers: &Headers) -> Option<u32> {
    let key = [headers.destination, headers.destination_port as u32 | (headers.protocol as u32) << 16];
    // SAFETY: copied at once.
    unsafe { FLOOR_FRONTENDS.get(&key) }.copied()
}

#[inline(always)]
fn headers<'a>(ctx: &impl Frame) -> Option<&'a mut Headers> {
    let headers: *mut Headers = place(ctx)?;
    // SAFETY: `place` has checked that all of it lies in the packet.
    Some(unsafe { &mut *headers })
}

#[inline(always)]
fn key(headers: &Headers) -> Option<Key> {
    let is_plain = headers.ethertype == IPV4
        && headers.version == VERSION
        && headers.fragment & FRAGMENT == 0
        && headers.protocol == TCP;
    is_plain.then(|| {
        let ports = word(headers.source_port, headers.destination_port);
        [pair(word(headers.source_high, headers.source_low), headers.destination), pair(ports, TCP as u32)]
    })
}

/// What changes in the addresses and in the ports.
#[inline(always)]
fn changes(headers: &Headers, flow: &Flow<V4>) -> (Delta, Delta) {
    let [source, destination] = [flow.source.0[0], flow.destination.0[0]];
    let addresses = Delta::default()
        .replace(word(headers.source_high, headers.source_low), source)
        .replace(headers.destination, destination);
    let ports = word(headers.source_port, headers.destination_port);
    (addresses, Delta::default().replace(ports, word(flow.ports[0], flow.ports[1])))
}

#[inline(always)]
fn rewrite(headers: &mut Headers, flow: &Flow<V4>) {
    let (addresses, ports) = changes(headers, flow);
    headers.checksum = addresses.apply(headers.checksum);
    headers.transport_checksum = addresses.plus(ports).apply(headers.transport_checksum);
    write(headers, flow);
}

#[inline(always)]
fn write(headers: &mut Headers, flow: &Flow<V4>) {
    (headers.frame_destination, headers.frame_source) = MACS;
    [headers.source_high, headers.source_low] = halves(flow.source.0[0]);
    headers.destination = flow.destination.0[0];
    [headers.source_port, headers.destination_port] = flow.ports;
}

#[inline(always)]
fn count(ctx: &impl Frame) -> Option<()> {
    let (start, end) = ctx.bounds();
    let counters = FLOOR_COUNTERS.get_ptr_mut(0)?;
    // SAFETY: the map gave a valid element, and it is this CPU's own.
    let [packets, bytes, seen] = unsafe { &mut *counters };
    *packets += 1;
    *bytes += (end - start) as u64;
    // SAFETY: a helper without arguments.
    *seen = unsafe { bpf_ktime_get_coarse_ns() };
    Some(())
}

/// Of a tuple; good enough to spread flows that count up.
#[inline(always)]
fn hash(headers: &Headers) -> u32 {
    let ports = word(headers.source_port, headers.destination_port);
    let client = word(headers.source_high, headers.source_low);
    let mixed = ((client ^ ports.rotate_left(16)) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Two words as they lie in memory.
#[inline(always)]
fn pair(first: u32, second: u32) -> u64 {
    // SAFETY: every eight bytes are a number.
    unsafe { core::mem::transmute([first, second]) }
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
