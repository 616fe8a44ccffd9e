//! What Blixt is compared with: nftables, DNAT with and without masquerade, on the same machine.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::Result;
use blixt_lab::Machine;

/// The address that nftables translates.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);

/// Whom a backend sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The client: DNAT alone.
    Client,
    /// The machine: masquerade as well.
    Machine,
}

/// The rules, in force on a machine as long as this lives.
#[derive(Debug)]
pub struct Nat {
    machine: Machine,
}

impl Nat {
    /// Sends TCP and UDP to a port of [`Nat::frontend`] to a backend.
    pub fn start(machine: &Machine, backend: SocketAddr, source: Source) -> Result<Self> {
        let masquerade = match source {
            Source::Client => "",
            Source::Machine => "ct status dnat masquerade",
        };
        let mut file = tempfile::NamedTempFile::new()?;
        write!(
            file,
            "\
table ip bench {{
  chain destination {{
    type nat hook prerouting priority dstnat;
    ip daddr {ADDRESS} meta l4proto {{ tcp, udp }} th dport {} dnat to {backend}
  }}
  chain source {{
    type nat hook postrouting priority srcnat;
    {masquerade}
  }}
}}
",
            backend.port()
        )?;
        machine.output(Command::new("nft").arg("-f").arg(file.path()))?;
        Ok(Self { machine: machine.clone() })
    }

    /// What a client dials for a backend's port.
    pub fn frontend(port: u16) -> SocketAddr {
        SocketAddr::new(ADDRESS.into(), port)
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        // With its namespace it goes in any case.
        let _ = self.machine.output(Command::new("nft").args(["delete", "table", "ip", "bench"]));
    }
}
