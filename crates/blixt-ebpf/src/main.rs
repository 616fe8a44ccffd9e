//! The kernel program of Blixt: entry points for TC (ingress and egress) and XDP.
//!
//! What happens to a packet is decided in `blixt-packet`; here its verdict becomes an action of the hook.
#![no_std]
#![no_main]

mod bytes;
mod maps;
mod state;
mod tc;
mod xdp;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use blixt_packet::abi::DEVICE_XDP_TARGET;
use blixt_packet::{DropReason, Rooms, Verdict, forward_in, leave_in};

use crate::maps::ROOMS;
use crate::state::{Maps, count_drop, device};
use crate::tc::Skb;
use crate::xdp::XdpFrame;

/// Every packet that comes in by a device.
#[classifier]
pub fn blixt_ingress(ctx: TcContext) -> i32 {
    let Some(rooms) = rooms() else {
        return TC_ACT_UNSPEC;
    };
    let mut skb = Skb::new(&ctx);
    let ifindex = skb.ifindex();
    tc_action(forward_in(&mut skb, &Maps::new(&ctx, ifindex), rooms), ifindex)
}

/// Every packet that leaves by a device; only needed for backends on this machine.
#[classifier]
pub fn blixt_egress(ctx: TcContext) -> i32 {
    let Some(rooms) = rooms() else {
        return TC_ACT_UNSPEC;
    };
    let mut skb = Skb::new(&ctx);
    let ifindex = skb.ifindex();
    tc_action(leave_in(&mut skb, &Maps::new(&ctx, ifindex), rooms), ifindex)
}

/// Every frame that comes in by a device, before the kernel makes anything of it.
#[xdp]
pub fn blixt_xdp(ctx: XdpContext) -> u32 {
    let Some(rooms) = rooms() else {
        return xdp_action::XDP_PASS;
    };
    let mut frame = XdpFrame::new(&ctx);
    let ifindex = frame.ifindex();
    xdp_action(forward_in(&mut frame, &Maps::new(&ctx, ifindex), rooms), ifindex)
}

/// This CPU's room for the packet at hand. Programs of one CPU run one after another.
#[inline(always)]
fn rooms<'a>() -> Option<&'a mut Rooms> {
    // SAFETY: the element is this CPU's own and outlives the program; it is taken once in a run.
    ROOMS.get_ptr_mut(0).map(|rooms| unsafe { &mut *rooms })
}

#[inline(always)]
fn tc_action(verdict: Verdict, ifindex: u32) -> i32 {
    if let Some(reason) = verdict.reason() {
        count_drop(reason);
    }
    // SAFETY: the helpers take numbers; without parameters the kernel finds the neighbour by the packet's destination.
    unsafe {
        match verdict {
            Verdict::Pass | Verdict::Deliver => TC_ACT_UNSPEC,
            Verdict::Send(link) => bpf_redirect(link.ifindex(), 0) as i32,
            Verdict::Neighbour(to) => bpf_redirect_neigh(to, core::ptr::null_mut(), 0, 0) as i32,
            Verdict::Answer(_) => bpf_redirect(ifindex, 0) as i32,
            Verdict::Drop(_) => TC_ACT_SHOT,
        }
    }
}

#[inline(always)]
fn xdp_action(verdict: Verdict, ifindex: u32) -> u32 {
    if let Some(reason) = verdict.reason() {
        count_drop(reason);
    }
    match verdict {
        Verdict::Pass | Verdict::Deliver => xdp_action::XDP_PASS,
        Verdict::Send(link) if link.ifindex() == ifindex => xdp_action::XDP_TX,
        Verdict::Send(link)
            if device(link.ifindex()).is_some_and(|device| device.flags & DEVICE_XDP_TARGET != 0) =>
        {
            // SAFETY: the helper takes numbers.
            unsafe { bpf_redirect(link.ifindex(), 0) as u32 }
        }
        // XDP can neither ask for a neighbour nor send where no driver takes its frames.
        Verdict::Send(_) | Verdict::Neighbour(_) => {
            count_drop(DropReason::NoWay);
            xdp_action::XDP_DROP
        }
        Verdict::Answer(_) => xdp_action::XDP_TX,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
    }
}

/// Some helpers are for programs of a compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
