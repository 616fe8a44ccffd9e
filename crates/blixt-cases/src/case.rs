//! What a case is made of.

use blixt_core::tables::{Op, Tables};
use blixt_packet::abi::Link;
use blixt_packet::{DropReason, Verdict};

use crate::network::{BACKEND_SIDE, CLIENT_SIDE, from_backend, from_client, to_backend, to_client};

/// A story of packets, and how it must end for each of them.
#[derive(Clone, Debug)]
pub struct Case {
    /// The sentence that it proves.
    pub name: String,
    /// What user space has written before the first packet.
    pub tables: Tables,
    /// Who can be shown it.
    pub hooks: &'static [Hook],
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Who runs a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// `forward` as an ordinary library.
    Host,
    /// The TC program in the kernel.
    Tc,
    /// The XDP program in the kernel; what it passes, and what leaves, is seen by the TC program, as everywhere.
    Xdp,
}

impl Hook {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Host, Self::Tc, Self::Xdp];
    /// Those that see a VLAN's tag in the frame. TC has it beside the bytes, where a single run of a program cannot put it.
    pub const TAG_IN_FRAME: &'static [Self] = &[Self::Host, Self::Xdp];
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame comes by.
    Frame {
        /// The frame as it comes.
        given: Given,
        /// What must be decided.
        verdict: Verdict,
        /// The frame as it goes on, if it does.
        after: Option<Vec<u8>>,
    },
    /// User space writes.
    Change(Vec<Op>),
    /// Seconds go by.
    Wait(u32),
}

/// Where a frame is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It comes in by the device with this index.
    Enters(u32),
    /// It is about to leave by the device with this index.
    Leaves(u32),
}

/// A frame that comes by.
#[derive(Clone, Debug)]
pub struct Given {
    /// Where.
    pub place: Place,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// Bytes of payload in each segment that the kernel cuts it into later; 0: it is one packet.
    pub segment: u32,
}

/// A frame that comes in.
pub fn enters(ifindex: u32, frame: Vec<u8>) -> Given {
    given(Place::Enters(ifindex), frame)
}

/// The client sends an IP packet.
pub fn client_sends(ip: &[u8]) -> Given {
    enters(CLIENT_SIDE, from_client(ip))
}

/// The backend sends an IP packet.
pub fn backend_sends(ip: &[u8]) -> Given {
    enters(BACKEND_SIDE, from_backend(ip))
}

/// An IP packet of this machine is about to leave towards the client.
pub fn leaves(ip: &[u8]) -> Given {
    given(Place::Leaves(CLIENT_SIDE), to_client(ip))
}

/// A frame at a place, one packet.
pub fn given(place: Place, frame: Vec<u8>) -> Given {
    Given { place, frame, segment: 0 }
}

/// User space writes.
pub fn changes(ops: Vec<Op>) -> Step {
    Step::Change(ops)
}

/// Seconds go by.
pub fn waits(seconds: u32) -> Step {
    Step::Wait(seconds)
}

impl Given {
    /// The kernel cuts it into segments with so much payload later.
    pub fn cut_into(self, segment: u32) -> Self {
        Self { segment, ..self }
    }

    /// It leaves towards the backend as this IP packet.
    pub fn reaches_backend(self, ip: &[u8]) -> Step {
        self.becomes(Verdict::Send(Link::new(BACKEND_SIDE, 0)), Some(to_backend(ip)))
    }

    /// It leaves towards the client as this IP packet.
    pub fn reaches_client(self, ip: &[u8]) -> Step {
        self.becomes(Verdict::Send(Link::new(CLIENT_SIDE, 0)), Some(to_client(ip)))
    }

    /// It is not ours, and stays as it is.
    pub fn passes(self) -> Step {
        let frame = self.frame.clone();
        self.becomes(Verdict::Pass, Some(frame))
    }

    /// The stack takes it, or it goes the way it was about to go, as this frame.
    pub fn delivered(self, frame: Vec<u8>) -> Step {
        self.becomes(Verdict::Deliver, Some(frame))
    }

    /// It goes back as this frame.
    pub fn answered(self, reason: Option<DropReason>, frame: Vec<u8>) -> Step {
        self.becomes(Verdict::Answer(reason), Some(frame))
    }

    /// It goes nowhere.
    pub fn dropped(self, reason: DropReason) -> Step {
        self.becomes(Verdict::Drop(reason), None)
    }

    /// What must become of it.
    pub fn becomes(self, verdict: Verdict, after: Option<Vec<u8>>) -> Step {
        Step::Frame { given: self, verdict, after }
    }
}
