//! What must become of a packet.

use blixt_packet::abi::Link;
use blixt_packet::{DropReason, Verdict};

/// The decision, and the frame as it goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Not Blixt's: as it was.
    Pass,
    /// This machine's stack takes it from here; at egress it leaves as it was about to.
    Deliver(Vec<u8>),
    /// Leaves by a link.
    Send(Link, Vec<u8>),
    /// Back out of the link that it came by, as an answer to itself; the reason is that of the packet's end.
    Answer(Option<DropReason>, Vec<u8>),
    /// The RST by which the receiver hears that the backend is gone: by a link, or as it was about to leave.
    Reset(Option<Link>, Vec<u8>),
    /// Nowhere.
    Drop(DropReason),
}

impl Outcome {
    /// The verdict that the data plane calls so.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Pass => Verdict::Pass,
            Self::Deliver(_) => Verdict::Deliver,
            Self::Send(link, _) => Verdict::Send(*link),
            Self::Answer(reason, _) => Verdict::Answer(*reason),
            Self::Reset(link, _) => Verdict::Reset(*link),
            Self::Drop(reason) => Verdict::Drop(*reason),
        }
    }

    /// The frame afterwards, if it is somewhere; `before` is the frame as it came.
    pub fn frame<'a>(&'a self, before: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Pass => Some(before),
            Self::Deliver(frame) | Self::Send(_, frame) | Self::Answer(_, frame) | Self::Reset(_, frame) => {
                Some(frame)
            }
            Self::Drop(_) => None,
        }
    }
}
