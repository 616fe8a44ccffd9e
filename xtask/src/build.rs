//! Builds the kernel program and `blixt`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, output, succeed};
use crate::setup::{self, Compiler, Purpose};
use crate::workspace;

/// What `cargo xtask build` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Build `blixt` as it is shipped.
    #[arg(long)]
    release: bool,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// `cargo xtask build`.
pub fn run(args: &Args) -> Result<()> {
    let compiler = setup::prepare(Purpose::Build, args.yes)?;
    let blixt = build(compiler.as_ref(), args.release)?;
    println!("{}", blixt.display());
    Ok(())
}

/// Builds the kernel program (unless a prebuilt one is given) and `blixt`, and answers where `blixt` is.
pub fn build(compiler: Option<&Compiler>, release: bool) -> Result<PathBuf> {
    if let Some(compiler) = compiler {
        build_kernel_program(compiler)?;
    }
    build_blixt(release)
}

/// Builds the kernel program and puts it where `blixt-loader` looks for it.
pub fn build_kernel_program(compiler: &Compiler) -> Result<()> {
    eprintln!("==> build the kernel program");
    build_object(compiler, "blixt-ebpf", &workspace::kernel_object())
}

/// Builds a crate of kernel programs and puts the object into a file.
pub fn build_object(compiler: &Compiler, name: &str, object: &Path) -> Result<()> {
    let target_dir = workspace::root().join("target/bpf");
    let mut command = kernel_command(compiler);
    command.current_dir(workspace::root().join("crates").join(name)).arg("--target-dir").arg(&target_dir);
    succeed(&mut command)?;
    let built = target_dir.join(format!("{}/release/{name}", target()));
    let stripped = target_dir.join(format!("{name}.o"));
    strip_debug_info(&built, &stripped)?;
    replace_if_changed(&stripped, object)
}

fn kernel_command(compiler: &Compiler) -> Command {
    let mut command = match compiler {
        Compiler::Nightly(toolchain) => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "cargo", "build", "-Z", "build-std=core"]);
            command
        }
        Compiler::Debian => {
            let mut command = Command::new("/usr/bin/cargo");
            command.arg("build").env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc");
            command
        }
    };
    command.args(["--release", "--quiet", "--target", target()]);
    // They describe the compiler that built us, or overrule the flags that lie beside the crate.
    for variable in OURS {
        command.env_remove(variable);
    }
    // Nor does what somebody wishes for other programs change this one, whose shape the verifier judges: with incremental
    // compilation, for one, it reads the stack in a way that is refused.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(variable);
        }
    }
    command.env("CARGO_INCREMENTAL", "0");
    command
}

const OURS: [&str; 7] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

fn target() -> &'static str {
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// Leaves out what only debuggers read: four fifths of the kernel program's object, which every Blixt would carry. Types and lines
/// for the kernel (BTF) stay.
pub fn strip_debug_info(from: &Path, to: &Path) -> Result<()> {
    let print = |what| output(Command::new("rustc").args(["--print", what])).context("rustc does not answer");
    let sysroot = PathBuf::from(print("sysroot")?.trim());
    let objcopy = sysroot.join(format!("lib/rustlib/{}/bin/rust-objcopy", print("host-tuple")?.trim()));
    let mut command = Command::new(objcopy);
    command.env("LD_LIBRARY_PATH", sysroot.join("lib")).arg("--strip-debug").arg(from).arg(to);
    succeed(&mut command)
}

/// Leaves an equal file alone, so that nothing is built anew that embeds it.
fn replace_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("{}: cannot be read", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    std::fs::write(to, new).with_context(|| format!("{}: cannot be written", to.display()))
}

fn build_blixt(release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "blixt"]);
    if release {
        command.arg("--release");
    }
    succeed(&mut command)?;
    Ok(workspace::target_dir().join(if release { "release/blixt" } else { "debug/blixt" }))
}
