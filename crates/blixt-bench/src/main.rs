//! Measures Blixt against its bars, in network namespaces of its own: what `cargo xtask bench` runs.
//!
//! Every line is a number or a ratio of one run, the median of interleaved rounds; what is compared takes turns, so that
//! whatever else the machine does meets all of them.

mod bulk;
mod change;
mod connections;
mod fleet;
mod nat;
mod packet;
mod pin;
mod plot;
mod proxy;
mod report;
mod soak;
mod stage;
mod start;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use blixt_bars::{Facts, Line, parts, table};
use clap::Parser;

use crate::subject::Subject;

/// What is run.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask")]
enum Command {
    /// Measures Blixt against its bars.
    Bench(Args),
    /// Changes everything under load for a long time, and looks at what must hold.
    Soak(soak::Args),
}

/// What a measurement takes.
#[derive(clap::Args, Debug)]
struct Args {
    /// Rounds; each line is the median of them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only this; nothing is written then.
    #[arg(long)]
    only: Vec<Subject>,
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

fn main() -> ExitCode {
    let held = match Command::parse() {
        Command::Bench(args) => run(&args).map(|lines| lines.iter().all(Line::is_held)),
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

fn run(args: &Args) -> Result<Vec<Line>> {
    if args.rounds == 0 {
        bail!("--rounds 0: measures nothing; give at least 1");
    }
    let mut facts = Facts::gather(args.rounds);
    let wanted = |subject| args.only.is_empty() || args.only.contains(&subject);
    let mut lines = Vec::new();
    if wanted(Subject::Packet) {
        lines.extend(packet::measure(&args.floor, args.rounds)?);
    }
    // Only where it is asked for.
    if args.only.contains(&Subject::Path) {
        lines.extend(packet::measure_all(&args.floor, args.rounds)?);
    }
    if wanted(Subject::Bulk) {
        lines.extend(bulk::measure(&args.blixt, args.rounds)?);
    }
    if wanted(Subject::Connections) {
        lines.extend(connections::measure(&args.blixt, args.rounds)?);
    }
    if wanted(Subject::Change) {
        lines.push(change::measure(&args.blixt, args.rounds)?);
    }
    if wanted(Subject::Start) || wanted(Subject::Memory) {
        let starts = start::starts(&args.blixt, args.rounds)?;
        if wanted(Subject::Start) {
            lines.push(start::time(&starts));
        }
        if wanted(Subject::Memory) {
            lines.push(start::memory(&starts));
        }
    }
    facts.end();
    println!("{}\n{facts}", table(&lines));
    if args.only.is_empty() {
        report::write(&args.docs, &lines, &facts)?;
        println!("written to {}", args.docs.display());
    } else {
        println!("{}", parts(&lines));
    }
    Ok(lines)
}
