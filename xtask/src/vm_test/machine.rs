//! One machine: a QEMU process that ends with us, and what its serial line says.
//!
//! The CPU is emulated: machines of clouds and of CI seldom let a guest have the real one, and then a kernel boots or hangs by
//! chance. What runs in it takes ten to twenty times as long.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The program that emulates.
pub const QEMU: &str = "qemu-system-x86_64";
/// Memory of a guest, in MiB: the unpacked files, the programs' maps, and room.
const MEMORY: u32 = 3072;
/// As many as the tests ask for: some run programs on two CPUs at once.
const CPUS: u32 = 2;
/// Only what has to be read: a panic ends the machine.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=2 panic=-1 rdinit=/init -- vm-guest";

struct Machine(Child);

/// Boots a kernel and hands every line that the machine says to `take`, until the machine ends. An error if it takes longer than that.
pub fn boot(kernel: &Path, initramfs: &Path, limit: Duration, mut take: impl FnMut(&str)) -> Result<()> {
    // The guest ends with us, however we end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults"]);
    command.args(["-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.args(["-m", &MEMORY.to_string(), "-smp", &CPUS.to_string()]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", KERNEL_ARGUMENTS]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn().with_context(|| format!("{QEMU}: cannot be started"))?;
    let mut machine = Machine(child);
    let stdout = machine.0.stdout.take().context("its output is a pipe, as asked for above")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => take(&line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest takes longer than {} minutes: ended", limit.as_secs() / 60)
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = machine.0.wait().with_context(|| format!("{QEMU}: cannot be waited for"))?;
    if !status.success() {
        bail!("{QEMU}: {status}");
    }
    Ok(())
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
