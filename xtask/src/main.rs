//! Set-up, builds, tests, benchmarks and code generation of Blixt: `cargo xtask --help`.
//!
//! Every command that needs something of the machine runs [`setup`] first.

mod bench;
mod build;
mod cluster;
mod codegen;
mod conformance;
mod demo;
mod fuzz;
mod image;
mod leftovers;
mod manifests;
mod outcome;
mod process;
mod proof;
mod setup;
mod soak;
mod status;
mod test;
mod vm_test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, builds, tests, benchmarks and code generation of Blixt.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find what the machine lacks and install it.
    Setup(setup::Args),
    /// Build the kernel program and `blixt`.
    Build(build::Args),
    /// Generate the API types, schemas and CRDs.
    Codegen(codegen::Args),
    /// Show Blixt at work in network namespaces of this machine.
    Demo(demo::Args),
    /// Write an archive with the image of `blixt` for containers.
    Image(image::Args),
    /// Render `deploy/install.yaml` from the Helm chart.
    Manifests(manifests::Args),
    /// Run a Kubernetes cluster on this machine.
    Cluster(cluster::Args),
    /// Run the official conformance suite against Blixt in a cluster on this machine.
    Conformance(conformance::Args),
    /// Run every test, and compare with `docs/tests.md`.
    Test(test::Args),
    /// Fuzz the packet path against a plain model of it, on the host and in the kernel.
    Fuzz(fuzz::Args),
    /// Measure speed and memory against their bars, and write `docs/performance/`.
    Bench(bench::Args),
    /// Change everything under load for a long time, and look at what must hold.
    Soak(soak::Args),
    /// Run the tests of the kernel program on the kernels that Debian offers, in virtual machines.
    VmTest(vm_test::Args),
    /// What the first process of such a machine does.
    #[command(hide = true)]
    VmGuest,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Codegen(args) => codegen::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => demo::run(&args),
        Command::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Manifests(args) => manifests::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Cluster(args) => cluster::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
        Command::VmGuest => vm_test::run_guest().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
