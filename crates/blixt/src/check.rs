//! `blixt check`: what is wrong with manifests, found without touching the machine.

pub mod findings;
mod places;

use std::io::{self, Write};
use std::path::PathBuf;

use blixt_core::snapshot::Machine;
use jiff::Timestamp;

use self::findings::findings;
use crate::cli::{CheckArgs, CheckOutput};
use crate::exit::Exit;
use crate::source::{self, Loaded};

/// `blixt check`
pub fn check(args: CheckArgs) -> anyhow::Result<Exit> {
    let CheckArgs { files, output } = args;
    let mut loaded = load(&files);
    loaded.store.snapshot_mut().machine = somewhere();
    let findings = findings(&loaded);
    let text = match output {
        CheckOutput::Text => findings.to_string(),
        CheckOutput::Json => serde_json::to_string_pretty(&findings)? + "\n",
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if findings.errors == 0 { Exit::Success } else { Exit::Findings })
}

/// Reads manifests once.
pub fn load(files: &[PathBuf]) -> Loaded {
    source::load(files, Timestamp::now())
}

/// A machine with an address of each family that nobody uses: those of the range for benchmarks, and of a
/// unique local prefix. Manifests that leave the address to the machine are valid somewhere.
pub fn somewhere() -> Machine {
    let addresses = ["198.19.255.254", "fdff:ffff:ffff::1"].map(|text| text.parse());
    let addresses: Vec<_> = addresses.into_iter().flatten().collect();
    Machine { default_addresses: addresses.clone(), addresses: addresses.into_iter().collect() }
}
