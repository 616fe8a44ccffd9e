//! Where the headers and the flow of the packet at hand are kept.
//!
//! In the kernel that is a map of its own and not the stack: a chain of calls has 512 bytes of that. It also makes the
//! verifier forget by which of many ways a number was come by, so that it follows what comes next once.

use crate::abi::{Flow, FlowKey, V4, V6};
use crate::frame::Frame;
use crate::headers::Headers;
use crate::step::Step;

/// Room for one packet of each family; only one of them is in use at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rooms {
    pub(crate) v4: Room<V4>,
    pub(crate) v6: Room<V6>,
}

/// Room for one packet. What an earlier packet left in it says nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room<A> {
    /// What its headers say.
    pub headers: Headers<A>,
    /// Its flow.
    pub flow: Flow<A>,
    /// The other half of that, and the tuple of its packets.
    pub opposite: Flow<A>,
    /// See `opposite`.
    pub opposite_key: FlowKey<A>,
    /// Its frame.
    pub frame: Frame,
    /// How far the last look at it came.
    pub step: Step,
}
