//! `cargo xtask codegen CRD_DIR`: the Rust types and the pruned schemas of the Gateway API from its CRDs, and
//! the CRD of BlixtClass from its Rust type. The output is committed; nothing else reads the CRDs.

#[cfg(feature = "codegen")]
mod generate;
#[cfg(feature = "codegen")]
mod rust_types;

use std::path::PathBuf;

use anyhow::Result;

/// Where the CRDs are.
#[derive(clap::Args)]
pub struct Args {
    /// The directory config/crd/standard of a checkout of Gateway API v1.6.1.
    crd_dir: PathBuf,
}

/// Generates, in a build of this program that has the libraries for it.
#[cfg(feature = "codegen")]
pub fn run(args: &Args) -> Result<()> {
    generate::run(crate::workspace::root(), &args.crd_dir)
}

/// Runs a build of this program that has the libraries for generating.
#[cfg(not(feature = "codegen"))]
pub fn run(args: &Args) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["run", "--quiet", "--package", "xtask", "--features", "codegen", "--", "codegen"])
        .arg(&args.crd_dir)
        .status()?;
    anyhow::ensure!(status.success(), "code generation failed");
    Ok(())
}
