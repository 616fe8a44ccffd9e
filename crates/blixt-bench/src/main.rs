//! Measures Blixt against its bars, in network namespaces of its own: what `cargo xtask bench` runs.
//!
//! Every line is a number or a ratio of one run, the median of interleaved rounds; what is compared takes turns, so that
//! whatever else the machine does meets all of them.

mod bulk;
mod chains;
mod change;
mod connections;
mod fleet;
mod flood;
mod generator;
mod nat;
mod nft;
mod packet;
mod pin;
mod plot;
mod processor;
mod proxy;
mod report;
mod ring;
mod soak;
mod stage;
mod start;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;
use std::slice;

use anyhow::{Context, Result};
use blixt_bars::{Facts, Line, Misses, json, parts, table};
use clap::{Parser, ValueEnum};

use crate::subject::Subject;

/// What is run.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask")]
enum Command {
    /// Measures Blixt against its bars.
    Bench(Args),
    /// Measures what a packet costs, in less than a minute, against bars that are a quarter wider: for a first look, and for CI.
    Smoke(SmokeArgs),
    /// Changes everything under load for a long time, and looks at what must hold.
    Soak(soak::Args),
}

/// What a measurement takes.
#[derive(clap::Args, Debug)]
struct Args {
    /// Rounds; each line is the median of them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure only this; nothing is written to docs/performance then.
    #[arg(long)]
    only: Vec<Subject>,
    /// Write the lines here as JSON as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program to measure.
    #[arg(long, hide = true)]
    blixt: PathBuf,
    /// The object of the floor programs.
    #[arg(long, hide = true)]
    floor: PathBuf,
    /// Where the result is written.
    #[arg(long, hide = true)]
    docs: PathBuf,
}

/// What a first look takes.
#[derive(clap::Args, Debug)]
struct SmokeArgs {
    /// The object of the floor programs.
    #[arg(long, hide = true)]
    floor: PathBuf,
    /// Where misses are explained.
    #[arg(long, hide = true)]
    docs: PathBuf,
}

/// How much wider bars are for a first look.
const WIDER: f64 = 0.25;

fn main() -> ExitCode {
    let held = match Command::parse() {
        Command::Bench(args) => bench(&args),
        Command::Smoke(args) => smoke(&args),
        Command::Soak(args) => soak::run(&args),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every line holds its bar, or misses it for a known reason.
fn bench(args: &Args) -> Result<bool> {
    let rounds = args.rounds as usize;
    let misses = Misses::beside_results(&args.docs)?;
    let mut facts = Facts::gather(rounds);
    let mut lines = Vec::new();
    for subject in Subject::value_variants() {
        if args.only.is_empty() || args.only.contains(subject) {
            eprintln!("==> measure {subject:?}");
            lines.extend(twice(&misses, || subject.measure(args))?);
        }
    }
    facts.end();
    println!("{}\n{facts}", table(&lines, &misses));
    if let Some(file) = &args.json {
        std::fs::write(file, json(&lines).to_string())
            .with_context(|| format!("{}: cannot be written", file.display()))?;
    }
    if args.only.is_empty() {
        report::write(&args.docs, &lines, &misses, &facts)?;
        println!("written to {}", args.docs.display());
    } else {
        println!("{}", parts(&lines));
    }
    print!("{}", misses.said(&lines));
    Ok(misses.excuse(&lines))
}

/// The same of a packet alone, once.
fn smoke(args: &SmokeArgs) -> Result<bool> {
    let misses = Misses::beside_results(&args.docs)?;
    let mut facts = Facts::gather(1);
    let lines = twice(&misses, || {
        let lines = packet::measure_few(&args.floor)?;
        Ok(lines.into_iter().map(|line| line.widened(WIDER)).collect())
    })?;
    facts.end();
    println!("{}\n{facts}\n{}", table(&lines, &misses), misses.said(&lines));
    Ok(misses.excuse(&lines))
}

/// Measures, and once more if a line misses its bar for no known reason: machines have others to serve. Of such a line the second
/// time counts.
fn twice(misses: &Misses, measure: impl Fn() -> Result<Vec<Line>>) -> Result<Vec<Line>> {
    let mut lines = measure()?;
    if misses.excuse(&lines) {
        return Ok(lines);
    }
    eprintln!("missed and measured again:\n{}", misses.said(&lines));
    for (line, again) in lines.iter_mut().zip(measure()?) {
        if !misses.excuse(slice::from_ref(line)) {
            *line = again;
        }
    }
    Ok(lines)
}
