//! A packet as XDP has it: the frame as it came off the wire.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes};
use blixt_packet::DropReason;
use blixt_packet::abi::{DEVICE_XDP_TARGET, Link};
use blixt_packet::checksum::{Delta, Summed};
use blixt_packet::packet::Packet;

use crate::piece::{Piece, forget, sum};
use crate::state::device;

/// Bytes of a VLAN tag.
const TAG: usize = 4;
/// Type of a VLAN tag.
const VLAN: u16 = 0x8100;
/// Ethernet header and a VLAN tag.
const FRAME: usize = 18;

/// An XDP frame.
pub struct XdpFrame {
    ctx: *mut xdp_md,
    bytes: Piece,
}

impl XdpFrame {
    /// The frame of a program's run.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        let mut frame = Self { ctx, bytes: Piece::EMPTY };
        frame.find();
        frame
    }

    /// Index of the device that it came in by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the run of the program.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// Moves the start of the frame: back if `by` is negative.
    #[inline(always)]
    fn move_head(&mut self, by: i32) -> Result<(), DropReason> {
        // SAFETY: the context is the program's own.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx, by) };
        self.find();
        if failed != 0 {
            return Err(DropReason::Internal);
        }
        Ok(())
    }

    /// Helpers may have moved the frame: where it is now.
    #[inline(always)]
    fn find(&mut self) {
        // SAFETY: the context is valid for the run of the program. Volatile: each read is a pointer of its own.
        self.bytes = unsafe {
            let data = (&raw const (*self.ctx).data).read_volatile();
            let end = (&raw const (*self.ctx).data_end).read_volatile();
            Piece::new(data as usize, end as usize)
        };
    }
}

impl Packet for XdpFrame {
    type Bytes = Piece;
    const GOES_EVERYWHERE: bool = false;

    #[inline(always)]
    fn bytes(&self) -> &Piece {
        &self.bytes
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut Piece {
        &mut self.bytes
    }

    #[inline(always)]
    fn sum(&self, at: usize, len: usize) -> Result<Delta, DropReason> {
        // SAFETY: the context is the program's own; the place holds so many bytes.
        sum(len, |to, len| unsafe { bpf_xdp_load_bytes(self.ctx, at as u32, to, len) })
    }

    #[inline(always)]
    fn can_leave_by(&self, link: Link) -> bool {
        let ifindex = link.ifindex();
        ifindex == self.ifindex()
            || device(ifindex).is_some_and(|device| device.flags & DEVICE_XDP_TARGET != 0)
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        forget(number)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline(always)]
    fn link(&self) -> Link {
        Link::new(self.ifindex(), 0)
    }

    /// Generic XDP sees packets that the kernel has put together: they are larger than what the device takes. Nobody tells of
    /// what size they were.
    #[inline(always)]
    fn segment(&self) -> u32 {
        match device(self.ifindex()) {
            Some(device) if self.bytes.len() > device.mtu as usize + FRAME => u32::MAX,
            _ => 0,
        }
    }

    #[inline(always)]
    fn summed(&self) -> Summed {
        Summed::Whole
    }

    #[inline(always)]
    fn grow(&mut self, network: usize, bytes: usize) -> Result<(), DropReason> {
        self.move_head(-(bytes as i32))?;
        let macs: [u32; 3] = self.words(bytes)?;
        let kind: [u8; 2] = self.read(bytes + 12)?;
        let inner: [u8; TAG] = self.read(bytes + 14)?;
        // With the same pointers the compiler would leave the checks out that the verifier wants.
        self.find();
        self.write_words(0, macs)?;
        self.write(12, kind)?;
        if network == FRAME {
            self.write(14, inner)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn shrink(&mut self, network: usize, bytes: usize) -> Result<(), DropReason> {
        let macs: [u32; 3] = self.words(0)?;
        let kind: [u8; 2] = self.read(12)?;
        let inner: [u8; TAG] = self.read(14)?;
        self.move_head(bytes as i32)?;
        self.write_words(0, macs)?;
        self.write(12, kind)?;
        if network == FRAME {
            self.write(14, inner)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Result<(), DropReason> {
        let by = len as i32 - self.bytes.len() as i32;
        // SAFETY: the context is the program's own.
        let failed = unsafe { bpf_xdp_adjust_tail(self.ctx, by) };
        self.find();
        if failed != 0 {
            return Err(DropReason::Internal);
        }
        Ok(())
    }

    #[inline(always)]
    fn set_vlan(&mut self, vlan: u16) -> Result<(), DropReason> {
        let macs: [u32; 3] = self.words(0)?;
        let ethertype = u16::from_be_bytes(self.read(12)?);
        match (ethertype == VLAN, vlan != 0) {
            (true, true) => return self.write(14, vlan.to_be_bytes()),
            (true, false) => self.move_head(TAG as i32)?,
            (false, true) => {
                self.move_head(-(TAG as i32))?;
                let [high, low] = vlan.to_be_bytes();
                let [type_high, type_low] = VLAN.to_be_bytes();
                self.write(12, [type_high, type_low, high, low])?;
            }
            (false, false) => return Ok(()),
        }
        self.write_words(0, macs)
    }
}
