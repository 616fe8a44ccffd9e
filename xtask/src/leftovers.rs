//! What tests could leave behind on the machine: kernel programs, pins, namespaces, devices, processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{as_root, output};
use crate::workspace;

/// Things that are there, each named for people.
pub type Traces = BTreeSet<String>;

/// How long the kernel may take to let go of what was removed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is on the machine now.
pub fn traces() -> Traces {
    let mut traces = Traces::new();
    traces.extend(entries("/sys/fs/bpf/blixt").map(|name| format!("pins /sys/fs/bpf/blixt/{name}")));
    traces.extend(entries("/run/blixt").map(|name| format!("file /run/blixt/{name}")));
    traces.extend(entries("/run/netns").map(|name| format!("network namespace {name}")));
    traces.extend(entries("/sys/class/net").map(|name| format!("device {name}")));
    traces.extend(kernel_programs());
    traces.extend(processes(&workspace::target_dir()));
    traces
}

/// What came since `before` and stays.
pub fn left_behind(before: &Traces) -> Traces {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Traces = traces().difference(before).cloned().collect();
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn entries(dir: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Ours, except those that a living process holds: another checkout's tests may run beside us.
fn kernel_programs() -> Vec<String> {
    let listed = output(as_root("bpftool").args(["--json", "prog", "show"])).unwrap_or_default();
    let programs: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap_or_default();
    let held = held_programs();
    let ours = programs.iter().filter_map(|program| {
        let name = program["name"].as_str().filter(|name| name.starts_with("blixt"))?;
        Some((program["id"].as_u64()?, name))
    });
    ours.filter(|(id, _)| !held.contains(id))
        .map(|(id, name)| format!("kernel program {id} {name}"))
        .collect()
}

/// Ids of the programs that processes have open.
fn held_programs() -> BTreeSet<u64> {
    let infos = process_ids().flat_map(|id| {
        let dir = format!("/proc/{id}/fdinfo");
        entries(&dir)
            .map(|fd| fs::read_to_string(format!("{dir}/{fd}")).unwrap_or_default())
            .collect::<Vec<_>>()
    });
    infos
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect()
}

/// Processes that run a program of ours, other than ourselves.
fn processes(target_dir: &Path) -> Vec<String> {
    let running = process_ids().filter(|id| *id != std::process::id()).filter_map(|id| {
        let program = fs::read_link(format!("/proc/{id}/exe")).ok()?;
        program.starts_with(target_dir).then(|| format!("process {id} {}", program.display()))
    });
    running.collect()
}

fn process_ids() -> impl Iterator<Item = u32> {
    entries("/proc").filter_map(|name| name.parse().ok())
}
