//! Images of containers: an archive that `docker load` and `ctr images import` take, made without a daemon or a registry.

mod archive;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use archive::{Image, sum};

use crate::build::build_kernel_program;
use crate::process::{cargo, succeed};
use crate::setup::{self, Compiler, Purpose, static_target};
use crate::workspace;

/// The name of the image in `deploy/` and wherever a cluster is asked to run it. It names no registry: who publishes the
/// image says where.
pub const BLIXT: &str = concat!("localhost/blixt:", env!("CARGO_PKG_VERSION"));

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub struct Args {
    /// The file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// A static `blixt` that is there already, instead of one built now.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// `cargo xtask image`.
pub fn run(args: &Args) -> Result<()> {
    let program = match &args.binary {
        Some(program) => program.clone(),
        None => build_static(setup::prepare(Purpose::Image, args.yes)?.as_ref())?,
    };
    blixt(&program, &args.output)?;
    println!("{BLIXT}");
    Ok(())
}

/// Writes the image of `blixt`.
pub fn blixt(program: &Path, output: &Path) -> Result<()> {
    // Agents need root for bpf: their manifest says so.
    write(&Image { names: &[BLIXT.to_owned()], program: "blixt", user: "65532:65532" }, program, output)
}

/// Writes the image of one static program.
pub fn write(image: &Image, program: &Path, output: &Path) -> Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("{}: cannot be read", program.display()))?;
    archive::check_static(&bytes)
        .with_context(|| format!("{}: cannot be all of an image", program.display()))?;
    let archive = image.archive(&bytes)?;
    std::fs::write(output, archive).with_context(|| format!("{}: cannot be written", output.display()))
}

/// Builds the kernel program and a `blixt` that needs no library of the machine that runs it.
pub fn build_static(compiler: Option<&Compiler>) -> Result<PathBuf> {
    if let Some(compiler) = compiler {
        build_kernel_program(compiler)?;
    }
    let target = static_target();
    eprintln!("==> build blixt for {target}");
    succeed(cargo().args(["build", "--release", "--package", "blixt", "--target", &target]))?;
    Ok(workspace::target_dir().join(target).join("release/blixt"))
}
