//! Looks at the machine. Changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::{Compiler, Go, LLVM, Machine, Nightly};
use super::plan::{COMPILER_PACKAGES, GO_TOOLCHAIN, LLVM_PACKAGES, PROGRAMS, static_target};
use crate::process::{exists, is_root, output};
use crate::workspace;

/// What is found.
pub fn probe() -> Machine {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let programs = PROGRAMS.iter().map(|(program, ..)| *program).chain(["rustup"]);
    let apt = exists("apt-get") && exists("dpkg-query");
    Machine {
        system: field(&release, "PRETTY_NAME").unwrap_or_else(|| "this system".to_owned()),
        root: is_root(),
        sudo: exists("sudo"),
        apt,
        packages: if apt { installed_packages() } else { BTreeSet::new() },
        programs: programs
            .filter(|program| exists(program) || CNI.iter().any(|dir| Path::new(dir).join(program).is_file()))
            .map(str::to_owned)
            .collect(),
        bpffs: is_bpffs_mounted(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
        nightlies: nightlies(),
        debian_compiler: debian_compiler(),
        linker: output(Command::new("bpf-linker").arg("--version")).as_deref().and_then(linker_version),
        llvm: std::env::var_os("LLVM_SYS_221_PREFIX").is_some()
            || output(Command::new("llvm-config").arg("--version"))
                .is_some_and(|text| major(&text) == Some(LLVM)),
        go: go(),
        musl: has_static_library(),
        object: std::env::var_os("BLIXT_EBPF_OBJECT").is_some_and(|path| !path.is_empty()),
        wanted: std::env::var("BLIXT_BPF_COMPILER").ok().map(|name| match name.as_str() {
            "debian" => Compiler::Debian,
            _ => Compiler::Nightly(name),
        }),
    }
}

/// Where distributions put the plugins that give pods their network.
pub const CNI: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// The newest Go, on the path or where it is put by hand, by Debian, or by Go itself.
pub fn go() -> Option<Go> {
    let modules = std::env::var_os("GOMODCACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("GOPATH").map(PathBuf::from);
        Some(home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join("go")))?.join("pkg/mod"))
    });
    let fetched = modules.map(|dir| dir.join(go_toolchain_module()).join("bin/go"));
    let places = ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"].map(PathBuf::from);
    let found = places.into_iter().chain(fetched).filter_map(|program| {
        let text = output(Command::new(&program).arg("version").env("GOTOOLCHAIN", "local"))?;
        Some(Go { version: go_version(&text)?, program })
    });
    found.max_by_key(|go| go.version)
}

/// The toolchain as a module that the go command can download.
pub fn go_toolchain_module() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("golang.org/toolchain@v0.0.1-{GO_TOOLCHAIN}.linux-{arch}")
}

/// `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go version go")?.split(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Of the compiler that builds this workspace.
fn has_static_library() -> bool {
    let mut libraries = Command::new("rustc");
    libraries.args(["--print", "target-libdir", "--target", &static_target()]).current_dir(workspace::root());
    output(&mut libraries).is_some_and(|dir| has_core(Path::new(dir.trim())))
}

fn installed_packages() -> BTreeSet<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    let text = output(query.args(["*"])).unwrap_or_default();
    let wanted: BTreeSet<_> = LLVM_PACKAGES.into_iter().chain(COMPILER_PACKAGES).collect();
    text.lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .filter(|name| wanted.contains(name))
        .map(str::to_owned)
        .collect()
}

fn nightlies() -> Vec<Nightly> {
    let list = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    toolchain_names(&list).into_iter().filter_map(nightly).collect()
}

fn nightly(name: String) -> Option<Nightly> {
    let rustc = |args: &[&str]| output(Command::new("rustup").args(["run", &name, "rustc"]).args(args));
    let llvm = llvm_version(&rustc(&["-vV"])?)?;
    let sysroot = rustc(&["--print", "sysroot"])?;
    let rust_src = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir();
    Some(Nightly { name, llvm, rust_src })
}

fn debian_compiler() -> bool {
    let Some(version) = output(Command::new("/usr/bin/rustc").arg("-vV")) else { return false };
    let mut libraries = Command::new("/usr/bin/rustc");
    libraries.args(["--print", "target-libdir", "--target", "bpfel-unknown-none"]);
    let core = output(&mut libraries).is_some_and(|dir| has_core(Path::new(dir.trim())));
    llvm_version(&version) == Some(LLVM) && core && Path::new("/usr/bin/cargo").exists()
}

fn has_core(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// A value of `os-release`.
fn field(release: &str, key: &str) -> Option<String> {
    let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches('"').to_owned())
}

fn is_bpffs_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/sys/fs/bpf") && words.next() == Some("bpf")
    })
}

/// Nightlies in what `rustup toolchain list` prints: the plain one first, then the newest.
fn toolchain_names(list: &str) -> Vec<String> {
    let mut names: Vec<String> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly-"))
        .map(|name| without_triple(name).to_owned())
        .collect();
    names.sort_by(|a, b| (a != "nightly").cmp(&(b != "nightly")).then_with(|| b.cmp(a)));
    names
}

/// `nightly-2026-05-20-x86_64-unknown-linux-gnu` is `nightly-2026-05-20`.
fn without_triple(name: &str) -> &str {
    let triple = format!("-{}-", std::env::consts::ARCH);
    name.find(&triple).map_or(name, |at| &name[..at])
}

fn llvm_version(text: &str) -> Option<u32> {
    text.lines().find_map(|line| major(line.strip_prefix("LLVM version: ")?))
}

fn linker_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("bpf-linker ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn major(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_nightly_comes_before_dated_ones_and_newer_before_older() {
        let arch = std::env::consts::ARCH;
        let list = format!(
            "stable-{arch}-unknown-linux-gnu (default)\nnightly-2026-01-02-{arch}-unknown-linux-gnu\n\
             nightly-2026-05-20-{arch}-unknown-linux-gnu\nnightly-{arch}-unknown-linux-gnu\n"
        );
        assert_eq!(toolchain_names(&list), ["nightly", "nightly-2026-05-20", "nightly-2026-01-02"]);
    }

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(llvm_version("rustc 1.97.0-nightly\nhost: x\nLLVM version: 22.1.4\n"), Some(22));
        assert_eq!(llvm_version("rustc 1.97.0-nightly\n"), None);
        assert_eq!(linker_version("bpf-linker 0.13.0\n"), Some((0, 13)));
        assert_eq!(linker_version("something else"), None);
        assert_eq!(go_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(go_version("go version devel +0123 linux/amd64\n"), None);
    }

    #[test]
    fn only_a_bpf_file_system_at_the_usual_place_counts() {
        assert!(is_bpffs_mounted("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"));
        assert!(!is_bpffs_mounted("bpf /mnt/bpf bpf rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }

    #[test]
    fn the_systems_name_is_read_without_its_quotes() {
        assert_eq!(
            field("ID=debian\nPRETTY_NAME=\"Debian 12\"\n", "PRETTY_NAME").as_deref(),
            Some("Debian 12")
        );
    }
}
