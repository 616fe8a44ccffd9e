//! What the demo plays on: the lab, a server on each backend, a directory of manifests, and `blixt run`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use blixt_lab::{Family, Lab, Layout, Process, Server, address};
use clap::ValueEnum;
use tempfile::TempDir;

use super::interrupt::Interrupt;
use super::manifests::{self, Backend, PORT, TARGET, gateway_address};
use crate::cli::HookArg;
use crate::exit::words;

/// Everything that must be gone in the end; dropping it sees to that.
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) backends: Vec<Backend>,
    pub(super) interrupt: Interrupt,
    hook: HookArg,
    directory: TempDir,
    process: Option<Process>,
    _servers: Vec<Server>,
}

/// How long anything may take before the demo gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Weights of the three backends at first.
const WEIGHTS: [u64; 3] = [5, 3, 2];
/// Flows that the demo's tables hold: plenty for it, and small.
const FLOWS: &str = "65536";
/// Where `blixt run` serves `/readyz`, on the balancer's own loopback.
const LISTEN: &str = "127.0.0.1:9641";

impl Stage {
    /// Builds the machines and the manifests; Blixt does not run yet.
    pub(super) fn new(hook: HookArg, interrupt: Interrupt) -> anyhow::Result<Self> {
        let lab = Lab::new(Layout { wire_like: hook == HookArg::Xdp, ..Layout::default() })?;
        let mut servers = Vec::new();
        let mut backends = Vec::new();
        for ((machine, network), weight) in lab.backends.iter().zip(1..).zip(WEIGHTS) {
            let backend = Backend { network, weight, listed: true };
            let sockets =
                Family::ALL.map(|family| SocketAddr::new(address(family, network, Lab::OTHER), TARGET));
            servers.push(Server::start(machine, backend.name(), &sockets)?);
            backends.push(backend);
        }
        let directory =
            TempDir::with_prefix("blixt-demo-").context("cannot make a directory for manifests")?;
        fs::create_dir(directory.path().join("manifests"))?;
        let stage = Self { lab, backends, interrupt, hook, directory, process: None, _servers: servers };
        stage.write("gateway.yaml", &manifests::gateway())?;
        stage.write_routes()?;
        for backend in &stage.backends {
            stage.write_service(backend)?;
        }
        Ok(stage)
    }

    /// Starts `blixt run` and waits until it says that it is ready.
    pub(super) fn start(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let log_path = self.directory.path().join("log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let hook = self.hook.to_possible_value();
        let hook = hook.as_ref().map_or("auto", |value| value.get_name());
        let mut command = self.blixt()?;
        command.args(["run", "--hook", hook, "--listen", LISTEN, "--flows", FLOWS, "-f"]);
        command.arg(self.manifests()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C is for the demo, which then ends its balancer in order.
        command.process_group(0);
        let process = self.process.insert(Process::start(&self.lab.balancer, &mut command)?);
        while !ready(&self.lab) {
            self.interrupt.check()?;
            let words = || fs::read_to_string(&log_path).unwrap_or_default();
            if let Some(status) = process.ended()? {
                bail!("`blixt run` ended with {status}:\n{}", words());
            }
            ensure!(begin.elapsed() < PATIENCE, "`blixt run` is not ready after {PATIENCE:?}:\n{}", words());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(begin.elapsed())
    }

    /// The running process.
    pub(super) fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("`blixt run` has not been started")
    }

    /// A command of `blixt` on the balancer, to its end.
    pub(super) fn command(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.blixt()?;
        command.args(arguments).stdin(Stdio::null());
        self.lab.balancer.run(|| command.output()).with_context(|| format!("cannot run {command:?}"))
    }

    /// Writes the routes with the weights of now.
    pub(super) fn write_routes(&self) -> anyhow::Result<()> {
        self.write("routes.yaml", &manifests::routes(&self.backends))
    }

    /// Writes a backend's Service and EndpointSlices.
    pub(super) fn write_service(&self, backend: &Backend) -> anyhow::Result<()> {
        self.write(&format!("{}.yaml", backend.name()), &manifests::service(backend))
    }

    /// What clients dial.
    pub(super) fn gateway(family: Family) -> SocketAddr {
        SocketAddr::new(gateway_address(family), PORT)
    }

    /// The share of each backend that its weight asks for.
    pub(super) fn share(&self, backend: &Backend) -> f64 {
        let all: u64 =
            self.backends.iter().filter(|backend| backend.listed).map(|backend| backend.weight).sum();
        if backend.listed { backend.weight as f64 / all as f64 } else { 0.0 }
    }

    /// Waits until something is so; `false` if it does not come.
    pub(super) fn wait(&self, mut so: impl FnMut() -> bool) -> anyhow::Result<bool> {
        let came = self.wait_anyway(|| self.interrupt.wanted() || so());
        self.interrupt.check()?;
        Ok(came)
    }

    /// As [`Stage::wait`], even if the demo is to end.
    pub(super) fn wait_anyway(&self, mut so: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !so() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Where the manifests are.
    pub(super) fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    fn blixt(&self) -> anyhow::Result<Command> {
        Ok(Command::new(std::env::current_exe().context("cannot find the program itself")?))
    }

    /// Beside it first and over it then, so that nobody reads half a file.
    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let (beside, path) = (self.directory.path().join("beside"), self.manifests().join(name));
        fs::write(&beside, content)
            .and_then(|()| fs::rename(&beside, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The process first, then what it pinned; the kernel takes the machines with the last descriptor.
        self.process.take();
        if let Err(error) = self.command(&["cleanup"]) {
            tracing::error!(error = words(&error), "the demo could not clean up");
        }
    }
}

/// Whether `/readyz` says so.
fn ready(lab: &Lab) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(LISTEN)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    lab.balancer.run(ask).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
