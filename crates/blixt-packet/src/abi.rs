//! The contract between the kernel program and user space: keys and values of every map.
//!
//! All of it is plain words: `#[repr(C)]`, no padding that is not named, sizes asserted below. Numbers that
//! come from a packet (addresses, ports, MAC addresses) are kept *as they lie in the packet*, loaded with
//! `from_ne_bytes`; numbers of our own (ids, seconds, counters) are the machine's.
//!
//! What the program builds on its stack is aligned to 8 bytes: there the verifier takes no misaligned word, and the
//! compiler writes two words as one.
//!
//! Maps that hold addresses exist twice, once per family, with the suffix `_V4` or `_V6`:
//!
//! | map | kind | key | value | written by |
//! |---|---|---|---|---|
//! | `FLOWS_*` | LRU hash | [`FlowKey`] | [`Flow`] | kernel |
//! | `FLOW_COUNTERS_*` | per-CPU array | [`FLOWS_OF_PACKETS`], [`FLOWS_CARRIED`] | [`FlowCounters`] | kernel; user space |
//! | `FRAGMENTS_*` | LRU hash | [`FragmentKey`] | [`Fragment`] | kernel |
//! | `FRONTENDS_*` | hash | [`EndpointKey`] | [`Frontend`] | user space |
//! | `ENDPOINTS_*` | hash | [`EndpointKey`] | `u32`, how many backends are that endpoint | user space |
//! | `BACKENDS_*` | array | slot of a [`BackendId`] | [`Backend`] | user space |
//! | `ADDRESSES_*` | hash | address | [`OwnedAddress`] | user space |
//! | `KNOWN_*` | array | see [`known`](crate::known) | `u64`, a bit for each address that may be ours | user space |
//! | `RINGS` | array of arrays | ring id, then `slot / RING_CHUNK` | `[u32; RING_CHUNK]` of [`BackendId`] | user space |
//! | `RING_HASHES` | array | ring id | [`RingHash`] | user space, for user space |
//! | `HOPS` | array | hop id | [`Hop`] | user space |
//! | `DEVICES` | array | `ifindex % DEVICE_SLOTS` | [`Device`] | user space |
//! | `ROUTES` | array | route id | [`RouteHash`] | user space, for user space |
//! | `ROUTE_COUNTERS` | per-CPU array | route id | [`RouteCounters`] | kernel |
//! | `BACKEND_COUNTERS_*` | per-CPU array | backend slot | `u64`, connections | kernel |
//! | `DROPS` | per-CPU array | [`DropReason`](crate::DropReason) | `u64`, packets | kernel |
//! | `BUDGETS` | per-CPU array | [`Limited`] | [`Budget`] | kernel |
//!
//! Raise [`ABI_VERSION`] with any change: it names the directory of the pins, so that an older or newer
//! version's maps are never read with the wrong layout. Only `FLOWS_*` are: connections are carried over from one layout to
//! another. A change of what their keys or values mean gives them other names.

use core::mem::size_of;

/// The number of this layout.
pub const ABI_VERSION: u32 = 6;

/// Ring slots in one element of an inner array: 16 ids of 4 bytes are one cache line.
pub const RING_CHUNK: usize = 16;

/// Elements of `DEVICES`.
pub const DEVICE_SLOTS: u32 = 4096;

/// Elements of `KNOWN_*`: 2^20 bits are 128 KiB. Of packets between others a hundredth is looked at in vain where 5 000 addresses are
/// known.
pub const KNOWN_WORDS: u32 = 1 << 14;

/// An IPv4 address, as it lies in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct V4(pub [u32; 1]);

/// An IPv6 address, as it lies in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct V6(pub [u32; 4]);

/// What is looked up first for every packet: the tuple that the packet itself carries.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FlowKey<A> {
    /// Source address of the packet.
    pub source: A,
    /// Destination address of the packet.
    pub destination: A,
    /// Source and destination port, as they lie in the packet.
    pub ports: [u16; 2],
    /// IP protocol number: 6 or 17.
    pub protocol: u32,
}

