//! The floor of a packet's cost in TC: a program that parses, looks one LRU entry up and rewrites by the checksum
//! helpers, as little code as does full NAT at all. And the driver that measures: it makes each run another flow's
//! packet, then goes on to the program under test.
#![no_std]
#![no_main]

mod driver;
mod floor;
mod headers;

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// Writes the next flow's packet and goes on to the program under test.
#[classifier]
pub fn floor_driver(ctx: TcContext) -> i32 {
    driver::drive(&ctx).unwrap_or(TC_ACT_SHOT)
}

/// Nothing: what the driver itself costs.
#[classifier]
pub fn floor_nothing(_ctx: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Full NAT of a known flow, and no more.
#[classifier]
pub fn floor_nat(ctx: TcContext) -> i32 {
    floor::translate(&ctx).unwrap_or(TC_ACT_SHOT)
}

/// Some helpers are for programs of a compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
