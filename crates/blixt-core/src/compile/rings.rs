//! Rings of all pools. What a ring holds is decided by its hash, so equal pools share one, and a pool that did
//! not change is not computed again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use blixt_packet::abi::BackendId;
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::xxh3_64;

use super::Frontends;
use super::backends::{PoolMembers, Pools};
use crate::config::Endpoint;
use crate::maglev::{self, Candidate};
use crate::tables::{Limits, Ring, Tables};

/// Part of every hash: rings of another way of filling them are other rings.
const ALGORITHM: u8 = 1;

/// Rings with their ids.
pub(super) struct Rings {
    pub(super) entries: BTreeMap<u32, Ring>,
    /// For each frontend the ring's id and its number of slots.
    pub(super) of_frontend: Vec<Option<(u32, u32)>>,
    hashes: Vec<Option<u64>>,
}

impl Rings {
    /// The frontend has somebody to serve it.
    pub(super) fn wanted(&self, frontend: usize) -> bool {
        self.hashes[frontend].is_some()
    }
}

/// Which rings are filled with slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    /// Those that the maps do not hold: nobody writes the others.
    OfNewRings,
    /// All whose slots are not known.
    OfAllRings,
}

pub(super) fn assign(
    slots: Slots,
    frontends: &Frontends<'_>,
    pools: &Pools<'_>,
    previous: &Tables,
    limits: &Limits,
) -> Rings {
    let seats: Vec<Option<Seats>> = pools.of_frontend.iter().map(|pool| Seats::new(pool, pools)).collect();
    let hashes: Vec<Option<u64>> = seats.iter().map(|seats| seats.as_ref().map(Seats::hash)).collect();
    let ids = ids(frontends, &seats, &hashes, previous, limits);
    let mut entries: BTreeMap<u32, Ring> = BTreeMap::new();
    let mut of_frontend = Vec::with_capacity(seats.len());
    for (seats, hash) in seats.iter().zip(&hashes) {
        let (Some(seats), Some(hash)) = (seats, hash) else {
            of_frontend.push(None);
            continue;
        };
        of_frontend.push(ids.get(hash).map(|id| {
            let ring = entries.entry(*id).or_insert_with(|| match previous.rings.get(id) {
                Some(ring) if ring.hash == *hash && (slots == Slots::OfNewRings || ring.slots.is_some()) => {
                    ring.clone()
                }
                _ => seats.ring(*hash),
            });
            (*id, ring.len)
        }));
    }
    Rings { entries, of_frontend, hashes }
}

/// An id for each hash: the one it has; else that of a ring of the same size which all its frontends leave for
/// this one and nobody else wants, to be overwritten in place; else a free one.
fn ids(
    frontends: &Frontends<'_>,
    seats: &[Option<Seats>],
    hashes: &[Option<u64>],
    previous: &Tables,
    limits: &Limits,
) -> FxHashMap<u64, u32> {
    let wanted: FxHashSet<u64> = hashes.iter().copied().flatten().collect();
    let known = previous.rings.iter().filter(|(_, ring)| wanted.contains(&ring.hash));
    let mut ids: FxHashMap<u64, u32> = known.map(|(id, ring)| (ring.hash, *id)).collect();
    if wanted.iter().all(|hash| ids.contains_key(hash)) {
        return ids;
    }
    let stays: FxHashSet<u32> = ids.values().copied().collect();
    let heirs = heirs(frontends, hashes, previous);
    let mut fresh = (1..=limits.rings).filter(|id| !previous.rings.contains_key(id));
    for (index, hash) in hashes.iter().enumerate() {
        let (Some(hash), Some(seats)) = (hash, &seats[index]) else {
            continue;
        };
        if ids.contains_key(hash) {
            continue;
        }
        let left = previous.frontends.get(frontends[index].0).map(|entry| entry.ring).filter(|id| {
            let same_size = previous.rings.get(id).is_some_and(|ring| ring.len == seats.size());
            same_size && !stays.contains(id) && heirs.get(id) == Some(&Some(*hash))
        });
        if let Some(id) = left.or_else(|| fresh.next()) {
            ids.insert(*hash, id);
        }
    }
    ids
}

