//! A world for one test: the lab, a server on each backend, and `blixt run` on the balancer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use blixt_lab::{Family, Lab, Layout, Machine, Process, Protocol, Server, Tally, address, tally};
use tempfile::TempDir;

use crate::manifests::{Manifests, PORT, TARGET, owned};
use crate::permit::Permit;

/// Where packets are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    Tc,
    Xdp,
}

/// Everything that a test has. Dropped, it leaves no process, no pin and no namespace.
pub struct World {
    pub lab: Lab,
    /// The servers `backend-1` to `backend-3`, in this order.
    pub servers: Vec<Server>,
    /// What Blixt was told last.
    pub manifests: Manifests,
    hook: Hook,
    process: Option<Process>,
    directory: TempDir,
    _permit: Permit,
}

/// Long enough for a machine that is busy with other things; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The verifier has the programs before it, on a machine that may be busy with other worlds.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The address that `blixt run` serves metrics and readiness at; each world has a loopback of its own.
pub const METRICS: &str = "127.0.0.1:9641";
/// The program.
pub const BLIXT: &str = env!("CARGO_BIN_EXE_blixt");
/// Flows that a world's tables hold: enough for every test, and small.
const FLOWS: &str = "16384";

impl World {
    /// The usual manifests, running.
    pub fn usual(hook: Hook) -> Self {
        Self::with(hook, Manifests::usual())
    }

    /// These manifests, running.
    pub fn with(hook: Hook, manifests: Manifests) -> Self {
        let mut world = Self::idle(hook, manifests);
        world.start();
        world
    }

