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
use crate::nat::{Nat, Source};
use crate::packet::run::Hook;
use crate::pin::pinned;
use crate::proxy::Kind;
use crate::stage::{PATIENCE, Stage};

/// Seconds of one transfer.
const SECONDS: &str = "1";
/// Transfers of each kind in a round; the least disturbed one counts.
const TRIES: usize = 2;
/// Streams of a transfer.
const STREAMS: [u32; 2] = [1, 4];
/// Where iperf3 serves for Blixt, for plain routing, for nftables without and with masquerade, and for each proxy: nothing of one meets
/// the others.
const PORTS: [u16; 6] = [fleet::TARGET, 5202, 5203, 5204, 5205, 5206];

/// Gbit/s at one stream and at four, round by round.
type Rates = [Vec<f64>; STREAMS.len()];
/// Before the first round.
const NONE: Rates = [const { Vec::new() }; STREAMS.len()];

/// Lines at one stream and at four, with offloads and as on a wire: against plain routing, nftables and two proxies.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    pinned(|| measure_pinned(blixt, rounds))
}

fn measure_pinned(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    let bare = Scene::new(Stage::new(blixt, fleet::NODES)?)?;
    let bare_wire = Scene::new(Stage::on_wire(blixt, fleet::NODES, Hook::Tc)?)?;
    let mut local = Scene::new(Stage::new(blixt, fleet::NODES)?)?;
    let mut wire = Scene::new(Stage::on_wire(blixt, fleet::NODES, Hook::Tc)?)?;
    let mut xdp = Scene::new(Stage::on_wire(blixt, fleet::NODES, Hook::Xdp)?)?;
    let node = address(Family::V4, 1, Lab::OTHER);
    Kind::give_addresses(&bare.stage.lab.balancer)?;
    let [mut plain, mut balanced, mut nat, mut full] = [const { NONE }; 4];
    let [mut wire_plain, mut wire_balanced, mut wire_nat, mut wire_xdp] = [const { NONE }; 4];
    let mut proxied = [const { NONE }; Kind::ALL.len()];
    for _ in 0..rounds {
        bare.plain(&mut plain)?;
        local.balanced(&mut balanced)?;
        bare.nat(PORTS[2], Source::Client, &mut nat)?;
        bare.nat(PORTS[3], Source::Machine, &mut full)?;
        for ((kind, port), rates) in Kind::ALL.into_iter().zip(&PORTS[4..]).zip(&mut proxied) {
            let lab = &bare.stage.lab;
            let _proxy = kind.start(&lab.balancer, &lab.client, SocketAddr::new(node, *port))?;
            bare.transfer(kind.frontend(*port), rates)?;
        }
        bare_wire.plain(&mut wire_plain)?;
        wire.balanced(&mut wire_balanced)?;
        bare_wire.nat(PORTS[2], Source::Client, &mut wire_nat)?;
        xdp.balanced(&mut wire_xdp)?;
    }
    let part = |name: &str, rates: &[f64]| Part::new(name, "Gbit/s", rates.to_vec());
    let (hook, bests) = (["Blixt in TC", "Blixt in XDP"], best(&wire_balanced, &wire_xdp));
    let local = |what, [bar, stretch]: [f64; 2], streams: usize, other: &Rates, name| {
        let parts = (part(hook[0], &balanced[streams]), part(name, &other[streams]));
        Line::ratio(what, Bar::AtLeast(bar), parts.0, parts.1).stretched(stretch)
    };
    let wire = |what, [bar, stretch]: [f64; 2], streams: usize, other: &Rates, name| {
        let parts = (part("the faster of both", &bests[streams]), part(name, &other[streams]));
        let mut line = Line::ratio(what, Bar::AtLeast(bar), parts.0, parts.1).stretched(stretch);
        line.parts.push(part(hook[0], &wire_balanced[streams]));
        line.parts.push(part(hook[1], &wire_xdp[streams]));
        line
    };
    let (one, four) = (0, 1);
    let (plainly, filtered, masked) = ("plain routing", "nftables", "nftables with masquerade");
    Ok(vec![
        local("P13 bulk TCP, 1 stream, TC against plain routing", [0.97, 1.0], one, &plain, plainly),
        local("P13 bulk TCP, 4 streams, TC against plain routing", [0.97, 1.0], four, &plain, plainly),
        local("bulk TCP, 1 stream, TC against nftables", [0.97, 1.0], one, &nat, filtered),
        local("bulk TCP, 4 streams, TC against nftables", [0.97, 1.0], four, &nat, filtered),
        local("bulk TCP, 1 stream, TC against nftables with masquerade", [0.97, 1.0], one, &full, masked),
        local("bulk TCP, 4 streams, TC against nftables with masquerade", [0.97, 1.0], four, &full, masked),
        wire(
            "P14 bulk TCP as on a wire, 1 stream, against plain routing",
            [0.95, 1.0],
            one,
            &wire_plain,
            plainly,
        ),
        wire(
            "P14 bulk TCP as on a wire, 4 streams, against plain routing",
            [0.95, 1.0],
            four,
            &wire_plain,
            plainly,
        ),
        wire("P14 bulk TCP as on a wire, 1 stream, against nftables", [1.2, 1.3], one, &wire_nat, filtered),
        wire("P14 bulk TCP as on a wire, 4 streams, against nftables", [1.2, 1.3], four, &wire_nat, filtered),
        local("P15 bulk TCP, 1 stream, TC against HAProxy", [1.7, 1.9], one, &proxied[0], "HAProxy"),
        local("P15 bulk TCP, 4 streams, TC against HAProxy", [1.7, 1.9], four, &proxied[0], "HAProxy"),
        local("P15 bulk TCP, 1 stream, TC against nginx", [1.7, 1.9], one, &proxied[1], "nginx"),
        local("P15 bulk TCP, 4 streams, TC against nginx", [1.7, 1.9], four, &proxied[1], "nginx"),
    ])
}

