//! A packet as TC has it: an skb, whose checksum and VLAN tag the kernel keeps track of.

use aya_ebpf::bindings::{__sk_buff, BPF_CSUM_LEVEL_DEC, BPF_CSUM_LEVEL_INC, BPF_CSUM_LEVEL_QUERY};
use aya_ebpf::helpers::generated::{
    bpf_csum_level, bpf_csum_update, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
    bpf_skb_pull_data, bpf_skb_vlan_pop, bpf_skb_vlan_push,
};
use blixt_packet::DropReason;
use blixt_packet::abi::Link;
use blixt_packet::checksum::{Delta, Summed};
use blixt_packet::frame::Addressee;
use blixt_packet::packet::{Packet, patch_sum};

use crate::piece::{Piece, forget, sum};

/// Bytes that are pulled together where a packet's headers lie in pages of their own.
const PULLED: u32 = 256;
/// Ethernet, IPv4 and TCP headers: an skb that holds no more than these in its own buffer holds all of them.
const HEADERS_V4: u32 = 14 + 20 + 20;
/// Ethernet, IPv6 and TCP headers.
const HEADERS_V6: u32 = 14 + 40 + 20;
/// `BPF_ADJ_ROOM_MAC`: room is made behind the MAC header.
const ROOM_BEHIND_MAC: u32 = 1;
/// `PACKET_HOST`.
const HOST: u32 = 0;
/// `PACKET_OTHERHOST`.
const OTHER_HOST: u32 = 3;
/// Type of a VLAN tag, as it lies in the frame.
const VLAN: u16 = 0x8100_u16.to_be();

/// An skb.
pub struct Skb {
    skb: *mut __sk_buff,
    bytes: Piece,
}

impl Skb {
    /// The packet of a program's run.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let mut skb = Self { skb, bytes: Piece::EMPTY };
        skb.find();
        skb
    }

    /// The packet of a program's run, its headers in one piece.
    #[inline(always)]
    pub fn gathered(skb: *mut __sk_buff) -> Self {
        let mut skb = Self::new(skb);
        let len = skb.field(|skb| skb.len);
        let is_v6 = skb.field(|skb| skb.protocol) == 0x86dd_u16.to_be() as u32;
        let headers = if is_v6 { HEADERS_V6 } else { HEADERS_V4 };
        if (skb.bytes.len() as u32) < headers && (skb.bytes.len() as u32) < len {
            skb.pull(len);
        }
        skb
    }

    /// Brings the first bytes into one piece. Where that fails, the headers turn out truncated.
    #[inline(always)]
    fn pull(&mut self, len: u32) {
        // SAFETY: the context is the program's own.
        let _ = unsafe { bpf_skb_pull_data(self.skb, if len < PULLED { len } else { PULLED }) };
        self.find();
    }

    /// Index of the device of the hook.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.field(|skb| skb.ifindex)
    }

    #[inline(always)]
    fn field<T: Copy>(&self, field: impl Fn(&__sk_buff) -> T) -> T {
        // SAFETY: the context is valid for the run of the program; the verifier knows its fields.
        field(unsafe { &*self.skb })
    }

    /// Adds bytes behind the MAC header, or takes some away.
    #[inline(always)]
    fn adjust_room(&mut self, by: i32) -> Result<(), DropReason> {
        // SAFETY: the context is the program's own.
        let failed = unsafe { bpf_skb_adjust_room(self.skb, by, ROOM_BEHIND_MAC, 0) };
        self.find();
        if failed != 0 {
            return Err(DropReason::Internal);
        }
        Ok(())
    }

    /// Helpers may have moved the packet: where it is now.
    #[inline(always)]
    fn find(&mut self) {
        self.bytes = Piece::new(self.field(|skb| skb.data) as usize, self.field(|skb| skb.data_end) as usize);
    }
}

