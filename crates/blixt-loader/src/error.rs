//! What can go wrong between user space and the kernel, each with the next step.

use std::io;
use std::path::PathBuf;

/// An error of the loader.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The binary was built without a kernel program.
    #[error(
        "this build carries no kernel program: build it with `cargo xtask build`, then build Blixt again"
    )]
    NoObject,
    /// The object is not one of this version's.
    #[error(
        "map {map} of the kernel program has another layout than this build expects: run `cargo xtask build`, then build Blixt again"
    )]
    ObjectMismatch {
        /// The map.
        map: &'static str,
    },
    /// The kernel let us not use bpf.
    #[error(
        "the kernel refuses bpf to this process: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted,
    /// The kernel has no bpf.
    #[error("this kernel has no bpf system call: it needs CONFIG_BPF_SYSCALL, and Linux {minimum} or newer")]
    NoBpf {
        /// The oldest kernel that Blixt knows to work.
        minimum: &'static str,
    },
    /// Something failed on a kernel that is older than Blixt knows to work.
    #[error("{source}; this kernel is Linux {release}: Blixt needs {minimum} or newer")]
    KernelTooOld {
        /// What failed.
        source: Box<Error>,
        /// The kernel's release.
        release: String,
        /// The oldest kernel that Blixt knows to work.
        minimum: &'static str,
    },
    /// No bpffs, and none could be mounted.
    #[error("cannot mount a bpf file system at {path}: {source}; mount one (`mount -t bpf bpf {path}`) and start again", path = path.display())]
    Bpffs {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process manages this network namespace.
    #[error("another Blixt {}runs in this network namespace ({}): stop it first", holder(*pid), path.display())]
    Held {
        /// Its process id, if it could be read.
        pid: Option<u32>,
        /// The lock.
        path: PathBuf,
    },
    /// A pinned map is not what this version makes.
    #[error("pinned map {} has {field} {pinned}, this version wants {wanted}: run `blixt cleanup`, then start again (connections end)", path.display())]
    PinnedMap {
        /// The pin.
        path: PathBuf,
        /// Which property differs.
        field: &'static str,
        /// The pinned map's.
        pinned: u32,
        /// This version's.
        wanted: u32,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel's verifier refuses program {program}: {log}; report this with the kernel's version ({release})"
    )]
    Verifier {
        /// The program.
        program: &'static str,
        /// The end of the verifier's log.
        log: String,
        /// The kernel's release.
        release: String,
    },
    /// Memory for maps was refused.
    #[error(
        "the kernel gives no memory for map {map}: lower the sizes (`--flows`), or raise the memory limit (`ulimit -l`, or that of the cgroup)"
    )]
    NoMemory {
        /// The map.
        map: String,
    },
    /// aya could not load the object.
    #[error("cannot load the kernel program: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program could not be loaded or found.
    #[error("program {program}: {source}")]
    Program {
        /// The program.
        program: &'static str,
        /// Why not.
        source: aya::programs::ProgramError,
    },
    /// The object has no such program or map.
    #[error("the kernel program has no {name}: run `cargo xtask build`, then build Blixt again")]
    Missing {
        /// What is missing.
        name: &'static str,
    },
    /// A map as a whole.
    #[error("cannot {op} map {map}: {source}")]
    Map {
        /// What was tried.
        op: &'static str,
        /// On which map.
        map: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// One entry of a map.
    #[error("cannot {op} entry {key} of map {map}: {source}")]
    Entry {
        /// What was tried.
        op: &'static str,
        /// On which map.
        map: &'static str,
        /// On which entry.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A map is full.
    #[error(
        "map {map} is full at {max_entries} entries: run `blixt cleanup`, then start with a higher {}",
        flag(map)
    )]
    Full {
        /// The map.
        map: &'static str,
        /// How many entries it has room for.
        max_entries: u32,
    },
    /// A ring without its content, which only the kernel may have.
    #[error(
        "ring {id} is to be written, but its slots are not known: apply what `compile` made, not what was read back"
    )]
    RingUnknown {
        /// The ring.
        id: u32,
    },
    /// A row that no version of this layout writes.
    #[error(
        "entry {key} of map {map} has an unknown {field} {value}: run `blixt cleanup`, then start again (connections end)"
    )]
    Row {
        /// The map.
        map: &'static str,
        /// The entry.
        key: String,
        /// Which part of it.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
    /// A device could not be hooked.
    #[error("cannot attach to device {device} ({hook}): {source}{}", attach_hint(source))]
    Attach {
        /// Its name, or its index where it has none.
        device: String,
        /// Which hook.
        hook: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A device does not hear who looks for an address.
    #[error(
        "cannot {op} multicast group {group} on device {device}: {source}; neighbours may not find IPv6 addresses there"
    )]
    Group {
        /// `join` or `leave`.
        op: &'static str,
        /// Its link-layer address.
        group: String,
        /// The device, or its index where it has no name.
        device: String,
        /// Why not.
        source: io::Error,
    },
    /// Something about a file or directory.
    #[error("cannot {op} {}: {source}{}", path.display(), file_hint(source))]
    File {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn map(op: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Map { op, map, source }
    }

    pub(crate) fn file(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { op, path, source }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!("(process {pid}) ")).unwrap_or_default()
}

/// The flag that sets the size of a map.
fn flag(map: &str) -> &'static str {
    match map.trim_end_matches("_V4").trim_end_matches("_V6") {
        "FRONTENDS" | "ADDRESSES" | "RINGS" | "RING_HASHES" | "ROUTES" | "ROUTE_COUNTERS" => "`--frontends`",
        "BACKENDS" | "BACKEND_COUNTERS" | "ENDPOINTS" | "HOPS" => "`--backends`",
        _ => "limit",
    }
}

fn file_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run as root",
        io::ErrorKind::ReadOnlyFilesystem => "; it must be writable for root",
        _ => "",
    }
}

fn attach_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => "; another XDP program is there: remove it, or use `--hook tc`",
        Some(libc::ENODEV | libc::ENXIO) => "; the device is gone",
        Some(libc::EPERM | libc::EACCES) => "; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        _ => "",
    }
}
