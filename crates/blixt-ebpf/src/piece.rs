//! Packet memory between two pointers, as the verifier wants it read and written.

use core::ffi::c_void;
use core::hint::black_box;
use core::mem::size_of;

use aya_ebpf::helpers::generated::bpf_csum_diff;
use blixt_packet::DropReason;
use blixt_packet::checksum::Delta;
use blixt_packet::packet::{self, MAX_OFFSET, MAX_SUM};

use crate::maps::SCRATCH;

/// The part of a packet that lies in one piece. The two pointers are read from the context once: read again, each would
/// count as a new one, without the bounds that were checked.
#[derive(Clone, Copy)]
pub struct Piece {
    data: usize,
    end: usize,
}

impl Piece {
    /// None at all.
    pub const EMPTY: Self = Self { data: 0, end: 0 };

    /// From the fields `data` and `data_end` of a context, and from nothing else.
    #[inline(always)]
    pub fn new(data: usize, end: usize) -> Self {
        // Of a number of 32 bits the compiler knows that no offset makes it wrap around: then it leaves checks out that
        // follow from other ones, and the verifier wants them.
        Self { data: black_box(data), end }
    }

    /// How many there are.
    #[inline(always)]
    pub fn len(self) -> usize {
        // Of a difference that is cut to 32 bits the compiler cuts the pointers, which the verifier forbids.
        black_box(self.end - self.data)
    }

    #[inline(always)]
    fn load<T: Word, const N: usize>(self, at: usize) -> Result<[T; N], DropReason> {
        let from: *mut [T; N] = self.place(at)?;
        // SAFETY: `place` has checked that all of it lies in the packet.
        Ok(unsafe { from.read_unaligned() })
    }

    #[inline(always)]
    fn store<T: Word, const N: usize>(self, at: usize, words: [T; N]) -> Result<(), DropReason> {
        let to: *mut [T; N] = self.place(at)?;
        // SAFETY: as in `load`.
        unsafe { to.write_unaligned(words) };
        Ok(())
    }

    #[inline(always)]
    fn place<T>(self, at: usize) -> Result<*mut T, DropReason> {
        // Of a 64-bit number the compiler would check one sum and add another; 32 bits are never negative.
        let at = at as u32 as usize;
        if at > MAX_OFFSET {
            return Err(DropReason::Truncated);
        }
        let from = self.data + at;
        // The compiler makes "the pointer is below the end" of a check for one byte, which tells the verifier nothing.
        if from + size_of::<T>().max(2) > self.end {
            return Err(DropReason::Truncated);
        }
        Ok(from as *mut T)
    }
}

impl packet::Bytes for Piece {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], DropReason> {
        self.load(at)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], DropReason> {
        self.load(at)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), DropReason> {
        self.store(at, bytes)
    }

    #[inline(always)]
    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason> {
        self.store(at, words)
    }
}

/// The sum of `len` bytes that `load` puts where it is told; it answers 0 if it did.
#[inline(always)]
pub fn sum(len: usize, load: impl FnOnce(*mut c_void, u32) -> i64) -> Result<Delta, DropReason> {
    if len == 0 || len > MAX_SUM {
        return Err(DropReason::BadLength);
    }
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(DropReason::Internal)?.cast::<u8>();
    // The verifier must see both bounds of a length. The compiler drops a mask that follows from what it knows of the number, which
    // Linux 6.1 has forgotten by then: it keeps no bounds of what lies on the stack in 32 bits.
    let len = black_box(len);
    let len = ((len - 1) & (MAX_SUM - 1)) + 1;
    let padded = ((len - 1) & (MAX_SUM - 4)) + 4;
    // SAFETY: `scratch` is this CPU's own and as large as the largest sum; `padded` is at most that.
    unsafe { scratch.add(padded - 4).cast::<u32>().write(0) };
    if load(scratch.cast(), len as u32) != 0 {
        return Err(DropReason::Truncated);
    }
    // SAFETY: as above.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, scratch.cast(), padded as u32, 0) };
    if sum < 0 {
        return Err(DropReason::Internal);
    }
    Ok(Delta::new(sum as u32))
}

/// Takes a number through memory of which the verifier does not know what it holds.
#[inline(always)]
pub fn forget(number: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    let place = scratch.cast::<u32>();
    // SAFETY: the place is this CPU's own; volatile, since the compiler would see through it too.
    unsafe {
        place.write_volatile(number);
        place.read_volatile()
    }
}

/// Numbers of which every pattern of bits is one.
pub trait Word: Copy {}

impl Word for u8 {}
impl Word for u32 {}
