//! What a packet costs in the kernel program, beside floors that do one step of it each.
//!
//! `BPF_PROG_TEST_RUN` does not restore a packet between its repeats. So a driver runs, which makes the packet that of
//! another flow and tail-calls the program under test; the driver with a program that does nothing is subtracted.

pub mod frame;
pub mod run;
pub mod size;
mod world;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use blixt_bars::{Bar, Line, Part};
use blixt_lab::Machine;
use blixt_loader::{Dataplane, cleanup};
use blixt_packet::abi::{NEW_FLOWS, in_a_window};

use self::frame::{ACK, FOREIGN, FRONTEND, Family, Place, SYN, Shape, Transport};
use self::run::{End, Floor, Hook, Walk, program};
use crate::pin::pinned;

/// Connections that are established before anything is measured: as many as the longest walk has.
const MANY: u32 = 1 << 19;
const SOME: u32 = 1 << 17;
const FEW: u32 = 1 << 16;
/// Connections that begin: each packet of the walk another one, far more than the table holds.
const FRESH: u32 = 1 << 22;
/// Room of the tables while known flows are measured, so that none is lost, and while new ones fill them.
const ROOM: u32 = 1 << 20;
const LITTLE_ROOM: u32 = 1 << 18;
/// Runs of one measurement, a little over a tenth of a second.
const RUNS: u32 = 1 << 19;
/// Those of a flood, a second or nearly: several windows, each of which has a budget of new flows.
const FLOOD_RUNS: u32 = 1 << 22;
/// Measurements of each program in a round; the least disturbed one counts.
const TRIES: usize = 3;

const TCP4: Shape = Shape { family: Family::V4, transport: Transport::Tcp };
const UDP4: Shape = Shape { family: Family::V4, transport: Transport::Udp };
const TCP6: Shape = Shape { family: Family::V6, transport: Transport::Tcp };

/// What is measured of one program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Target {
    program: Program,
    hook: Hook,
    packets: Packets,
}

/// Who handles a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Program {
    /// A step of the floor, by its name.
    Floor(&'static str),
    Blixt,
}

/// What packets come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Packets {
    /// Of so many established flows.
    Established(Shape, u32),
    /// Of so many established flows, over [`world::LISTENERS`] listeners.
    Spread(u32),
    /// Each begins a flow; the table is full.
    New,
    /// The same, far more of them than one CPU takes on.
    Flood,
    /// For somebody else.
    NotOurs,
}

/// Nanoseconds of each target, round by round.
type Costs = BTreeMap<Target, Vec<f64>>;

/// One line: full NAT in TC against the floor that does it by the same helpers.
pub fn measure(floor: &Path, rounds: usize) -> Result<Vec<Line>> {
    let targets = [Program::Floor("nat_helpers"), Program::Blixt]
        .map(|program| target(program, Hook::Tc, Packets::Established(TCP4, FEW)));
    let costs = alone(|| known(floor, rounds, &targets, &[(TCP4, FEW)]))?;
    let [other, ours] = targets;
    let what = "a packet of an established flow in TC, full NAT, 65 536 flows, against the floor";
    Ok(vec![line(&costs, what, 1.5, ours, other)?])
}

/// Many lines: both hooks, known and new flows, both families and transports, and packets for somebody else.
pub fn measure_all(floor: &Path, rounds: usize) -> Result<Vec<Line>> {
    let known = &[1, SOME, MANY];
    let mut lines = lines(&costs(floor, rounds, known)?, known)?;
    let costs = alone(|| flood(floor, rounds))?;
    for (hook, what) in [
        (Hook::Xdp, "P6 XDP, a flood of new flows, the table full, against the floor of one half"),
        (Hook::Tc, "P6 TC, a flood of new flows, the table full, against the floor of one half"),
    ] {
        let ours = target(Program::Blixt, hook, Packets::Flood);
        let half = target(Program::Floor("half"), hook, Packets::New);
        lines.push(line(&costs, what, 0.35, ours, half)?.stretched(0.25));
    }
    lines.extend(listeners(floor, rounds)?);
    Ok(lines)
}

/// The same without what takes longest, the largest number of flows, in one round.
pub fn measure_few(floor: &Path) -> Result<Vec<Line>> {
    let known = &[1, SOME];
    lines(&costs(floor, 1, known)?, known)
}

/// What packets cost at so many established flows, and those that begin one.
fn costs(floor: &Path, rounds: usize, counts: &[u32]) -> Result<Costs> {
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut targets = Vec::new();
    for hook in [Hook::Tc, Hook::Xdp] {
        let established = |program, shape, flows| target(program, hook, Packets::Established(shape, flows));
        targets.extend([
            established(Program::Blixt, UDP4, SOME),
            established(Program::Blixt, TCP6, SOME),
            target(Program::Floor("look"), hook, Packets::NotOurs),
            target(Program::Blixt, hook, Packets::NotOurs),
        ]);
        for &flows in counts {
            targets.push(established(Program::Floor("nat"), TCP4, flows));
            targets.push(established(Program::Blixt, TCP4, flows));
        }
    }
    let flows = [(TCP4, most), (UDP4, SOME), (TCP6, SOME)];
    let mut costs = alone(|| known(floor, rounds, &targets, &flows))?;
    costs.extend(alone(|| fresh(floor, rounds))?);
    Ok(costs)
}