/// What to do with the packets of one direction of a connection.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow<A> {
    /// Source address to write.
    pub source: A,
    /// Destination address to write.
    pub destination: A,
    /// Source and destination port to write.
    pub ports: [u16; 2],
    /// The backend that serves the connection; a packet of a backend that is gone must not be sent on.
    pub backend: BackendId,
    /// The client's side of the way: where replies leave. See [`Link`].
    pub client: Link,
    /// The MAC address that replies are sent to: the source of the client's last packet.
    pub client_mac: [u16; 3],
    /// [`FLOW_REQUEST`], [`FLOW_TO_STACK`], [`FLOW_MASKED`].
    pub flags: u8,
    /// Bits of the connection's state, see `flow.rs`.
    pub state: u8,
    /// Seconds of the coarse monotonic clock when a packet was last seen.
    pub seen: u32,
}

/// The entry describes packets from the client to the backend; without it, from the backend to the client.
pub const FLOW_REQUEST: u8 = 1;
/// The backend is on this machine: the node's own stack delivers, and the reply is translated as it leaves.
pub const FLOW_TO_STACK: u8 = 2;
/// Full NAT, although nothing else says so: the backend's way would keep the client's address, but would be answered past us; or
/// the client has the very address that is put in its place.
pub const FLOW_MASKED: u8 = 4;

/// A device and the VLAN on it: `ifindex << 12 | VLAN id`, 0 for none.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Link(pub u32);

impl Link {
    /// The link of a device; `vlan` is the 12-bit VLAN id, 0 for untagged.
    pub const fn new(ifindex: u32, vlan: u16) -> Self {
        Self(ifindex << 12 | (vlan & 0xfff) as u32)
    }

    /// Index of the device.
    pub const fn ifindex(self) -> u32 {
        self.0 >> 12
    }

    /// VLAN id, 0 for untagged.
    pub const fn vlan(self) -> u16 {
        (self.0 & 0xfff) as u16
    }
}

/// A slot in `BACKENDS_*` and the incarnation of what stands in it: `incarnation << 24 | slot`.
///
/// Slot 0 is never a backend: the id 0 in a ring is the *refused* share.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BackendId(pub u32);

impl BackendId {
    /// Nobody: the share of a ring that is refused.
    pub const REFUSE: Self = Self(0);
    /// Slots that an id can name.
    pub const SLOTS: u32 = 1 << 24;

    /// The id of a slot in one of its incarnations.
    pub const fn new(slot: u32, incarnation: u8) -> Self {
        Self((incarnation as u32) << 24 | (slot & (Self::SLOTS - 1)))
    }

    /// Index in `BACKENDS_*`.
    pub const fn slot(self) -> u32 {
        self.0 & (Self::SLOTS - 1)
    }

    /// Which of the backends that stood in the slot.
    pub const fn incarnation(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// An address, port and protocol: of a frontend or of a backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EndpointKey<A> {
    /// The address.
    pub address: A,
    /// The port, as it lies in the packet.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u16,
}

/// What a client dials.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frontend {
    /// Index in `RINGS`.
    pub ring: u32,
    /// Slots of that ring; 0: every connection is refused.
    pub slots: u32,
    /// Index in `ROUTES` and `ROUTE_COUNTERS`; 0: no route.
    pub route: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// One that gets packets.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend<A> {
    /// Its address.
    pub address: A,
    /// The address of this machine that full NAT puts in the client's place.
    pub source: A,
    /// Its port, as it lies in the packet.
    pub port: u16,
    /// Which of the backends that stood in this slot.
    pub incarnation: u8,
    /// [`BACKEND_GONE`], [`BACKEND_SERVING`] or [`BACKEND_DRAINING`].
    pub state: u8,
    /// [`WAY_NAT`], [`WAY_TRANSPARENT`] or [`WAY_LOCAL`].
    pub way: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Reserved, 0.
    pub reserved: u16,
    /// Index in `HOPS`; 0: ask the kernel. With [`WAY_LOCAL`]: where it sits, 0 for a process of this machine.
    pub hop: u32,
    /// Index in `ROUTES`.
    pub route: u32,
}

