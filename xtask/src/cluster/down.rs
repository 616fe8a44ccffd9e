//! Takes a cluster down, whatever state it is in: what is there is looked up, not remembered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::node::{hierarchies, mount_points};
use super::place;
use super::program::{kill_all, kill_until_gone};
use super::topology;
use crate::process::succeed;

/// Ends all processes, then removes all that they lived in.
pub fn down() -> Result<()> {
    kill_all()?;
    for cgroup in cgroups() {
        kill_until_gone(&cgroup.display().to_string(), || processes(&cgroup))?;
    }
    // A containerd that was killed leaves shims which start nothing, but may have started one just then.
    kill_all()?;
    unmount()?;
    for namespace in network_namespaces() {
        succeed(Command::new("ip").args(["netns", "del", &namespace]))?;
    }
    for cgroup in cgroups() {
        remove_cgroup(&cgroup).with_context(|| format!("{}: cannot be removed", cgroup.display()))?;
    }
    for dir in images().into_iter().chain([place::root()]).filter(|dir| dir.exists()) {
        fs::remove_dir_all(&dir).with_context(|| format!("{}: cannot be removed", dir.display()))?;
    }
    // Those of the machine are not empty and stay. While another cluster is up they are needed: what is mounted there in
    // its namespaces would go with them.
    if !entries(Path::new(place::STATES)).any(|name| is_state(&name)) {
        mount_points().for_each(|dir| drop(fs::remove_dir(dir)));
    }
    Ok(())
}

/// Whether any of it is there.
pub fn is_there() -> bool {
    place::root().exists()
        || !images().is_empty()
        || !network_namespaces().is_empty()
        || !cgroups().is_empty()
}

/// Whether a directory is the state of some cluster.
fn is_state(name: &str) -> bool {
    name.starts_with("blixt-") && Path::new(place::STATES).join(name).join("mounts").is_dir()
}

/// The nodes' mount namespaces end with the files that hold them, and with each everything that is mounted in it.
fn unmount() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts: cannot be read")?;
    // Those above others last.
    for at in below(&place::root(), &mounts).iter().rev() {
        succeed(Command::new("umount").args(["--lazy", at]))?;
    }
    Ok(())
}

fn below<'a>(dir: &Path, mounts: &'a str) -> Vec<&'a str> {
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut ours: Vec<_> = places.filter(|at| Path::new(at).starts_with(dir)).collect();
    ours.sort_unstable();
    ours
}

fn network_namespaces() -> Vec<String> {
    let start = topology::namespaces();
    entries(Path::new("/run/netns")).filter(|name| name.starts_with(&start)).collect()
}

/// What containerds of nodes have left.
fn images() -> Vec<PathBuf> {
    let start = topology::namespaces();
    let ours = entries(Path::new(place::IMAGES)).filter(|name| name.starts_with(&start));
    ours.map(|name| Path::new(place::IMAGES).join(name)).collect()
}

fn cgroups() -> Vec<PathBuf> {
    let start = topology::namespaces();
    let ours = |hierarchy: PathBuf| {
        let names: Vec<_> = entries(&hierarchy).filter(|name| name.starts_with(&start)).collect();
        names.into_iter().map(move |name| hierarchy.join(name))
    };
    // The one of version 2 beside version 1 as well: containers are noted there too.
    let unified = PathBuf::from("/sys/fs/cgroup/unified");
    hierarchies().into_iter().chain([unified]).flat_map(ours).collect()
}

/// The processes in a cgroup and all below it.
fn processes(cgroup: &Path) -> Vec<u32> {
    let mut ids = Vec::new();
    for dir in tree(cgroup) {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        ids.extend(text.lines().filter_map(|id| id.parse::<u32>().ok()));
    }
    // One that has ended stays in its cgroup until somebody has waited for it.
    ids.retain(|id| !has_ended(*id));
    ids
}

fn has_ended(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// A cgroup is busy for a moment after its last process.
fn remove_cgroup(cgroup: &Path) -> std::io::Result<()> {
    let mut left = 100;
    loop {
        let removed = tree(cgroup).iter().rev().try_for_each(fs::remove_dir);
        left -= 1;
        if removed.is_ok() || left == 0 {
            return removed;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A directory and all below it, each before those in it.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut at = 0;
    while at < all.len() {
        let below = fs::read_dir(&all[at]).into_iter().flatten().flatten().map(|entry| entry.path());
        let below: Vec<_> = below.filter(|path| path.is_dir()).collect();
        all.extend(below);
        at += 1;
    }
    all
}

fn entries(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_the_cluster_are_undone_and_inner_ones_come_last_in_the_list() {
        let mounts = "nsfs /var/lib/blixt-cluster/mounts/node1 nsfs rw 0 0\n\
                      /dev/vda / ext4 rw 0 0\n\
                      /dev/vda /var/lib/blixt-cluster/mounts ext4 rw 0 0\n\
                      /dev/vda /var/lib/blixt-clusters ext4 rw 0 0\n";
        assert_eq!(
            below(Path::new("/var/lib/blixt-cluster"), mounts),
            ["/var/lib/blixt-cluster/mounts", "/var/lib/blixt-cluster/mounts/node1"]
        );
    }

    #[test]
    fn directories_come_before_those_in_them() {
        let dir = std::env::temp_dir().join(format!("blixt-xtask-tree-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).expect("a temporary directory");
        assert_eq!(tree(&dir), [dir.clone(), dir.join("a"), dir.join("a/b")]);
        fs::remove_dir_all(&dir).expect("it is ours");
    }
}
