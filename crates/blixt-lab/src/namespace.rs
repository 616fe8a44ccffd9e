//! A network namespace without a name: it lives as long as its descriptor, or as something runs in it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

/// A network namespace. Only the network is separate: files, `/sys/fs/bpf` included, stay the machine's.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes an empty one.
    pub fn new() -> Result<Self, Error> {
        // A thread of its own, since unshare moves the caller.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
                nix::Error::EPERM => Error::NotPermitted,
                errno => Error::io("make a", "network namespace")(errno),
            })?;
            File::open("/proc/thread-self/ns/net").map_err(Error::io("open", "/proc/thread-self/ns/net"))
        });
        let file = made.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(Self { file })
    }

    /// Runs a function in the namespace and hands back what it returns. Sockets made in it stay in the namespace
    /// and can be used from anywhere; processes started in it run there.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                function()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The number that the kernel knows it by, as in `/proc/self/ns/net`.
    pub fn inode(&self) -> u64 {
        self.file.metadata().expect("an open descriptor has metadata").ino()
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) {
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("a namespace that this process made lets it in");
    }

    /// A path under which other programs find the namespace while this process holds it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Gives the namespace a name for `ip netns`; it then outlives this process.
    pub(crate) fn publish(&self, name: &str) -> Result<PathBuf, Error> {
        let directory = Path::new("/run/netns");
        let path = directory.join(name);
        let on = || path.display().to_string();
        fs::create_dir_all(directory).map_err(Error::io("create", directory.display().to_string()))?;
        File::create(&path).map_err(Error::io("create", on()))?;
        mount(Some(&self.path()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(Error::io("mount the namespace at", on()))?;
        Ok(path)
    }
}

/// Takes a name of [`Namespace::publish`] away again.
pub(crate) fn unpublish(path: &Path) -> Result<(), Error> {
    umount2(path, MntFlags::MNT_DETACH).map_err(Error::io("unmount", path.display().to_string()))?;
    fs::remove_file(path).map_err(Error::io("remove", path.display().to_string()))
}
