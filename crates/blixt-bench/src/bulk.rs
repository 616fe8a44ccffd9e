//! Bulk TCP through the balancer: Blixt, plain routing, nftables and proxies take turns in the same namespace.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use blixt_bars::{Bar, Line, Part};
use blixt_lab::{Family, Lab, Machine, Process, address};
use serde_json::Value;

use crate::fleet;
use crate::nat::Nat;
use crate::pin::pinned;
use crate::proxy::Kind;
use crate::stage::{PATIENCE, Stage};

/// Seconds of one transfer.
const SECONDS: &str = "1";
/// Transfers of each kind in a round; the least disturbed one counts.
const TRIES: usize = 3;
/// Where iperf3 serves for Blixt, for plain routing, for nftables and for each proxy: nothing of one meets the others.
const PORTS: [u16; 5] = [fleet::TARGET, 5202, 5203, 5204, 5205];

/// Four lines: against plain routing, nftables and two proxies.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    pinned(|| measure_pinned(blixt, rounds))
}

fn measure_pinned(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    let mut stage = Stage::new(blixt, fleet::NODES)?;
    fleet::route_pods(&stage.lab)?;
    fleet::write(&stage, 1)?;
    // One backend: both connections of a transfer, its control and its data, must meet the same server.
    stage.write(fleet::LAST_SLICE, &fleet::slice(0, &[fleet::backend(1, 0)]))?;
    let _servers = serve(&stage.lab)?;
    let node = address(Family::V4, 1, Lab::OTHER);
    Kind::give_addresses(&stage.lab.balancer)?;
    let [mut balanced, mut plain, mut nat] = [const { Vec::new() }; 3];
    let mut proxied = [const { Vec::new() }; Kind::ALL.len()];
    for _ in 0..rounds {
        plain.push(best(&stage.lab.client, SocketAddr::new(node, PORTS[1]))?);
        stage.start_and_wait()?;
        balanced.push(best(&stage.lab.client, fleet::frontend(0))?);
        stage.stop()?;
        {
            let _nat = Nat::start(&stage.lab.balancer, SocketAddr::new(node, PORTS[2]))?;
            nat.push(best(&stage.lab.client, Nat::frontend(PORTS[2]))?);
        }
        for ((kind, port), rounds) in Kind::ALL.into_iter().zip(&PORTS[3..]).zip(&mut proxied) {
            let _proxy = kind.start(&stage.lab.balancer, &stage.lab.client, SocketAddr::new(node, *port))?;
            rounds.push(best(&stage.lab.client, kind.frontend(*port))?);
        }
    }
    let part = |name: &str, rounds: &[f64]| Part::new(name, "Gbit/s", rounds.to_vec());
    let line = |what, bar, stretch, other: &[f64], name| {
        let line = Line::ratio(what, Bar::AtLeast(bar), part("Blixt", &balanced), part(name, other));
        line.stretched(stretch)
    };
    Ok(vec![
        line("P13 bulk TCP in TC, full NAT, against plain routing", 0.97, 1.0, &plain, "plain routing"),
        line("bulk TCP in TC, full NAT, against nftables DNAT", 0.97, 1.0, &nat, "nftables"),
        line("P15 bulk TCP in TC, full NAT, against HAProxy", 1.7, 1.9, &proxied[0], "HAProxy"),
        line("P15 bulk TCP in TC, full NAT, against nginx", 1.7, 1.9, &proxied[1], "nginx"),
    ])
}

/// iperf3 on every node and port.
fn serve(lab: &Lab) -> Result<Vec<Process>> {
    let mut servers = Vec::new();
    for node in &lab.backends {
        for port in PORTS {
            let mut command = Command::new("iperf3");
            command.args(["--server", "--port", &port.to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            servers.push(Process::start(node, &mut command)?);
        }
    }
    Ok(servers)
}

fn best(client: &Machine, to: SocketAddr) -> Result<f64> {
    let tries: Result<Vec<f64>> = (0..TRIES).map(|_| transfer(client, to)).collect();
    Ok(tries?.into_iter().fold(0.0, f64::max))
}

/// Gbit/s that arrive. A server that has just started, or still ends the transfer before, is asked again.
fn transfer(client: &Machine, to: SocketAddr) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = ask(client, to)?;
        if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(bits / 1e9);
        }
        if Instant::now() > deadline {
            bail!("iperf3 to {to}: {}", report["error"]);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What iperf3 reports, be it that it failed.
fn ask(client: &Machine, to: SocketAddr) -> Result<Value> {
    let mut command = Command::new("iperf3");
    command.args(["--json", "--time", SECONDS, "--connect-timeout", "3000"]);
    command.args(["--client", &to.ip().to_string(), "--port", &to.port().to_string()]);
    let output = client.run(|| command.stdin(Stdio::null()).output()).context("iperf3: cannot be started")?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("iperf3 to {to}: no JSON"))
}
