//! Which types may be copied between maps and memory as they are.

use blixt_packet::abi::{
    Backend, Device, EndpointKey, Flow, FlowCounters, FlowKey, Frontend, Hop, OwnedAddress, RING_CHUNK,
    RingHash, RouteCounters, RouteHash, V4, V6,
};

use crate::family::MapAddress;

/// Plain words: no padding, no pointer, and any bytes are a value.
///
/// # Safety
///
/// All three must be so.
pub unsafe trait Plain: Copy + Default + PartialEq + 'static {}

macro_rules! plain {
    ($($name:ty),+ $(,)?) => {
        // SAFETY: integers, and `#[repr(C)]` structs of them whose sizes, asserted in `abi`, leave no room for padding.
        $(unsafe impl Plain for $name {})+
    };
}

macro_rules! plain_of_family {
    ($($name:ident),+ $(,)?) => {
        // SAFETY: as above; `MapAddress` is V4 or V6 and nothing else.
        $(unsafe impl<A: MapAddress> Plain for $name<A> {})+
    };
}

plain!(
    u32,
    u64,
    [u32; RING_CHUNK],
    V4,
    V6,
    Frontend,
    OwnedAddress,
    Hop,
    Device,
    RingHash,
    RouteHash,
    RouteCounters,
    FlowCounters
);
plain_of_family!(FlowKey, Flow, EndpointKey, Backend);
