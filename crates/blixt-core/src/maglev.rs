//! Rings: which candidate each slot belongs to, by Maglev hashing (Eisenbud et al., NSDI 2016, §3.4).
//!
//! The result depends only on the set of candidates, never on their order or history, so every node fills equal
//! rings; and a candidate that leaves moves few slots that were not its own.

use std::collections::BTreeMap;
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
    let size: u32 = candidates.iter().map(|candidate| candidate.slots).sum();
    let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
    order.sort_by_key(|index| candidates[*index as usize].identity);
    let mut walks: Vec<Walk> =
        candidates.iter().map(|candidate| Walk::new(candidate.identity, size)).collect();
    let mut ring = vec![0; size as usize];
    let mut taken = Taken::new(size);
    let turns = turns(candidates, &order);
    // It takes `size / free` steps to a free slot: as many as there are free slots, when so few are left.
    let (first, last) = turns.split_at(turns.len() - size.isqrt() as usize);
    for index in first {
        let mut walk = walks[*index as usize];
        while taken.has(walk.at) {
            walk.step(size);
        }
        taken.take(walk.at);
        ring[walk.at as usize] = *index;
        walks[*index as usize] = walk;
    }
    let mut free: Vec<u32> = (0..size).filter(|slot| !taken.has(*slot)).collect();
    for index in last {
        let walk = &mut walks[*index as usize];
        let inverse = *walk.inverse.get_or_insert_with(|| inverse(walk.skip, size));
        let next = (0..free.len()).min_by_key(|place| walk.steps_to(free[*place], inverse, size));
        let slot = free.swap_remove(next.expect("there is a turn for each slot"));
        ring[slot as usize] = *index;
    }
    ring
}

/// Which slots are taken. A step asks only that, and the bits of the largest ring stay in the nearest cache, which the ring does not.
struct Taken(Vec<u64>);

impl Taken {
    fn new(size: u32) -> Self {
        Self(vec![0; size.div_ceil(u64::BITS) as usize])
    }

    fn has(&self, slot: u32) -> bool {
        self.0[(slot / u64::BITS) as usize] >> (slot % u64::BITS) & 1 == 1
    }

    fn take(&mut self, slot: u32) {
        self.0[(slot / u64::BITS) as usize] |= 1 << (slot % u64::BITS);
    }
}

/// A candidate's own order of all slots.
#[derive(Clone, Copy)]
struct Walk {
    at: u32,
    skip: u32,
    /// Of the skip, once it was needed.
    inverse: Option<u32>,
}

impl Walk {
    fn new(identity: Option<(IpAddr, u16)>, size: u32) -> Self {
        const SEED_OF_START: u64 = 0;
        const SEED_OF_SKIP: u64 = 1;
        let name = name(identity);
        let below = |seed: u64, bound: u32| (xxh3_64_with_seed(&name, seed) % u64::from(bound)) as u32;
        if size < 2 {
            return Self { at: 0, skip: 0, inverse: None };
        }
        Self { at: below(SEED_OF_START, size), skip: below(SEED_OF_SKIP, size - 1) + 1, inverse: None }
    }

    /// By addition: the product of the paper's formula costs a division for each step. Of the sum and the sum less the size one
    /// is below the size, and the other is larger or wraps to be: which one nobody could predict, so there is no branch.
    fn step(&mut self, size: u32) {
        let sum = self.at + self.skip;
        self.at = sum.min(sum.wrapping_sub(size));
    }

    /// How many steps it is from here to a slot.
    fn steps_to(&self, slot: u32, inverse: u32, size: u32) -> u32 {
        multiply(slot + size - self.at, inverse, size)
    }
}

/// What a number is to be multiplied with to give 1, by Fermat's little theorem: sizes are primes.
fn inverse(number: u32, size: u32) -> u32 {
    let (mut result, mut power, mut exponent) = (1, number, size.saturating_sub(2));
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, power, size);
        }
        power = multiply(power, power, size);
        exponent >>= 1;
    }
    result
}

fn multiply(one: u32, other: u32, size: u32) -> u32 {
    (u64::from(one) * u64::from(other) % u64::from(size)) as u32
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
    // Most candidates have as many slots as others.
    let mut alike: BTreeMap<u32, usize> = BTreeMap::new();
    for candidate in candidates {
        *alike.entry(candidate.slots).or_default() += 1;
    }
    let mut starts = vec![0_usize; rounds as usize + 1];
    for (slots, count) in alike {
        for round in rounds_of(slots, rounds) {
            starts[round + 1] += count;
        }
    }
    for index in 1..starts.len() {
        starts[index] += starts[index - 1];
    }
    let mut turns = vec![0; starts[rounds as usize]];
    for index in order {
        for round in rounds_of(candidates[*index as usize].slots, rounds) {
            let place = &mut starts[round];
            turns[*place] = *index;
            *place += 1;
        }
    }
    turns
}

/// The rounds in which somebody with so many slots has a turn: the n-th turn, counted from 1, is in round
/// `(n * rounds - 1) / slots`. Without a division for each, as in the walk.
fn rounds_of(slots: u32, rounds: u32) -> impl Iterator<Item = usize> {
    let share = slots.max(1);
    let (whole, part) = (rounds / share, rounds % share);
    let before = rounds.saturating_sub(1);
    let (mut round, mut rest) = (before / share, before % share);
    (0..slots).map(move |_| {
        let turn = round as usize;
        rest += part;
        let over = rest >= share;
        round += whole + u32::from(over);
        rest -= if over { share } else { 0 };
        turn
    })
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
    fn every_slot_is_the_first_free_one_on_its_candidates_walk() {
        for (count, size) in [(1, 251), (3, 307), (100, 1009), (1000, 16_381)] {
            let candidates = equal(count, size);
            let order: Vec<u32> = (0..count as u32).collect();
            let mut walks: Vec<Walk> = candidates.iter().map(|one| Walk::new(one.identity, size)).collect();
            let mut ring = vec![u32::MAX; size as usize];
            for index in turns(&candidates, &order) {
                let walk = &mut walks[index as usize];
                while ring[walk.at as usize] != u32::MAX {
                    walk.at = (walk.at + walk.skip) % size;
                }
                ring[walk.at as usize] = index;
            }
            assert_eq!(fill(&candidates), ring, "{count} candidates, {size} slots");
        }
    }

    #[test]
    fn turns_are_spread_over_the_rounds_in_proportion() {
        for (slots, rounds) in [(0, 0), (0, 7), (1, 7), (3, 7), (7, 7), (66, 251), (65_536, 65_537)] {
            let expected = (1..=u64::from(slots))
                .map(|turn| (turn * u64::from(rounds)).div_ceil(u64::from(slots)) as usize - 1);
            assert!(rounds_of(slots, rounds).eq(expected), "{slots} slots in {rounds} rounds");
        }
    }

    #[test]
    fn one_of_a_hundred_that_leaves_moves_hardly_a_slot_that_was_not_its_own() {
        let size = SIZES[SIZES.len() - 1];
        let before = named_ring(&equal(100, size));
        for leaver in [0, 49, 99] {
            // Whoever leaves, those behind it move up in the list.
            let stay = (0..100).filter(|index| *index != leaver);
            let others: Vec<Candidate> = stay
                .zip(apportion(size, &[1; 99]))
                .map(|(index, slots)| Candidate { identity: identity(index), slots })
                .collect();
            let after = named_ring(&others);
            let leaver = identity(leaver);
            let moved = before.iter().zip(&after).filter(|(old, new)| **old != leaver && old != new).count();
            assert!(moved * 1000 <= size as usize * 6, "{moved} of {size} slots moved");
        }
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
