//! Rings: which candidate each slot belongs to, by Maglev hashing (Eisenbud et al., NSDI 2016, §3.4).
//!
//! The result depends only on the set of candidates, never on their order or history, so every node fills equal
//! rings; and a candidate that leaves moves few slots that were not its own.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One that gets slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidate {
    /// Who it is; `None` is the share that is refused.
    pub identity: Option<(IpAddr, u16)>,
    /// How many slots it gets.
    pub slots: u32,
}

/// The sizes of rings: primes, as the permutations need, each about twice the one before.
/// 307 is there because three backends are so common.
pub const SIZES: [u32; 10] = [251, 307, 503, 1009, 2003, 4001, 8009, 16_381, 32_749, 65_537];

/// Slots for each candidate at least, so that equal candidates differ by 1 % at most.
const SLOTS_PER_CANDIDATE: u64 = 100;

/// Slots for the lightest candidate at least, so that rounding changes its part by 2.5 % at most.
const SLOTS_OF_LIGHTEST: u64 = 20;

/// The size of a ring for this many candidates, of which the lightest has one part in `parts`.
pub fn ring_size(candidates: u64, parts: u64) -> u32 {
    let needed = (candidates * SLOTS_PER_CANDIDATE).max(parts * SLOTS_OF_LIGHTEST);
    let largest = SIZES[SIZES.len() - 1];
    SIZES.into_iter().find(|size| u64::from(*size) >= needed).unwrap_or(largest)
}

/// Divides `total` in proportion to `weights` (each at least 1, `total` at least their number) by the largest
/// remainder. Each gets 1 at least: rounding takes nobody's connections away altogether.
pub fn apportion(total: u32, weights: &[u64]) -> Vec<u32> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let quota = |weight: u64| u128::from(total) * u128::from(weight);
    let mut parts: Vec<u32> = weights.iter().map(|weight| (quota(*weight) / sum) as u32).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|index| (std::cmp::Reverse(quota(weights[*index]) % sum), *index));
    let rest = total - parts.iter().sum::<u32>();
    for index in by_remainder.into_iter().take(rest as usize) {
        parts[index] += 1;
    }
    while let Some(poor) = parts.iter().position(|part| *part == 0) {
        let Some(rich) = (0..parts.len()).filter(|index| parts[*index] > 1).max_by_key(|index| parts[*index])
        else {
            break;
        };
        parts[rich] -= 1;
        parts[poor] = 1;
    }
    parts
}

/// For each slot of the ring the index of its candidate. The candidates' slots add up to the size, which is
/// one of [`SIZES`].
pub fn fill(candidates: &[Candidate]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let size: u32 = candidates.iter().map(|candidate| candidate.slots).sum();
    let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
    order.sort_by_key(|index| candidates[*index as usize].identity);
    let mut walks: Vec<Walk> =
        candidates.iter().map(|candidate| Walk::new(candidate.identity, size)).collect();
    let mut ring = vec![FREE; size as usize];
    for index in turns(candidates, &order) {
        let walk = &mut walks[index as usize];
        while ring[walk.at as usize] != FREE {
            walk.step(size);
        }
        ring[walk.at as usize] = index;
    }
    ring
}

/// A candidate's own order of all slots.
#[derive(Clone, Copy)]
struct Walk {
    at: u32,
    skip: u32,
}

impl Walk {
    fn new(identity: Option<(IpAddr, u16)>, size: u32) -> Self {
        const SEED_OF_START: u64 = 0;
        const SEED_OF_SKIP: u64 = 1;
        let name = name(identity);
        let below = |seed: u64, bound: u32| (xxh3_64_with_seed(&name, seed) % u64::from(bound)) as u32;
        if size < 2 {
            return Self { at: 0, skip: 0 };
        }
        Self { at: below(SEED_OF_START, size), skip: below(SEED_OF_SKIP, size - 1) + 1 }
    }

    /// By addition: the product of the paper's formula costs a division for each step.
    fn step(&mut self, size: u32) {
        self.at += self.skip;
        if self.at >= size {
            self.at -= size;
        }
    }
}

fn name(identity: Option<(IpAddr, u16)>) -> Vec<u8> {
    let Some((address, port)) = identity else {
        return b"refuse".to_vec();
    };
    let mut name = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    name.extend(port.to_be_bytes());
    name
}

