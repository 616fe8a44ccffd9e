//! The packet of one flow after another, in a scattered order.

use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;

use crate::headers::{Headers, place};

/// Flows that are walked over: a power of two.
const FLOWS: u32 = 65_536;
/// Odd, so that every flow has its turn before the first comes again, and far from the one before.
const STRIDE: u32 = 40_503;
/// Flows of one client, a port for each.
const PORTS: u32 = 16_384;

/// The program under test.
#[btf_map]
pub static TARGET: ProgramArray<1> = ProgramArray::new();
/// The first flow's packet: Ethernet, IPv4 and TCP header, and two bytes.
#[btf_map]
pub static PACKET: Array<[u64; 7], 1> = Array::new();
/// The number of the flow.
#[btf_map]
pub static NEXT: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Makes the packet what the next flow's would be, and goes on. Comes back only where nothing is to be gone on to.
#[inline(always)]
pub fn drive(ctx: &TcContext) -> Option<i32> {
    let next = NEXT.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's own.
    let flow = unsafe {
        *next = next.read().wrapping_add(STRIDE);
        next.read() % FLOWS
    };
    let first = PACKET.get(0)?;
    let packet: *mut [u64; 7] = place(ctx)?;
    // SAFETY: `place` has checked that all of it lies in the packet.
    unsafe { packet.write_unaligned(*first) };
    let headers: *mut Headers = place(ctx)?;
    // SAFETY: as above.
    unsafe {
        let client = (flow / PORTS) as u16;
        let low = u16::from_be((*headers).source_low) + client;
        (*headers).source_low = low.to_be();
        (*headers).checksum = grown(u16::from_be((*headers).checksum), client).to_be();
        (*headers).source_port = (u16::from_be((*headers).source_port) + (flow % PORTS) as u16).to_be();
        TARGET.tail_call(ctx, 0);
    }
    None
}

/// The header's checksum after a word of the header grew by so much.
#[inline(always)]
fn grown(checksum: u16, by: u16) -> u16 {
    let sum = !checksum as u32 + by as u32;
    !((sum & 0xffff) + (sum >> 16)) as u16
}
