//! The kernel program of Blixt: entry points for TC (ingress and egress) and XDP.
//!
//! What happens to a packet is decided in `blixt-packet`; here its verdict becomes an action of the hook.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Every packet that comes in by a device.
#[classifier]
pub fn blixt_ingress(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Every packet that leaves by a device; only needed for backends on this machine.
#[classifier]
pub fn blixt_egress(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Every frame that comes in by a device, before the kernel makes anything of it.
#[xdp]
pub fn blixt_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Some helpers are for programs of a compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
