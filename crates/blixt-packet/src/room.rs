//! Where the headers and the flow of the packet at hand are kept.
//!
//! In the kernel that is a map of its own and not the stack: a chain of calls has 512 bytes of that, and the parts of a
//! packet's way (see `part`) share nothing else.

use crate::abi::{Flow, FlowKey, V4, V6};
use crate::headers::Headers;
use crate::step::Step;

/// Room for one packet of each family; only one of them is in use at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rooms {
    /// For a packet of IPv4.
    pub v4: Room<V4>,
    /// For a packet of IPv6.
    pub v6: Room<V6>,
}

/// Room for one packet. What an earlier packet left in it says nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Room<A> {
    /// What its headers say.
    pub(crate) headers: Headers<A>,
    /// Its flow.
    pub(crate) flow: Flow<A>,
    /// The other half of that, and the tuple of its packets.
    pub(crate) opposite: Flow<A>,
    /// See `opposite`.
    pub(crate) opposite_key: FlowKey<A>,
    /// Source ports that were tried for it.
    pub(crate) attempts: u32,
    /// How far the last part of its way came.
    pub(crate) step: Step,
}
