//! What Blixt is compared with: proxies in user space, on the same machine.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use blixt_lab::{Machine, Process};
use tempfile::TempDir;

use crate::stage::PATIENCE;

/// Where Debian has the module; other systems build it in.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A proxy by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// HAProxy in TCP mode.
    Haproxy,
    /// The stream module of nginx.
    Nginx,
}

/// One at work, as long as this lives.
#[derive(Debug)]
pub struct Proxy {
    _process: Process,
    _directory: TempDir,
}

impl Kind {
    /// Those that are compared with.
    pub const ALL: [Self; 2] = [Self::Haproxy, Self::Nginx];

    /// What a client dials for a port.
    pub fn frontend(self, port: u16) -> SocketAddr {
        let number = match self {
            Self::Haproxy => 2,
            Self::Nginx => 3,
        };
        SocketAddr::new(Ipv4Addr::new(10, 98, 0, number).into(), port)
    }

    /// Gives a machine the addresses of all.
    pub fn give_addresses(machine: &Machine) -> Result<()> {
        for kind in Self::ALL {
            machine.ip(&format!("addr add {}/32 dev lo", kind.frontend(0).ip()))?;
        }
        Ok(())
    }

    /// Starts it for one backend, at the backend's own port. One thread: everything is on one processor.
    pub fn start(self, machine: &Machine, client: &Machine, backend: SocketAddr) -> Result<Proxy> {
        let directory = TempDir::new().context("cannot make a directory for a proxy")?;
        let path = directory.path().join("configuration");
        let listen = self.frontend(backend.port());
        fs::write(&path, self.configuration(listen, backend, &directory.path().display().to_string()))?;
        let mut command = match self {
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&path);
                command
            }
            Self::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-e").arg(directory.path().join("log")).arg("-c").arg(&path);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(machine, &mut command)?;
        let deadline = Instant::now() + PATIENCE;
        while client.run(|| TcpStream::connect_timeout(&listen, PATIENCE)).is_err() {
            if let Some(status) = process.ended()? {
                bail!("{self} ended with {status}; `{command:?}` says why");
            }
            if Instant::now() > deadline {
                bail!("{self} does not serve {listen} after {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Proxy { _process: process, _directory: directory })
    }

    fn configuration(self, listen: SocketAddr, backend: SocketAddr, directory: &str) -> String {
        match self {
            Self::Haproxy => format!(
                "\
global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen bench
  bind {listen}
  server backend {backend}
"
            ),
            Self::Nginx => {
                // One process: a worker would outlive its master, which is killed.
                let module = match fs::exists(STREAM) {
                    Ok(true) => format!("load_module {STREAM};\n"),
                    _ => String::new(),
                };
                format!(
                    "\
{module}daemon off;
master_process off;
pid {directory}/pid;
events {{ worker_connections 4000; }}
stream {{
  server {{
    listen {listen};
    proxy_pass {backend};
  }}
}}
"
                )
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        })
    }
}
