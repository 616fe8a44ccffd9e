//! How far a look at a packet came, handed from one subprogram to the next.
//!
//! All of it is written always: what an enum leaves undefined, the compiler fills with whatever a register holds, and the
//! verifier refuses to see half a pointer stored.

use crate::abi::Link;
use crate::{DropReason, Refusal, Verdict};

/// The outcome of a subprogram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    kind: Kind,
    reason: DropReason,
    number: u32,
}

#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unknown,
    Control,
    IcmpError,
    Refused,
    Pass,
    Deliver,
    Send,
    Neighbour,
    Answer,
    AnswerFor,
    Drop,
}

impl Step {
    /// It begins a connection, or is not ours.
    pub const UNKNOWN: Self = Self::new(Kind::Unknown, DropReason::Internal, 0);
    /// It is ICMP.
    pub const CONTROL: Self = Self::new(Kind::Control, DropReason::Internal, 0);

    /// It is an ICMP error.
    pub const ICMP_ERROR: Self = Self::new(Kind::IcmpError, DropReason::Internal, 0);

    /// It begins a connection, or is not ours.
    #[inline(always)]
    pub fn is_unknown(self) -> bool {
        self.kind == Kind::Unknown
    }

    /// It is ICMP.
    #[inline(always)]
    pub fn is_control(self) -> bool {
        self.kind == Kind::Control
    }

    /// It is an ICMP error.
    #[inline(always)]
    pub fn is_icmp_error(self) -> bool {
        self.kind == Kind::IcmpError
    }

    /// It goes no further, and its sender may hear why.
    #[inline(always)]
    pub fn refusal(self) -> Option<Refusal> {
        (self.kind == Kind::Refused).then_some(Refusal { reason: self.reason, mtu: self.number })
    }

    /// What is to be done with the packet. A step that was not the last one is nobody's fault but ours.
    #[inline(always)]
    pub fn verdict(self) -> Verdict {
        match self.kind {
            Kind::Pass => Verdict::Pass,
            Kind::Deliver => Verdict::Deliver,
            Kind::Send => Verdict::Send(Link(self.number)),
            Kind::Neighbour => Verdict::Neighbour(self.number),
            Kind::Answer => Verdict::Answer(None),
            Kind::AnswerFor => Verdict::Answer(Some(self.reason)),
            Kind::Drop | Kind::Refused => Verdict::Drop(self.reason),
            Kind::Unknown | Kind::Control | Kind::IcmpError => Verdict::Drop(DropReason::Internal),
        }
    }

    #[inline(always)]
    const fn new(kind: Kind, reason: DropReason, number: u32) -> Self {
        Self { kind, reason, number }
    }
}

impl Default for Step {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl From<Verdict> for Step {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        let none = DropReason::Internal;
        match verdict {
            Verdict::Pass => Self::new(Kind::Pass, none, 0),
            Verdict::Deliver => Self::new(Kind::Deliver, none, 0),
            Verdict::Send(link) => Self::new(Kind::Send, none, link.0),
            Verdict::Neighbour(ifindex) => Self::new(Kind::Neighbour, none, ifindex),
            Verdict::Answer(None) => Self::new(Kind::Answer, none, 0),
            Verdict::Answer(Some(reason)) => Self::new(Kind::AnswerFor, reason, 0),
            Verdict::Drop(reason) => Self::new(Kind::Drop, reason, 0),
        }
    }
}

impl From<Refusal> for Step {
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        Self::new(Kind::Refused, refusal.reason, refusal.mtu)
    }
}

impl From<DropReason> for Step {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Refusal::from(reason).into()
    }
}
