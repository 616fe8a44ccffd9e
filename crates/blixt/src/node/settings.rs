//! How the data plane of this machine is to work, understood.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use blixt_core::tables::Limits;
use blixt_loader::{Capacity, Hook, Options};
use blixt_packet::abi::{BackendId, in_a_window};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::cli::{HookArg, Listen, NodeArgs};

/// Of fewer connections nobody has use.
const LEAST_FLOWS: u32 = 1024;
/// With fewer a second one client's reload is a flood.
const LEAST_NEW_FLOWS: u32 = 1000;

/// Each frontend takes about 400 bytes of maps, and more by its ring: half a gigabyte.
const MOST_FRONTENDS: u32 = 1 << 20;
/// Slots are numbers of 24 bits, from 1.
const MOST_BACKENDS: u32 = BackendId::SLOTS - 1;

/// Everything that a data plane needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Names of interfaces that are hooked.
    pub interfaces: GlobSet,
    /// Where in the kernel.
    pub hook: Hook,
    /// Where metrics are served.
    pub listen: Option<SocketAddr>,
    /// Connections that can be remembered, if the machine's memory does not decide it.
    pub flows: Option<u32>,
    /// Connections that one CPU takes on in a second.
    pub new_flows: u32,
    /// What user space may write.
    pub limits: Limits,
    /// The machine's name in EndpointSlices.
    pub node_name: String,
    /// ARP and NDP are answered for owned addresses on its links. Of several nodes that serve an address none may.
    pub announces: bool,
    /// It sees every process of the machine, and so which network namespaces are gone.
    pub sees_processes: bool,
    /// Connection tracking translates connections of others to the same backends, as it does for kube-proxy.
    pub beside_kube_proxy: bool,
}

impl TryFrom<NodeArgs> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: NodeArgs) -> anyhow::Result<Self> {
        let NodeArgs { interface, hook, listen, flows, new_flows, frontends, backends, node_name } = args;
        if let Some(flows) = flows.filter(|flows| *flows < LEAST_FLOWS) {
            bail!("--flows {flows}: too few to be of use; give at least {LEAST_FLOWS}");
        }
        if new_flows < LEAST_NEW_FLOWS {
            bail!(
                "--new-flows {new_flows}: ordinary clients would be a flood; give at least {LEAST_NEW_FLOWS}"
            );
        }
        for (flag, count, most) in
            [("frontends", frontends, MOST_FRONTENDS), ("backends", backends, MOST_BACKENDS)]
        {
            if !(1..=most).contains(&count) {
                bail!("--{flag} {count}: out of range; give 1 to {most}");
            }
        }
        Ok(Self {
            interfaces: interfaces(&interface)?,
            hook: hook.into(),
            listen: match listen {
                Listen::Off => None,
                Listen::At(address) => Some(address),
            },
            flows,
            new_flows,
            limits: Limits::new(frontends, backends),
            node_name: node_name.map_or_else(host_name, Ok)?,
            announces: true,
            sees_processes: true,
            beside_kube_proxy: false,
        })
    }
}

impl Settings {
    /// How the kernel program is to be loaded.
    pub fn dataplane_options(&self, hop_life: Duration) -> Options {
        let mut capacity = Capacity::of_machine();
        if let Some(flows) = self.flows {
            capacity.flows = flows;
        }
        capacity.limits = self.limits;
        let settings = blixt_packet::abi::Settings {
            new_flows: in_a_window(self.new_flows),
            passes_strays: self.beside_kube_proxy.into(),
            ..blixt_packet::abi::Settings::DEFAULT
        };
        Options { capacity, settings, hop_life, remove_dead: self.sees_processes, ..Options::default() }
    }
}

impl From<HookArg> for Hook {
    fn from(hook: HookArg) -> Self {
        match hook {
            HookArg::Auto => Self::Auto,
            HookArg::Tc => Self::Tc,
            HookArg::Xdp => Self::Xdp,
        }
    }
}

fn interfaces(patterns: &[String]) -> anyhow::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    let everything = ["*".to_owned()];
    for pattern in if patterns.is_empty() { &everything[..] } else { patterns } {
        set.add(
            Glob::new(pattern).with_context(|| {
                format!("--interface {pattern}: not a pattern; write it as eth0 or 'eth*'")
            })?,
        );
    }
    Ok(set.build()?)
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host name; give one with --node-name")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        node: NodeArgs,
    }

    #[test]
    fn the_program_is_loaded_with_what_the_flags_say() {
        let options = |flags: &[&str]| {
            let line = Line::parse_from([&["blixt"], flags].concat());
            Settings::try_from(line.node).unwrap().dataplane_options(Duration::ZERO)
        };
        assert_eq!(options(&[]).settings, blixt_packet::abi::Settings::DEFAULT);
        let options = options(&["--new-flows", "1000000", "--flows", "5000"]);
        assert_eq!((options.settings.new_flows, options.capacity.flows), (134_217, 5000));
    }
}
