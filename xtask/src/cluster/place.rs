//! Where a running cluster's files lie. There is one cluster on a machine.

use std::path::{Path, PathBuf};

use super::topology::Node;

/// Everything that a cluster writes, but for what nodes write into directories of their own.
pub const STATE: &str = "/var/lib/blixt-cluster";
/// Locked by who brings it up or takes it down: a directory that is always there, so that no file is left behind.
pub const LOCK: &str = "/run";

/// Of one file or directory of the state.
pub fn state(name: &str) -> PathBuf {
    Path::new(STATE).join(name)
}

/// What programs print.
pub fn logs() -> PathBuf {
    state("log")
}

/// How each program was started.
pub fn programs() -> PathBuf {
    state("programs")
}

/// The API server's certificate and key, which it makes itself.
pub fn certificates() -> PathBuf {
    state("pki")
}

/// A user's way to the API server.
pub fn kubeconfig(user: &str) -> PathBuf {
    state("users").join(user)
}

/// Files that hold the nodes' mount namespaces.
pub fn mounts() -> PathBuf {
    state("mounts")
}

/// That of one node.
pub fn mounts_of(node: Node) -> PathBuf {
    mounts().join(node.name())
}

/// What a node keeps on disk.
pub fn node(node: Node) -> PathBuf {
    state(&node.name())
}
