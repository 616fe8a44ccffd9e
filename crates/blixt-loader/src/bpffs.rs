//! Where pins can live: a bpf file system that outlives this process.
//!
//! That is `/sys/fs/bpf`, if it is one. `ip netns exec` puts a fresh `/sys` in its place, and what is mounted there then
//! ends with the command; so the same file system is looked for by other ways: at `/run/blixt/bpf`, which such a command
//! sees, and through the first process of the machine. If there is none at all, one is mounted, in the mount namespace of
//! the first process where that is another one and may be entered.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::Error;

/// Where it is by convention.
const USUAL: &str = "/sys/fs/bpf";
/// Where a mount survives that `ip netns exec` would hide.
const OWN: &str = "/run/blixt/bpf";
/// The usual place as the first process sees it.
const FIRST: &str = "/proc/1/root/sys/fs/bpf";

/// Every bpf file system that can be seen from here; the first is where new pins go.
pub(crate) fn mounted() -> Vec<PathBuf> {
    [USUAL, OWN, FIRST].into_iter().map(PathBuf::from).filter(|path| is_bpffs(path)).collect()
}

/// Mounts one, and says where.
pub(crate) fn mount_one() -> Result<PathBuf, Error> {
    if let (Some(own), Some(first)) = (mount_namespace("self"), mount_namespace("1"))
        && own != first
        && mount_in_first().is_ok()
        && is_bpffs(Path::new(FIRST))
    {
        return Ok(FIRST.into());
    }
    let usual = Path::new(USUAL);
    if usual.is_dir() && mount_at(usual).is_ok() {
        return Ok(usual.into());
    }
    let own = Path::new(OWN);
    let mounted = fs::create_dir_all(own).and_then(|()| mount_at(own));
    if mounted.is_err() {
        // Nothing was there, and nothing stays; why it failed is what matters.
        let _: io::Result<()> = fs::remove_dir(own);
    }
    mounted.map_err(|source| Error::Bpffs { path: USUAL.into(), source })?;
    Ok(own.into())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|statfs| statfs.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_at(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=700"))?)
}

fn mount_namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt")).ok()
}

/// Mounts in the mount namespace of the first process, by a thread that enters it and ends there.
fn mount_in_first() -> io::Result<()> {
    let mounts = thread::spawn(|| {
        let namespace = File::open("/proc/1/ns/mnt")?;
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        mount_at(Path::new(USUAL))
    });
    mounts.join().unwrap_or_else(|_| Err(io::Error::other("the thread that was to mount it panicked")))
}
