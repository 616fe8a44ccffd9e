//! A lab with a `blixt run` on its balancer.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use blixt_lab::{Lab, Layout, Process};
use blixt_loader::Instance;
use blixt_packet::abi::ABI_VERSION;
use tempfile::TempDir;

use crate::packet::run::Hook;
use crate::processor::time_of;

/// Longest wait for anything that normally takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where `blixt run` says that it is ready; each lab has a loopback of its own.
const METRICS: &str = "127.0.0.1:9641";
/// SIGINT: the end that leaves no trace.
const INTERRUPT: i32 = 2;
/// SIGHUP: read every file again.
const HANGUP: i32 = 1;

/// A lab, manifests, and a `blixt run` that may be running. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Stage {
    /// The machines.
    pub lab: Lab,
    hook: Hook,
    blixt: PathBuf,
    flows: Option<u32>,
    directory: TempDir,
    process: Option<Process>,
}

impl Stage {
    /// The machines, and no manifests yet.
    pub fn new(blixt: &Path, backends: u8) -> Result<Self> {
        Self::with(blixt, Layout { backends, ..Layout::default() }, Hook::Tc)
    }

    /// The same with frames as on a wire, which XDP needs. Other hooks do without the XDP programs at the other ends, which
    /// would cost each packet something.
    pub fn on_wire(blixt: &Path, backends: u8, hook: Hook) -> Result<Self> {
        let mut stage = Self::with(blixt, Layout { backends, wire_like: true, ..Layout::default() }, hook)?;
        if hook != Hook::Xdp {
            stage.lab.take_xdp_off();
        }
        Ok(stage)
    }

    fn with(blixt: &Path, layout: Layout, hook: Hook) -> Result<Self> {
        let lab = Lab::new(layout)?;
        let directory = TempDir::new().context("cannot make a directory for manifests")?;
        fs::create_dir(directory.path().join("manifests"))?;
        Ok(Self { lab, hook, blixt: blixt.to_owned(), flows: None, directory, process: None })
    }

    /// The same with tables that have room for so many connections, whatever the machine's memory.
    pub fn with_room(mut self, flows: u32) -> Self {
        self.flows = Some(flows);
        self
    }

    /// Writes a file of manifests whole, and moves it into place; answers when it began to move.
    pub fn write(&self, name: &str, content: &str) -> Result<Instant> {
        let beside = self.directory.path().join("beside");
        fs::write(&beside, content)?;
        let at = Instant::now();
        fs::rename(&beside, self.manifests().join(name))?;
        Ok(at)
    }

    /// Starts `blixt run`; answers when.
    pub fn start(&mut self) -> Result<Instant> {
        let log = fs::File::create(self.log_path())?;
        let mut command = Command::new(&self.blixt);
        let hook = self.hook.suffix();
        command.args(["run", "--hook", hook, "--listen", METRICS, "-f"]).arg(self.manifests());
        if let Some(flows) = self.flows {
            command.args(["--flows", &flows.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let at = Instant::now();
        self.process = Some(Process::start(&self.lab.balancer, &mut command)?);
        Ok(at)
    }

    /// Starts `blixt run` and waits until it says that it is ready.
    pub fn start_and_wait(&mut self) -> Result<()> {
        self.start()?;
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            self.assert_running()?;
            if Instant::now() > deadline {
                bail!("blixt run is not ready after {PATIENCE:?}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Kills `blixt run`, which leaves forwarding in place.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("blixt run was not started")?;
        Ok(process.kill()?)
    }

    /// Lets `blixt run` read every file again.
    pub fn reread(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("blixt run was not started")?;
        Ok(process.signal(HANGUP)?)
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.ask("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("/metrics: no {name}"))?.parse()?)
    }

    /// How many files, sockets and maps `blixt run` has open.
    pub fn descriptors(&self) -> Result<usize> {
        let process = self.process.as_ref().context("blixt run was not started")?;
        Ok(fs::read_dir(format!("/proc/{}/fd", process.id()))?.count())
    }

    /// Ends `blixt run`, which takes every trace of it away.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(INTERRUPT)?;
        if process.wait(PATIENCE)?.is_none_or(|status| !status.success()) {
            bail!("blixt run did not end well:\n{}", self.log());
        }
        Ok(())
    }

    /// An error, with what it logged, if `blixt run` has ended by itself.
    pub fn assert_running(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("blixt run was not started")?;
        if let Some(status) = process.ended()? {
            bail!("blixt run ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    /// A field of `/proc/PID/status` of `blixt run` that is a size, in MiB.
    pub fn memory(&self, field: &str) -> Result<f64> {
        let process = self.process.as_ref().context("blixt run was not started")?;
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().strip_suffix(" kB"))
            .with_context(|| format!("/proc/PID/status: no {field}"))?
            .parse()?;
        Ok(kib / 1024.0)
    }

    /// The processor time that `blixt run` has used, in seconds.
    pub fn processor_time(&self) -> Result<f64> {
        let process = self.process.as_ref().context("blixt run was not started")?;
        let tasks = fs::read_dir(format!("/proc/{}/task", process.id()))?;
        let times: Duration = tasks.map(|task| time_of(&task?.path())).sum::<Result<Duration>>()?;
        Ok(times.as_secs_f64())
    }

    /// Where the running instance's maps are pinned.
    pub fn pins(&self) -> Result<PathBuf> {
        self.lab.balancer.run(pins)
    }

    /// What `blixt run` has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        self.ask("/readyz")
            .is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
    }

    fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut stream = self.lab.balancer.run(|| TcpStream::connect(METRICS))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

/// Where the maps of this namespace's instance are pinned.
pub fn pins() -> Result<PathBuf> {
    Ok(Instance::current()?.directory()?.join(format!("v{ABI_VERSION}")))
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.process.take();
        let mut command = Command::new(&self.blixt);
        command.arg("cleanup").stdin(Stdio::null()).stdout(Stdio::null());
        // Its own words, on standard error, are all that can be done about a failure.
        let _ = self.lab.balancer.run(|| command.status());
    }
}
