//! The kernel program of Blixt: entry points for TC (ingress and egress) and XDP.
//!
//! What happens to a packet is decided in `blixt-packet`; here its verdict becomes an action of the hook.
#![no_std]
#![no_main]

mod maps;
mod parts;
mod piece;
mod state;
mod tc;
mod xdp;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use blixt_packet::abi::{DEVICE_XDP_SENDER, V4, V6};
use blixt_packet::address::Address;
use blixt_packet::known::ethertype;
use blixt_packet::neighbour::{ARP, arp};
use blixt_packet::{DropReason, Verdict, enter, exit};

use crate::parts::{TcParts, XdpParts};
use crate::state::{Maps, count_drop, device};
use crate::tc::Skb;
use crate::xdp::XdpFrame;

/// Every packet that comes in by a device.
#[classifier]
#[inline(always)]
pub fn blixt_ingress(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    let mut skb = Skb::gathered(context);
    let ifindex = skb.ifindex();
    let maps = Maps::new(context.cast(), ifindex);
    let verdict = match ethertype(&skb, &maps) {
        V4::ETHERTYPE => enter::<V4>(&mut TcParts(context)),
        V6::ETHERTYPE => enter::<V6>(&mut TcParts(context)),
        ARP => arp(&mut skb, &maps),
        _ => Verdict::Pass,
    };
    tc_action(verdict, ifindex)
}

/// Every packet that leaves by a device; only needed for backends on this machine.
#[classifier]
#[inline(always)]
pub fn blixt_egress(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    let skb = Skb::gathered(context);
    let verdict = match ethertype(&skb, &Maps::new(context.cast(), skb.ifindex())) {
        V4::ETHERTYPE => exit::<V4>(&mut TcParts(context)),
        V6::ETHERTYPE => exit::<V6>(&mut TcParts(context)),
        _ => Verdict::Pass,
    };
    tc_action(verdict, skb.ifindex())
}

/// Every frame that comes in by a device, before the kernel makes anything of it.
#[xdp]
#[inline(always)]
pub fn blixt_xdp(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let ifindex = frame.ifindex();
    let maps = Maps::new(ctx.ctx.cast(), ifindex);
    let ethertype = ethertype(&frame, &maps);
    // The other end of a veth may take nothing that XDP sends back: TC, which is behind, does all of it then.
    if ethertype == 0 || !device(ifindex).is_some_and(|device| device.flags & DEVICE_XDP_SENDER != 0) {
        return xdp_action::XDP_PASS;
    }
    let verdict = match ethertype {
        V4::ETHERTYPE => enter::<V4>(&mut XdpParts(ctx.ctx)),
        V6::ETHERTYPE => enter::<V6>(&mut XdpParts(ctx.ctx)),
        ARP => arp(&mut frame, &maps),
        _ => Verdict::Pass,
    };
    xdp_action(verdict, ifindex)
}

#[inline(always)]
fn tc_action(verdict: Verdict, ifindex: u32) -> i32 {
    if let Some(reason) = verdict.reason() {
        count_drop(reason);
    }
    // SAFETY: the helpers take numbers; without parameters the kernel finds the neighbour by the packet's destination.
    unsafe {
        match verdict {
            Verdict::Pass | Verdict::Deliver | Verdict::Reset(None) => TC_ACT_UNSPEC,
            Verdict::Send(link) | Verdict::Reset(Some(link)) => bpf_redirect(link.ifindex(), 0) as i32,
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
        Verdict::Pass | Verdict::Deliver | Verdict::Reset(None) => xdp_action::XDP_PASS,
        Verdict::Send(link) | Verdict::Reset(Some(link)) if link.ifindex() == ifindex => xdp_action::XDP_TX,
        // SAFETY: the helper takes numbers.
        Verdict::Send(link) | Verdict::Reset(Some(link)) => unsafe { bpf_redirect(link.ifindex(), 0) as u32 },
        // The neighbour was known when the packet was first looked at.
        Verdict::Neighbour(_) => {
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
