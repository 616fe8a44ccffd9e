//! Kernels that Debian's packages offer: found, downloaded and unpacked by apt, kept in the user's cache by release.
//!
//! The machine's own apt knows one release of Debian. So this one has lists of its own, of several releases, at the servers
//! that the machine's own apt was told of; nothing is installed, and the machine's own lists stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::process::{output, succeed};
use crate::workspace;

/// A kernel for virtual machines, small and without most drivers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// `6.12`.
    pub series: String,
    /// What `uname -r` says there.
    pub release: String,
    packages: Vec<String>,
}

/// A kernel's files.
pub struct Files {
    /// What is booted.
    pub image: PathBuf,
    /// The directory that has `lib/modules`.
    pub root: PathBuf,
}

impl Kernel {
    /// The series as numbers.
    pub fn version(&self) -> (u32, u32) {
        match numbers(&self.series)[..] {
            [major, minor, ..] => (major, minor),
            _ => (0, 0),
        }
    }
}

/// The apt that knows of kernels.
pub struct Apt {
    dir: PathBuf,
}

/// Releases of Debian, by the label of the server that has them.
const SUITES: [(&str, &[&str]); 2] = [
    ("Debian", &["bookworm", "trixie", "trixie-backports", "sid"]),
    ("Debian-Security", &["bookworm-security", "trixie-security"]),
];
/// Whose signature the lists must have.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How old lists may be: new kernels come a few times a month.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);
/// What ends a kernel's name.
const FLAVOUR: &str = "-cloud-amd64";

impl Apt {
    /// Writes what apt is told, and has the lists read anew if they are old.
    pub fn open() -> Result<Self> {
        let apt = Self { dir: workspace::cache()?.join("kernels") };
        for dir in ["lists/partial", "cache/archives/partial"] {
            let dir = apt.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
        }
        let servers = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ]));
        let sources = sources(&servers.context("apt-get indextargets: failed: is this machine a Debian?")?)?;
        let file = apt.dir.join("sources.list");
        let is_known = fs::read_to_string(&file).is_ok_and(|old| old == sources);
        if is_known && age(&apt.dir.join("updated")).is_some_and(|age| age < LISTS_AGE) {
            return Ok(apt);
        }
        fs::write(&file, sources).with_context(|| format!("{}: cannot be written", file.display()))?;
        eprintln!("==> read Debian's lists of packages");
        match succeed(apt.command("apt-get").args(["update", "--quiet=2"])) {
            Ok(()) => fs::write(apt.dir.join("updated"), "").context("the cache of kernels")?,
            Err(error) => eprintln!("{error:#}: the lists that are there are used"),
        }
        Ok(apt)
    }

    /// The newest kernel of each series, the oldest series first.
    pub fn offered(&self) -> Result<Vec<Kernel>> {
        let mut search = self.command("apt-cache");
        search.args(["search", "--names-only", "^linux-(image|binary|modules)-[0-9].*-cloud-amd64$"]);
        let offered = newest(&output(&mut search).context("apt-cache search: failed")?);
        if offered.is_empty() {
            bail!("Debian's lists of packages name no kernel: is the network there?");
        }
        Ok(offered)
    }

    /// A kernel's files, downloaded unless they are there.
    pub fn fetch(&self, kernel: &Kernel) -> Result<Files> {
        let dir = self.dir.join(&kernel.release);
        if !dir.is_dir() {
            let unfinished = self.dir.join(format!("unfinished-{}-{}", kernel.release, std::process::id()));
            fs::create_dir_all(&unfinished)
                .with_context(|| format!("{}: cannot be made", unfinished.display()))?;
            let unpacked =
                self.unpack(kernel, &unfinished).and_then(|()| match fs::rename(&unfinished, &dir) {
                    // Another process was faster.
                    Err(_) if dir.is_dir() => Ok(()),
                    other => other.with_context(|| format!("{}: cannot be renamed", unfinished.display())),
                });
            if unfinished.is_dir() {
                fs::remove_dir_all(&unfinished)?;
            }
            unpacked?;
        }
        let image = [
            dir.join(format!("boot/vmlinuz-{}", kernel.release)),
            dir.join(format!("lib/modules/{}/vmlinuz", kernel.release)),
        ];
        let image = image.into_iter().find(|image| image.is_file());
        Ok(Files { image: image.with_context(|| format!("{}: has no vmlinuz", dir.display()))?, root: dir })
    }

    fn unpack(&self, kernel: &Kernel, dir: &Path) -> Result<()> {
        eprintln!("==> download {} (Debian packages, not installed)", kernel.packages.join(", "));
        let mut download = self.command("apt-get");
        succeed(download.args(["download", "--quiet=2"]).args(&kernel.packages).current_dir(dir))?;
        for file in fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()? {
            let file = file.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                succeed(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(dir))?;
                fs::remove_file(file)?;
            }
        }
        // Newer packages have it below /usr.
        if dir.join("usr/lib/modules").is_dir() {
            fs::rename(dir.join("usr/lib"), dir.join("lib"))?;
        }
        // It warns of files that only a whole installation has.
        succeed(Command::new(depmod()).arg("-b").arg(dir).arg(&kernel.release).stderr(Stdio::null()))
    }

    fn command(&self, program: &str) -> Command {
        let option = |name: &str, value: &dyn std::fmt::Display| format!("{name}={value}");
        let path = |name: &str| self.dir.join(name).display().to_string();
        let options = [
            option("Dir::State::Lists", &path("lists")),
            option("Dir::Cache", &path("cache")),
            option("Dir::Etc::SourceList", &path("sources.list")),
            option("Dir::Etc::SourceParts", &"/dev/null"),
            option("APT::Architecture", &"amd64"),
            // The cache is the user's own, and may be where nobody else reads.
            option("APT::Sandbox::User", &""),
            option("Acquire::Languages", &"none"),
            option("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", &"false"),
        ];
        let mut command = Command::new(program);
        command.args(options.iter().flat_map(|option| ["-o", option])).stdin(Stdio::null());
        command
    }
}

