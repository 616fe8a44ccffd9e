//! What is to be done with a packet once `forward` has looked at it, and changed it in place.

use crate::DropReason;
use crate::abi::Link;

/// What the adapter does with the packet. Everything else was done to its bytes already.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not Blixt's: on to the next program and the stack, untouched.
    Pass,
    /// Blixt's, and this machine's own stack takes it from here (at egress: it leaves as it was about to).
    Deliver,
    /// Leaves by this link; its MAC addresses and VLAN tag are written.
    Send(Link),
    /// Leaves by the device with this index; the kernel must find the neighbour's MAC address.
    Neighbour(u32),
    /// The packet became an answer to itself: back out of the link that it came by. The reason, if there is
    /// one, says what the packet was refused for.
    Answer(Option<DropReason>),
    /// The packet became the RST by which its receiver hears that the backend is gone: leaves by this link, or (at egress)
    /// as it was about to.
    Reset(Option<Link>),
    /// Goes nowhere.
    Drop(DropReason),
}

impl Verdict {
    /// Why the packet itself did not reach anybody, for the counters.
    pub const fn reason(self) -> Option<DropReason> {
        match self {
            Self::Drop(reason) => Some(reason),
            Self::Answer(reason) => reason,
            Self::Reset(_) => Some(DropReason::BackendGone),
            Self::Pass | Self::Deliver | Self::Send(_) | Self::Neighbour(_) => None,
        }
    }
}

/// A packet of ours that goes no further, and what an answer to it must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// For [`DropReason::TooBig`]: the largest IP packet that would have gone through.
    pub mtu: u32,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, mtu: 0 }
    }
}
