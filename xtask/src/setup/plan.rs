//! What is missing, and the steps that bring it. Pure.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, bail};

use super::machine::{Compiler, LLVM, Machine, Way};

/// What the machine is to be ready for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Purpose {
    /// Build the kernel program and `blixt`.
    Build,
    /// Run the demo as well.
    Demo,
    /// Run the tests as well.
    Test,
    /// Run the benchmark as well.
    Bench,
    /// Run the tests on other kernels, in virtual machines.
    VmTest,
    /// Build an image of the static `blixt`.
    Image,
    /// Run a Kubernetes cluster on this machine, with that image.
    Cluster,
}

impl Purpose {
    /// It makes network namespaces and loads programs into the kernel.
    fn needs_root(self) -> bool {
        !matches!(self, Self::Build | Self::Image | Self::VmTest)
    }

    /// It builds a `blixt` that needs no library of the machine.
    fn is_static(self) -> bool {
        matches!(self, Self::Image | Self::Cluster)
    }
}

/// What to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Who compiles the kernel program once the steps are done; none: a prebuilt one is given.
    pub compiler: Option<Compiler>,
    /// Empty: nothing is missing.
    pub steps: Vec<Step>,
}

/// One thing to be installed or set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Install Debian packages.
    Packages {
        /// Their names.
        names: BTreeSet<&'static str>,
        /// They bring a compiler: without them another may do.
        brings: Option<Way>,
    },
    /// Install a toolchain of rustup, or only its `rust-src`.
    RustSource {
        /// The toolchain.
        toolchain: String,
        /// It is not there at all.
        whole: bool,
    },
    /// Build the linker from its published source.
    Linker,
    /// Add the standard library for static programs.
    MuslTarget,
    /// Fetch a Go toolchain with the Go compiler that is there, which is too old to do so by itself.
    Go,
    /// Mount the bpf file system.
    Bpffs,
}

/// The version of the linker that is installed where none is.
pub const LINKER: &str = "0.13.0";
/// The oldest and the first too new version of the linker.
const LINKER_VERSIONS: std::ops::Range<(u32, u32)> = (0, 13)..(0, 14);
/// The nightly that is installed where none of the right LLVM is.
pub const NIGHTLY: &str = "nightly-2026-05-20";
/// Packages that the linker is built with.
pub const LLVM_PACKAGES: [&str; 4] = ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
/// Packages that are the other compiler.
pub const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// Programs that are run, the package that has them, and the purposes that want them.
pub const PROGRAMS: [(&str, &str, &[Purpose]); 14] = [
    ("ip", "iproute2", &[Purpose::Demo, Purpose::Test, Purpose::Bench, Purpose::Cluster, Purpose::VmTest]),
    ("bpftool", "bpftool", &[Purpose::Test, Purpose::Bench, Purpose::Cluster, Purpose::VmTest]),
    ("qemu-system-x86_64", "qemu-system-x86", &[Purpose::VmTest]),
    ("modprobe", "kmod", &[Purpose::VmTest]),
    ("nft", "nftables", &[Purpose::Bench, Purpose::Cluster]),
    ("iperf3", "iperf3", &[Purpose::Bench]),
    ("haproxy", "haproxy", &[Purpose::Bench]),
    ("nginx", "libnginx-mod-stream", &[Purpose::Bench]),
    ("musl-gcc", "musl-tools", &[Purpose::Image, Purpose::Cluster]),
    ("containerd", "containerd", &[Purpose::Cluster]),
    ("runc", "runc", &[Purpose::Cluster]),
    ("iptables", "iptables", &[Purpose::Cluster]),
    ("nsenter", "util-linux", &[Purpose::Cluster]),
    // One of many; the others' names are those of other programs as well.
    ("host-local", "containernetworking-plugins", &[Purpose::Cluster]),
];
/// The Go toolchain that is fetched where the machine's is older than [`GO`]: a Go module, checked against Go's checksum database.
pub const GO_TOOLCHAIN: &str = "go1.26.8";
/// The oldest Go that fetches a newer one by itself where a module asks for it.
const GO: (u32, u32) = (1, 21);

