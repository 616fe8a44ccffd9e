//! Where a member of a kernel struct lies, from the types that the kernel publishes (BTF).
//!
//! Only what finding `ip_summed` in `sk_buff` takes: structs, unions, and anonymous ones of them inside.

use std::fs;

/// The kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Name, info, and size or type.
const TYPE: usize = 12;
/// Name, type and offset.
const MEMBER: usize = 12;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Anonymous structs in anonymous structs in ... `sk_buff` has two levels.
const DEPTH: u32 = 8;

/// A bit of a struct: the byte from its start, and the bit in the byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) byte: u32,
    pub(crate) bit: u32,
}

/// Where `ip_summed` begins in the running kernel's `sk_buff`; `None` if the kernel does not say.
pub(crate) fn ip_summed() -> Option<Place> {
    // On a big-endian machine bit-fields begin at the other end, and nobody has tried.
    let types = fs::read(VMLINUX).ok().filter(|_| cfg!(target_endian = "little"))?;
    find_member(&types, "sk_buff", "ip_summed")
}

/// The sections of a BTF blob.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`, from id 1.
    starts: Vec<usize>,
}

fn find_member(blob: &[u8], type_name: &str, member: &str) -> Option<Place> {
    let types = parse(blob)?;
    let start = types.starts.iter().copied().find(|start| {
        let kind = types.info(*start).map(kind);
        kind == Some(STRUCT) && types.name(*start) == Some(type_name.as_bytes())
    })?;
    let bits = types.member(start, member.as_bytes(), DEPTH)?;
    Some(Place { byte: bits / 8, bit: bits % 8 })
}

fn parse(blob: &[u8]) -> Option<Types<'_>> {
    if u16::from_ne_bytes(blob.get(..2)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let header = word(blob, 4)? as usize;
    if header < HEADER {
        return None;
    }
    let section = |at: usize| {
        let start = header.checked_add(word(blob, at)? as usize)?;
        blob.get(start..start.checked_add(word(blob, at + 4)? as usize)?)
    };
    let (types, strings) = (section(8)?, section(16)?);
    let mut starts = Vec::new();
    let mut at = 0;
    while at < types.len() {
        starts.push(at);
        at += TYPE + extra(word(types, at + 4)?)?;
    }
    Some(Types { types, strings, starts })
}

impl Types<'_> {
    fn info(&self, start: usize) -> Option<u32> {
        word(self.types, start + 4)
    }

    fn name(&self, start: usize) -> Option<&[u8]> {
        let name = self.strings.get(word(self.types, start)? as usize..)?;
        name.split(|byte| *byte == 0).next()
    }

    /// Bits from the start of a struct to a member of it.
    fn member(&self, start: usize, wanted: &[u8], depth: u32) -> Option<u32> {
        let info = self.info(start)?;
        if depth == 0 || !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        (0..length(info)).find_map(|index| {
            let member = start + TYPE + index * MEMBER;
            let offset = word(self.types, member + 8)?;
            // With bit-fields in the struct, the upper byte is the member's size.
            let bits = if info >> 31 == 1 { offset & 0xff_ffff } else { offset };
            match self.name(member)? {
                name if name == wanted => Some(bits),
                b"" => {
                    let id = word(self.types, member + 4)? as usize;
                    let inner = *self.starts.get(id.checked_sub(1)?)?;
                    Some(bits + self.member(inner, wanted, depth - 1)?)
                }
                _ => None,
            }
        })
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn length(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes that follow a type, by its kind; `None` for a kind that is not known, since nothing after it can be read.
fn extra(info: u32) -> Option<usize> {
    Some(match kind(info) {
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structs, unions, sections, 64-bit enums.
        4 | 5 | 15 | 19 => length(info) * 12,
        // Enums, prototypes.
        6 | 13 => length(info) * 8,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_field_is_found_in_an_anonymous_struct() {
        let strings = b"\0sk_buff\0len\0ip_summed\0int\0";
        let words = [
            [25, 1 << 24, 4].as_slice(), // 1: int
            &[32],
            &[0, 4 << 24 | 1 << 31 | 2, 8], // 2: struct { int len; int ip_summed: 2; }
            &[9, 1, 0, 13, 1, 2 << 24 | 37],
            &[1, 4 << 24 | 2, 24], // 3: struct sk_buff { int len; struct 2; }
            &[9, 1, 0, 0, 2, 128],
        ];
        let types: Vec<u8> = words.concat().iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let header = [HEADER as u32, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut blob = MAGIC.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        blob.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        blob.extend(types);
        blob.extend(strings);

        assert_eq!(find_member(&blob, "sk_buff", "ip_summed"), Some(Place { byte: 20, bit: 5 }));
        assert_eq!(find_member(&blob, "sk_buff", "other"), None);
        assert_eq!(find_member(&blob, "other", "len"), None);
        for end in 0..blob.len() {
            assert_eq!(find_member(&blob[..end], "sk_buff", "ip_summed"), None, "cut at {end}");
        }
    }

    #[test]
    fn the_running_kernel_says_where_it_is() {
        if fs::exists(VMLINUX).unwrap_or(false) {
            let place = ip_summed().unwrap();
            assert!(place.byte > 0 && place.byte < 256 && place.bit < 7, "{place:?}");
        }
    }
}
