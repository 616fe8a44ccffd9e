//! What the verifier makes of each program, beside what `docs/kernels.md` says of it.
//!
//! `cargo xtask vm-test --bless` writes that page anew, from runs on each kernel with `BLIXT_BLESS`: read the diff before you commit it.

use std::time::{Duration, Instant};

use aya::programs::Program;
use blixt_loader::Hook;

use crate::world::{WIRE, World, open};

/// The programs, in the order of the page's columns.
const PROGRAMS: [&str; 3] = ["blixt_ingress", "blixt_egress", "blixt_xdp"];
/// By how much a program may be more work for the verifier than it is on record.
const GROWTH: f64 = 1.2;
const RECORD: &str = include_str!("../../../../docs/kernels.md");

#[test]
fn no_program_is_a_fifth_more_work_for_the_verifier_than_on_record() {
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_string_lossy().into_owned();
    let recorded = recorded(&release, RECORD);
    let is_written_anew = std::env::var_os("BLIXT_BLESS").is_some();
    World::run(|world| {
        let mut dataplane = open();
        let attachment = dataplane.attach(world.index(WIRE.0), Hook::Xdp, true).unwrap();
        // What `cargo xtask vm-test` reads, here and below.
        println!("attached by: {}", if attachment.by_filter { "clsact" } else { "tcx" });
        let counts = PROGRAMS.map(|name| {
            let (instructions, milliseconds) =
                verified(dataplane.programs().unwrap().program_mut(name).unwrap());
            println!("verified: {name}, {instructions} instructions, {milliseconds} ms");
            (name, instructions)
        });
        for ((name, instructions), recorded) in counts.into_iter().zip(recorded) {
            assert!(
                is_written_anew || f64::from(instructions) <= f64::from(recorded) * GROWTH,
                "{name}: the verifier of {release} looks at {instructions} instructions, on record are {recorded}: make it \
                 less again, or write the record anew by `cargo xtask vm-test --bless`"
            );
        }
    });
}

/// Loads a program once more, while nothing else is done to it.
fn verified(program: &mut Program) -> (u32, u128) {
    let time = match program {
        Program::Xdp(program) => {
            program.unload().unwrap();
            timed(|| program.load().unwrap())
        }
        Program::SchedClassifier(program) => {
            program.unload().unwrap();
            timed(|| program.load().unwrap())
        }
        other => panic!("{other:?}"),
    };
    (program.info().unwrap().verified_instruction_count().unwrap(), time.as_millis())
}

fn timed(function: impl FnOnce()) -> Duration {
    let start = Instant::now();
    function();
    start.elapsed()
}

/// The instructions on record for a kernel's series, or the most of all series where it is not on record.
fn recorded(release: &str, record: &str) -> [u32; PROGRAMS.len()] {
    let rows: Vec<_> = record.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "docs/kernels.md has no row");
    let own = rows.iter().filter(|(series, _)| *series == version(release));
    let own: Vec<_> = own.map(|(_, instructions)| *instructions).collect();
    let all: Vec<_> = rows.iter().map(|(_, instructions)| *instructions).collect();
    let rows = if own.is_empty() { all } else { own };
    std::array::from_fn(|program| rows.iter().map(|row| row[program]).max().unwrap_or_default())
}

/// `| 6.12.117+deb12-cloud-amd64 | 49300 in 2100 ms | 11100 in 500 ms | 66500 in 2900 ms | ..`.
fn row(line: &str) -> Option<((u32, u32), [u32; PROGRAMS.len()])> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let release = cells.next()?;
    release.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
    let mut instructions = [0; PROGRAMS.len()];
    for program in &mut instructions {
        *program = cells.next()?.split(' ').next()?.parse().ok()?;
    }
    Some((version(release), instructions))
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn a_kernel_is_held_to_the_record_of_its_series() {
    let record = "| Kernel | TC ingress | TC egress | XDP | TC by |\n|---|---|---|---|---|\n\
                  | 6.1.0-56-cloud-amd64 | 100 in 1 ms | 20 in 1 ms | 300 in 1 ms | clsact |\n\
                  | 6.18.15+deb13-cloud-amd64 | 90 in 1 ms | 30 in 1 ms | 200 in 1 ms | tcx |\n";
    assert_eq!(recorded("6.18.44-some", record), [90, 30, 200]);
    assert_eq!(recorded("6.6.1", record), [100, 30, 300]);
}
