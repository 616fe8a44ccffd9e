//! The directory of one instance beside its lock: control socket, memory of objects, given addresses. Root's alone.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use blixt_loader::Instance;

/// Number of the layout of what lies in it: what another version wrote is left out.
const LAYOUT: u32 = 1;

/// The directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// That of an instance, whether it is there or not.
    pub fn of(instance: &Instance) -> Self {
        Self { path: Instance::run_directory().join(instance.name()) }
    }

    /// Makes it, if need be.
    pub fn make(instance: &Instance) -> anyhow::Result<Self> {
        let dir = Self::of(instance);
        match DirBuilder::new().mode(0o700).recursive(true).create(&dir.path) {
            Ok(()) => Ok(dir),
            Err(error) => Err(error)
                .with_context(|| format!("cannot make {}; it must be writable for root", dir.path.display())),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// What is remembered of objects.
    pub fn memory(&self) -> PathBuf {
        self.path.join(format!("objects.{LAYOUT}.jsonl"))
    }

    /// Addresses that Gateways were given.
    pub fn assigned(&self) -> PathBuf {
        self.path.join(format!("assigned.{LAYOUT}.json"))
    }

    /// Lets clients find out at once that nobody answers.
    pub fn remove_socket(&self) {
        if let Err(error) = fs::remove_file(self.socket()) {
            tracing::debug!(%error, "cannot remove the control socket");
        }
    }

    /// Removes it with all that is in it.
    pub fn remove(&self) -> anyhow::Result<()> {
        remove(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }

    /// Removes that of an instance that is gone.
    pub fn remove_other(&self, name: &str) {
        let path = self.path.with_file_name(name);
        if let Err(error) = remove(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what an instance that is gone has left");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
