//! The maps and the kernel's helpers as `State` of the packet path.
//!
//! What is read from a map is copied out at once: its place may be given to another entry at any time.

mod kernel;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use blixt_packet::DropReason;
use blixt_packet::abi::{
    Backend, BackendId, Budget, DEVICE_SLOTS, Device, EndpointKey, FLOWS_OF_PACKETS, Flow, FlowCounters,
    FlowKey, Fragment, FragmentKey, Frontend, Hop, Limited, OwnedAddress, RING_CHUNK, RouteCounters,
    Settings, V4, V6, WINDOW_BITS,
};
use blixt_packet::address::Address;
use blixt_packet::flow::lasting;
use blixt_packet::known;
use blixt_packet::state::{Added, Entry, Route, Socket, State};
use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};

use crate::maps::{
    ADDRESSES_V4, ADDRESSES_V6, BACKEND_COUNTERS_V4, BACKEND_COUNTERS_V6, BACKENDS_V4, BACKENDS_V6, BUDGETS,
    CLOCK, Clock, DEVICES, DROPS, ENDPOINTS_V4, ENDPOINTS_V6, FLOW_COUNTERS_V4, FLOW_COUNTERS_V6, FLOWS_V4,
    FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6, FRONTENDS_V4, FRONTENDS_V6, HOPS, KNOWN_V4, KNOWN_V6, RINGS,
    ROUTE_COUNTERS, SETTINGS, STRAYS,
};

const NANOSECONDS: u64 = 1_000_000_000;
/// `EEXIST`, as helpers return it.
const EXISTS: i32 = -17;

/// What one packet's run of the program knows.
pub struct Maps {
    ctx: *mut c_void,
    ifindex: u32,
}

impl Maps {
    /// The maps, for a packet that came in (or leaves) by the device `ifindex`.
    #[inline(always)]
    pub fn new(ctx: *mut c_void, ifindex: u32) -> Self {
        Self { ctx, ifindex }
    }
}

/// Counts a packet that did not get where it was sent.
#[inline(always)]
pub fn count_drop(reason: DropReason) {
    if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: the element is this CPU's own, and outlives the program.
        unsafe { *counter += 1 };
    }
}

/// The time. It moves once a tick, which the verifier makes a read of one word of: only the first packet of a tick pays for a call of the
/// kernel. What it keeps is read back, so that the verifier need not follow both ways.
#[inline(always)]
fn clock(field: impl Fn(&Clock) -> &u64) -> u32 {
    // SAFETY: the helpers take nothing; the element is this CPU's own, and outlives the program.
    unsafe {
        let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
        let tick = bpf_jiffies64();
        if (*clock).tick != tick {
            let time = bpf_ktime_get_coarse_ns();
            let second = (time / NANOSECONDS) as u32;
            (&raw mut (*clock).second).write_volatile(second.into());
            (&raw mut (*clock).window).write_volatile(time >> WINDOW_BITS);
            (&raw mut (*clock).lasting).write_volatile(lasting(second, stray()).into());
            (&raw mut (*clock).tick).write_volatile(tick);
        }
        core::ptr::read_volatile(field(&*clock)) as u32
    }
}

/// The second of the last stray segment.
#[inline(always)]
fn stray() -> u32 {
    STRAYS.get(0).copied().unwrap_or_default()
}

/// Notes a stray segment. Other CPUs see it from their next tick on.
#[inline(always)]
fn note_stray() {
    // SAFETY: plain numbers, which outlive the program; the one that all CPUs write is never torn.
    unsafe {
        let Some(clock) = CLOCK.get_ptr_mut(0) else { return };
        let now = (bpf_ktime_get_coarse_ns() / NANOSECONDS) as u32;
        if let Some(stray) = STRAYS.get_ptr_mut(0)
            && *stray != now
        {
            stray.write_volatile(now);
        }
        (*clock).lasting = lasting(now, now).into();
    }
}

/// One of the settings. The read is volatile, since the value in the object is not the one that is loaded.
#[inline(always)]
pub fn setting<T: Copy>(field: impl Fn(&Settings) -> &T) -> T {
    // SAFETY: the reference is to a field of a static.
    unsafe { core::ptr::read_volatile(field(&SETTINGS)) }
}

/// An element of a device's slot that is really that device's.
#[inline(always)]
pub fn device(ifindex: u32) -> Option<Device> {
    DEVICES.get(ifindex % DEVICE_SLOTS).copied().filter(|device| device.ifindex == ifindex)
}