/// The files with which a guest can load the modules that tests want, by their paths below the root.
pub fn modules(files: &Files, release: &str) -> Result<Vec<PathBuf>> {
    let dir = PathBuf::from("lib/modules").join(release);
    let lists = ["modules.dep.bin", "modules.alias.bin", "modules.symbols.bin", "modules.softdep"];
    let lists = lists.into_iter().chain(["modules.builtin.bin", "modules.builtin.alias.bin", "modules.dep"]);
    let dependencies = files.root.join(&dir).join("modules.dep");
    let dependencies = fs::read_to_string(&dependencies)
        .with_context(|| format!("{}: cannot be read", dependencies.display()))?;
    let modules = needed(&dependencies, &MODULES);
    let paths = lists.map(str::to_owned).chain(modules).map(|file| dir.join(file));
    Ok(paths.filter(|path| files.root.join(path).is_file()).collect())
}

/// Devices, hooks and questions of the tests.
const MODULES: [&str; 14] = [
    "veth",
    "bridge",
    "macvlan",
    "vxlan",
    "tun",
    "8021q",
    "dummy",
    "bonding",
    "sch_ingress",
    "cls_bpf",
    "af_packet",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

/// The files of the modules and of all that they need, from the lines `FILE: FILE..` of `modules.dep`.
fn needed(dependencies: &str, modules: &[&str]) -> BTreeSet<String> {
    let name = |file: &str| {
        let file = file.rsplit('/').next().unwrap_or(file);
        file.split(".ko").next().unwrap_or(file).replace('-', "_")
    };
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(file, _)| modules.contains(&name(file).as_str()))
        .flat_map(|(file, needed)| std::iter::once(file).chain(needed.split_whitespace()))
        .map(str::to_owned)
        .collect()
}