/// For each ring that these frontends have now, the one ring that all who have it want instead; `None` where they differ.
fn heirs(
    frontends: &Frontends<'_>,
    hashes: &[Option<u64>],
    previous: &Tables,
) -> FxHashMap<u32, Option<u64>> {
    let wanted: FxHashMap<&Endpoint, Option<u64>> =
        frontends.iter().map(|(endpoint, _)| *endpoint).zip(hashes.iter().copied()).collect();
    let rings: FxHashSet<u32> = frontends
        .iter()
        .filter_map(|(endpoint, _)| previous.frontends.get(endpoint))
        .map(|entry| entry.ring)
        .collect();
    let mut heirs: FxHashMap<u32, Option<u64>> = FxHashMap::default();
    for (endpoint, entry) in previous.frontends.iter().filter(|(_, entry)| rings.contains(&entry.ring)) {
        let hash = wanted.get(endpoint).copied().flatten();
        heirs
            .entry(entry.ring)
            .and_modify(|heir| *heir = heir.filter(|heir| Some(*heir) == hash))
            .or_insert(hash);
    }
    heirs
}

/// The shares of a pool that somebody can take, in an order that does not depend on the pool's.
struct Seats {
    shares: Vec<(u32, Vec<Seat>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    address: IpAddr,
    port: u16,
    id: BackendId,
}

impl Seats {
    /// Without any backend there is no ring: everything is refused.
    fn new(pool: &PoolMembers, pools: &Pools<'_>) -> Option<Self> {
        let divisor = pool.shares.iter().fold(0, |divisor, (weight, _)| gcd(divisor, *weight)).max(1);
        let mut shares: Vec<(u32, Vec<Seat>)> = pool
            .shares
            .iter()
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, members)| {
                let mut seats: Vec<Seat> = members
                    .iter()
                    .filter_map(|index| {
                        let member = &pools.members[*index];
                        let Endpoint { address, port, .. } = member.identity.endpoint;
                        member.slot.map(|(_, id)| Seat { address, port, id })
                    })
                    .collect();
                seats.sort_unstable();
                seats.dedup();
                (weight / divisor, seats)
            })
            .collect();
        shares.sort_unstable();
        shares.iter().any(|(_, seats)| !seats.is_empty()).then_some(Self { shares })
    }

    fn hash(&self) -> u64 {
        let mut bytes = vec![ALGORITHM];
        for (weight, seats) in &self.shares {
            bytes.extend(weight.to_le_bytes());
            bytes.extend((seats.len() as u32).to_le_bytes());
            for seat in seats {
                match seat.address {
                    IpAddr::V4(address) => bytes.extend(address.octets()),
                    IpAddr::V6(address) => bytes.extend(address.octets()),
                }
                bytes.extend(seat.port.to_le_bytes());
                bytes.extend(seat.id.0.to_le_bytes());
            }
        }
        // 0 means that there is no ring.
        xxh3_64(&bytes).max(1)
    }

    fn size(&self) -> u32 {
        let candidates: u64 = self.shares.iter().map(|(_, seats)| seats.len().max(1) as u64).sum();
        let total: u64 = self.shares.iter().map(|(weight, _)| u64::from(*weight)).sum();
        // The lightest has `weight / seats` of `total`.
        let parts = self
            .shares
            .iter()
            .map(|(weight, seats)| (total * seats.len().max(1) as u64).div_ceil(u64::from(*weight)))
            .max();
        maglev::ring_size(candidates, parts.unwrap_or(1))
    }

    fn ring(&self, hash: u64) -> Ring {
        let size = self.size();
        let candidates = self.candidates(size);
        let list: Vec<Candidate> = candidates
            .iter()
            .map(|(identity, (slots, _))| Candidate { identity: *identity, slots: *slots })
            .collect();
        let ids: Vec<BackendId> = candidates.values().map(|(_, id)| *id).collect();
        let slots: Arc<[BackendId]> =
            maglev::fill(&list).into_iter().map(|index| ids[index as usize]).collect();
        Ring { hash, len: size, slots: Some(slots) }
    }

    /// Each share by its weight, then evenly inside; one that is in several shares gets all its parts.
    fn candidates(&self, size: u32) -> BTreeMap<Option<(IpAddr, u16)>, (u32, BackendId)> {
        let weights: Vec<u64> = self.shares.iter().map(|(weight, _)| u64::from(*weight)).collect();
        let mut candidates = BTreeMap::new();
        for ((_, seats), slots) in self.shares.iter().zip(maglev::apportion(size, &weights)) {
            if seats.is_empty() {
                candidates.entry(None).or_insert((0, BackendId::REFUSE)).0 += slots;
            }
            let parts = maglev::apportion(slots, &vec![1; seats.len()]);
            for (seat, part) in seats.iter().zip(parts) {
                candidates.entry(Some((seat.address, seat.port))).or_insert((0, seat.id)).0 += part;
            }
        }
        candidates
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
