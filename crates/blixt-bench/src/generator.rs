//! Forwarding without sockets: frames that the kernel makes by itself leave the client's device, and are counted and dropped where
//! the backend's raw table meets them. Nothing but the way between the two is measured.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use blixt_bars::{Bar, Line, Part};
use blixt_lab::Offload;
use nix::net::if_::if_nametoindex;

use crate::fleet;
use crate::nat::{Nat, Source};
use crate::nft::Table;
use crate::packet::frame::{CLIENTS, FRAME, Family, Place, Shape, Transport};
use crate::packet::run::{Floor, Hook, Walk};
use crate::pin::pinned;
use crate::processor::time_of_all;
use crate::stage::Stage;

/// Flows of a measurement.
const FLOWS: [u32; 2] = [1_024, 32_768];
/// Packets of one, about a quarter of a second.
const PACKETS: u32 = 1 << 18;
/// Measurements of each kind in a round; the least disturbed one counts.
const TRIES: usize = 3;
/// Backends of Blixt, all behind one device: more flows have one of them than a machine's address has ports.
const PODS: u32 = 4;
/// What is under way when the last frame was sent has arrived after this.
const SETTLE: Duration = Duration::from_millis(2);
/// Frames in a thousand that must arrive: a figure of losses is none of forwarding.
const ARRIVING: u64 = 999;

/// Who forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Plain,
    Nat,
    Tc,
    Xdp,
}

/// What one measurement found.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Rate {
    /// Thousand packets a second that arrived.
    kpps: f64,
    /// Nanoseconds of processor time for each.
    nanoseconds: f64,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Plain, Self::Nat, Self::Tc, Self::Xdp];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain routing",
            Self::Nat => "nftables",
            Self::Tc => "Blixt in TC",
            Self::Xdp => "Blixt in XDP",
        }
    }
}

/// Five lines: both hooks against nftables at few and many flows, and TC against plain routing.
pub fn measure(blixt: &Path, floor: &Path, rounds: usize) -> Result<Vec<Line>> {
    let rates = pinned(|| measure_pinned(blixt, floor, rounds))?;
    let of = |mode: Mode, flows: usize, unit, number: fn(&Rate) -> f64| {
        let rates = rates.iter().map(|round| number(&round[mode as usize][flows]));
        let name = if unit == "ns" {
            format!("{}, processor time of a packet", mode.name())
        } else {
            mode.name().to_owned()
        };
        Part::new(name, unit, rates.collect())
    };
    let line = |what, flows, [bar, stretch]: [f64; 2], ours, other| {
        let kpps = |mode| of(mode, flows, "kpps", |rate| rate.kpps);
        let mut line = Line::ratio(what, Bar::AtLeast(bar), kpps(ours), kpps(other)).stretched(stretch);
        line.parts.extend([ours, other].map(|mode| of(mode, flows, "ns", |rate| rate.nanoseconds)));
        line
    };
    let (few, many) = (0, 1);
    Ok(vec![
        line("P11 generator, XDP against nftables, 1 024 flows", few, [2.0, 2.2], Mode::Xdp, Mode::Nat),
        line("P11 generator, XDP against nftables, 32 768 flows", many, [1.7, 1.95], Mode::Xdp, Mode::Nat),
        line("P12 generator, TC against nftables, 1 024 flows", few, [1.5, 1.7], Mode::Tc, Mode::Nat),
        line("P12 generator, TC against nftables, 32 768 flows", many, [1.35, 1.5], Mode::Tc, Mode::Nat),
        line("P12 generator, TC against plain routing, 1 024 flows", few, [1.0, 1.1], Mode::Tc, Mode::Plain),
    ])
}

/// Of each round, mode and number of flows.
fn measure_pinned(blixt: &Path, floor: &Path, rounds: usize) -> Result<Vec<Vec<[Rate; 2]>>> {
    let mut bare = Scene::new(Stage::new(blixt, fleet::NODES)?, floor)?;
    let mut stage = Scene::new(Stage::new(blixt, fleet::NODES)?, floor)?;
    let mut wire = Scene::new(Stage::on_wire(blixt, fleet::NODES, Hook::Xdp)?, floor)?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        let mut round = Vec::new();
        for mode in Mode::ALL {
            let scene = match mode {
                Mode::Plain | Mode::Nat => &mut bare,
                Mode::Tc => &mut stage,
                Mode::Xdp => &mut wire,
            };
            round.push(scene.rates(mode).with_context(|| mode.name())?);
        }
        all.push(round);
    }
    Ok(all)
}

/// A stage with a generator at the client and a counter at the backend.
struct Scene {
    counter: Table,
    stage: Stage,
    generator: Floor,
    device: u32,
}

