//! How long it takes to fill the largest ring.

use std::hint::black_box;
use std::net::Ipv4Addr;

use anyhow::Result;
use blixt_bars::{Bar, Line};
use blixt_core::maglev::{Candidate, SIZES, apportion, fill};

use crate::pin::pinned;
use crate::processor::thread_time;

/// Backends of the ring.
const BACKENDS: u32 = 1_000;
/// Fillings in a round; the least disturbed one counts.
const TRIES: usize = 20;

/// One line.
pub fn measure(rounds: usize) -> Result<Line> {
    let candidates = candidates();
    let once = || -> Result<f64> {
        let before = thread_time()?;
        black_box(fill(black_box(&candidates)));
        Ok((thread_time()? - before).as_secs_f64() * 1e3)
    };
    let round = || (0..TRIES).map(|_| once()).try_fold(f64::INFINITY, |least, time| Ok(least.min(time?)));
    let rounds: Result<Vec<f64>> = pinned(|| (0..rounds).map(|_| round()).collect());
    Ok(Line {
        what: "P20 a ring of 65 537 slots for 1 000 backends is filled",
        unit: "ms",
        bar: Bar::AtMost(2.0),
        stretch: Some(1.6),
        rounds: rounds?,
        parts: vec![],
    })
}

fn candidates() -> Vec<Candidate> {
    let size = SIZES[SIZES.len() - 1];
    let slots = apportion(size, &[1; BACKENDS as usize]);
    let address = |number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 201, 0, 1).to_bits() + number);
    let candidate = |(number, slots)| Candidate { identity: Some((address(number).into(), 8080)), slots };
    (0..).zip(slots).map(candidate).collect()
}
