//! What a cluster is called, and where its files lie.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::topology::Node;

/// The variable that names a cluster, for more than one on a machine.
const NAME: &str = "BLIXT_CLUSTER";
/// Where the state of all clusters lies, each beginning with its name.
pub const STATES: &str = "/var/lib";
/// Locked by who brings it up or takes it down: a directory that is always there, so that no file is left behind.
pub const LOCK: &str = "/run";

/// What the cluster is called, and all of its namespaces, cgroups and files begin with.
pub fn cluster() -> String {
    format!("blixt-{}", name().unwrap_or_else(|| "cluster".to_owned()))
}

/// Refuses a name that another cluster's could begin with.
pub fn check_name() -> Result<()> {
    match name() {
        Some(name) if name == "cluster" || !name.chars().all(|char| char.is_ascii_lowercase()) => {
            bail!("{NAME}={name}: take another word of lower-case letters")
        }
        _ => Ok(()),
    }
}

fn name() -> Option<String> {
    std::env::var(NAME).ok().filter(|name| !name.is_empty())
}

/// The variable that marks the cluster's programs.
pub fn mark() -> String {
    name().map_or_else(|| MARK.to_owned(), |name| format!("{MARK}_{}", name.to_uppercase()))
}

const MARK: &str = "BLIXT_CLUSTER_PROGRAM";

/// Everything that a cluster writes, but for what nodes write into directories of their own.
pub fn root() -> PathBuf {
    Path::new(STATES).join(cluster())
}

/// Of one file or directory of the state.
pub fn state(name: &str) -> PathBuf {
    root().join(name)
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

/// Where containerd of this machine has its data: on a file system that images can be laid over.
pub const IMAGES: &str = "/var/lib/containerd";

/// What a node's containerd keeps there.
pub fn images_of(node: Node) -> PathBuf {
    Path::new(IMAGES).join(node.namespace())
}
