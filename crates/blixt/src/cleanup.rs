//! `blixt cleanup`: nothing of Blixt stays in this network namespace.

use anyhow::Context;
use blixt_loader::{Instance, host};

use crate::cli::CleanupArgs;
use crate::exit::{Exit, InstanceError};
use crate::node::runtime_dir::RuntimeDir;

/// `blixt cleanup`
pub fn cleanup(args: CleanupArgs) -> anyhow::Result<Exit> {
    let CleanupArgs {} = args;
    let removed = match blixt_loader::cleanup() {
        Err(error @ blixt_loader::Error::Held { .. }) => return Err(InstanceError(error.to_string()).into()),
        removed => removed,
    };
    // All of it, whatever becomes of the rest.
    let released =
        host::release_neighbours().context("cannot release the neighbours that the kernel keeps for blixt");
    let unwired = host::remove_wire().context("cannot remove the wire of this machine's own processes");
    let cleared = RuntimeDir::of(&Instance::current()?).remove();
    removed.map_err(anyhow::Error::from).and(released).and(unwired).and(cleared)?;
    // Other instances may have theirs in it.
    let _ = std::fs::remove_dir(Instance::run_directory());
    println!("blixt is gone from this network namespace");
    Ok(Exit::Success)
}
