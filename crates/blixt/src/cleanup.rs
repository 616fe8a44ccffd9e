//! `blixt cleanup`: nothing of Blixt stays in this network namespace.

use anyhow::Context;
use blixt_loader::{Instance, host};

use crate::cli::CleanupArgs;
use crate::exit::{Exit, InstanceError};
use crate::run::runtime_dir::RuntimeDir;

/// `blixt cleanup`
pub fn cleanup(args: CleanupArgs) -> anyhow::Result<Exit> {
    let CleanupArgs {} = args;
    blixt_loader::cleanup().map_err(|error| match error {
        blixt_loader::Error::Held { .. } => anyhow::Error::from(InstanceError(error.to_string())),
        error => error.into(),
    })?;
    host::release_neighbours().context("cannot release the neighbours that the kernel keeps for blixt")?;
    RuntimeDir::of(&Instance::current()?).remove()?;
    // Other instances may have theirs in it.
    let _ = std::fs::remove_dir(Instance::run_directory());
    println!("blixt is gone from this network namespace");
    Ok(Exit::Success)
}
