//! A machine of the lab: a namespace with a name, in which commands, sockets and threads live.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use crate::namespace::unpublish;
use crate::{Error, Namespace};

/// A machine; clones are the same one. Dropping the last leaves the namespace to the kernel, which removes it with its last process or socket.
#[derive(Clone, Debug)]
pub struct Machine {
    name: Arc<str>,
    namespace: Arc<Namespace>,
}

impl Machine {
    /// A machine with nothing but its loopback device, which is up. `name` is for people.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, Error> {
        let machine = Self { name: name.into(), namespace: Arc::new(Namespace::new()?) };
        // Addresses of the lab are unique by construction: no second of waiting for each of them.
        machine.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        machine.sysctl("net/ipv6/conf/default/dad_transmits", "0")?;
        machine.sysctl("net/ipv6/conf/default/accept_ra", "0")?;
        machine.ip("link set lo up")?;
        Ok(machine)
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs a function in the machine's namespace, see [`Namespace::run`].
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(function)
    }

    /// Runs lines of `ip` in one process, up to the first that fails.
    pub fn ip(&self, lines: &str) -> Result<(), Error> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = self.spawn(&mut command).and_then(|mut child| {
            let mut stdin = child.stdin.take().expect("stdin is a pipe, as asked for above");
            // A broken pipe only says that `ip` ended early: its status tells more.
            let _ = stdin.write_all(lines.as_bytes());
            drop(stdin);
            child.wait_with_output()
        });
        self.judge("ip", lines, output).map(drop)
    }

    /// Runs a command to its end and returns what it printed.
    pub fn output(&self, command: &mut Command) -> Result<String, Error> {
        let shown = format!("{command:?}");
        let output = self.run(|| command.stdin(Stdio::null()).output());
        let output = self.judge("run", &shown, output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a command in the machine.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())
    }

    /// Writes a setting of the network stack, by its path below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), Error> {
        self.run(|| fs::write(format!("/proc/sys/{path}"), value)).map_err(Error::io("set", path))
    }

    /// Makes the machine reachable as `ip netns exec NAME`, past the end of this process.
    pub fn publish(&self, name: &str) -> Result<PathBuf, Error> {
        self.namespace.publish(name)
    }

    /// Takes a name away that [`Machine::publish`] gave.
    pub fn unpublish(path: &Path) -> Result<(), Error> {
        unpublish(path)
    }

    fn judge(&self, op: &'static str, command: &str, output: io::Result<Output>) -> Result<Output, Error> {
        let output = output.map_err(Error::io(op, command))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Error::Command {
            command: command.to_owned(),
            machine: self.name.to_string(),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}
