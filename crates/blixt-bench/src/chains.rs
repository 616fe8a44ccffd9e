//! What a control plane is compared with: nftables with the chains that kube-proxy makes, in a network namespace of its own.
//!
//! A map leads from each service's address, protocol and port to a chain of the service, which goes to the chain of one of its backends
//! at random. Services and backends are those of the routes that Blixt has.

use std::fmt::Write;

use anyhow::Result;
use blixt_lab::Machine;

use crate::fleet::{self, LARGE, NODES, TARGET};
use crate::nft::Table;

/// The chains, in force as long as this lives.
#[derive(Debug)]
pub struct Chains {
    table: Table,
    /// Where the first backend of the last service stands, as a route's number.
    last: u32,
}

impl Chains {
    /// Loads the chains of 10 000 services; answers with the seconds that it took.
    pub fn load() -> Result<(Self, f64)> {
        let table = Table::on(&Machine::new("chains")?);
        let took = table.take_in(&everything())?;
        Ok((Self { table, last: LARGE - 1 }, took.as_secs_f64()))
    }

    /// Replaces one backend of the last service by another; answers with the seconds that it took.
    pub fn change(&mut self) -> Result<f64> {
        let [first, second] = [LARGE - 1, LARGE];
        let (goes, comes) = if self.last == first { (first, second) } else { (second, first) };
        let took = self.table.take_in(&replacement(goes, comes))?;
        self.last = comes;
        Ok(took.as_secs_f64())
    }
}

fn everything() -> String {
    let mut text = String::from(
        "\
table ip bench {
  chain destination {
    type nat hook prerouting priority dstnat
    ip daddr . meta l4proto . th dport vmap @services
  }
  chain source {
    type nat hook postrouting priority srcnat
    meta mark & 0x4000 == 0x4000 masquerade
  }
  map services {
    type ipv4_addr . inet_proto . inet_service : verdict
  }
}
",
    );
    for service in 0..LARGE {
        for node in 1..=NODES {
            text += &backend(node, service);
        }
        let _ = writeln!(text, "add chain ip bench service-{service}");
        text += &choice(service, service);
        let frontend = fleet::frontend(service);
        let _ = writeln!(
            text,
            "add element ip bench services {{ {} . tcp . {} : goto service-{service} }}",
            frontend.ip(),
            frontend.port()
        );
    }
    text
}

/// The last service's first backend goes, and another one comes.
fn replacement(goes: u32, comes: u32) -> String {
    let service = LARGE - 1;
    let gone = chain(1, goes);
    format!(
        "{}flush chain ip bench service-{service}\n{}flush chain ip bench {gone}\ndelete chain ip bench {gone}\n",
        backend(1, comes),
        choice(service, comes)
    )
}

/// The chain of a backend: one that comes to itself gets another source, as behind kube-proxy.
fn backend(node: u8, route: u32) -> String {
    let (chain, address) = (chain(node, route), fleet::backend(node, route).ip());
    format!(
        "add chain ip bench {chain}\n\
         add rule ip bench {chain} ip saddr {address} meta mark set 0x4000\n\
         add rule ip bench {chain} meta l4proto tcp dnat to {address}:{TARGET}\n"
    )
}

/// The rule of a service, whose first backend may be another route's.
fn choice(service: u32, first: u32) -> String {
    let chain_of = |node| chain(node, if node == 1 { first } else { service });
    let goals: Vec<String> =
        (1..=NODES).map(|node| format!("{} : goto {}", node - 1, chain_of(node))).collect();
    format!("add rule ip bench service-{service} numgen random mod {NODES} vmap {{ {} }}\n", goals.join(", "))
}

fn chain(node: u8, route: u32) -> String {
    format!("backend-{route}-{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_makes_its_chain_before_somebody_goes_there_and_removes_one_that_nobody_goes_to() {
        let text = replacement(LARGE - 1, LARGE);
        let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("no {line} in:\n{text}"));
        let made = at("add chain ip bench backend-10000-1\n");
        let led = at("vmap { 0 : goto backend-10000-1, 1 : goto backend-9999-2, 2 : goto backend-9999-3 }");
        let removed = at("delete chain ip bench backend-9999-1\n");
        assert!(made < led && led < removed, "{text}");
    }
}