/// What static programs are built for.
pub fn static_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The steps that make a machine ready, without the compilers that are ruled out. An error where it takes a person.
pub fn plan(machine: &Machine, purpose: Purpose, ruled_out: &BTreeSet<Way>) -> Result<Plan> {
    let mut packages = BTreeSet::new();
    for (program, package, purposes) in PROGRAMS {
        if purposes.contains(&purpose) && !machine.programs.contains(program) {
            packages.insert(package);
        }
    }
    let mut later = Vec::new();
    let compiler = if machine.object { None } else { Some(compiler(machine, ruled_out)?) };
    let mut brings = None;
    if let Some(compiler) = &compiler {
        match compiler_step(machine, compiler) {
            Some(Step::Packages { names, brings: way }) => {
                packages.extend(names);
                brings = way;
            }
            Some(step) => later.push(step),
            None => {}
        }
        if !machine.linker.is_some_and(|version| LINKER_VERSIONS.contains(&version)) {
            packages.extend(missing_llvm(machine));
            later.push(Step::Linker);
        }
    }
    if purpose.is_static() && !machine.musl {
        later.push(Step::MuslTarget);
    }
    if purpose == Purpose::Cluster && machine.go.as_ref().is_none_or(|go| go.version < GO) {
        if machine.go.is_none() {
            packages.insert("golang-go");
        }
        later.push(Step::Go);
    }
    if purpose.needs_root() && !machine.bpffs {
        later.push(Step::Bpffs);
    }
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(Step::Packages { names: packages, brings });
    }
    steps.extend(later);
    refuse(machine, &steps)?;
    Ok(Plan { compiler, steps })
}

/// Says what to do where what runs needs root, and root cannot be had.
pub fn reach_root(machine: &Machine, purpose: Purpose) -> Result<()> {
    if purpose.needs_root() && !machine.root && !machine.sudo {
        bail!("`{purpose}` needs root, for network namespaces and bpf: run it as root, or install sudo");
    }
    Ok(())
}

/// The compiler to use: the one that the user wants, one that is there, else one that can be had.
fn compiler(machine: &Machine, ruled_out: &BTreeSet<Way>) -> Result<Compiler> {
    if let Some(wanted) = &machine.wanted {
        return Ok(wanted.clone());
    }
    let rustup = machine.programs.contains("rustup") && !ruled_out.contains(&Way::Nightly);
    let fitting = || machine.nightlies.iter().filter(|nightly| nightly.llvm == LLVM);
    let named = |name: &str| Compiler::Nightly(name.to_owned());
    if rustup && let Some(ready) = fitting().find(|nightly| nightly.rust_src) {
        return Ok(named(&ready.name));
    }
    if machine.debian_compiler {
        return Ok(Compiler::Debian);
    }
    if rustup {
        return Ok(named(fitting().next().map_or(NIGHTLY, |nightly| &nightly.name)));
    }
    if machine.apt && !ruled_out.contains(&Way::Debian) {
        return Ok(Compiler::Debian);
    }
    bail!(
        "no compiler for the kernel program: install rustup, then `rustup toolchain install {NIGHTLY} --profile \
         minimal --component rust-src`; or build with BLIXT_EBPF_OBJECT=<a prebuilt blixt.o>"
    )
}

/// What brings a compiler, if it is not complete.
fn compiler_step(machine: &Machine, compiler: &Compiler) -> Option<Step> {
    match compiler {
        Compiler::Debian => (!machine.debian_compiler)
            .then(|| Step::Packages { names: COMPILER_PACKAGES.into(), brings: Some(Way::Debian) }),
        Compiler::Nightly(name) => {
            let found = machine.nightlies.iter().find(|nightly| nightly.name == *name);
            (!found.is_some_and(|nightly| nightly.rust_src))
                .then(|| Step::RustSource { toolchain: name.clone(), whole: found.is_none() })
        }
    }
}

fn missing_llvm(machine: &Machine) -> Vec<&'static str> {
    if machine.llvm {
        return Vec::new();
    }
    LLVM_PACKAGES.into_iter().filter(|package| !machine.packages.contains(*package)).collect()
}