/// Nobody stands in the slot: TCP is answered with RST, UDP moves.
pub const BACKEND_GONE: u8 = 0;
/// Takes connections.
pub const BACKEND_SERVING: u8 = 1;
/// Keeps its TCP connections, gets nothing new; UDP moves.
pub const BACKEND_DRAINING: u8 = 2;

/// Both addresses are rewritten; sent through a next hop.
pub const WAY_NAT: u8 = 0;
/// Only the destination is rewritten; sent through a next hop; the backend's route leads back through us.
pub const WAY_TRANSPARENT: u8 = 1;
/// Only the destination is rewritten; this machine's own stack delivers. A client whom the backend would answer past us gets
/// full NAT instead.
pub const WAY_LOCAL: u8 = 2;

/// An address that Gateways hold and this machine does not.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnedAddress {
    /// The device on whose link ARP and NDP are answered; 0: none.
    pub ifindex: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// A next hop: the device and the MAC addresses of the frame.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hop {
    /// Where the frame leaves.
    pub link: Link,
    /// Seconds of the coarse monotonic clock; past them the program asks the kernel. 0: never resolved.
    pub deadline: u32,
    /// Largest IP packet of the device, in bytes.
    pub mtu: u32,
    /// MAC address of the neighbour.
    pub destination: [u16; 3],
    /// MAC address of the device.
    pub source: [u16; 3],
}

/// A device of this machine. Replies leave with its MAC address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Device {
    /// Its index: the slot may belong to another device of the same remainder.
    pub ifindex: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Its MAC address.
    pub mac: [u16; 3],
    /// [`DEVICE_XDP_TARGET`], [`DEVICE_XDP_SENDER`], [`DEVICE_OF_HOST`].
    pub flags: u16,
}

/// The device takes frames that XDP redirects to it.
pub const DEVICE_XDP_TARGET: u16 = 1;
/// What XDP sends back by the device arrives.
pub const DEVICE_XDP_SENDER: u16 = 2;
/// What comes in by the device was sent by this machine itself.
pub const DEVICE_OF_HOST: u16 = 4;

/// What the parts of one fragmented packet have in common.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Identification; IPv4 uses the low 16 bits.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// What the first part said.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// Source and destination port.
    pub ports: [u16; 2],
    /// End of the first part's payload, in bytes from its start: a part that begins before it overlaps.
    pub end: u32,
    /// Seconds of the coarse monotonic clock when the first part was seen.
    pub seen: u32,
}

/// Names the content of a ring, since inner arrays are not read back.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingHash {
    /// Hash of all slots; 0: no ring.
    pub hash: u64,
    /// Slots.
    pub slots: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// Names a route across restarts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteHash {
    /// Hash of kind, namespace and name; 0: no route.
    pub hash: u64,
}

/// Packets and bytes. Bytes are those of IP packets, headers included.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What one route did on one CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteCounters {
    /// From clients to backends.
    pub requests: Traffic,
    /// From backends to clients.
    pub replies: Traffic,
    /// Flows begun, but for those of TCP that were picked up in the middle.
    pub connections: u64,
    /// Connections answered with a refusal.
    pub refused: u64,
}

/// Entries of a flow table that came and went. What came, did not go, and is not there either was evicted: the kernel gave its place to
/// another one, and says so nowhere.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowCounters {
    /// Entries put in where there was none.
    pub added: u64,
    /// Entries taken out.
    pub removed: u64,
}

/// The element of `FLOW_COUNTERS_*` for what packets led to.
pub const FLOWS_OF_PACKETS: u32 = 0;
/// The element of `FLOW_COUNTERS_*` for what user space carried over from another layout.
pub const FLOWS_CARRIED: u32 = 1;
/// Elements of `FLOW_COUNTERS_*`.
pub const FLOW_COUNTERS: u32 = 2;