/// Two lines: flows of 10 000 listeners against as many of one.
fn listeners(object: &Path, rounds: usize) -> Result<Vec<Line>> {
    let packets = [Packets::Established(TCP4, SOME), Packets::Spread(SOME)];
    let ours = |hook, packets| target(Program::Blixt, hook, packets);
    let targets = [Hook::Xdp, Hook::Tc].map(|hook| packets.map(|packets| ours(hook, packets)));
    let costs = alone(|| {
        let mut floor = Floor::load(object, LITTLE_ROOM)?;
        let mut dataplane = world::open(ROOM, u32::MAX)?;
        world::add_listeners(&mut dataplane)?;
        for walk in packets.map(|packets| ours(Hook::Tc, packets).walk()) {
            world::establish(&mut dataplane, &walk)?;
        }
        take(&mut floor, &mut dataplane, &targets.concat(), rounds)
    })?;
    let whats =
        ["P9 XDP, flows of 10 000 listeners against one", "P9 TC, flows of 10 000 listeners against one"];
    let line = |(what, [one, many]): (&'static str, [Target; 2])| {
        Ok(line(&costs, what, 1.05, many, one)?.stretched(1.0))
    };
    whats.into_iter().zip(targets).map(line).collect()
}

/// In a namespace of its own, which has nothing but a loopback, and on one processor.
fn alone<T: Send>(take: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let machine = Machine::new("balancer")?;
    let taken = pinned(|| machine.run(take));
    let cleaned = machine.run(cleanup);
    let taken = taken?;
    cleaned?;
    Ok(taken)
}

/// What packets of established flows, and those for others, cost. The first shape's flows are the floor's, too.
fn known(object: &Path, rounds: usize, targets: &[Target], flows: &[(Shape, u32)]) -> Result<Costs> {
    let mut floor = Floor::load(object, ROOM * 2)?;
    let mut dataplane = world::open(ROOM, u32::MAX)?;
    for (index, (shape, count)) in flows.iter().enumerate() {
        let established = target(Program::Blixt, Hook::Tc, Packets::Established(*shape, *count));
        world::establish(&mut dataplane, &established.walk())?;
        if index == 0 {
            floor.fill(&world::entries(&dataplane, *count)?)?;
        }
    }
    take(&mut floor, &mut dataplane, targets, rounds)
}

/// What packets that begin a flow cost, however many they are.
fn fresh(object: &Path, rounds: usize) -> Result<Costs> {
    full(object, rounds, u32::MAX, &[(Program::Floor("begin"), Packets::New), (Program::Blixt, Packets::New)])
}

/// What those of a flood cost.
fn flood(object: &Path, rounds: usize) -> Result<Costs> {
    let targets = [(Program::Floor("half"), Packets::New), (Program::Blixt, Packets::Flood)];
    full(object, rounds, in_a_window(NEW_FLOWS), &targets)
}

/// What new flows cost where the table is full.
fn full(object: &Path, rounds: usize, new_flows: u32, whats: &[(Program, Packets)]) -> Result<Costs> {
    let mut floor = Floor::load(object, LITTLE_ROOM * 2)?;
    let mut dataplane = world::open(LITTLE_ROOM, new_flows)?;
    let mut targets = Vec::new();
    for hook in [Hook::Tc, Hook::Xdp] {
        targets.extend(whats.iter().map(|(program, packets)| target(*program, hook, *packets)));
    }
    take(&mut floor, &mut dataplane, &targets, rounds)
}

const fn target(program: Program, hook: Hook, packets: Packets) -> Target {
    Target { program, hook, packets }
}

impl Target {
    /// The packets that it gets.
    fn walk(self) -> Walk {
        let walk = |shape: Shape, flows, to: Place, flags| {
            let spread = matches!(self.packets, Packets::Spread(_));
            Walk { shape, flows, to, spread, frame: shape.of_client(0, to, flags) }
        };
        match self.packets {
            Packets::Established(shape, flows) => walk(shape, flows, FRONTEND, ACK),
            Packets::Spread(flows) => walk(TCP4, flows, world::FIRST_LISTENER, ACK),
            Packets::New | Packets::Flood => walk(TCP4, FRESH, FRONTEND, SYN),
            Packets::NotOurs => walk(TCP4, SOME, FOREIGN, ACK),
        }
    }

    /// Runs of one measurement.
    const fn runs(self) -> u32 {
        if matches!(self.packets, Packets::Flood) { FLOOD_RUNS } else { RUNS }
    }

    /// What becomes of them.
    const fn end(self) -> End {
        match self.packets {
            Packets::NotOurs => End::NotOurs,
            _ => End::SentOn,
        }
    }
}

