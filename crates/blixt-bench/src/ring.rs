//! How long it takes to fill the largest ring, against the loop as the paper has it (Eisenbud et al., NSDI 2016, pseudocode 1).

use std::hint::black_box;
use std::net::Ipv4Addr;

use anyhow::Result;
use blixt_bars::{Bar, Line, Part};
use blixt_core::maglev::{Candidate, SIZES, apportion, fill};

use crate::pin::pinned;
use crate::processor::thread_time;

/// Slots of the ring.
const SIZE: u32 = SIZES[SIZES.len() - 1];
/// Backends of the ring.
const BACKENDS: u32 = 1_000;
/// Fillings in a round; the least disturbed one counts.
const TRIES: usize = 20;

/// One line. The bar is 2 ms, or four fifths of the paper's loop where the machine is slower: the line is in milliseconds unless only
/// the ratio holds.
pub fn measure(rounds: usize) -> Result<Line> {
    let (ours, paper) = times(rounds)?;
    let paper = Part::new("the paper's loop, its hashes known", "ms", paper);
    let ratio = Line::ratio(
        "P20 a ring of 65 537 slots for 1 000 backends is filled, against the paper's loop",
        Bar::AtMost(0.8),
        Part::new("Blixt", "ms", ours.clone()),
        paper.clone(),
    );
    let time = Line {
        what: "P20 a ring of 65 537 slots for 1 000 backends is filled",
        unit: "ms",
        bar: Bar::AtMost(2.0),
        stretch: Some(1.6),
        rounds: ours,
        parts: vec![paper, Part::new("in the paper's loop", "x", ratio.rounds.clone())],
    };
    Ok(if ratio.is_held() && !time.is_held() { ratio } else { time })
}

/// Milliseconds of ours and of the paper's loop, which take turns.
fn times(rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let candidates = candidates();
    let permutations = permutations();
    pinned(|| {
        let round = |_| {
            let [mut ours, mut paper] = [f64::INFINITY; 2];
            for _ in 0..TRIES {
                ours = ours.min(time(|| fill(black_box(&candidates)))?);
                paper = paper.min(time(|| populate(black_box(&permutations)))?);
            }
            Ok((ours, paper))
        };
        (0..rounds).map(round).collect()
    })
}

/// Milliseconds of this thread.
fn time(fill: impl FnOnce() -> Vec<u32>) -> Result<f64> {
    let before = thread_time()?;
    black_box(fill());
    Ok((thread_time()? - before).as_secs_f64() * 1e3)
}

fn candidates() -> Vec<Candidate> {
    let slots = apportion(SIZE, &[1; BACKENDS as usize]);
    let address = |number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 201, 0, 1).to_bits() + number);
    let candidate = |(number, slots)| Candidate { identity: Some((address(number).into(), 8080)), slots };
    (0..).zip(slots).map(candidate).collect()
}

/// A backend's order of the slots, of two hashes of its name.
struct Permutation {
    offset: u64,
    skip: u64,
}

/// They stand for hashes, the same in each run.
fn permutations() -> Vec<Permutation> {
    let mut random = fastrand::Rng::with_seed(u64::from(BACKENDS));
    let size = u64::from(SIZE);
    let permutation = |_| Permutation { offset: random.u64(..size), skip: random.u64(1..size) };
    (0..BACKENDS).map(permutation).collect()
}

/// The paper's loop: in turns each backend takes the next slot of its permutation that is free.
fn populate(permutations: &[Permutation]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let size = u64::from(SIZE);
    let mut next = vec![0_u64; permutations.len()];
    let mut entries = vec![FREE; SIZE as usize];
    let mut filled = 0;
    loop {
        for (backend, Permutation { offset, skip }) in permutations.iter().enumerate() {
            let mut slot = (offset + next[backend] * skip) % size;
            while entries[slot as usize] != FREE {
                next[backend] += 1;
                slot = (offset + next[backend] * skip) % size;
            }
            entries[slot as usize] = backend as u32;
            next[backend] += 1;
            filled += 1;
            if filled == SIZE {
                return entries;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_loop_gives_everybody_an_equal_part() {
        let ring = populate(&permutations());
        let parts: Vec<usize> =
            (0..BACKENDS).map(|backend| ring.iter().filter(|owner| **owner == backend).count()).collect();
        let least = (SIZE / BACKENDS) as usize;
        assert!(parts.iter().all(|part| (least..=least + 1).contains(part)), "{parts:?}");
    }
}
