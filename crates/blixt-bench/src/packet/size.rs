//! What the kernel program takes: instructions that the verifier looks at, time until it is loaded, memory for each connection.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use aya::maps::MapData;
use blixt_bars::{Bar, Line, Part};
use blixt_loader::Dataplane;

use super::{LITTLE_ROOM, ROOM, alone, world};
use crate::stage::pins;

/// What is seen of one instance.
struct Seen {
    /// Seconds until all programs were in the kernel, maps included.
    seconds: f64,
    /// Verified instructions of each program, by its name.
    instructions: Vec<(String, f64)>,
    /// Bytes that the kernel charges for the table of IPv4's flows.
    bytes: f64,
}

/// Three lines.
pub fn measure(rounds: usize) -> Result<Vec<Line>> {
    let mut little = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..rounds {
        let [small, large] = [alone(|| look(LITTLE_ROOM))?, alone(|| look(ROOM))?];
        // What one connection more takes: what a table takes however large it is, is in neither.
        bytes.push((large.bytes - small.bytes) / f64::from(ROOM - LITTLE_ROOM));
        little.push(small);
    }
    let names = little.first().map(|seen| seen.instructions.iter().map(|(name, _)| name.clone()));
    let of = |index: usize| little.iter().map(|seen| seen.instructions[index].1).collect();
    let parts = names.into_iter().flatten().enumerate();
    let parts: Vec<Part> = parts.map(|(index, name)| Part::new(name, "instructions", of(index))).collect();
    let most = |seen: &Seen| seen.instructions.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    Ok(vec![
        Line {
            what: "P19 memory of a connection, full NAT, IPv4, both entries",
            unit: "bytes",
            bar: Bar::AtMost(224.0),
            stretch: Some(192.0),
            rounds: bytes,
            parts: vec![],
        },
        Line {
            what: "P24 verified instructions of the largest program",
            unit: "instructions",
            bar: Bar::AtMost(60_000.0),
            stretch: Some(30_000.0),
            rounds: little.iter().map(most).collect(),
            parts,
        },
        Line {
            what: "P24 all programs are loaded, and their maps made",
            unit: "s",
            bar: Bar::AtMost(1.0),
            stretch: None,
            rounds: little.iter().map(|seen| seen.seconds).collect(),
            parts: vec![],
        },
    ])
}

fn look(room: u32) -> Result<Seen> {
    let begun = Instant::now();
    let mut dataplane = world::open(room, u32::MAX)?;
    dataplane.programs()?;
    let seconds = begun.elapsed().as_secs_f64();
    let instructions = instructions(&mut dataplane)?;
    Ok(Seen { seconds, instructions, bytes: charged(&pins()?.join("FLOWS_V4"))? })
}

fn instructions(dataplane: &mut Dataplane) -> Result<Vec<(String, f64)>> {
    let programs = dataplane.programs()?.programs();
    let verified = programs.map(|(name, program)| {
        let count = program.info()?.verified_instruction_count();
        let count = count.with_context(|| format!("{name}: the kernel does not say what it verified"))?;
        Ok((name.to_owned(), f64::from(count)))
    });
    verified.collect()
}

/// Bytes that the kernel charges for a pinned map.
fn charged(pin: &Path) -> Result<f64> {
    let map = MapData::from_pin(pin).with_context(|| format!("{}: not pinned", pin.display()))?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    memlock(&text).with_context(|| format!("{}: the kernel does not say what it takes", pin.display()))
}

fn memlock(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_a_map_takes() {
        let text = "pos:\t0\nmap_type:\t9\nmax_entries:\t2\nmemlock:\t117440960\nmap_id:\t12\n";
        assert_eq!(memlock(text), Some(117_440_960.0));
        assert_eq!(memlock("pos:\t0\n"), None);
    }
}
