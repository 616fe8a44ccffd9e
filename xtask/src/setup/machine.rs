//! What was found on the machine, as plain values.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// The LLVM that the linker is built with, and that the compiler must not be newer than.
pub const LLVM: u32 = 22;

/// The machine as [`probe`](super::probe) sees it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its name for people, from `os-release`.
    pub system: String,
    /// We are root.
    pub root: bool,
    /// `sudo` is there.
    pub sudo: bool,
    /// It is Debian, or made from it.
    pub apt: bool,
    /// Debian packages that are installed, of those that could be wanted.
    pub packages: BTreeSet<String>,
    /// Programs that are on the path, of those that could be wanted.
    pub programs: BTreeSet<String>,
    /// A file system of type bpf is mounted at its usual place.
    pub bpffs: bool,
    /// Nightly compilers of rustup.
    pub nightlies: Vec<Nightly>,
    /// The distribution's own compiler can build for BPF.
    pub debian_compiler: bool,
    /// Version of `bpf-linker`, if it starts.
    pub linker: Option<(u32, u32)>,
    /// The development files of [`LLVM`] are there by other means than Debian's packages.
    pub llvm: bool,
    /// The Go compiler, and its version.
    pub go: Option<Go>,
    /// The standard library for static programs is there.
    pub musl: bool,
    /// A prebuilt kernel program is given.
    pub object: bool,
    /// The compiler that the user insists on.
    pub wanted: Option<Compiler>,
}

/// A Go compiler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Go {
    /// Its program.
    pub program: PathBuf,
    /// Its version.
    pub version: (u32, u32),
}

/// A nightly toolchain of rustup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nightly {
    /// What rustup calls it, without the machine's triple.
    pub name: String,
    /// Major version of its LLVM.
    pub llvm: u32,
    /// Its `rust-src` is there.
    pub rust_src: bool,
}

/// What compiles the kernel program.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Compiler {
    /// A nightly of rustup, which builds `core` itself.
    Nightly(String),
    /// Debian's packages, with a prebuilt `core`.
    Debian,
}

/// The same, without the toolchain's name: what can be ruled out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// See [`Compiler::Nightly`].
    Nightly,
    /// See [`Compiler::Debian`].
    Debian,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "a nightly compiler with its sources",
            Self::Debian => "Debian's compiler for BPF",
        })
    }
}
