//! The packet of one flow after another, in a scattered order.

use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;

use crate::headers::{Frame, Headers, HeadersV6, place};

/// Odd, so that every flow has its turn before the first comes again, and far from the one before.
const STRIDE: u32 = 2_654_435_761;
/// Flows of one client, a port for each.
const PORTS: u32 = 16_384;
/// The flag of IPv6.
const IPV6: u32 = 1;
/// The flag of flows to many listeners, over IPv4,
const SPREAD: u32 = 2;
/// and how many, a port for each.
const LISTENERS: u32 = 10_000;

/// Eight bytes, wherever they lie.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Word(u64);

/// The program under test. Each hook has a table of its own: it takes no programs of the other.
#[btf_map]
pub static TARGET_TC: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub static TARGET_XDP: ProgramArray<1> = ProgramArray::new();
/// The first flow's packet, whole.
#[btf_map]
pub static PACKET: Array<[u64; 10], 1> = Array::new();
/// Flows that are walked over less one, a power of two before that, and flags.
#[btf_map]
pub static WALK: Array<[u32; 2], 1> = Array::new();
/// The number of the flow.
#[btf_map]
pub static NEXT: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Makes the packet what the next flow's would be, and goes on to a table's program. Comes back only where there is none.
#[inline(always)]
pub fn drive(ctx: &impl Frame, target: &ProgramArray<1>) -> Option<()> {
    let [mask, flags] = *WALK.get(0)?;
    let next = NEXT.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's own.
    let flow = unsafe {
        *next = next.read().wrapping_add(STRIDE);
        next.read() & mask
    };
    let first = PACKET.get(0)?;
    let packet: *mut [Word; 10] = place(ctx)?;
    for (index, word) in first.iter().enumerate() {
        // SAFETY: `place` has checked that all of it lies in the packet. Volatile: the compiler's copy would be a loop over bytes.
        unsafe { (&raw mut (*packet)[index]).write_volatile(Word(*word)) };
    }
    let (client, port) = ((flow / PORTS) as u16, (flow % PORTS) as u16);
    if flags & IPV6 == 0 {
        let headers: *mut Headers = place(ctx)?;
        // SAFETY: as above.
        unsafe {
            (*headers).source_low = grown((*headers).source_low, client);
            (*headers).checksum = sum((*headers).checksum, client);
            (*headers).source_port = grown((*headers).source_port, port);
            if flags & SPREAD != 0 {
                let listener = (flow % LISTENERS) as u16;
                (*headers).destination_port = grown((*headers).destination_port, listener);
            }
        }
    } else {
        let headers: *mut HeadersV6 = place(ctx)?;
        // SAFETY: as above.
        unsafe {
            (*headers).source_low = grown((*headers).source_low, client);
            (*headers).source_port = grown((*headers).source_port, port);
        }
    }
    // SAFETY: the context is the program's own.
    unsafe { target.tail_call(ctx, 0) };
    Some(())
}

/// A number of a header after it grew by so much.
#[inline(always)]
fn grown(word: u16, by: u16) -> u16 {
    u16::from_be(word).wrapping_add(by).to_be()
}

/// The header's checksum after a word of the header grew by so much.
#[inline(always)]
fn sum(checksum: u16, by: u16) -> u16 {
    let sum = !u16::from_be(checksum) as u32 + by as u32;
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be()
}