/// What one CPU may do only so often.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// A packet of our own (RST, ICMP).
    Answer,
    /// A flow that goes into the table.
    NewFlow,
}

/// Elements of `BUDGETS`.
pub const BUDGETS: u32 = 2;

/// How much of what it may do one CPU has done.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// When that was: a second of the coarse monotonic clock, or a window of 2^[`WINDOW_BITS`] nanoseconds of it.
    pub time: u32,
    /// How often, less a share for each second or window that went by before.
    pub used: u32,
}

/// Two to this many nanoseconds are a window, 134 ms: a client that asks again after one second, and then after two and four, meets
/// another part of a window each time.
pub const WINDOW_BITS: u32 = 27;

/// Windows whose new flows may come at once; those that begin by a SYN have a window less.
pub const BURST: u32 = 4;

/// New flows a second, on one CPU, above which they are a flood: with a full table they take four tenths of a CPU of today.
pub const NEW_FLOWS: u32 = 200_000;

/// How many of so many a second fall into a window.
pub const fn in_a_window(a_second: u32) -> u32 {
    (((a_second as u64) << WINDOW_BITS) / 1_000_000_000) as u32
}

/// Constants of one load of the program: user space writes them before loading, the verifier sees through them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// First source port that full NAT may choose, host order.
    pub first_port: u16,
    /// Last source port that full NAT may choose, host order.
    pub last_port: u16,
    /// Seconds after which a silent UDP flow is forgotten.
    pub udp_idle: u32,
    /// Seconds after which a TCP flow is forgotten whose client never went on after the backend's answer.
    pub syn_idle: u32,
    /// Seconds after which a TCP flow that both sides closed, or one reset, is forgotten.
    pub closed_idle: u32,
    /// Answers (RST, ICMP) that one CPU may make in a second.
    pub answers: u32,
    /// Flows that one CPU may begin for each window of 2^[`WINDOW_BITS`] nanoseconds that goes by.
    pub new_flows: u32,
    /// Not 0: what a backend sends to this machine without a flow goes to the stack even if no socket is bound to it, since
    /// connection tracking may translate it for somebody else, as it does for kube-proxy.
    pub passes_strays: u32,
}

impl Settings {
    /// What a machine gets that sets nothing.
    pub const DEFAULT: Self = Self {
        // Below Linux' ephemeral range (32768-60999) and above what services listen on.
        first_port: 20_000,
        last_port: 32_767,
        udp_idle: 120,
        syn_idle: 60,
        closed_idle: 30,
        answers: 10_000,
        new_flows: in_a_window(NEW_FLOWS),
        passes_strays: 0,
    };
}

const _: () = {
    // design: an IPv4 key of at most 16 and a value of at most 32 bytes make an LRU entry of 96 bytes.
    assert!(size_of::<FlowKey<V4>>() == 16);
    assert!(size_of::<Flow<V4>>() == 32);
    assert!(size_of::<FlowKey<V6>>() == 40);
    assert!(size_of::<Flow<V6>>() == 56);
    assert!(size_of::<EndpointKey<V4>>() == 8);
    assert!(size_of::<EndpointKey<V6>>() == 20);
    assert!(size_of::<Frontend>() == 16);
    assert!(size_of::<Backend<V4>>() == 24);
    assert!(size_of::<Backend<V6>>() == 48);
    assert!(size_of::<OwnedAddress>() == 8);
    assert!(size_of::<Hop>() == 24);
    assert!(size_of::<Device>() == 16);
    assert!(size_of::<FragmentKey<V4>>() == 16);
    assert!(size_of::<FragmentKey<V6>>() == 40);
    assert!(size_of::<Fragment>() == 12);
    assert!(size_of::<RingHash>() == 16);
    assert!(size_of::<RouteHash>() == 8);
    assert!(size_of::<RouteCounters>() == 48);
    assert!(size_of::<FlowCounters>() == 16);
    assert!(size_of::<Budget>() == 8);
    assert!(size_of::<Settings>() == 28);
};