/// Aligned as the verifier wants it on the stack.
#[repr(align(8))]
struct Aligned<T>(T);

/// A value of a flow table.
pub struct MapEntry<A>(*mut Flow<A>);

impl<A: Address> Entry<A> for MapEntry<A> {
    #[inline(always)]
    fn read(&self) -> Flow<A> {
        // SAFETY: a value that was looked up stays readable while the program runs. Another CPU may write it meanwhile:
        // every word by itself is whole, and a torn flow costs that one packet. All words of a flow are plain numbers, and
        // it is whole double words. Read as one value it would be copied by a loop over bytes.
        unsafe {
            let mut flow = MaybeUninit::<Flow<A>>::uninit();
            let to = flow.as_mut_ptr().cast::<u64>();
            let from = self.0.cast::<u64>();
            for word in 0..size_of::<Flow<A>>() / size_of::<u64>() {
                to.add(word).write(from.add(word).read_volatile());
            }
            flow.assume_init()
        }
    }

    #[inline(always)]
    fn write(&self, flow: &Flow<A>) {
        // SAFETY: as in `read`.
        unsafe { *self.0 = *flow };
    }
}

macro_rules! family {
    (
        $address:ty, $flows:ident, $fragments:ident, $frontends:ident, $endpoints:ident, $addresses:ident,
        $backends:ident, $counters:ident, $flow_counters:ident, $known:ident
    ) => {
        impl State<$address> for Maps {
            type Entry = MapEntry<$address>;

            #[inline(always)]
            fn now(&self) -> u32 {
                clock(|clock| &clock.second)
            }

            #[inline(always)]
            fn window(&self) -> u32 {
                clock(|clock| &clock.window)
            }

            #[inline(always)]
            fn lasting(&self) -> u32 {
                // A packet that asks has asked for the second before: the verifier need not follow another tick.
                CLOCK.get(0).map_or(1, |clock| clock.lasting as u32)
            }

            #[inline(always)]
            fn note_stray(&self) {
                note_stray();
            }

            #[inline(always)]
            fn setting<T: Copy>(&self, field: impl Fn(&Settings) -> &T) -> T {
                setting(field)
            }

            #[inline(always)]
            fn knows(&self, address: $address) -> bool {
                let (element, bit) = known::place(address);
                $known.get(element).is_some_and(|bits| bits & bit != 0)
            }

            #[inline(always)]
            fn flow(&self, key: &FlowKey<$address>) -> Option<Self::Entry> {
                $flows.get_ptr_mut(key).map(MapEntry)
            }

            #[inline(always)]
            fn set_flow(&self, key: &FlowKey<$address>, flow: &Flow<$address>) -> Result<(), DropReason> {
                match self.add_flow(key, flow) {
                    Added::New => {}
                    Added::Full => return Err(DropReason::TableFull),
                    // Written where it lies: to replace it the kernel would take the place of another one. One that is gone by
                    // now is found again like any half that was evicted.
                    Added::Exists => {
                        if let Some(entry) = self.flow(key) {
                            entry.write(flow);
                        }
                    }
                }
                Ok(())
            }

            #[inline(always)]
            fn add_flow(&self, key: &FlowKey<$address>, flow: &Flow<$address>) -> Added {
                match $flows.insert(key, flow, BPF_NOEXIST as u64) {
                    Ok(()) => {
                        count(&$flow_counters, |counters| counters.added += 1);
                        Added::New
                    }
                    Err(EXISTS) => Added::Exists,
                    Err(_) => Added::Full,
                }
            }

            #[inline(always)]
            fn remove_flow(&self, key: &FlowKey<$address>) {
                // One that is not there any more is what was wanted.
                if $flows.remove(key).is_ok() {
                    count(&$flow_counters, |counters| counters.removed += 1);
                }
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$address>) -> Option<Fragment> {
                // SAFETY: copied at once; a value torn by another CPU's write costs one packet.
                unsafe { $fragments.get(key) }.copied()
            }

            #[inline(always)]
            fn set_fragment(&self, key: &FragmentKey<$address>, fragment: &Fragment) {
                // A full table loses this packet's later parts, which are counted when they come.
                let _ = $fragments.insert(key, &Aligned(*fragment).0, BPF_ANY as u64);
            }

            #[inline(always)]
            fn frontend(&self, key: &EndpointKey<$address>) -> Option<Frontend> {
                // SAFETY: copied at once.
                unsafe { $frontends.get(&Aligned(*key).0) }.copied()
            }

            #[inline(always)]
            fn is_endpoint(&self, key: &EndpointKey<$address>) -> bool {
                $endpoints.get_ptr(&Aligned(*key).0).is_some()
            }

            #[inline(always)]
            fn address(&self, address: &$address) -> Option<OwnedAddress> {
                // SAFETY: copied at once.
                unsafe { $addresses.get(&Aligned(*address).0) }.copied()
            }

            #[inline(always)]
            fn ring(&self, ring: u32, slot: u32) -> Option<BackendId> {
                let chunk = RINGS.get_value(ring, &(slot / RING_CHUNK as u32))?;
                Some(BackendId(chunk[slot as usize % RING_CHUNK]))
            }

            #[inline(always)]
            fn backend(&self, slot: u32) -> Option<Backend<$address>> {
                $backends.get(slot).copied()
            }

            #[inline(always)]
            fn hop(&self, id: u32) -> Option<Hop> {
                HOPS.get(id).copied()
            }

            #[inline(always)]
            fn device(&self, ifindex: u32) -> Option<Device> {
                device(ifindex)
            }

            #[inline(always)]
            fn route(&self, source: $address, destination: $address) -> Route {
                kernel::route(self, source, destination)
            }

            #[inline(always)]
            fn socket(&self, key: &FlowKey<$address>) -> Socket {
                kernel::socket(self, key)
            }

            #[inline(always)]
            fn count_request(&self, route: u32, bytes: u32) {
                if let Some(counters) = counters(route) {
                    counters.requests.packets += 1;
                    counters.requests.bytes += bytes as u64;
                }
            }

            #[inline(always)]
            fn count_reply(&self, route: u32, bytes: u32) {
                if let Some(counters) = counters(route) {
                    counters.replies.packets += 1;
                    counters.replies.bytes += bytes as u64;
                }
            }

            #[inline(always)]
            fn count_connection(&self, route: u32, slot: u32) {
                if let Some(counters) = counters(route) {
                    counters.connections += 1;
                }
                if let Some(connections) = $counters.get_ptr_mut(slot) {
                    // SAFETY: the element is this CPU's own, and outlives the program.
                    unsafe { *connections += 1 };
                }
            }

            #[inline(always)]
            fn count_refused(&self, route: u32) {
                if let Some(counters) = counters(route) {
                    counters.refused += 1;
                }
            }

            #[inline(always)]
            fn budget(&self, of: Limited) -> Budget {
                BUDGETS.get(of as u32).copied().unwrap_or_default()
            }

            #[inline(always)]
            fn set_budget(&self, of: Limited, budget: Budget) {
                if let Some(kept) = BUDGETS.get_ptr_mut(of as u32) {
                    // SAFETY: the element is this CPU's own, and outlives the program.
                    unsafe { *kept = budget };
                }
            }
        }
    };
}

