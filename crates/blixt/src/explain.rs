//! `blixt explain`: one packet's way, told by the very `forward` of the kernel program, run on the host.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use blixt_core::compile::compile;
use blixt_core::config::Config;
use blixt_core::explain::{Explanation, Tuple, explain as explain_packet};
use blixt_core::host::{Device, Host, Mac, Path};
use blixt_core::simulation::{Memory, NoMemory};
use blixt_core::tables::{Limits, Tables};
use blixt_core::translate::translate;
use blixt_loader::{Dataplane, Instance};
use blixt_packet::abi::{Flow, FlowKey, Settings, V4, V6};
use nix::time::{ClockId, clock_gettime};

use crate::check;
use crate::cli::{CheckOutput, ExplainArgs};
use crate::control::{self, Request};
use crate::exit::Exit;
use crate::node::Node;
use crate::node::runtime_dir::RuntimeDir;

/// Index of the only device of the machine that manifests are explained for.
const DEVICE: u32 = 1;

/// `blixt explain`
pub fn explain(args: ExplainArgs) -> anyhow::Result<Exit> {
    let ExplainArgs { files, output, packet } = args;
    // A typing error is found before anybody is asked.
    let tuple: Tuple = packet.parse()?;
    let (explanation, exit) = if files.is_empty() {
        let socket = RuntimeDir::of(&Instance::current()?).socket();
        (control::ask(&socket, &Request::Explain { packet })?, Exit::Success)
    } else {
        of_files(&files, &tuple)?
    };
    let text = match output {
        CheckOutput::Text => format!("{explanation}\n"),
        CheckOutput::Json => serde_json::to_string_pretty(&explanation)? + "\n",
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(exit)
}

/// Explains what the running instance would do now, with the flows that the kernel has.
pub fn of_running(node: &Node, packet: &str) -> anyhow::Result<Explanation> {
    let tuple: Tuple = packet.parse()?;
    let memory = KernelFlows { dataplane: &node.dataplane };
    let (tables, config) = node.compiled();
    Ok(explain_packet(&tuple, &tables, config, &memory, Settings::DEFAULT))
}

/// Explains what a machine with one device and a way to every backend would do. What is wrong with the files is said
/// on standard error; one that cannot be read at all ends it.
fn of_files(files: &[PathBuf], tuple: &Tuple) -> anyhow::Result<(Explanation, Exit)> {
    let mut store = check::load(files).store;
    let problems = store.problems();
    let exit = if problems.is_empty() { Exit::Success } else { Exit::Findings };
    for problem in &problems {
        // A file as a whole, not something in it.
        if problem.line == 0 && problem.object.is_empty() {
            bail!("{problem}");
        }
        writeln!(io::stderr(), "error: {problem}")?;
    }
    store.snapshot_mut().machine = check::somewhere();
    let config = translate(&store.snapshot, None).config;
    let tables = compile(&config, &host(&config), &Tables::default(), &Limits::default()).tables;
    Ok((explain_packet(tuple, &tables, &config, &NoMemory, Settings::DEFAULT), exit))
}

fn host(config: &Config) -> Host {
    let machine = check::somewhere();
    let device = Device {
        name: "eth0".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        xdp_target: false,
        xdp_sender: false,
        of_host: false,
    };
    let pools = config.frontends.values().map(|frontend| &frontend.pool);
    let backends = pools.flat_map(|pool| pool.backends().map(|backend| backend.address));
    let path = |address: std::net::IpAddr| {
        let source = machine.default_addresses.iter().find(|source| source.is_ipv4() == address.is_ipv4());
        let source = source.copied().unwrap_or(address);
        Path { device: DEVICE, next_hop: address, source, mtu: 1500, local: false }
    };
    let paths: std::collections::BTreeMap<_, _> = backends.map(|address| (address, path(address))).collect();
    Host {
        neighbours: paths.keys().map(|address| ((DEVICE, *address), Mac([2, 0, 0, 0, 0, 2]))).collect(),
        paths: paths.into(),
        addresses: machine.addresses.clone(),
        devices: [(DEVICE, device)].into(),
        ..Host::default()
    }
}

/// The flow table of the running kernel program.
struct KernelFlows<'a> {
    dataplane: &'a Dataplane,
}

impl Memory for KernelFlows<'_> {
    fn now(&self) -> u32 {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
        u32::try_from(time.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
    }

    fn knows(&self, _: std::net::IpAddr) -> bool {
        true
    }

    fn flow_v4(&self, key: &FlowKey<V4>) -> Option<Flow<V4>> {
        self.dataplane.flow(key).ok().flatten()
    }

    fn flow_v6(&self, key: &FlowKey<V6>) -> Option<Flow<V6>> {
        self.dataplane.flow(key).ok().flatten()
    }
}
