//! Internet checksums as differences: nothing is ever summed anew that was only changed in part.
//!
//! Words are summed as they lie in memory; the folded result is then the field as it lies in memory (RFC 1071,
//! section 2 B), so no byte is ever swapped.

/// A sum, or a change of a sum, not yet folded. Up to 2^31 words of 32 bits fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// A sum that something else (a helper of the kernel) has made.
    pub const fn new(sum: u32) -> Self {
        Self(sum as u64)
    }

    /// Adds a word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds several words.
    #[inline(always)]
    #[must_use]
    pub fn add_all<const N: usize>(self, words: [u32; N]) -> Self {
        words.into_iter().fold(self, Self::add)
    }

    /// A word changed.
    #[inline(always)]
    #[must_use]
    pub const fn replace(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Several words changed.
    #[inline(always)]
    #[must_use]
    pub fn replace_all<const N: usize>(self, old: [u32; N], new: [u32; N]) -> Self {
        old.into_iter().zip(new).fold(self, |delta, (old, new)| delta.replace(old, new))
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The change that takes this one back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::new(!self.wide())
    }

    /// Nothing changed, as far as the sum can tell.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Folded to 32 bits: what the kernel calls a `__wsum`.
    #[inline(always)]
    pub const fn wide(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// Folded to 16 bits.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let wide = self.wide();
        let once = (wide & 0xffff) + (wide >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// The checksum field after this change (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn apply(self, field: u16) -> u16 {
        !self.add(!field as u32).fold()
    }
}

/// Where a packet's transport checksum is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Summed {
    /// In its field and nowhere else (`CHECKSUM_NONE`, `CHECKSUM_UNNECESSARY`).
    Whole,
    /// Unfinished (`CHECKSUM_PARTIAL`): the field holds the sum of the pseudo header as it is, not its complement, and whoever sends the
    /// packet adds the rest.
    Partial,
    /// In its field, and the kernel has the sum of the whole packet besides (`CHECKSUM_COMPLETE`), which must follow what changes.
    Complete,
}
