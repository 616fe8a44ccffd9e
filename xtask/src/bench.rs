//! Builds what is shipped, the floor programs and the benchmark, and runs it.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::build::{build, build_object};
use crate::process::{as_root, cargo, hand_over, succeed};
use crate::setup::{self, Purpose};
use crate::workspace;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
    /// `smoke` for what a packet costs, in less than a minute; or for the benchmark itself: `--rounds COUNT`, `--only SUBJECT`,
    /// `--json FILE`; see `cargo xtask bench -- --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    bench: Vec<String>,
}

/// `cargo xtask bench`: the exit code is that of the benchmark, 1 where a median misses its bar for no known reason.
pub fn run(args: &Args) -> Result<ExitCode> {
    // A first look is at the kernel program alone.
    let is_smoke = args.bench.first().is_some_and(|first| first == "smoke");
    let purpose = if is_smoke { Purpose::Build } else { Purpose::Bench };
    let Some(compiler) = setup::prepare(purpose, args.yes)? else {
        bail!("BLIXT_EBPF_OBJECT: the benchmark builds programs of its own; unset it");
    };
    let blixt = build(Some(&compiler), !is_smoke)?;
    let floor = workspace::root().join("target/bpf/floor.o");
    eprintln!("==> build the floor programs");
    build_object(&compiler, "blixt-floor", &floor)?;
    let mut command = if is_smoke {
        succeed(cargo().args(["build", "--package", "blixt-bench"]))?;
        as_root(blixt.with_file_name("blixt-bench"))
    } else {
        program("bench", &blixt)?
    };
    command.args(&args.bench).arg("--floor").arg(&floor).arg("--docs").arg(workspace::results());
    hand_over(&mut command)
}

/// The benchmark's program, to measure a `blixt` that was built as it is shipped.
pub fn program(command: &str, blixt: &Path) -> Result<Command> {
    // Together with `blixt`, so that both use libraries with the same features, which are built once.
    succeed(cargo().args(["build", "--release", "--package", "blixt", "--package", "blixt-bench"]))?;
    let mut program = as_root(blixt.with_file_name("blixt-bench"));
    program.arg(command).arg("--blixt").arg(blixt);
    Ok(program)
}