/// Stops where the machine cannot do the steps by itself, with everything that a person has to do.
fn refuse(machine: &Machine, steps: &[Step]) -> Result<()> {
    let mut missing = String::new();
    for step in steps {
        match step {
            Step::Packages { names, .. } if !machine.apt => {
                for name in names {
                    missing += &format!("\n  - {}", elsewhere(name));
                }
            }
            Step::Packages { .. } | Step::Bpffs if !(machine.root || machine.sudo) => {
                missing += &format!("\n  - {step}: run as root: {}", by_hand(step));
            }
            _ => {}
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why =
        if machine.apt { "this needs root" } else { "only Debian's packages are installed by this command" };
    bail!("{}: {why}; missing here:{missing}\nthen run the same command again", machine.system)
}

/// What a person types as root.
fn by_hand(step: &Step) -> String {
    match step {
        Step::Packages { names, .. } => {
            let names: Vec<_> = names.iter().copied().collect();
            format!("`apt-get install {}`", names.join(" "))
        }
        Step::Bpffs => "`mount -t bpf bpf /sys/fs/bpf`".to_owned(),
        Step::RustSource { .. } | Step::Linker | Step::MuslTarget | Step::Go => {
            "`cargo xtask setup`".to_owned()
        }
    }
}

/// Where a thing comes from on a system without Debian's packages.
fn elsewhere(package: &str) -> &str {
    match package {
        "llvm-22-dev" => {
            "LLVM 22 with headers and static libraries (`llvm-config` on the path or LLVM_SYS_221_PREFIX set)"
        }
        "libpolly-22-dev" => {
            "Polly of LLVM 22, as a static library (often part of the package with LLVM's static libraries)"
        }
        "libzstd-dev" => "zstd, with headers (libzstd-devel, zstd)",
        "zlib1g-dev" => "zlib, with headers (zlib-devel, zlib)",
        "iproute2" => "the `ip` program (iproute, iproute2)",
        "bpftool" => "the `bpftool` program (bpftool, bpf)",
        "qemu-system-x86" => "the `qemu-system-x86_64` program (qemu-system-x86, qemu-kvm)",
        "kmod" => "the `modprobe` and `depmod` programs (kmod)",
        "nftables" => "the `nft` program (nftables)",
        "iperf3" => "the `iperf3` program (iperf3)",
        "libnginx-mod-stream" => "the `nginx` program, with its stream module (nginx, nginx-mod-stream)",
        "musl-tools" => "the `musl-gcc` program (musl-gcc, musl-dev)",
        "containernetworking-plugins" => {
            "the CNI plugins in /usr/lib/cni or /opt/cni/bin (containernetworking-plugins)"
        }
        "golang-go" => "Go 1.21 or newer (golang, go)",
        other => other,
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Demo => "demo",
            Self::Test => "test",
            Self::Bench => "bench",
            Self::VmTest => "vm-test",
            Self::Image => "image",
            Self::Cluster => "cluster",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages { names, .. } => {
                let names: Vec<_> = names.iter().copied().collect();
                write!(f, "install Debian packages: {}", names.join(", "))
            }
            Self::RustSource { toolchain, whole: true } => {
                write!(
                    f,
                    "install the Rust toolchain {toolchain} with rust-src (rustup): compiles the kernel program"
                )
            }
            Self::RustSource { toolchain, whole: false } => {
                write!(
                    f,
                    "add rust-src to the Rust toolchain {toolchain} (rustup): compiles the kernel program"
                )
            }
            Self::Linker => write!(f, "install bpf-linker {LINKER} (cargo install, takes some minutes)"),
            Self::MuslTarget => {
                write!(f, "add Rust's standard library for {} (rustup): static programs", static_target())
            }
            Self::Go => write!(f, "fetch the Go toolchain {GO_TOOLCHAIN} as a Go module"),
            Self::Bpffs => f.write_str("mount the bpf file system at /sys/fs/bpf"),
        }
    }
}

#[cfg(test)]
mod tests;
