//! What `blixt run` was asked to do, understood.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use blixt_core::tables::Limits;
use blixt_loader::{Capacity, Hook, Options};
use blixt_packet::abi::BackendId;
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::cli::{HookArg, Listen, RunArgs};

/// Of fewer connections nobody has use.
const LEAST_FLOWS: u32 = 1024;

/// Each frontend takes about 400 bytes of maps, and more by its ring: half a gigabyte.
const MOST_FRONTENDS: u32 = 1 << 20;
/// Slots are numbers of 24 bits, from 1.
const MOST_BACKENDS: u32 = BackendId::SLOTS - 1;

/// Everything that `blixt run` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Files and directories of manifests.
    pub files: Vec<PathBuf>,
    /// Names of interfaces that are hooked.
    pub interfaces: GlobSet,
    /// Where in the kernel.
    pub hook: Hook,
    /// Where metrics are served.
    pub listen: Option<SocketAddr>,
    /// Where a file with the status of each object is kept.
    pub status_dir: Option<PathBuf>,
    /// Connections that can be remembered, if the machine's memory does not decide it.
    pub flows: Option<u32>,
    /// What user space may write.
    pub limits: Limits,
    /// The machine's name in EndpointSlices.
    pub node_name: String,
}

impl TryFrom<RunArgs> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: RunArgs) -> anyhow::Result<Self> {
        let RunArgs { files, interface, hook, listen, status_dir, flows, frontends, backends, node_name } =
            args;
        if files.iter().any(|file| file.as_os_str() == "-") {
            bail!("-f -: standard input cannot be followed; write it to a file and give that");
        }
        if let Some(flows) = flows.filter(|flows| *flows < LEAST_FLOWS) {
            bail!("--flows {flows}: too few to be of use; give at least {LEAST_FLOWS}");
        }
        for (flag, count, most) in
            [("frontends", frontends, MOST_FRONTENDS), ("backends", backends, MOST_BACKENDS)]
        {
            if !(1..=most).contains(&count) {
                bail!("--{flag} {count}: out of range; give 1 to {most}");
            }
        }
        let files = files.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
        if let Some(dir) = &status_dir {
            let below = std::path::absolute(dir)?;
            if let Some(file) = files.iter().find(|file| below.starts_with(file)) {
                bail!(
                    "--status-dir {}: it lies below -f {}, where statuses would be read as manifests; choose another place",
                    dir.display(),
                    file.display()
                );
            }
        }
        Ok(Self {
            files,
            interfaces: interfaces(&interface)?,
            hook: hook.into(),
            listen: match listen {
                Listen::Off => None,
                Listen::At(address) => Some(address),
            },
            status_dir,
            flows,
            limits: Limits::new(frontends, backends),
            node_name: node_name.map_or_else(host_name, Ok)?,
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
        Options { capacity, hop_life, ..Options::default() }
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