    /// The machines, servers and files, but no Blixt yet.
    pub fn idle(hook: Hook, manifests: Manifests) -> Self {
        let permit = Permit::wait();
        let lab = Lab::new(Layout { wire_like: hook == Hook::Xdp, ..Layout::default() });
        let lab = lab.expect("the lab needs root: run the tests as root");
        let serve = |(machine, network): (&Machine, u8)| {
            let addresses = Family::ALL.map(|family| at(address(family, network, Lab::OTHER), TARGET));
            Server::start(machine, machine.name(), &addresses).unwrap()
        };
        let servers = lab.backends.iter().zip(1..).map(serve).collect();
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("manifests")).unwrap();
        let world = Self { lab, servers, manifests, hook, process: None, directory, _permit: permit };
        world.write();
        world
    }

    /// Starts `blixt run` and waits until it is ready.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`World::start`], with more flags; `--hook` instead of the world's own.
    pub fn start_with(&mut self, flags: &[&str]) {
        self.launch(Command::new(BLIXT), flags);
        self.wait_until_ready();
    }

    /// Starts `blixt run` by a command that ends with `blixt`, and does not wait.
    pub fn launch(&mut self, mut blixt: Command, flags: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        blixt.arg("run").args(flags).arg("-f").arg(self.directory());
        if !flags.contains(&"--flows") {
            blixt.args(["--flows", FLOWS]);
        }
        if !flags.contains(&"--listen") {
            blixt.args(["--listen", METRICS]);
        }
        if !flags.contains(&"--hook") {
            let hook = if self.hook == Hook::Tc { "tc" } else { "xdp" };
            blixt.args(["--hook", hook]);
        }
        blixt.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(Process::start(&self.lab.balancer, &mut blixt).unwrap());
    }

    /// Waits until the running `blixt run` is ready.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_PATIENCE * slowness();
        while !self.is_ready() {
            let ended = self.process().ended().unwrap();
            assert!(ended.is_none(), "blixt run ended with {}:\n{}", ended.unwrap(), self.log());
            assert!(Instant::now() < deadline, "blixt run is not ready:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the running `blixt run` has ended; its exit code.
    pub fn wait_for_the_end(&mut self) -> Option<i32> {
        self.process().wait(START_PATIENCE * slowness()).unwrap().expect("blixt run goes on").code()
    }

    /// The running `blixt run`.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("blixt run was started")
    }

    /// Changes the manifests and writes what is different. Blixt follows on its own.
    pub fn change(&mut self, change: impl FnOnce(&mut Manifests)) {
        change(&mut self.manifests);
        self.write();
    }

    /// Writes one file of manifests as editors and tools do: beside it, then over it.
    pub fn write_file(&self, name: &str, content: &str) {
        let path = self.directory().join(name);
        let beside = self.directory.path().join("beside");
        fs::write(&beside, content).unwrap();
        fs::rename(&beside, &path).unwrap();
    }

    /// Where the manifests are.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// A command of `blixt` on the balancer, to its end.
    pub fn blixt(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BLIXT);
        command.args(arguments).stdin(Stdio::null());
        self.lab.balancer.run(|| command.output()).unwrap()
    }

    /// What `blixt status -o json` says.
    pub fn status(&self) -> serde_json::Value {
        let output = self.blixt(&["status", "-o", "json"]);
        assert!(output.status.success(), "blixt status: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Dials the Gateway's address `count` times.
    pub fn dial(&self, protocol: Protocol, family: Family, count: usize) -> Tally {
        tally(&self.lab.client, protocol, vip(family), count)
    }

    /// What Blixt has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where the pins of a map layout are.
    pub fn layout(&self, version: u32) -> PathBuf {
        self.pins().into_iter().find(|pin| pin.ends_with(format!("v{version}"))).unwrap()
    }

    /// The pins of this world's instance that are there.
    pub fn pins(&self) -> BTreeSet<PathBuf> {
        let instance = self.lab.balancer.namespace().inode().to_string();
        let mut pins = BTreeSet::new();
        let Ok(instances) = fs::read_dir("/sys/fs/bpf/blixt") else { return pins };
        for directory in instances.map(|entry| entry.unwrap().path()) {
            if directory.file_name().is_some_and(|name| name.to_string_lossy().contains(&instance)) {
                collect(&directory, &mut pins);
            }
        }
        pins
    }

    /// The sum of a metric over the lines that have all these labels.
    pub fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let metrics = self.get("/metrics").unwrap_or_default();
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz")
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"))
    }

    /// The answer to a request at the address of metrics; `None` while nobody is there.
    pub fn get(&self, path: &str) -> Option<String> {
        self.request(METRICS, "GET", path)
    }

    /// The whole answer of an address of the balancer to a request.
    pub fn request(&self, address: &str, method: &str, path: &str) -> Option<String> {
        let mut stream = self.lab.balancer.run(|| TcpStream::connect(address)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn write(&self) {
        let files = self.manifests.files();
        for (name, content) in &files {
            let path = self.directory().join(name);
            if fs::read_to_string(&path).is_ok_and(|old| old == *content) {
                continue;
            }
            self.write_file(name, content);
        }
        for entry in fs::read_dir(self.directory()).unwrap() {
            let entry = entry.unwrap();
            if !files.contains_key(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.process.take();
        let cleanup = self.blixt(&["cleanup"]);
        if thread::panicking() {
            eprintln!("what blixt logged:\n{}", self.log());
            return;
        }
        assert!(cleanup.status.success(), "blixt cleanup: {}", String::from_utf8_lossy(&cleanup.stderr));
        assert_eq!(self.pins(), BTreeSet::new(), "left behind");
    }
}

/// What clients dial in the usual manifests.
pub fn vip(family: Family) -> SocketAddr {
    at(owned(family), PORT)
}

pub fn at(address: std::net::IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, so: impl FnMut() -> bool) {
    until_within(PATIENCE, what, so);
}

/// Waits until something is so, with more patience.
#[track_caller]
pub fn until_within(patience: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let patience = patience * slowness();
    let deadline = Instant::now() + patience;
    while !so() {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// How many times longer everything may take: a machine whose processor is emulated says so.
pub fn slowness() -> u32 {
    let said = std::env::var("BLIXT_TEST_SLOWNESS").ok();
    said.map_or(1, |said| said.parse().expect("BLIXT_TEST_SLOWNESS is a number"))
}

fn collect(directory: &Path, pins: &mut BTreeSet<PathBuf>) {
    pins.insert(directory.to_owned());
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, pins);
        } else {
            pins.insert(path);
        }
    }
}
