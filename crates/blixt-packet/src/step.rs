//! How far a part of a packet's way came: one number, which is all that a function of the kernel program may return.

use crate::abi::Link;
use crate::{DropReason, Refusal, Verdict};

/// What came of a part: `number << 32 | reason << 8 | kind`.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Step(u64);

/// It begins a connection, or is not ours.
const UNKNOWN: u8 = 0;
/// Its connection lacks a source port.
const UNCLAIMED: u8 = 1;
/// It is ICMP.
const CONTROL: u8 = 2;
/// It is an ICMP error.
const ICMP_ERROR: u8 = 3;
/// It goes no further, and its sender may hear why; the number is the MTU.
const REFUSED: u8 = 4;
/// The verdicts. The number is a link or a device.
const PASS: u8 = 5;
const DELIVER: u8 = 6;
const SEND: u8 = 7;
const NEIGHBOUR: u8 = 8;
const ANSWER: u8 = 9;
const ANSWER_FOR: u8 = 10;
const DROP: u8 = 11;
const RESET: u8 = 12;

impl Step {
    /// It begins a connection, or is not ours.
    pub(crate) const UNKNOWN: Self = Self::new(UNKNOWN, DropReason::Internal, 0);
    /// It begins a connection, which lacks a source port.
    pub(crate) const UNCLAIMED: Self = Self::new(UNCLAIMED, DropReason::Internal, 0);
    /// It is ICMP.
    pub(crate) const CONTROL: Self = Self::new(CONTROL, DropReason::Internal, 0);
    /// It is an ICMP error.
    pub(crate) const ICMP_ERROR: Self = Self::new(ICMP_ERROR, DropReason::Internal, 0);

    /// The step that another program's number says.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The step as a number.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn is_unknown(self) -> bool {
        self.kind() == UNKNOWN
    }

    #[inline(always)]
    pub(crate) const fn is_unclaimed(self) -> bool {
        self.kind() == UNCLAIMED
    }

    #[inline(always)]
    pub(crate) const fn is_control(self) -> bool {
        self.kind() == CONTROL
    }

    #[inline(always)]
    pub(crate) const fn is_icmp_error(self) -> bool {
        self.kind() == ICMP_ERROR
    }

    #[inline(always)]
    pub(crate) const fn is_refused(self) -> bool {
        self.kind() == REFUSED
    }

    /// Why the packet goes no further, if it does not.
    #[inline(always)]
    pub(crate) const fn refusal(self) -> Refusal {
        Refusal { reason: self.reason(), mtu: self.number() }
    }

    /// What is to be done with the packet. A step that was not the last one is nobody's fault but ours.
    #[inline(always)]
    pub(crate) const fn verdict(self) -> Verdict {
        match self.kind() {
            PASS => Verdict::Pass,
            DELIVER => Verdict::Deliver,
            SEND => Verdict::Send(Link(self.number())),
            NEIGHBOUR => Verdict::Neighbour(self.number()),
            ANSWER => Verdict::Answer(None),
            ANSWER_FOR => Verdict::Answer(Some(self.reason())),
            RESET if self.number() == 0 => Verdict::Reset(None),
            RESET => Verdict::Reset(Some(Link(self.number()))),
            DROP | REFUSED => Verdict::Drop(self.reason()),
            _ => Verdict::Drop(DropReason::Internal),
        }
    }

    #[inline(always)]
    const fn new(kind: u8, reason: DropReason, number: u32) -> Self {
        Self(kind as u64 | (reason as u64) << 8 | (number as u64) << 32)
    }

    #[inline(always)]
    const fn kind(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    const fn reason(self) -> DropReason {
        DropReason::from_number((self.0 >> 8) as u8)
    }

    #[inline(always)]
    const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl From<Verdict> for Step {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        let none = DropReason::Internal;
        match verdict {
            Verdict::Pass => Self::new(PASS, none, 0),
            Verdict::Deliver => Self::new(DELIVER, none, 0),
            Verdict::Send(link) => Self::new(SEND, none, link.0),
            Verdict::Neighbour(ifindex) => Self::new(NEIGHBOUR, none, ifindex),
            Verdict::Answer(None) => Self::new(ANSWER, none, 0),
            Verdict::Answer(Some(reason)) => Self::new(ANSWER_FOR, reason, 0),
            Verdict::Reset(link) => Self::new(RESET, none, link.map_or(0, |link| link.0)),
            Verdict::Drop(reason) => Self::new(DROP, reason, 0),
        }
    }
}

impl From<Refusal> for Step {
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        Self::new(REFUSED, refusal.reason, refusal.mtu)
    }
}

impl From<DropReason> for Step {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Refusal::from(reason).into()
    }
}
