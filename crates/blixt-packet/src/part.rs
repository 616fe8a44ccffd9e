//! The parts of a packet's way.
//!
//! Each finds all that it needs in the packet, in the tables and in the room that it shares with the others, and says in one
//! number how far it came. So the kernel program can make each of them a function of its own, which the verifier looks at
//! once, whatever happened before.

use crate::icmp::{self, Icmp};
use crate::packet::Packet;
use crate::room::Room;
use crate::state::State;
use crate::step::Step;
use crate::{answer, connect, forward, source_port};

/// One part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Sends a packet of a known flow on.
    Follow,
    /// Sends the first packet of a flow on.
    FollowNew,
    /// Chooses the backend of a packet without a flow.
    Connect,
    /// Tries one source port for a new flow, and puts both halves into the table.
    Claim,
    /// Decides about an ICMP packet that came in.
    Control,
    /// Translates what an ICMP error carries.
    Translate,
    /// Sends an ICMP error on.
    Carry,
    /// Answers a packet that goes no further, or tells its receiver.
    Refuse,
    /// Translates a reply that leaves.
    Leave,
    /// Tells the receiver of a reply that leaves no further.
    RefuseLeaving,
    /// [`Part::Translate`], of an error that leaves.
    TranslateLeaving,
    /// [`Part::Carry`], of an error that leaves.
    CarryLeaving,
}

/// Who runs the parts of the way of a packet of one family.
pub trait Parts<A> {
    /// Runs one part.
    fn run(&mut self, part: Part) -> Step;
}

/// Runs a part.
#[inline(always)]
pub fn run<A: Icmp, P: Packet, S: State<A>>(part: Part, pkt: &mut P, state: &S, room: &mut Room<A>) -> Step {
    let step = match part {
        Part::Follow => forward::follow(pkt, state, room),
        Part::FollowNew => forward::follow_new(pkt, state, room),
        Part::Connect => connect::connect(state, room),
        Part::Claim => source_port::claim(state, room),
        Part::Control => icmp::receive(pkt, state, &room.headers),
        Part::Translate => icmp::translate::<A, P, S, false>(pkt, state, room),
        Part::Carry => icmp::carry::<A, P, S, false>(pkt, state, room),
        Part::Refuse => answer::answer(pkt, state, room),
        Part::Leave => forward::leave_reply(pkt, state, room),
        Part::RefuseLeaving => answer::answer_leaving(pkt, state, room),
        Part::TranslateLeaving => icmp::translate::<A, P, S, true>(pkt, state, room),
        Part::CarryLeaving => icmp::carry::<A, P, S, true>(pkt, state, room),
    };
    room.step = step;
    step
}
