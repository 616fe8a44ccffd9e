//! Fuzzes the packet path against the model: the host's `forward`, and the kernel's TC and XDP programs, side by side.

use std::process::{Child, Command, ExitCode};

use anyhow::{Context, Result};

use crate::build::build_kernel_program;
use crate::process::{cargo, describe, is_root, succeed};
use crate::setup::{self, Purpose};
use crate::test::runner_variable;

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Frames that each target is to judge.
    #[arg(long, default_value_t = 10_000_000)]
    cases: u64,
    /// Seed of the first story; the next one's is one more. What a story that failed says is its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after so many minutes, whatever was judged by then.
    #[arg(long)]
    minutes: Option<u64>,
    /// Only this target.
    #[arg(long)]
    only: Option<Target>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// Who is held against the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Target {
    /// `forward` as an ordinary library.
    Host,
    /// The kernel's TC program.
    Tc,
    /// The kernel's XDP program, with that of TC behind it.
    Xdp,
}

impl Target {
    const ALL: [Self; 3] = [Self::Host, Self::Tc, Self::Xdp];

    /// The test program, and the test in it, that fuzz this target.
    fn test(self) -> (&'static str, &'static str) {
        match self {
            Self::Host => ("fuzz", "the_host_does_with_packets_what_the_model_does"),
            Self::Tc => ("kernel", "cases::model::tc_does_with_packets_what_the_model_does"),
            Self::Xdp => ("kernel", "cases::model::xdp_does_with_packets_what_the_model_does"),
        }
    }
}

/// `cargo xtask fuzz`: exits 1 where a target leaves the model's way.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Args { cases, seed, minutes, only, yes } = args;
    if let Some(compiler) = setup::prepare(Purpose::Test, *yes)? {
        build_kernel_program(&compiler)?;
    }
    succeed(test_command().args(["--test", "fuzz", "--test", "kernel", "--no-run"]))?;

    let mut running = Vec::new();
    for target in Target::ALL.into_iter().filter(|target| only.is_none_or(|only| only == *target)) {
        let (program, test) = target.test();
        let mut command = test_command();
        command.args(["--quiet", "--test", program, "--", "--exact", test, "--nocapture"]);
        command.env("BLIXT_FUZZ_CASES", cases.to_string()).env("BLIXT_FUZZ_SEED", seed.to_string());
        if let Some(minutes) = minutes {
            command.env("BLIXT_FUZZ_SECONDS", (60 * minutes).to_string());
        }
        if !is_root() {
            command.env(runner_variable()?, "sudo --preserve-env");
        }
        let child = command.spawn().with_context(|| format!("{}: cannot be started", describe(&command)))?;
        running.push((target, child));
    }
    let left: Vec<Target> = running
        .into_iter()
        .filter_map(|(target, child)| has_failed(child).map(|failed| failed.then_some(target)).transpose())
        .collect::<Result<_>>()?;
    println!();
    if left.is_empty() {
        println!("every target went the model's way");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "failed: {left:?}; the shortest story that does is above. Keep it in crates/blixt-model/corpus/"
    );
    Ok(ExitCode::FAILURE)
}

fn has_failed(mut child: Child) -> Result<bool> {
    Ok(!child.wait().context("a target: cannot be waited for")?.success())
}

/// With the features that `cargo xtask test` builds: nothing is built twice.
fn test_command() -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace"]);
    command
}
