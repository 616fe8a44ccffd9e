//! What runs in the guest: its first process, which runs the steps of the plan one after the other and says on the console how
//! each ended.
//!
//! It is this very program, so that both sides agree on what is said.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use serde_json::{Value, json};

use crate::leftovers::{left_behind, traces};

/// Where the guest finds its [`Plan`].
pub const PLAN: &str = "/plan.json";
/// What the guest says last.
pub const END: &str = "==> the guest is done";
/// What it says before the title of each step that ended, its exit status and its seconds.
pub const STEP: &str = "==> ended:";
/// What it says before each thing that is left behind.
pub const LEFT: &str = "==> left behind:";

/// What a guest is to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Variables of every step.
    pub variables: Vec<(String, String)>,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// One test program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What it is about, for people.
    pub title: String,
    /// The program, and what it is given.
    pub words: Vec<String>,
}

/// Everything that the first process of the guest does. The guest ends with it.
pub fn run() -> Result<()> {
    let done = work();
    if let Err(error) = &done {
        println!("the guest: {error:#}");
    } else {
        println!("{END}");
    }
    std::io::stdout().flush()?;
    reboot(RebootMode::RB_POWER_OFF).context("the guest cannot be powered off")?;
    done
}

fn work() -> Result<()> {
    for (kind, at) in FILE_SYSTEMS {
        fs::create_dir_all(at).with_context(|| format!("{at}: cannot be made"))?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("{at}: cannot be mounted"))?;
    }
    let plan = fs::read_to_string(PLAN).with_context(|| format!("{PLAN}: cannot be read"))?;
    let plan = Plan::read(&plan).with_context(|| format!("{PLAN}: is no plan"))?;
    let before = traces();
    for Step { title, words } in &plan.steps {
        let (program, arguments) = words.split_first().with_context(|| format!("{title}: has no program"))?;
        // As cargo says it: what reads the outcomes of tests takes it for cargo's.
        println!("     Running {title} ({program})");
        let start = Instant::now();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).env("PATH", PATH).env("HOME", "/root");
        command.envs(plan.variables.iter().map(|(name, value)| (name, value)));
        let status = command.status().with_context(|| format!("{program}: cannot be started"))?;
        println!("{STEP} {title}: {status}, {} s", start.elapsed().as_secs());
    }
    for thing in left_behind(&before) {
        println!("{LEFT} {thing}");
    }
    Ok(())
}

/// What is mounted, in this order. All else is in memory as it is.
const FILE_SYSTEMS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tmpfs", "/run"),
];

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

impl Plan {
    /// As text for [`PLAN`].
    pub fn write(&self) -> String {
        let steps = self.steps.iter().map(|step| json!({ "title": step.title, "words": step.words }));
        json!({ "variables": self.variables, "steps": steps.collect::<Vec<_>>() }).to_string()
    }

    fn read(text: &str) -> Option<Self> {
        let plan: Value = serde_json::from_str(text).ok()?;
        let step = |step: &Value| {
            let title = step["title"].as_str()?.to_owned();
            Some(Step { title, words: serde_json::from_value(step["words"].clone()).ok()? })
        };
        Some(Self {
            variables: serde_json::from_value(plan["variables"].clone()).ok()?,
            steps: plan["steps"].as_array()?.iter().map(step).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_reads_the_plan_that_was_written() {
        let plan = Plan {
            variables: vec![("NAME".to_owned(), "a value".to_owned())],
            steps: vec![Step {
                title: "tests".to_owned(),
                words: vec!["/bin/x".to_owned(), "--y z".to_owned()],
            }],
        };
        assert_eq!(Plan::read(&plan.write()), Some(plan));
        assert_eq!(Plan::read("{}"), None);
    }
}
