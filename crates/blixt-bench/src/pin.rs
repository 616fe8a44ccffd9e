//! Everything on one processor: throughput is the inverse of what a packet or a connection costs there.

use std::panic::resume_unwind;
use std::thread;

use anyhow::Result;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Runs a function on one processor, and all threads and processes that it starts with it.
pub fn pinned<T: Send>(function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        let mut processor = CpuSet::new();
        processor.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &processor)?;
        function()
    };
    // A thread of its own, so that the rest of the process is not pinned.
    thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