/// Nanoseconds of every target without what the driver takes, interleaved.
fn take(floor: &mut Floor, dataplane: &mut Dataplane, targets: &[Target], rounds: usize) -> Result<Costs> {
    let mut programs = Vec::new();
    for target in targets {
        let Target { program: of, hook, .. } = *target;
        let walk = target.walk();
        let fd = match of {
            Program::Floor(name) => floor.program(name, hook)?,
            Program::Blixt => {
                let name = if hook == Hook::Tc { "blixt_ingress" } else { "blixt_xdp" };
                program(dataplane.programs()?, name, hook)?
            }
        };
        floor.check(&fd, &format!("{of:?}"), hook, &walk, target.end())?;
        programs.push((*target, floor.program("nothing", hook)?, fd, walk));
    }
    let mut costs = Costs::new();
    for _ in 0..rounds {
        let mut least: BTreeMap<Target, f64> = BTreeMap::new();
        for _ in 0..TRIES {
            for (target, nothing, fd, walk) in &programs {
                let driver = floor.measure(nothing, target.hook, walk, RUNS)?;
                let net = floor.measure(fd, target.hook, walk, target.runs())? - driver;
                least.entry(*target).and_modify(|least| *least = least.min(net)).or_insert(net);
            }
        }
        for (target, net) in least {
            costs.entry(target).or_default().push(net);
        }
    }
    Ok(costs)
}

/// The cost of one target in that of another.
fn line(costs: &Costs, what: &'static str, bar: f64, ours: Target, other: Target) -> Result<Line> {
    let of = |target: Target| -> Result<Part> {
        let rounds = costs.get(&target).with_context(|| format!("{target:?}: not measured"))?;
        Ok(Part::new(name(target), "ns", rounds.clone()))
    };
    Ok(Line::ratio(what, Bar::AtMost(bar), of(ours)?, of(other)?))
}

fn lines(costs: &Costs, counts: &[u32]) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut line = |what, [bar, stretch]: [f64; 2], ours, other| -> Result<()> {
        lines.push(line(costs, what, bar, ours, other)?.stretched(stretch));
        Ok(())
    };
    let known = |program, hook, shape, flows| target(program, hook, Packets::Established(shape, flows));
    let ours = |hook, shape, flows| known(Program::Blixt, hook, shape, flows);
    let floor = |hook, flows| known(Program::Floor("nat"), hook, TCP4, flows);
    let (tc, xdp) = (Hook::Tc, Hook::Xdp);
    for (hook, flows, bars, what) in [
        (xdp, 1, [1.8, 1.4], "P3 XDP, a packet of the only flow, against the floor"),
        (xdp, SOME, [1.15, 1.05], "P3 XDP, 131 072 flows, against the floor"),
        (xdp, MANY, [1.15, 1.05], "P3 XDP, 524 288 flows, against the floor"),
        (tc, 1, [2.5, 2.2], "P4 TC, a packet of the only flow, against the floor"),
        (tc, SOME, [1.25, 1.1], "P4 TC, 131 072 flows, against the floor"),
        (tc, MANY, [1.25, 1.1], "P4 TC, 524 288 flows, against the floor"),
    ] {
        if counts.contains(&flows) {
            line(what, bars, ours(hook, TCP4, flows), floor(hook, flows))?;
        }
    }
    for (hook, what) in [
        (xdp, "P5 XDP, a new flow, the table full, against the floor"),
        (tc, "P5 TC, a new flow, the table full, against the floor"),
    ] {
        line(
            what,
            [1.2, 1.0],
            target(Program::Blixt, hook, Packets::New),
            target(Program::Floor("begin"), hook, Packets::New),
        )?;
    }
    for (hook, udp, v6) in [
        (xdp, "P7 XDP, UDP against TCP", "P7 XDP, IPv6 against IPv4"),
        (tc, "P7 TC, UDP against TCP", "P7 TC, IPv6 against IPv4"),
    ] {
        line(udp, [1.1, 1.0], ours(hook, UDP4, SOME), ours(hook, TCP4, SOME))?;
        line(v6, [1.25, 1.1], ours(hook, TCP6, SOME), ours(hook, TCP4, SOME))?;
    }
    for (hook, what) in [
        (xdp, "P8 XDP, a packet for somebody else, against a lookup"),
        (tc, "P8 TC, a packet for somebody else, against a lookup"),
    ] {
        line(
            what,
            [1.5, 1.0],
            target(Program::Blixt, hook, Packets::NotOurs),
            target(Program::Floor("look"), hook, Packets::NotOurs),
        )?;
    }
    Ok(lines)
}

fn name(target: Target) -> String {
    match target.program {
        Program::Floor(name) => format!("floor: {name}"),
        Program::Blixt => match target.packets {
            Packets::Established(shape, _) => format!("Blixt, {:?} {:?}", shape.family, shape.transport),
            Packets::Spread(_) => format!("Blixt, {} listeners", world::LISTENERS),
            _ => "Blixt".to_owned(),
        },
    }
}
