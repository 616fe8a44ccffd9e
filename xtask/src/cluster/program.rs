//! The programs of a cluster: how they are started, found and ended.
//!
//! Each carries a variable in its environment, which its own children inherit. So all of them are found whatever became of who
//! started them, and nothing else is ever taken for one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::place;
use crate::process::output;

/// How long a killed process may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// One program of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its name in the cluster: `apiserver`, `kubelet-node1`.
    pub name: String,
    /// The namespaces that it runs in.
    pub place: Place,
    /// The program and its arguments.
    pub words: Vec<String>,
}

/// Namespaces to run something in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The network namespace's name.
    pub network: String,
    /// The file that holds the mount namespace; none: the machine's.
    pub mounts: Option<PathBuf>,
}

impl Place {
    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Not `ip netns exec`: that hides the cgroups below a new /sys.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.network));
        if let Some(mounts) = &self.mounts {
            command.arg(format!("--mount={}", mounts.display()));
        }
        command.arg("--").arg(program);
        command
    }
}

impl Program {
    /// Starts it apart from us, and keeps what is needed to start it again.
    pub fn start(&self) -> Result<()> {
        let kept = json!({ "network": self.place.network, "mounts": self.place.mounts, "words": self.words });
        let file = place::programs().join(&self.name);
        fs::write(&file, kept.to_string())
            .with_context(|| format!("{}: cannot be written", file.display()))?;
        let log = self.log();
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("{}: cannot be written", log.display()))?;
        let place = self.place.command(&self.words[0]);
        let mut command = Command::new("setsid");
        command
            .arg(place.get_program())
            .args(place.get_args())
            .args(&self.words[1..])
            .env(place::mark(), &self.name);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.spawn().with_context(|| format!("{}: cannot be started", self.name))?;
        Ok(())
    }

    /// One that was started before.
    pub fn kept(name: &str) -> Result<Self> {
        let file = place::programs().join(name);
        let Ok(text) = fs::read_to_string(&file) else {
            bail!("{name}: no program of a cluster that is up; there are: {}", names().join(", "));
        };
        let kept: serde_json::Value = serde_json::from_str(&text).context("it was written by us")?;
        let words = kept["words"].as_array().into_iter().flatten();
        Ok(Self {
            name: name.to_owned(),
            place: Place {
                network: kept["network"].as_str().unwrap_or_default().to_owned(),
                mounts: kept["mounts"].as_str().map(PathBuf::from),
            },
            words: words.filter_map(|word| word.as_str()).map(str::to_owned).collect(),
        })
    }

    /// Where it writes to.
    pub fn log(&self) -> PathBuf {
        log(&self.name)
    }
}

/// The names of all programs that were started.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(place::programs()).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Where a program writes to.
pub fn log(name: &str) -> PathBuf {
    place::logs().join(format!("{name}.log"))
}

/// Whether a program of that name runs.
pub fn is_running(name: &str) -> bool {
    itself(name).is_ok_and(|ids| !ids.is_empty())
}

/// Kills a program, and none of what it started, and waits until it is gone.
pub fn kill(name: &str) -> Result<()> {
    if itself(name)?.is_empty() {
        bail!("{name}: does not run");
    }
    kill_until_gone(name, || itself(name).unwrap_or_default())
}

/// The processes that are the program, or are about to become it.
fn itself(name: &str) -> Result<Vec<u32>> {
    let words = Program::kept(name)?.words;
    let mut ids = running(|marked| marked == name);
    ids.retain(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.strip_suffix(b"\0").is_some_and(|line| line.ends_with(words.join("\0").as_bytes()))
    });
    Ok(ids)
}

/// Kills every process of every cluster program, and waits until they are gone.
pub fn kill_all() -> Result<()> {
    kill_until_gone("programs of the cluster", || running(|_| true))
}

/// Kills what `find` finds until it finds nothing.
pub fn kill_until_gone(what: &str, find: impl Fn() -> Vec<u32>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ids = find();
        if ids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{what}: processes {ids:?} do not end: is a disk or the kernel stuck? see /proc/PID/stack");
        }
        output(Command::new("kill").arg("-KILL").args(ids.iter().map(ToString::to_string)));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose mark is of that kind. One that has ended and that nobody has waited for yet has no environment any more.
fn running(wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let (own, mark) = (std::process::id(), place::mark());
    ids.filter(|id| *id != own)
        .filter(|id| {
            let environment = fs::read(Path::new("/proc").join(id.to_string()).join("environ"));
            environment.is_ok_and(|bytes| value(&bytes, &mark).is_some_and(|name| wanted(&name)))
        })
        .collect()
}

/// Of a variable of an environment.
fn value(environment: &[u8], name: &str) -> Option<String> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| {
        String::from_utf8_lossy(variable).strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_carries_the_mark_is_of_the_cluster() {
        let mark = |environment: &[u8]| value(environment, "BLIXT_CLUSTER_PROGRAM");
        assert_eq!(mark(b"A=1\0BLIXT_CLUSTER_PROGRAM=etcd\0B=2\0").as_deref(), Some("etcd"));
        assert_eq!(mark(b"A=BLIXT_CLUSTER_PROGRAM=etcd\0"), None);
        assert_eq!(mark(b"BLIXT_CLUSTER_PROGRAM_OTHER=etcd\0"), None);
        assert_eq!(mark(b""), None);
    }

    #[test]
    fn a_command_in_a_node_enters_its_network_and_its_mounts() {
        let place = Place { network: "n".to_owned(), mounts: Some("/m".into()) };
        let command = crate::process::describe(place.command("ctr").arg("version"));
        assert_eq!(command, "nsenter --net=/run/netns/n --mount=/m -- ctr version");
    }
}
