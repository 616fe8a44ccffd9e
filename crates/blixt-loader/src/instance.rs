//! One Blixt: that of one network namespace. Its pins, and the lock that makes it the only one.
//!
//! ```text
//! /sys/fs/bpf/blixt/4026531833-1/          the instance: inode and cookie of the network namespace
//!     v2/FLOWS_V4, v1/RINGS, ...           maps of map layout 1
//!     v2/link-2-ingress, v1/link-3-xdp     links, by index of the device
//!     v2/group-2-01aa07                    empty: a multicast group that the device has joined
//! /run/blixt/4026531833-1.lock             held by the process that manages it
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use blixt_packet::abi::ABI_VERSION;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::Error;
use crate::bpffs;
use crate::machine;

/// The directory of all instances in a bpf file system.
const PINS: &str = "blixt";
/// Where locks lie.
const RUN: &str = "/run/blixt";
/// This thread's network namespace.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The Blixt of one network namespace, whether it runs or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    name: String,
}

/// While it is held, no other process manages the instance.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

impl Instance {
    /// That of the calling thread's network namespace. The inode's number alone would be given again to a later
    /// namespace, which then would take a dead one's connections for its own.
    pub fn current() -> Result<Self, Error> {
        let inode = fs::metadata(NAMESPACE).map_err(Error::file("look at", NAMESPACE))?.ino();
        let cookie = machine::network_namespace().map_err(Error::file("read the cookie of", NAMESPACE))?;
        Ok(Self { name: format!("{inode}-{cookie}") })
    }

    /// Its name: a directory of pins, and a lock, are called so.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of runtime files of all instances, for a control socket beside the lock.
    pub fn run_directory() -> &'static Path {
        Path::new(RUN)
    }

    /// The directories of its pins, of all layouts and in every bpf file system, whether any is there or not.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        bpffs::mounted().iter().map(|bpffs| bpffs.join(PINS).join(&self.name)).collect()
    }

    /// The directory that holds its pins, or will: where there are some already, else in the first bpf file system,
    /// which is mounted if need be.
    pub fn directory(&self) -> Result<PathBuf, Error> {
        let mut directories = self.directories();
        if let Some(found) = directories.iter().position(|directory| directory.is_dir()) {
            return Ok(directories.swap_remove(found));
        }
        match directories.into_iter().next() {
            Some(directory) => Ok(directory),
            None => Ok(bpffs::mount_one()?.join(PINS).join(&self.name)),
        }
    }

    /// Every instance that has pins.
    pub(crate) fn all() -> Vec<Self> {
        let names = |bpffs: PathBuf| {
            let entries = fs::read_dir(bpffs.join(PINS)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok())
        };
        let mut names: Vec<String> = bpffs::mounted().into_iter().flat_map(names).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| Self { name }).collect()
    }

    /// A thread, a descriptor or a mount shows a network namespace of this inode; one that came later may have been
    /// given the number.
    pub(crate) fn is_namespace_seen(&self) -> bool {
        let Some(inode) = self.name.split('-').next().and_then(|inode| inode.parse::<u64>().ok()) else {
            return true;
        };
        // What cannot be looked through may show it.
        let (Ok(processes), Ok(mounts)) = (fs::read_dir("/proc"), fs::read_to_string("/proc/self/mountinfo"))
        else {
            return true;
        };
        let name = format!("net:[{inode}]");
        let is_it = |path: &Path| fs::read_link(path).is_ok_and(|target| target == Path::new(&name));
        let below = |process: &Path, of: &str| -> Vec<PathBuf> {
            let entries = fs::read_dir(process.join(of)).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let shows_it = |process: PathBuf| {
            below(&process, "task").iter().any(|thread| is_it(&thread.join("ns/net")))
                || below(&process, "fd").iter().any(|descriptor| is_it(descriptor))
        };
        mounts.split([' ', '\n']).any(|word| word == name)
            || processes.flatten().map(|process| process.path()).any(shows_it)
    }

    /// There is a directory of its pins.
    pub(crate) fn has_pins(&self) -> bool {
        self.directories().iter().any(|directory| directory.is_dir())
    }

    /// Takes the lock, or says who holds it.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let path = Path::new(RUN).join(format!("{}.lock", self.name));
        loop {
            let file = open_lock(&path).map_err(Error::file("open", &path))?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(Error::Held { pid: read_pid(&mut file), path });
                }
                Err((_, errno)) => return Err(Error::file("lock", &path)(errno.into())),
            };
            // Whoever held it before may have removed the file between our open and our lock.
            if !is_same(&file, &path) {
                continue;
            }
            write_pid(&mut file).map_err(Error::file("write", &path))?;
            return Ok(Lock { file, path });
        }
    }
}

/// Opens the file of a lock in a directory that the last instance to leave takes away, perhaps right now.
fn open_lock(path: &Path) -> io::Result<File> {
    loop {
        if let Some(directory) = path.parent() {
            match fs::create_dir_all(directory) {
                // It went while it was made.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // It was there when it was made; what is there, if anything, opening the file tells.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Lock {
    /// Gives it back and leaves no file.
    pub(crate) fn remove(self) -> Result<(), Error> {
        let Self { file, path } = self;
        let removed = fs::remove_file(&path).map_err(Error::file("remove", &path));
        drop(file);
        // The control socket or another instance's lock may still lie there.
        let _: io::Result<()> = fs::remove_dir(RUN);
        removed
    }
}

/// The name of the directory of this version's pins.
pub(crate) fn layout() -> String {
    format!("v{ABI_VERSION}")
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => (file.dev(), file.ino()) == (path.dev(), path.ino()),
        _ => false,
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_is_opened_while_others_take_the_directory_away() {
        let directory = std::env::temp_dir().join(format!("blixt-lock-{}", std::process::id()));
        let (path, is_over) = (directory.join("one.lock"), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _: io::Result<()> = fs::remove_dir(&directory);
                }
            });
            let failed = (0..5_000).find_map(|_| open_lock(&path).and_then(|_| fs::remove_file(&path)).err());
            is_over.store(true, Ordering::Relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
        let _: io::Result<()> = fs::remove_dir(&directory);
    }
}
