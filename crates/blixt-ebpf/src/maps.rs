//! Every map of the kernel program, by the names and types of `blixt_packet::abi`.
//!
//! Sizes here are those of a small machine; user space sets the real ones when it loads the object. Who writes which map
//! is said in the table of `abi`.

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use blixt_packet::abi::{
    self, Backend, Budget, DEVICE_SLOTS, Device, EndpointKey, FLOW_COUNTERS, Flow, FlowCounters, FlowKey,
    Fragment, FragmentKey, Frontend, Hop, KNOWN_WORDS, OwnedAddress, RING_CHUNK, RingHash, RouteCounters,
    RouteHash, Settings, V4, V6,
};
use blixt_packet::packet::MAX_SUM;
use blixt_packet::{DropReason, Rooms};

/// The time when it was looked up last. Double words: of the range of a word the verifier would follow more.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Clock {
    /// The tick in which that was; none yet: 0.
    pub tick: u64,
    /// Seconds since the machine was started.
    pub second: u64,
    /// Windows since then.
    pub window: u64,
    /// Seconds after which it is noted that a connection that lasts is in use.
    pub lasting: u64,
}

/// Entries of a flow table: two for each connection.
const FLOWS: usize = 65_536;
/// Fragmented packets under way at one time.
const FRAGMENTS: usize = 8_192;
/// Frontends, addresses and endpoints of one family.
const ENTRIES: usize = 1_024;
/// Slots of backends, rings, hops and routes.
const SLOTS: usize = 1_024;
/// Rings differ in size and are filled by mmap: the template of the inner map must have the flags of each of them.
const RING_FLAGS: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;

#[btf_map]
pub static FLOWS_V4: LruHashMap<FlowKey<V4>, Flow<V4>, FLOWS> = LruHashMap::new();
#[btf_map]
pub static FLOWS_V6: LruHashMap<FlowKey<V6>, Flow<V6>, FLOWS> = LruHashMap::new();
#[btf_map]
pub static FLOW_COUNTERS_V4: PerCpuArray<FlowCounters, { FLOW_COUNTERS as usize }> = PerCpuArray::new();
#[btf_map]
pub static FLOW_COUNTERS_V6: PerCpuArray<FlowCounters, { FLOW_COUNTERS as usize }> = PerCpuArray::new();
#[btf_map]
pub static FRAGMENTS_V4: LruHashMap<FragmentKey<V4>, Fragment, FRAGMENTS> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS_V6: LruHashMap<FragmentKey<V6>, Fragment, FRAGMENTS> = LruHashMap::new();
#[btf_map]
pub static FRONTENDS_V4: HashMap<EndpointKey<V4>, Frontend, ENTRIES> = HashMap::new();
#[btf_map]
pub static FRONTENDS_V6: HashMap<EndpointKey<V6>, Frontend, ENTRIES> = HashMap::new();
#[btf_map]
pub static ENDPOINTS_V4: HashMap<EndpointKey<V4>, u32, ENTRIES> = HashMap::new();
#[btf_map]
pub static ENDPOINTS_V6: HashMap<EndpointKey<V6>, u32, ENTRIES> = HashMap::new();
#[btf_map]
pub static BACKENDS_V4: Array<Backend<V4>, SLOTS> = Array::new();
#[btf_map]
pub static BACKENDS_V6: Array<Backend<V6>, SLOTS> = Array::new();
#[btf_map]
pub static ADDRESSES_V4: HashMap<V4, OwnedAddress, ENTRIES> = HashMap::new();
#[btf_map]
pub static ADDRESSES_V6: HashMap<V6, OwnedAddress, ENTRIES> = HashMap::new();
#[btf_map]
pub static KNOWN_V4: Array<u64, { KNOWN_WORDS as usize }> = Array::new();
#[btf_map]
pub static KNOWN_V6: Array<u64, { KNOWN_WORDS as usize }> = Array::new();
#[btf_map]
pub static RINGS: ArrayOfMaps<Array<[u32; RING_CHUNK], 1, RING_FLAGS>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static RING_HASHES: Array<RingHash, SLOTS> = Array::new();
#[btf_map]
pub static HOPS: Array<Hop, SLOTS> = Array::new();
#[btf_map]
pub static DEVICES: Array<Device, { DEVICE_SLOTS as usize }> = Array::new();
#[btf_map]
pub static ROUTES: Array<RouteHash, SLOTS> = Array::new();
#[btf_map]
pub static ROUTE_COUNTERS: PerCpuArray<RouteCounters, SLOTS> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_COUNTERS_V4: PerCpuArray<u64, SLOTS> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_COUNTERS_V6: PerCpuArray<u64, SLOTS> = PerCpuArray::new();
#[btf_map]
pub static DROPS: PerCpuArray<u64, { DropReason::COUNT }> = PerCpuArray::new();
#[btf_map]
pub static BUDGETS: PerCpuArray<Budget, { abi::BUDGETS as usize }> = PerCpuArray::new();

/// Where bytes of a packet are summed. Nobody but the program sees it.
#[btf_map]
pub static SCRATCH: PerCpuArray<[u8; MAX_SUM], 1> = PerCpuArray::new();

/// What is kept for the length of a tick of the kernel's clock. Nobody but the program sees it.
#[btf_map]
pub static CLOCK: PerCpuArray<Clock, 1> = PerCpuArray::new();

/// The second in which a segment came from a backend without a flow. Nobody but the program sees it.
#[btf_map]
pub static STRAYS: Array<u32, 1> = Array::new();

/// What is known of the packet at hand. Nobody but the program sees it.
#[btf_map]
pub static ROOMS: PerCpuArray<Rooms, 1> = PerCpuArray::new();

/// Constants of one load: user space overwrites them before loading, the kernel freezes them.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings::DEFAULT;