impl Packet for Skb {
    type Bytes = Piece;
    const HAS_TAGS: bool = false;

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
        sum(len, |to, len| unsafe { bpf_skb_load_bytes(self.skb.cast(), at as u32, to, len) })
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        forget(number)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.field(|skb| skb.len) as usize
    }

    #[inline(always)]
    fn link(&self) -> Link {
        let is_tagged = self.field(|skb| skb.vlan_present) != 0;
        let vlan = if is_tagged { self.field(|skb| skb.vlan_tci) as u16 } else { 0 };
        Link::new(self.ifindex(), vlan)
    }

    #[inline(always)]
    fn addressee(&self) -> Option<Addressee> {
        Some(match self.field(|skb| skb.pkt_type) {
            HOST => Addressee::Us,
            OTHER_HOST => Addressee::Another,
            _ => Addressee::Group,
        })
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        self.field(|skb| skb.gso_size)
    }

    /// Nothing says it outright. But a level is known of a sum that was found right, and of no other; and one level more makes a packet right
    /// that nobody has looked at, and no other: taken off again, it leaves that as it was.
    #[inline(always)]
    fn summed(&self) -> Summed {
        // SAFETY: the context is the program's own.
        let level = |what: u32| unsafe { bpf_csum_level(self.skb, what as u64) };
        if level(BPF_CSUM_LEVEL_QUERY) >= 0 {
            return Summed::Whole;
        }
        level(BPF_CSUM_LEVEL_INC);
        if level(BPF_CSUM_LEVEL_QUERY) >= 0 {
            level(BPF_CSUM_LEVEL_DEC);
            return Summed::Whole;
        }
        // SAFETY: the context is the program's own; nothing is added.
        if unsafe { bpf_csum_update(self.skb, 0) >= 0 } { Summed::Complete } else { Summed::Partial }
    }

    #[inline(always)]
    fn gather(&mut self) {
        let len = self.field(|skb| skb.len);
        if (self.bytes.len() as u32) < PULLED && (self.bytes.len() as u32) < len {
            self.pull(len);
        }
    }

    #[inline(always)]
    fn patch_sum(
        &mut self,
        at: usize,
        pseudo: Delta,
        header: Delta,
        zero_is_none: bool,
    ) -> Result<(), DropReason> {
        let failed = tc_patch_sum(self.skb, at as u32, pseudo.wide(), header.wide(), zero_is_none as u32);
        self.find();
        if failed != 0 {
            return Err(DropReason::Internal);
        }
        Ok(())
    }

    #[inline(always)]
    fn shift_sum(&mut self, change: Delta) {
        // SAFETY: the context is the program's own. It fails where the kernel has no such sum: then none is false.
        let _ = unsafe { bpf_csum_update(self.skb, change.wide()) };
    }

    #[inline(always)]
    fn grow(&mut self, _network: usize, bytes: usize) -> Result<(), DropReason> {
        self.adjust_room(bytes as i32)
    }

    #[inline(always)]
    fn shrink(&mut self, _network: usize, bytes: usize) -> Result<(), DropReason> {
        self.adjust_room(-(bytes as i32))
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Result<(), DropReason> {
        // SAFETY: the context is the program's own.
        let failed = unsafe { bpf_skb_change_tail(self.skb, len as u32, 0) };
        self.find();
        if failed != 0 {
            return Err(DropReason::Internal);
        }
        Ok(())
    }

    #[inline(always)]
    fn set_vlan(&mut self, vlan: u16) -> Result<(), DropReason> {
        let mut failed = 0;
        // SAFETY: the context is the program's own.
        unsafe {
            if self.field(|skb| skb.vlan_present) != 0 {
                failed |= bpf_skb_vlan_pop(self.skb);
            }
            if vlan != 0 {
                failed |= bpf_skb_vlan_push(self.skb, VLAN, vlan);
            }
        }
        self.find();
        if failed != 0 {
            return Err(DropReason::Internal);
        }
        Ok(())
    }
}

/// [`patch_sum`] as a global function, like those of `parts`: the verifier looks at it once, and not on every way to a packet that
/// changes. Other than 0: it failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_patch_sum(
    context: *mut __sk_buff,
    at: u32,
    pseudo: u32,
    header: u32,
    zero_is_none: u32,
) -> u64 {
    let mut skb = Skb::new(context);
    let (pseudo, header) = (Delta::new(pseudo), Delta::new(header));
    patch_sum(&mut skb, at as usize, pseudo, header, zero_is_none != 0).is_err() as u64
}
