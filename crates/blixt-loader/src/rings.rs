//! Rings: inner maps of `RINGS`, and their hashes in `RING_HASHES`.
//!
//! A ring that keeps its size is written in place, slot by slot. That needs CAP_SYS_ADMIN (an inner map is only found by
//! its id); without it, and for a new size, a new map is filled and swapped in, many with one wait for the kernel.
//!
//! Before a ring changes its hash becomes [`TORN`], afterwards the true one: whoever dies in between leaves a ring that
//! `diff` finds different from any wanted one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use blixt_core::tables::Ring;
use blixt_packet::abi::{BackendId, RING_CHUNK, RingHash};
use nix::sys::resource::{Resource, getrlimit};

use crate::Error;
use crate::sys;
use crate::table::Table;

/// The hash of a ring that is being written.
const TORN: u64 = u64::MAX;
/// Bytes of one element of a ring's map.
const CHUNK: usize = RING_CHUNK * size_of::<BackendId>();
/// Rings that one batch swaps at least, at most. Each holds a descriptor until then.
const AT_ONCE: (u64, u64) = (64, 4096);

/// The maps of rings.
#[derive(Debug)]
pub(crate) struct Rings {
    /// By ring id: written with a descriptor, read as the id of a map.
    maps: Table<u32, u32>,
    hashes: Table<u32, RingHash>,
}

/// A map with the content of a ring, still outside of `RINGS`.
struct NewRing {
    id: u32,
    map: OwnedFd,
}

impl Rings {
    pub(crate) fn new(maps: Table<u32, u32>, hashes: Table<u32, RingHash>) -> Self {
        Self { maps, hashes }
    }

    /// What is known of the rings: ids, hashes and sizes.
    pub(crate) fn read(&self) -> Result<Vec<(u32, Ring)>, Error> {
        let rows = self.hashes.all()?;
        Ok(rows
            .into_iter()
            .filter(|(_, row)| row.hash != 0)
            .map(|(id, row)| (id, Ring { hash: row.hash, len: row.slots, slots: None }))
            .collect())
    }

    /// Writes rings.
    pub(crate) fn set(&self, rings: &[(u32, &Ring)]) -> Result<(), Error> {
        // The soft limit also holds the descriptors of everything else.
        let spare = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft / 2);
        let at_once = spare.clamp(AT_ONCE.0, AT_ONCE.1) as usize;
        rings.chunks(at_once).try_for_each(|rings| self.set_some(rings))
    }

    /// Removes rings that no frontend names any more. In their place stands one empty map: the kernel deletes inner maps
    /// only one by one, and waits each time.
    pub(crate) fn remove(&self, ids: &[u32]) -> Result<(), Error> {
        let cleared: Vec<_> = ids.iter().map(|id| (*id, RingHash::default())).collect();
        self.hashes.set(&cleared)?;
        let empty = filled(&[])?;
        let swaps: Vec<_> = ids.iter().map(|id| (*id, empty.as_raw_fd() as u32)).collect();
        self.maps.set(&swaps)
    }

    fn set_some(&self, rings: &[(u32, &Ring)]) -> Result<(), Error> {
        let rows = |hash: fn(&Ring) -> u64| -> Vec<(u32, RingHash)> {
            rings
                .iter()
                .map(|(id, ring)| (*id, RingHash { hash: hash(ring), slots: ring.len, reserved: 0 }))
                .collect()
        };
        let mut new = Vec::new();
        let mut in_place = Vec::new();
        for &(id, ring) in rings {
            let slots = ring.slots.as_deref().ok_or(Error::RingUnknown { id })?;
            match self.same_size(id, ring)? {
                Some(map) => in_place.push((map, slots)),
                None => new.push(NewRing { id, map: filled(slots)? }),
            }
        }
        self.hashes.set(&rows(|_| TORN))?;
        for (map, slots) in in_place {
            write(&map, slots).map_err(Error::map("write a ring of", "RINGS"))?;
        }
        let swaps: Vec<_> = new.iter().map(|ring| (ring.id, ring.map.as_raw_fd() as u32)).collect();
        self.maps.set(&swaps)?;
        self.hashes.set(&rows(|ring| ring.hash))
    }

    /// The map of a ring that has the size of this one, if this process may have it.
    fn same_size(&self, id: u32, ring: &Ring) -> Result<Option<OwnedFd>, Error> {
        if !self.hashes.get(&id)?.is_some_and(|row| row.hash != 0 && row.slots == ring.len) {
            return Ok(None);
        }
        let Some(map) = self.maps.get(&id)?.and_then(|map| sys::map_by_id(map).ok()) else { return Ok(None) };
        let info = sys::map_info(map.as_fd()).map_err(Error::map("read the shape of a ring of", "RINGS"))?;
        Ok((info.max_entries as usize == chunks(ring.len as usize)).then_some(map))
    }
}

fn chunks(slots: usize) -> usize {
    slots.div_ceil(RING_CHUNK).max(1)
}

fn filled(slots: &[BackendId]) -> Result<OwnedFd, Error> {
    let elements = chunks(slots.len()) as u32;
    let map = sys::create_array("RING", CHUNK as u32, elements, sys::INNER_MAP | sys::MMAPABLE)
        .map_err(Error::map("create a ring for", "RINGS"))?;
    write(&map, slots).map_err(Error::map("write a ring of", "RINGS"))?;
    Ok(map)
}

/// Writes slots through a mapping, each at once: the program sees the old or the new backend, never half of one.
fn write(map: &OwnedFd, slots: &[BackendId]) -> io::Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};

    let bytes = chunks(slots.len()) * CHUNK;
    // SAFETY: a fresh mapping of a map of that size, or an error.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            map.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, has room for every slot, and is unmapped only below.
    let cells = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU32>(), slots.len()) };
    for (cell, BackendId(id)) in cells.iter().zip(slots) {
        cell.store(*id, Ordering::Relaxed);
    }
    // SAFETY: the mapping made above; `cells` is not used after this.
    unsafe { libc::munmap(start, bytes) };
    Ok(())
}
