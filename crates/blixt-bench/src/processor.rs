//! Processor time: what others take from the processor meanwhile is not in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// Of this thread.
pub fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Of everything in the lab: this process with its clients and servers, and the kernel's thread that takes over what packets
/// leave behind on the first processor.
pub fn time_of_all() -> Result<Duration> {
    let process: Duration = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into();
    Ok(process + kernel_thread()?)
}

fn kernel_thread() -> Result<Duration> {
    // They are among the first processes of all: where there are none, as in a container, nothing takes over unseen.
    for id in 1..64 {
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        if name.trim_end() == "ksoftirqd/0" {
            return time_of(Path::new(&format!("/proc/{id}")));
        }
    }
    Ok(Duration::ZERO)
}

/// Of the task that a directory below `/proc` is about.
pub fn time_of(task: &Path) -> Result<Duration> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    Ok(Duration::from_nanos(on_processor(&text).context("schedstat: no number")?))
}

/// Nanoseconds on a processor, the first number of `schedstat`.
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_processor_comes_first() {
        assert_eq!(on_processor("4386218 1234 56\n"), Some(4_386_218));
        assert_eq!(on_processor(""), None);
    }
}
