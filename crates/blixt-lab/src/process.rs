//! A process of a machine that never outlives its owner.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Machine};

/// A running process; killed and waited for when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a command in a machine.
    pub fn start(machine: &Machine, command: &mut Command) -> Result<Self, Error> {
        let on = format!("{:?} in {}", command.get_program(), machine.name());
        let child = machine.spawn(command).map_err(Error::io("start", on))?;
        Ok(Self { child, status: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The BPF programs that it holds open, by id.
    pub fn programs(&self) -> io::Result<BTreeSet<u32>> {
        let mut programs = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.id()))? {
            // A descriptor that was closed meanwhile is none.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let ids = text.lines().filter_map(|line| line.strip_prefix("prog_id:"));
            programs.extend(ids.filter_map(|id| id.trim().parse::<u32>().ok()));
        }
        Ok(programs)
    }

    /// Sends a signal by number, unless the process has ended.
    pub fn signal(&mut self, number: i32) -> io::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let signal = Signal::try_from(number)?;
        // Not reaped yet, so the id is still this process's own.
        let pid = Pid::from_raw(self.child.id().try_into().map_err(io::Error::other)?);
        kill(pid, signal).map_err(io::Error::from)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub fn wait(&mut self, at_most: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + at_most;
        while self.ended()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(self.status)
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() {
            self.child.kill()?;
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell; what cannot be killed has ended.
        let _ = self.kill();
    }
}