family!(
    V4,
    FLOWS_V4,
    FRAGMENTS_V4,
    FRONTENDS_V4,
    ENDPOINTS_V4,
    ADDRESSES_V4,
    BACKENDS_V4,
    BACKEND_COUNTERS_V4,
    FLOW_COUNTERS_V4,
    KNOWN_V4
);
family!(
    V6,
    FLOWS_V6,
    FRAGMENTS_V6,
    FRONTENDS_V6,
    ENDPOINTS_V6,
    ADDRESSES_V6,
    BACKENDS_V6,
    BACKEND_COUNTERS_V6,
    FLOW_COUNTERS_V6,
    KNOWN_V6
);

/// Counts an entry that came or went.
#[inline(always)]
fn count<const N: usize>(map: &PerCpuArray<FlowCounters, N>, change: impl FnOnce(&mut FlowCounters)) {
    if let Some(counters) = map.get_ptr_mut(FLOWS_OF_PACKETS) {
        // SAFETY: the element is this CPU's own and outlives the program; the reference lives for one statement.
        change(unsafe { &mut *counters });
    }
}

#[inline(always)]
fn counters<'a>(route: u32) -> Option<&'a mut RouteCounters> {
    // SAFETY: the element is this CPU's own and outlives the program; the reference lives for one statement.
    ROUTE_COUNTERS.get_ptr_mut(route).map(|counters| unsafe { &mut *counters })
}