/// The larger of two in each round.
fn best(one: &Rates, other: &Rates) -> Rates {
    let larger =
        |streams: usize| one[streams].iter().zip(&other[streams]).map(|(one, other)| one.max(*other));
    [larger(0).collect(), larger(1).collect()]
}

/// A stage with servers on its nodes.
struct Scene {
    stage: Stage,
    _servers: Vec<Process>,
}

impl Scene {
    fn new(stage: Stage) -> Result<Self> {
        fleet::route_pods(&stage.lab)?;
        fleet::write(&stage, 1)?;
        // One backend: all connections of a transfer, its control and its data, must meet the same server.
        stage.write(fleet::LAST_SLICE, &fleet::slice(0, &[fleet::backend(1, 0)]))?;
        let servers = serve(&stage.lab)?;
        Ok(Self { stage, _servers: servers })
    }

    fn plain(&self, rates: &mut Rates) -> Result<()> {
        self.transfer(SocketAddr::new(address(Family::V4, 1, Lab::OTHER), PORTS[1]), rates)
    }

    fn balanced(&mut self, rates: &mut Rates) -> Result<()> {
        self.stage.start_and_wait()?;
        self.transfer(fleet::frontend(0), rates)?;
        self.stage.stop()
    }

    fn nat(&self, port: u16, source: Source, rates: &mut Rates) -> Result<()> {
        let backend = SocketAddr::new(address(Family::V4, 1, Lab::OTHER), port);
        let _nat = Nat::start(&self.stage.lab.balancer, backend, source)?;
        self.transfer(Nat::frontend(port), rates)
    }

    /// The best of a few transfers at each number of streams.
    fn transfer(&self, to: SocketAddr, rates: &mut Rates) -> Result<()> {
        for (streams, rates) in STREAMS.into_iter().zip(rates) {
            let tries = (0..TRIES).map(|_| transfer(&self.stage.lab.client, to, streams));
            rates.push(tries.collect::<Result<Vec<f64>>>()?.into_iter().fold(0.0, f64::max));
        }
        Ok(())
    }
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

/// Gbit/s that arrive. A server that has just started, or still ends the transfer before, is asked again.
fn transfer(client: &Machine, to: SocketAddr, streams: u32) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = ask(client, to, streams)?;
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
fn ask(client: &Machine, to: SocketAddr, streams: u32) -> Result<Value> {
    let mut command = Command::new("iperf3");
    command.args(["--json", "--time", SECONDS, "--connect-timeout", "3000"]);
    command.args(["--parallel", &streams.to_string()]);
    command.args(["--client", &to.ip().to_string(), "--port", &to.port().to_string()]);
    let output = client.run(|| command.stdin(Stdio::null()).output()).context("iperf3: cannot be started")?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("iperf3 to {to}: no JSON"))
}
