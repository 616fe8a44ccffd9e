//! What Blixt is compared with: nftables, DNAT with and without masquerade, on the same machine.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use blixt_lab::Machine;

use crate::nft::Table;

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
    _table: Table,
}

impl Nat {
    /// Sends TCP and UDP to a port of [`Nat::frontend`] to a backend.
    pub fn start(machine: &Machine, backend: SocketAddr, source: Source) -> Result<Self> {
        let masquerade = match source {
            Source::Client => "",
            Source::Machine => "ct status dnat masquerade",
        };
        let table = Table::on(machine);
        table.take_in(&format!(
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
        ))?;
        Ok(Self { _table: table })
    }

    /// What a client dials for a backend's port.
    pub fn frontend(port: u16) -> SocketAddr {
        SocketAddr::new(ADDRESS.into(), port)
    }
}
