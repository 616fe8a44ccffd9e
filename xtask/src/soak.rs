//! Builds what is shipped, and soaks it: changes under load for as long as is asked.

use std::process::ExitCode;

use anyhow::Result;

use crate::bench::program;
use crate::build::build;
use crate::process::hand_over;
use crate::setup::{self, Purpose};

/// What `cargo xtask soak` takes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask soak                     an hour
  cargo xtask soak --minutes 10        ten minutes
  cargo xtask soak --seed 42           the same changes again")]
pub struct Args {
    /// How long, in minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Make the changes of an earlier run again, which printed this number.
    #[arg(long)]
    seed: Option<u64>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// `cargo xtask soak`: succeeds if everything held that must.
pub fn run(args: &Args) -> Result<ExitCode> {
    let compiler = setup::prepare(Purpose::Test, args.yes)?;
    let blixt = build(compiler.as_ref(), true)?;
    let mut command = program("soak", &blixt)?;
    command.arg("--minutes").arg(args.minutes.to_string());
    if let Some(seed) = args.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    hand_over(&mut command)
}
