//! Runs of a program on a packet of which the kernel has summed up all that follows the MAC header, as network cards do
//! (`CHECKSUM_COMPLETE`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Runs the program (`BPF_F_TEST_SKB_CHECKSUM_COMPLETE`, for which aya has no word; Linux 6.16 and newer). An error if it leaves
/// the sum other than the packet's.
pub fn run_summed(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> io::Result<()> {
    let attributes = Attributes {
        program: program.as_raw_fd() as u32,
        data_in_size: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        context_in_size: context.len() as u32,
        context_in: context.as_ptr() as u64,
        flags: CHECKSUM_COMPLETE,
        ..Attributes::default()
    };
    // SAFETY: the pointers in the attributes are to live slices of the lengths beside them; nothing is written to them.
    let failed = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw const attributes, size_of::<Attributes>())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The part of `union bpf_attr` for the command.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    action: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

const PROG_TEST_RUN: libc::c_long = 10;
const CHECKSUM_COMPLETE: u32 = 1 << 2;
