//! The floor of a packet's cost: programs that do one step of balancing each, in as little code as does it at all. And the
//! drivers that measure: they make each run another flow's packet, then go on to the program under test.
#![no_std]
#![no_main]

mod driver;
mod floor;
mod headers;

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::floor::Halves;

/// The loopback of the namespace that is measured in.
const LOOPBACK: u32 = 1;

/// Writes the next flow's packet and goes on to the program under test.
#[classifier]
pub fn floor_driver_tc(ctx: TcContext) -> i32 {
    driver::drive(&ctx, &driver::TARGET_TC);
    TC_ACT_SHOT
}

/// The same in XDP.
#[xdp]
pub fn floor_driver_xdp(ctx: XdpContext) -> u32 {
    driver::drive(&ctx, &driver::TARGET_XDP);
    xdp_action::XDP_ABORTED
}

/// Nothing: what the driver itself costs.
#[classifier]
pub fn floor_nothing_tc(_ctx: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// The same in XDP.
#[xdp]
pub fn floor_nothing_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Sends what the driver made, by the device that it is said to have come by.
#[xdp]
pub fn floor_send_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// A frontend is looked up, in vain.
#[classifier]
pub fn floor_look_tc(ctx: TcContext) -> i32 {
    floor::look(&ctx).map_or(TC_ACT_SHOT, |()| TC_ACT_OK)
}

/// The same in XDP.
#[xdp]
pub fn floor_look_xdp(ctx: XdpContext) -> u32 {
    floor::look(&ctx).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_PASS)
}

/// Full NAT of a known flow, and no more.
#[classifier]
pub fn floor_nat_tc(ctx: TcContext) -> i32 {
    floor::translate_directly(&ctx).map_or(TC_ACT_SHOT, |()| go_on())
}

/// The same with the kernel's helpers for checksums, which know of those that are not finished.
#[classifier]
pub fn floor_nat_helpers_tc(ctx: TcContext) -> i32 {
    floor::translate(&ctx).unwrap_or(TC_ACT_SHOT)
}

/// Full NAT of a known flow, counted, and when, in XDP.
#[xdp]
pub fn floor_nat_xdp(ctx: XdpContext) -> u32 {
    floor::translate_and_count(&ctx).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// A flow that begins.
#[classifier]
pub fn floor_begin_tc(ctx: TcContext) -> i32 {
    floor::begin(&ctx, Halves::Both).map_or(TC_ACT_SHOT, |()| go_on())
}

/// The same in XDP.
#[xdp]
pub fn floor_begin_xdp(ctx: XdpContext) -> u32 {
    floor::begin(&ctx, Halves::Both).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// A flow that begins, of which the table gets one half.
#[classifier]
pub fn floor_half_tc(ctx: TcContext) -> i32 {
    floor::begin(&ctx, Halves::One).map_or(TC_ACT_SHOT, |()| go_on())
}

/// The same in XDP.
#[xdp]
pub fn floor_half_xdp(ctx: XdpContext) -> u32 {
    floor::begin(&ctx, Halves::One).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

#[inline(always)]
fn go_on() -> i32 {
    // SAFETY: a helper that takes two numbers.
    unsafe { bpf_redirect(LOOPBACK, 0) as i32 }
}

/// Some helpers are for programs of a compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
