//! Questions to the kernel: its routing table, its sockets. Never asked for an established flow that has a hop.

use core::hint::black_box;
use core::mem::size_of;

use aya_ebpf::bindings::{bpf_fib_lookup as FibQuery, bpf_sock_tuple as SockTuple};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use blixt_packet::abi::{FlowKey, Hop, Link, V6};
use blixt_packet::address::Address;
use blixt_packet::headers::TCP;
use blixt_packet::state::{Route, Socket};

use super::{Aligned, Maps, device};

/// Address families of the kernel.
const AF_INET: u64 = 2;
/// See [`AF_INET`].
const AF_INET6: u64 = 10;
/// Answers of `bpf_fib_lookup`: the way and the neighbour are known.
const FIB_SUCCESS: i64 = 0;
/// The destination is not forwarded to: it is this machine's own, or a group's.
const FIB_NOT_FORWARDED: i64 = 4;
/// Forwarding is off on the device that the packet came by.
const FIB_FORBIDDEN: i64 = 5;
/// The way is known, its neighbour's MAC address is not.
const FIB_NO_NEIGHBOUR: i64 = 7;
/// The network namespace that the program runs in (`BPF_F_CURRENT_NETNS`).
const CURRENT_NETNS: u64 = u64::MAX;
/// Bytes of the tuple of a socket.
const SOCK_TUPLE_V4: u32 = 4 + 4 + 2 + 2;
/// See [`SOCK_TUPLE_V4`].
const SOCK_TUPLE_V6: u32 = 16 + 16 + 2 + 2;
/// `TCP_LISTEN`.
const LISTENING: u32 = 10;
/// No MTU is known: the device itself drops what it cannot send.
const ANY_SIZE: u32 = u32::MAX;

/// What the kernel's routing says about a packet from `source` to `destination`.
#[inline(always)]
pub fn route<A: Address>(maps: &Maps, source: A, destination: A) -> Route {
    let mut frame = Frame::default();
    match ask(maps, &Aligned(source), &Aligned(destination), &mut frame) {
        FIB_SUCCESS => Route::Hop(frame.hop()),
        FIB_NO_NEIGHBOUR => Route::Device(frame.ifindex),
        FIB_NOT_FORWARDED => Route::Local,
        FIB_FORBIDDEN => Route::Forbidden,
        _ => Route::Unknown,
    }
}

/// What the kernel says about the next frame. Whole words: on the stack the verifier takes no others. The compiler may keep the addresses
/// alone there, and read two words of them as one: they stand where they are aligned to that.
#[repr(C, align(8))]
#[derive(Default)]
struct Frame {
    /// Source and destination MAC address, one behind the other.
    macs: [u32; 3],
    ifindex: u32,
}

impl Frame {
    #[inline(always)]
    fn hop(&self) -> Hop {
        let [[a, b], [c, d], [e, f]] = self.macs.map(halves);
        Hop {
            link: Link::new(self.ifindex, 0),
            deadline: 0,
            mtu: device(self.ifindex).map_or(ANY_SIZE, |device| device.mtu),
            destination: [d, e, f],
            source: [a, b, c],
        }
    }
}

/// Words, two and two.
#[inline(always)]
fn doubled([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
}

#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// `struct bpf_fib_lookup`, in double words: the compiler writes two words as one, wherever they lie.
#[repr(C)]
struct Query {
    family: u64,
    ifindex: u64,
    source: [u64; 2],
    destination: [u64; 2],
    vlan: u32,
    macs: [u32; 3],
}

/// The question takes 64 bytes of stack, which the fast path need not carry.
#[inline(never)]
fn ask<A: Address>(maps: &Maps, source: &Aligned<A>, destination: &Aligned<A>, frame: &mut Frame) -> i64 {
    let zero = unknown_zero();
    let mut query = Query {
        family: if A::ETHERTYPE == V6::ETHERTYPE { AF_INET6 } else { AF_INET },
        ifindex: maps.ifindex as u64,
        source: doubled(source.0.to_words()),
        destination: doubled(destination.0.to_words()),
        vlan: zero,
        macs: [zero; 3],
    };
    // SAFETY: the context is the program's own, the query is initialised and as large as said.
    let answer = unsafe { bpf_fib_lookup(maps.ctx, (&raw mut query).cast(), size_of::<Query>() as i32, 0) };
    frame.ifindex = query.ifindex as u32;
    frame.macs = query.macs;
    answer
}

const _: () = assert!(size_of::<Query>() == size_of::<FibQuery>());

/// A zero that the compiler does not know: of many known ones it makes a loop over bytes.
#[inline(always)]
fn unknown_zero() -> u32 {
    black_box(0)
}

/// The socket of this machine that would get a packet with this tuple.
#[inline(always)]
pub fn socket<A: Address>(maps: &Maps, key: &FlowKey<A>) -> Socket {
    match look_up(maps, key) {
        0 => Socket::None,
        1 => Socket::Listening,
        _ => Socket::Bound,
    }
}

/// 0, 1 or 2 as the kinds of [`Socket`]: a subprogram returns one integer.
#[inline(never)]
fn look_up<A: Address>(maps: &Maps, key: &FlowKey<A>) -> u32 {
    let [source, source_rest] = doubled(key.source.to_words());
    let [destination, destination_rest] = doubled(key.destination.to_words());
    let [source_port, destination_port] = key.ports;
    let ports = source_port as u64 | (destination_port as u64) << 16;
    let zero = unknown_zero() as u64;
    // `struct bpf_sock_tuple`: the addresses, then the ports.
    let (mut tuple, size) = if A::ETHERTYPE == V6::ETHERTYPE {
        ([source, source_rest, destination, destination_rest, ports], SOCK_TUPLE_V6)
    } else {
        ([source | destination << 32, ports, zero, zero, zero], SOCK_TUPLE_V4)
    };
    let tuple: *mut SockTuple = (&raw mut tuple).cast();
    if key.protocol == TCP as u32 {
        // SAFETY: the context is the program's own, the tuple is initialised up to `size`.
        let socket = unsafe { bpf_skc_lookup_tcp(maps.ctx, tuple, size, CURRENT_NETNS, 0) };
        if socket.is_null() {
            return 0;
        }
        // SAFETY: the socket is ours until it is released, and not read afterwards.
        let state = unsafe {
            let state = (*socket).state;
            bpf_sk_release(socket.cast());
            state
        };
        return if state == LISTENING { 1 } else { 2 };
    }
    // SAFETY: as above.
    let socket = unsafe { bpf_sk_lookup_udp(maps.ctx, tuple, size, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: the socket was handed to us, and is not read afterwards.
    unsafe { bpf_sk_release(socket.cast()) };
    2
}