/// Whose turn it is, for every slot: the one with most slots has a turn in each round, the others in
/// proportion, so that everybody's slots are taken from an evenly filled ring.
fn turns(candidates: &[Candidate], order: &[u32]) -> Vec<u32> {
    let rounds = candidates.iter().map(|candidate| candidate.slots).max().unwrap_or(0);
    let round =
        |turn: u32, slots: u32| (u64::from(turn) * u64::from(rounds)).div_ceil(u64::from(slots)) as usize - 1;
    let mut starts = vec![0_usize; rounds as usize + 1];
    for candidate in candidates {
        for turn in 1..=candidate.slots {
            starts[round(turn, candidate.slots) + 1] += 1;
        }
    }
    for index in 1..starts.len() {
        starts[index] += starts[index - 1];
    }
    let mut turns = vec![0; starts[rounds as usize]];
    for index in order {
        let slots = candidates[*index as usize].slots;
        for turn in 1..=slots {
            let place = &mut starts[round(turn, slots)];
            turns[*place] = *index;
            *place += 1;
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_primes() {
        for size in SIZES {
            assert!(
                (2..size).take_while(|divisor| divisor * divisor <= size).all(|d| size % d != 0),
                "{size}"
            );
        }
    }

    #[test]
    fn a_ring_has_a_hundred_slots_for_each_candidate_up_to_the_largest_size() {
        for (candidates, expected) in
            [(1, 251), (2, 251), (3, 307), (10, 1009), (100, 16_381), (1000, 65_537)]
        {
            assert_eq!(ring_size(candidates, candidates), expected, "{candidates} candidates");
        }
        assert_eq!(ring_size(2, 100), 2003, "a canary of 1 %");
        assert_eq!(ring_size(2, 1_000_000), 65_537);
    }

    #[test]
    fn parts_follow_the_weights_by_largest_remainder() {
        for (total, weights, expected) in [
            (10, vec![1, 1, 1], vec![4, 3, 3]),
            (100, vec![90, 10], vec![90, 10]),
            (251, vec![1, 1_000_000], vec![1, 250]),
            (7, vec![3, 2, 2], vec![3, 2, 2]),
            (8, vec![3, 2, 2], vec![4, 2, 2]),
            (9, vec![], vec![]),
        ] {
            assert_eq!(apportion(total, &weights), expected, "{total} by {weights:?}");
        }
    }

    #[test]
    fn one_of_a_hundred_that_leaves_moves_hardly_a_slot_that_was_not_its_own() {
        let before = named_ring(&equal(100, 16_381));
        let after = named_ring(&equal(99, 16_381));
        let leaver = identity(99);
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != leaver && old != new).count();
        assert!(moved * 100 < 16_381 * 3, "{moved} of 16381 slots moved");
    }

    proptest! {
        #[test]
        fn everybody_gets_exactly_its_slots_whatever_the_order(
            weights in proptest::collection::vec(1_u64..50, 1..30), swap in 0_usize..30,
        ) {
            let size = ring_size(weights.len() as u64, 1);
            let mut candidates: Vec<Candidate> = apportion(size, &weights)
                .into_iter()
                .enumerate()
                .map(|(index, slots)| Candidate { identity: identity(index), slots })
                .collect();
            candidates[0].identity = None;
            let ring = fill(&candidates);
            for (index, candidate) in candidates.iter().enumerate() {
                let slots = ring.iter().filter(|owner| **owner as usize == index).count();
                prop_assert_eq!(slots, candidate.slots as usize);
            }
            let named = named_ring(&candidates);
            let middle = swap % candidates.len();
            candidates.rotate_left(middle);
            prop_assert_eq!(named, named_ring(&candidates));
        }
    }

    fn equal(count: usize, size: u32) -> Vec<Candidate> {
        let parts = apportion(size, &vec![1; count]);
        (0..count).map(|index| Candidate { identity: identity(index), slots: parts[index] }).collect()
    }

    fn identity(index: usize) -> Option<(IpAddr, u16)> {
        Some((IpAddr::from([10, 0, (index / 256) as u8, (index % 256) as u8]), 80))
    }

    fn named_ring(candidates: &[Candidate]) -> Vec<Option<(IpAddr, u16)>> {
        fill(candidates).into_iter().map(|index| candidates[index as usize].identity).collect()
    }
}
