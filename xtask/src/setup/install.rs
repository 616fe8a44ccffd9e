//! Does the steps of a plan.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::machine::Way;
use super::plan::{LINKER, Step, static_target};
use super::probe::{self, go_toolchain_module};
use crate::process::{as_root, cargo, output, succeed};
use crate::workspace;

/// A step that could not be done.
pub struct Failure {
    /// What went wrong.
    pub error: anyhow::Error,
    /// The way to a compiler that the step belongs to: another may do.
    pub way: Option<Way>,
}

/// Does all steps in order, and stops at the first that fails.
pub fn install(steps: &[Step]) -> Result<(), Failure> {
    steps.iter().try_for_each(|step| {
        eprintln!("==> {step}");
        match step {
            Step::Packages { names, brings } => {
                packages(names).map_err(|error| Failure { error, way: *brings })
            }
            Step::RustSource { toolchain, whole } => {
                rust_source(toolchain, *whole).map_err(|error| Failure { error, way: Some(Way::Nightly) })
            }
            Step::Linker => linker().map_err(|error| Failure { error, way: None }),
            Step::MuslTarget => musl_target().map_err(|error| Failure { error, way: None }),
            Step::Go => go().map_err(|error| Failure { error, way: None }),
            Step::Bpffs => bpffs().map_err(|error| Failure { error, way: None }),
        }
    })
}

fn packages(names: &BTreeSet<&str>) -> anyhow::Result<()> {
    succeed(as_root("apt-get").args(["update", "--quiet=2"]))
        .context("the lists of packages cannot be read anew")?;
    let mut install = as_root("env");
    install.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet=2"]);
    install.args(["--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]).args(names);
    // What each package says is of no use here; what goes wrong is on stderr.
    succeed(install.stdout(Stdio::null()))
}

fn rust_source(toolchain: &str, whole: bool) -> anyhow::Result<()> {
    let mut rustup = Command::new("rustup");
    if whole {
        rustup.args(["toolchain", "install", toolchain, "--profile", "minimal", "--component", "rust-src"]);
    } else {
        rustup.args(["component", "add", "rust-src", "--toolchain", toolchain]);
    }
    succeed(&mut rustup)
}

fn linker() -> anyhow::Result<()> {
    let mut install = cargo();
    install.args(["install", "bpf-linker", "--version", LINKER, "--locked", "--force", "--quiet"]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    if std::env::var_os("LLVM_SYS_221_PREFIX").is_none() && std::path::Path::new(DEBIAN_LLVM).is_dir() {
        install.env("LLVM_SYS_221_PREFIX", DEBIAN_LLVM).env("LLVM_PREFIX", DEBIAN_LLVM);
    }
    succeed(install.env_remove("CARGO_TARGET_DIR"))
}

/// Where Debian's packages put LLVM 22.
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

fn musl_target() -> anyhow::Result<()> {
    succeed(Command::new("rustup").args(["target", "add", &static_target()]).current_dir(workspace::root()))
}

/// A module's files cannot be run until they are told so: newer Go's do it themselves.
fn go() -> anyhow::Result<()> {
    let program =
        probe::go().context("go: is still missing: install Go 1.21 or newer from https://go.dev/dl")?.program;
    let mut download = Command::new(program);
    let output = output(download.args(["mod", "download", "-json", &go_toolchain_module()]))
        .context("the Go toolchain cannot be fetched: install Go 1.21 or newer from https://go.dev/dl")?;
    let answer: serde_json::Value = serde_json::from_str(&output).context("go mod download: no JSON")?;
    let dir = answer["Dir"].as_str().context("go mod download: names no directory")?;
    succeed(
        Command::new("chmod")
            .args(["-R", "u+rwX,a+x"])
            .args(["bin", "pkg/tool"].map(|part| format!("{dir}/{part}"))),
    )
}

fn bpffs() -> anyhow::Result<()> {
    succeed(as_root("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
        .context("the bpf file system cannot be mounted: is the kernel built with CONFIG_BPF_SYSCALL?")
}