impl Scene {
    fn new(stage: Stage, floor: &Path) -> Result<Self> {
        let lab = &stage.lab;
        fleet::route_pods(lab)?;
        fleet::write(&stage, 1)?;
        let pods: Vec<SocketAddr> = (0..PODS).map(|pod| fleet::backend(1, pod)).collect();
        fleet::write_udp(&stage, &pods)?;
        // Where the frames say they come from; and a device that takes frames which are not yet packets of the stack.
        lab.balancer.ip("route add 10.200.0.0/16 via 10.0.0.2")?;
        lab.balancer.offload("client", Offload::Receive, true)?;
        let counter = Table::on(lab.other(1));
        counter.take_in(COUNT)?;
        let device = lab.client.run(|| if_nametoindex("eth0"))?;
        Ok(Self { counter, generator: Floor::load(floor, 1)?, device, stage })
    }

    fn rates(&mut self, mode: Mode) -> Result<[Rate; 2]> {
        let to = match mode {
            Mode::Plain => pod(),
            Mode::Nat => Nat::frontend(fleet::TARGET),
            Mode::Tc | Mode::Xdp => fleet::udp_frontend(),
        };
        let is_ours = matches!(mode, Mode::Tc | Mode::Xdp);
        if is_ours {
            self.stage.start_and_wait()?;
        }
        let _nat = match mode {
            Mode::Nat => Some(Nat::start(&self.stage.lab.balancer, pod(), Source::Client)?),
            _ => None,
        };
        let few = self.best(to, FLOWS[0])?;
        let many = self.best(to, FLOWS[1])?;
        if is_ours {
            self.stage.stop()?;
        }
        Ok([few, many])
    }

    fn best(&mut self, to: SocketAddr, flows: u32) -> Result<Rate> {
        let walk = self.walk(to, flows)?;
        // Flows begin, and neighbours are found, before anything is measured.
        self.send(&walk, flows * 2)?;
        let mut best = Rate { kpps: 0.0, nanoseconds: f64::INFINITY };
        for _ in 0..TRIES {
            let rate = self.rate(&walk)?;
            best =
                Rate { kpps: best.kpps.max(rate.kpps), nanoseconds: best.nanoseconds.min(rate.nanoseconds) };
        }
        Ok(best)
    }

    fn rate(&mut self, walk: &Walk) -> Result<Rate> {
        let before = self.arrived()?;
        let (begun, spent) = (Instant::now(), time_of_all()?);
        self.send(walk, PACKETS)?;
        let (took, spent) = (begun.elapsed(), time_of_all()? - spent);
        thread::sleep(SETTLE);
        let arrived = self.arrived()? - before;
        if arrived * 1000 < u64::from(PACKETS) * ARRIVING {
            bail!(
                "of {PACKETS} frames {arrived} arrived; `nft list ruleset` and `blixt status` in the namespaces say why"
            );
        }
        let arrived = arrived as f64;
        Ok(Rate {
            kpps: arrived / took.as_secs_f64() / 1e3,
            nanoseconds: spent.as_secs_f64() * 1e9 / arrived,
        })
    }

    fn send(&mut self, walk: &Walk, packets: u32) -> Result<()> {
        let Self { stage, generator, device, .. } = self;
        stage
            .lab
            .client
            .run(|| generator.send(*device, walk, packets))
            .context("BPF_PROG_TEST_RUN with live frames")
    }

    /// Frames as a client's, for a balancer that is a router to it.
    fn walk(&self, to: SocketAddr, flows: u32) -> Result<Walk> {
        let IpAddr::V4(address) = to.ip() else { bail!("{to}: not IPv4") };
        let shape = Shape { family: Family::V4, transport: Transport::Udp };
        let ports = [32_768, to.port()];
        let mut frame = shape.build(shape.address(CLIENTS, [0, 2]), address.octets().to_vec(), ports, 0);
        frame[..6].copy_from_slice(&self.stage.lab.balancer.mac("client")?);
        frame[6..12].copy_from_slice(&self.stage.lab.client.mac("eth0")?);
        // No checksum: the driver changes ports and leaves it.
        frame[CHECKSUM..CHECKSUM + 2].fill(0);
        let place = Place { address: [0, 0], port: to.port() };
        Ok(Walk { shape, flows, to: place, spread: false, frame })
    }

    fn arrived(&self) -> Result<u64> {
        counted(&self.counter.list()?).context("nft list table ip bench: no counter")
    }
}

/// Of UDP, in a frame without options.
const CHECKSUM: usize = 40;
const _: () = assert!(CHECKSUM + 2 <= FRAME);

/// Drops what arrives, as early as rules can, and counts it.
const COUNT: &str = "\
table ip bench {
  chain raw {
    type filter hook prerouting priority raw;
    udp dport 8080 counter drop
  }
}
";

/// The backend of the others, which leave the client its address and so its ports.
fn pod() -> SocketAddr {
    fleet::backend(1, 0)
}

/// `counter packets N bytes M`.
fn counted(rules: &str) -> Option<u64> {
    let (_, rest) = rules.split_once("counter packets ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_tells_how_many_packets_it_met() {
        assert_eq!(counted("\t\tudp dport 8080 counter packets 4096 bytes 270336 drop\n"), Some(4096));
        assert_eq!(counted("table ip bench {\n}\n"), None);
    }
}
