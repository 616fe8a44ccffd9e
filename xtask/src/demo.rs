//! Builds what is shipped, and shows it at work.

use std::process::ExitCode;

use anyhow::Result;

use crate::build;
use crate::process::{as_root, hand_over};
use crate::setup::{self, Purpose};

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
    /// For `blixt demo`, see `blixt demo --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    demo: Vec<String>,
}

/// `cargo xtask demo`: the exit code is that of `blixt demo`.
pub fn run(args: &Args) -> Result<ExitCode> {
    let compiler = setup::prepare(Purpose::Demo, args.yes)?;
    let blixt = build::build(compiler.as_ref(), true)?;
    let mut command = as_root(&blixt);
    command.arg("demo").args(&args.demo);
    hand_over(&mut command)
}
