//! The parts of a packet's way as global functions: the verifier looks at each of them once, knowing nothing of what
//! happened before. They share the rooms of their CPU, and return the bits of a step.
//!
//! The part that every packet of ours goes through stands in the program itself, since a call costs ten nanoseconds. Not for IPv6
//! in XDP: with what is called after it, the stack would be 528 bytes, and the kernel allows 512. All of these are taken as it is
//! where frames are rounded up to 32 bytes (Linux 6.1).

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use blixt_packet::abi::{V4, V6};
use blixt_packet::part::{Part, Parts, run};
use blixt_packet::{DropReason, Rooms, Step, Verdict};

use crate::maps::ROOMS;
use crate::state::Maps;
use crate::tc::Skb;
use crate::xdp::XdpFrame;

/// The parts for the packets of TC.
pub struct TcParts(pub *mut __sk_buff);

/// The parts for the frames of XDP.
pub struct XdpParts(pub *mut xdp_md);

macro_rules! here {
    ($part:ident, $context:expr, $packet:ident, $address:ident, $room:ident) => {
        match rooms() {
            Some(rooms) => {
                let mut packet = $packet::new($context);
                let maps = Maps::new($context.cast(), packet.ifindex());
                run::<$address, _, _>(Part::$part, &mut packet, &maps, &mut rooms.$room)
            }
            None => impossible(),
        }
    };
}

macro_rules! parts {
    ($parts:ident, $context:ty, $packet:ident, $address:ident, $room:ident, $(here $here:ident,)? {
        $($part:ident = $name:ident,)+
    } $(else $other:ident)?) => {
        impl Parts<$address> for $parts {
            #[inline(always)]
            fn run(&mut self, part: Part) -> Step {
                match part {
                    $(Part::$here => here!($here, self.0, $packet, $address, $room),)?
                    $(Part::$part => Step::from_bits($name(self.0)),)+
                    $(_ => $other(),)?
                }
            }
        }

        $(
            /// See the part's name.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $name(context: *mut $context) -> u64 {
                here!($part, context, $packet, $address, $room).bits()
            }
        )+
    };
}

/// What XDP has no hook for, and a map without an element.
#[inline(always)]
fn impossible() -> Step {
    Verdict::Drop(DropReason::Internal).into()
}

/// This CPU's room for the packet at hand. Programs of one CPU run one after another.
#[inline(always)]
fn rooms<'a>() -> Option<&'a mut Rooms> {
    // SAFETY: the element is this CPU's own and outlives the program; a part takes it once, and has ended before the next one.
    ROOMS.get_ptr_mut(0).map(|rooms| unsafe { &mut *rooms })
}

parts!(TcParts, __sk_buff, Skb, V4, v4, here Follow, {
    FollowNew = tc_follow_new_v4,
    Connect = tc_connect_v4,
    Claim = tc_claim_v4,
    Control = tc_control_v4,
    Translate = tc_translate_v4,
    Carry = tc_carry_v4,
    Refuse = tc_refuse_v4,
    Leave = tc_leave_v4,
    RefuseLeaving = tc_refuse_leaving_v4,
    TranslateLeaving = tc_translate_leaving_v4,
    CarryLeaving = tc_carry_leaving_v4,
});
parts!(TcParts, __sk_buff, Skb, V6, v6, here Follow, {
    FollowNew = tc_follow_new_v6,
    Connect = tc_connect_v6,
    Claim = tc_claim_v6,
    Control = tc_control_v6,
    Translate = tc_translate_v6,
    Carry = tc_carry_v6,
    Refuse = tc_refuse_v6,
    Leave = tc_leave_v6,
    RefuseLeaving = tc_refuse_leaving_v6,
    TranslateLeaving = tc_translate_leaving_v6,
    CarryLeaving = tc_carry_leaving_v6,
});
parts!(XdpParts, xdp_md, XdpFrame, V4, v4, here Follow, {
    FollowNew = xdp_follow_new_v4,
    Connect = xdp_connect_v4,
    Claim = xdp_claim_v4,
    Control = xdp_control_v4,
    Translate = xdp_translate_v4,
    Carry = xdp_carry_v4,
    Refuse = xdp_refuse_v4,
} else impossible);
parts!(XdpParts, xdp_md, XdpFrame, V6, v6, {
    Follow = xdp_follow_v6,
    FollowNew = xdp_follow_new_v6,
    Connect = xdp_connect_v6,
    Claim = xdp_claim_v6,
    Control = xdp_control_v6,
    Translate = xdp_translate_v6,
    Carry = xdp_carry_v6,
    Refuse = xdp_refuse_v6,
} else impossible);