/// A plain user's path may leave its directory out.
fn depmod() -> &'static str {
    if Path::new("/usr/sbin/depmod").is_file() { "/usr/sbin/depmod" } else { "depmod" }
}

fn age(file: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).ok()
}

/// Apt's list of sources, from the lines `LABEL URI` that the machine's own apt has.
fn sources(servers: &str) -> Result<String> {
    let server = |label: &str| {
        servers.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' ')).map(str::trim)
    };
    let mut sources = String::new();
    for (label, suites) in SUITES {
        let Some(server) = server(label) else { continue };
        for suite in suites {
            sources += &format!("deb [arch=amd64 signed-by={KEYRING}] {server} {suite} main\n");
        }
    }
    if sources.is_empty() {
        bail!("this machine's apt has no source of Debian's packages, of which the kernels are taken");
    }
    Ok(sources)
}

/// The newest of each series, from the lines `PACKAGE - DESCRIPTION` of a search.
fn newest(search: &str) -> Vec<Kernel> {
    let packages: BTreeSet<&str> = search.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut newest: BTreeMap<Vec<u32>, (Vec<u32>, Kernel)> = BTreeMap::new();
    for package in &packages {
        let Some(release) = package.strip_prefix("linux-image-").filter(|name| name.ends_with(FLAVOUR))
        else {
            continue;
        };
        let version = numbers(release);
        let [major, minor, ..] = version[..] else { continue };
        // The image alone, or its parts beside it.
        let parts = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
        let kernel = Kernel {
            series: format!("{major}.{minor}"),
            release: release.to_owned(),
            packages: parts.into_iter().filter(|part| packages.contains(part.as_str())).collect(),
        };
        let best = newest.entry(vec![major, minor]).or_insert_with(|| (version.clone(), kernel.clone()));
        if best.0 < version {
            *best = (version, kernel);
        }
    }
    newest.into_values().map(|(_, kernel)| kernel).collect()
}

/// The numbers in a release's name, which order releases of one series.
pub fn numbers(release: &str) -> Vec<u32> {
    let version = release.strip_suffix(FLAVOUR).unwrap_or(release);
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_series_the_newest_kernel_is_taken_with_its_parts() {
        let search = "\
linux-image-6.12.94+deb13-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-7.3.4+deb13-cloud-amd64 - Linux 7.3.4 for x86-64 cloud
linux-binary-7.3.4+deb13-cloud-amd64 - Linux 7.3.4 kernel image
linux-modules-7.3.4+deb13-cloud-amd64 - Linux 7.3.4 modules
linux-image-cloud-amd64 - Linux for x86-64 cloud (meta-package)
";
        let newest = newest(search);
        let releases: Vec<_> = newest.iter().map(|kernel| kernel.release.as_str()).collect();
        assert_eq!(
            releases,
            ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "7.3.4+deb13-cloud-amd64"]
        );
        assert_eq!(newest[0].series, "6.1");
        assert_eq!(newest[1].packages, ["linux-image-6.12.117+deb12-cloud-amd64"]);
        assert_eq!(newest[2].packages.len(), 3);
    }

    #[test]
    fn a_module_comes_with_what_it_needs() {
        let dependencies = "kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n\
                            kernel/net/802/stp.ko.xz:\nkernel/net/sched/cls_bpf.ko:\n";
        let needed = needed(dependencies, &["bridge", "cls_bpf"]);
        assert_eq!(needed.len(), 4, "{needed:?}");
    }

    #[test]
    fn kernels_come_from_the_servers_that_the_machine_knows() {
        let sources = sources("Other http://other/\nDebian http://mirror/debian/\n").unwrap_or_default();
        assert!(sources.contains("http://mirror/debian/ trixie-backports main\n"), "{sources}");
        assert!(!sources.contains("security") && !sources.contains("other"), "{sources}");
        assert!(super::sources("Other http://other/\n").is_err());
    }
}
