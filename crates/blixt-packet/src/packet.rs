//! The bytes of one packet. XDP, TC and a plain buffer implement it.
//!
//! Offsets count from the first byte of the MAC header. Numbers are read and written *as they lie in the
//! packet*; who needs their value says `from_be`.

use crate::DropReason;
use crate::abi::Link;
use crate::checksum::{Delta, Summed};
use crate::frame::Addressee;

/// Ethernet, IP and transport headers of every packet that is looked at lie below this offset. The verifier
/// wants an offset bounded before it is added to a pointer; IPv6 with 6 extension headers of the largest size
/// (2048 bytes each) would end at 12 KiB.
pub const MAX_OFFSET: usize = 0x3fff;

/// Most bytes that [`Packet::sum`] adds up: what `bpf_csum_diff` takes before Linux 6.13. More is summed in pieces.
pub const MAX_SUM: usize = 512;

/// Bytes that are read and written by their offset. A kernel program's packet memory and a plain slice implement it.
pub trait Bytes {
    /// Header fields.
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], DropReason>;

    /// Header fields that are kept as words: addresses, whole headers.
    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], DropReason>;

    /// Writes header fields.
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), DropReason>;

    /// Writes words.
    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason>;
}

/// One packet, from its MAC header on.
pub trait Packet {
    /// What holds its bytes.
    type Bytes: Bytes + ?Sized;
    /// A VLAN tag may stand in the bytes. TC finds it beside them.
    const HAS_TAGS: bool = true;
    /// It can go wherever there is a way. XDP can neither hand a packet that it changed to the stack, where it would be looked
    /// at once more, nor have a neighbour asked for: such a packet it leaves as it is to the TC program behind it.
    const GOES_EVERYWHERE: bool = true;

    /// Its bytes, as far as they lie in one piece.
    fn bytes(&self) -> &Self::Bytes;

    /// See [`Packet::bytes`].
    fn bytes_mut(&mut self) -> &mut Self::Bytes;

    /// Bytes in the whole packet, those not yet cut into segments included.
    fn len(&self) -> usize;

    /// There are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device that it came by (at egress: leaves by), with the VLAN whose tag was already taken off the bytes.
    fn link(&self) -> Link;

    /// Whom the kernel takes its frame to be for, once it has looked.
    fn addressee(&self) -> Option<Addressee> {
        None
    }

    /// Without [`Packet::GOES_EVERYWHERE`]: it can leave by this link.
    fn can_leave_by(&self, _link: Link) -> bool {
        true
    }

    /// Bytes of payload in each of the segments that it stands for, which the kernel cuts it into later: its own length says
    /// nothing about the MTU then. 0: it is one packet.
    fn segment(&self) -> u32;

    /// It stands for several segments.
    fn is_segmented(&self) -> bool {
        self.segment() != 0
    }

    /// Where its transport checksum is.
    fn summed(&self) -> Summed;

    /// The transport checksum is unfinished.
    #[inline(always)]
    fn is_partial(&self) -> bool {
        self.summed() == Summed::Partial
    }

    /// The same number, of which the verifier no longer knows how it was come by. It follows every way to an offset apart
    /// as long as their bounds differ: behind a loop over headers that is one copy of all that follows for each turn.
    fn forget(&self, number: u32) -> u32 {
        number
    }

    /// Brings the headers behind the transport header together too, where the packet lies in pieces: only the first piece
    /// can be read and written.
    fn gather(&mut self) {}

    /// See [`Bytes::read`].
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], DropReason> {
        self.bytes().read(at)
    }

    /// See [`Bytes::words`].
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], DropReason> {
        self.bytes().words(at)
    }

    /// See [`Bytes::write`].
    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), DropReason> {
        self.bytes_mut().write(at, bytes)
    }

    /// See [`Bytes::write_words`].
    #[inline(always)]
    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason> {
        self.bytes_mut().write_words(at, words)
    }

    /// The ones' complement sum of `len` bytes (at most [`MAX_SUM`]), for checksums of packets that we make.
    fn sum(&self, at: usize, len: usize) -> Result<Delta, DropReason>;

    /// Folds a change into the transport checksum at `at`. The change of the pseudo header comes apart from that of
    /// the transport header itself, since an unfinished sum covers only the former. `zero_is_none`: UDP, where a sum of
    /// 0 says that there is none.
    fn patch_sum(
        &mut self,
        at: usize,
        pseudo: Delta,
        header: Delta,
        zero_is_none: bool,
    ) -> Result<(), DropReason> {
        patch_sum(self, at, pseudo, header, zero_is_none)
    }

    /// Bytes behind the MAC header changed for which no checksum in the packet makes up: where the kernel has a sum of the whole
    /// packet (`CHECKSUM_COMPLETE`), it must follow. IPv4's header, with its own checksum, always makes up for itself.
    fn shift_sum(&mut self, _change: Delta) {}

    /// Makes room of `bytes` bytes between the MAC header, which ends at `network` and stays as it is, and what follows
    /// it. What the room holds is undefined.
    fn grow(&mut self, network: usize, bytes: usize) -> Result<(), DropReason>;

    /// Takes `bytes` bytes away behind the MAC header, which ends at `network` and stays as it is.
    fn shrink(&mut self, network: usize, bytes: usize) -> Result<(), DropReason>;

    /// Cuts the packet to `len` bytes.
    fn truncate(&mut self, len: usize) -> Result<(), DropReason>;

    /// Makes the packet one of this VLAN, 0 for none. Offsets found before are void.
    fn set_vlan(&mut self, vlan: u16) -> Result<(), DropReason>;
}

/// See [`Packet::patch_sum`].
#[inline(always)]
pub fn patch_sum<P: Packet + ?Sized>(
    pkt: &mut P,
    at: usize,
    pseudo: Delta,
    header: Delta,
    zero_is_none: bool,
) -> Result<(), DropReason> {
    let field = u16::from_ne_bytes(pkt.read(at)?);
    let summed = pkt.summed();
    if summed == Summed::Partial {
        return pkt.write(at, (!pseudo.apply(!field)).to_ne_bytes());
    }
    let has_none = zero_is_none && field == 0;
    if !has_none {
        let sum = match pseudo.plus(header).apply(field) {
            0 if zero_is_none => 0xffff,
            sum => sum,
        };
        pkt.write(at, sum.to_ne_bytes())?;
    }
    if summed == Summed::Complete {
        // Field and header together make up for the pseudo header, which is not in the packet.
        pkt.shift_sum(if has_none { header } else { pseudo.reversed() });
    }
    Ok(())
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], DropReason> {
        self.get(at..).and_then(|bytes| bytes.first_chunk()).copied().ok_or(DropReason::Truncated)
    }

    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], DropReason> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.read(at + 4 * index)?);
        }
        Ok(words)
    }

    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), DropReason> {
        self.get_mut(at..at + N).ok_or(DropReason::Truncated)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason> {
        for (index, word) in words.into_iter().enumerate() {
            self.write(at + 4 * index, word.to_ne_bytes())?;
        }
        Ok(())
    }
}
