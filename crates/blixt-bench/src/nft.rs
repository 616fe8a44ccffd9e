//! A table of nftables on a machine.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use blixt_lab::Machine;

/// The table `ip bench`, in force as long as this lives.
#[derive(Debug)]
pub struct Table {
    machine: Machine,
}

impl Table {
    /// Of a machine that has none: its first rules make it.
    pub fn on(machine: &Machine) -> Self {
        Self { machine: machine.clone() }
    }

    /// Takes rules in, all at once; answers with the time that `nft -f` took.
    pub fn take_in(&self, rules: &str) -> Result<Duration> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(rules.as_bytes())?;
        let begun = Instant::now();
        self.machine.output(Command::new("nft").arg("-f").arg(file.path()))?;
        Ok(begun.elapsed())
    }

    /// What it says, counters included.
    pub fn list(&self) -> Result<String> {
        Ok(self.machine.output(Command::new("nft").args(["list", "table", "ip", "bench"]))?)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // With its namespace it goes in any case, but for a large one nobody would wait.
        let _ = self.machine.output(Command::new("nft").args(["delete", "table", "ip", "bench"]));
    }
}
