//! A long time of change under load: backends, weights, listeners and connections of all kinds come and go, and what must
//! hold is looked at all the time.

mod findings;
mod manifests;
mod sample;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use blixt_lab::{
    Attempt, Busy, Churn, Failure, Family, Lab, Pace, Pacer, Protocol, Server, Tally, address, connect,
    exchange, tally,
};
use indicatif::{ProgressBar, ProgressStyle};

use self::findings::Findings;
use self::manifests::{BACKENDS, Front, State, TARGET, VISITORS};
use self::sample::Sample;
use crate::stage::{PATIENCE, Stage};

/// What it takes.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How long, in minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Makes the same changes again.
    #[arg(long)]
    seed: Option<u64>,
    /// The program that is soaked.
    #[arg(long, hide = true)]
    blixt: PathBuf,
}

/// Connections that are busy from the first minute to the last, of each family.
const LONG: usize = 25;
/// Connections that are busy while their backends come and go.
const SHORT: usize = 30;
/// Between two messages of a busy connection, and between two new connections.
const PAUSE: Duration = Duration::from_millis(20);
/// Numbered datagrams of a turn.
const PACE: Pace = Pace { flows: 20, datagrams: 2000, rate: 1000 };
/// New connections by which a change is looked at.
const FEW: usize = 40;
/// New connections by which weights are looked at,
const MANY: usize = 400;
/// and how far a share may be from its weight: more than five standard deviations.
const TOLERANCE: f64 = 0.13;
/// A change is in force when nothing was applied for so long.
const QUIET: Duration = Duration::from_millis(700);
/// At rest, memory is given back.
const REST: Duration = Duration::from_secs(5);
/// In this part of the time the process is killed again and again; then it has to last.
const KILLS: f64 = 0.2;
/// Every so many turns it is killed, or told to read every file again.
const KILL_EVERY: u64 = 5;
const REREAD_EVERY: u64 = 7;

/// Soaks; whether everything held.
pub fn run(args: &Args) -> Result<bool> {
    if args.minutes == 0 {
        bail!("--minutes 0: nothing would be looked at; give at least 1");
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: `--seed {seed}` makes the same changes");
    let mut soak = Soak::start(&args.blixt, seed)?;
    let length = Duration::from_secs(args.minutes * 60);
    let begun = Instant::now();
    let bar = ProgressBar::new(length.as_secs());
    bar.set_style(ProgressStyle::with_template("{bar:40} {elapsed_precise} {msg}")?);
    let mut baseline = None;
    while begun.elapsed() < length {
        let past = begun.elapsed().as_secs_f64() / length.as_secs_f64();
        if past >= KILLS && baseline.is_none() {
            baseline = Some(soak.at_rest()?);
        }
        soak.turn(past < KILLS)?;
        bar.set_position(begun.elapsed().as_secs());
        bar.set_message(format!("{} changes, {} broken", soak.turns, soak.findings.broken()));
    }
    bar.finish_and_clear();
    let last = soak.at_rest()?;
    if let Some(baseline) = baseline {
        println!("after a fifth of the time: {baseline}\nat the end:                {last}");
        last.compare(baseline, &mut soak.findings);
    }
    soak.end()
}

/// An instance, its clients, and what was found.
struct Soak {
    stage: Stage,
    random: fastrand::Rng,
    state: State,
    turns: u64,
    long: Vec<Busy>,
    findings: Findings,
    _servers: Vec<Server>,
}

impl Soak {
    fn start(blixt: &Path, seed: u64) -> Result<Self> {
        let mut stage = Stage::new(blixt, BACKENDS)?;
        stage.lab.client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let any = any.map(|address| SocketAddr::new(address, TARGET));
        let serve = |(number, node)| Server::start(node, name(number), &any);
        let servers = (1..).zip(&stage.lab.backends).map(serve).collect::<Result<Vec<_>, _>>()?;
        let state = State::first();
        state.write(&stage)?;
        stage.start_and_wait()?;
        let mut long = Vec::new();
        for family in Family::ALL {
            long.push(Busy::start(&stage.lab.client, Front::Steady.place(family), LONG, PAUSE)?);
        }
        let random = fastrand::Rng::with_seed(seed);
        Ok(Self { stage, random, state, turns: 0, long, findings: Findings::default(), _servers: servers })
    }

    /// One change under load, and a look at all that must hold.
    fn turn(&mut self, may_kill: bool) -> Result<()> {
        self.turns += 1;
        let family = if self.turns.is_multiple_of(2) { Family::V4 } else { Family::V6 };
        let client = self.stage.lab.client.clone();
        let members = Busy::start(&client, Front::Members.place(family), SHORT, PAUSE)?;
        let pacer = Pacer::start(&client, Front::Steady.place(family), PACE)?;
        let churns: Vec<(Front, Churn)> = [Front::Steady, Front::Kept]
            .into_iter()
            .flat_map(|front| Protocol::ALL.map(|protocol| (front, protocol)))
            .map(|(front, protocol)| (front, Churn::start(&client, protocol, front.place(family), PAUSE)))
            .collect();

        let before = std::mem::replace(&mut self.state, State::random(&mut self.random));
        self.state.write(&self.stage)?;
        if may_kill && self.turns.is_multiple_of(KILL_EVERY) {
            self.stage.kill()?;
            self.stage.start_and_wait()?;
        } else if self.turns.is_multiple_of(REREAD_EVERY) {
            self.stage.reread()?;
        }
        self.wait_until_in_force()?;

        self.look_at_members(family);
        self.look_at_weights(family);
        self.look_at_visitors(family);
        self.look_at_busy(members, &before);
        self.look_at_datagrams(pacer);
        for (front, churn) in churns {
            self.look_at_new(front, family, &churn.finish());
        }
        self.look_at_long();
        let frontends = self.stage.metric("blixt_frontends")? as usize;
        let wanted = self.state.frontends();
        self.findings.look("every listener is in the data plane, and no other", frontends == wanted, || {
            format!("{frontends} frontends instead of {wanted}")
        });
        Ok(())
    }

    /// Back to the first state, at rest.
    fn at_rest(&mut self) -> Result<Sample> {
        self.state = State::first();
        self.state.write(&self.stage)?;
        self.wait_until_in_force()?;
        thread::sleep(REST);
        Sample::take(&self.stage)
    }

    /// Ends the clients and the instance.
    fn end(mut self) -> Result<bool> {
        self.look_at_long();
        self.long.clear();
        self.stage.stop()?;
        println!("{} changes\n\n{}", self.turns, self.findings);
        Ok(self.findings.hold())
    }

    fn wait_until_in_force(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut since) = (f64::NAN, Instant::now());
        while since.elapsed() < QUIET {
            self.stage.assert_running()?;
            let applies = self.stage.metric("blixt_applies_total")?;
            if applies != last {
                (last, since) = (applies, Instant::now());
            }
            if Instant::now() > deadline {
                bail!("changes are applied for {PATIENCE:?} without end:\n{}", self.stage.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// New connections reach the backends that are there, and no other.
    fn look_at_members(&mut self, family: Family) {
        let members: BTreeSet<String> = self.state.members.iter().copied().map(name).collect();
        for protocol in Protocol::ALL {
            let tally = tally(&self.stage.lab.client, protocol, Front::Members.place(family), FEW);
            self.look_at_failures("no new connection fails", &tally);
            let others: Vec<_> = tally.answers.keys().filter(|name| !members.contains(*name)).collect();
            self.findings.look("no connection to a removed backend", others.is_empty(), || {
                format!("{others:?} answered over {protocol}; the backends are {members:?}")
            });
        }
    }

    fn look_at_weights(&mut self, family: Family) {
        let protocol = if self.random.bool() { Protocol::Tcp } else { Protocol::Udp };
        let tally = tally(&self.stage.lab.client, protocol, Front::Weights.place(family), MANY);
        self.look_at_failures("no new connection fails", &tally);
        let sum: u8 = self.state.weights.iter().sum();
        for (number, weight) in (1..).zip(self.state.weights) {
            let share = tally.of(&name(number)) as f64 / MANY as f64;
            let wanted = f64::from(weight) / f64::from(sum);
            let holds = if weight == 0 { share == 0.0 } else { (share - wanted).abs() < TOLERANCE };
            self.findings.look("shares are as the weights", holds, || {
                format!("{} got {share:.2} instead of {wanted:.2} over {protocol}", name(number))
            });
        }
    }

    /// Listeners that are there serve; others refuse.
    fn look_at_visitors(&mut self, family: Family) {
        let client = &self.stage.lab.client;
        for port in VISITORS {
            let to = Front::Visitor(port).place(family);
            let is_there = self.state.visitors.contains(&port);
            for protocol in Protocol::ALL {
                let result = match protocol {
                    Protocol::Tcp => connect(client, to).map(|connection| connection.answer),
                    Protocol::Udp => exchange(client, to, b"visitor"),
                };
                let holds = if is_there { result.is_ok() } else { result == Err(Failure::Refused) };
                self.findings.look("a listener serves from when it is there until it is gone", holds, || {
                    format!("{to} over {protocol}, there: {is_there}: {result:?}")
                });
            }
        }
    }

    /// Connections to backends that stay go on; those of backends that went are ended.
    fn look_at_busy(&mut self, busy: Busy, before: &State) {
        let stay: BTreeSet<String> = before
            .members
            .iter()
            .filter(|member| self.state.members.contains(member))
            .copied()
            .map(name)
            .collect();
        for connection in busy.finish() {
            let Some(backend) = connection.backend.clone() else {
                self.findings.look("no new connection fails", false, || format!("{connection:?}"));
                continue;
            };
            if stay.contains(&backend) {
                self.findings.look(
                    "no connection to a backend that stays is cut",
                    connection.failure.is_none(),
                    || format!("{connection:?}"),
                );
            } else {
                let is_ended = matches!(connection.failure, Some(Failure::Reset | Failure::Closed));
                self.findings.look("connections to a removed backend are ended", is_ended, || {
                    format!("{connection:?}")
                });
            }
        }
    }

    fn look_at_datagrams(&mut self, pacer: Pacer) {
        let report = pacer.finish();
        let holds = report.lost() + report.duplicates + report.moved + report.garbled == 0;
        self.findings.look("no datagram is lost, doubled or moved", holds, || format!("{report:?}"));
    }

    /// New connections amid a change: none fails, and backends see whom they should.
    fn look_at_new(&mut self, front: Front, family: Family, attempts: &[Attempt]) {
        let client = address(family, 0, Lab::OTHER);
        for Attempt { result, .. } in attempts {
            self.findings
                .look("no new connection fails", result.is_ok(), || format!("{front:?}: {result:?}"));
            let Ok(answer) = result else { continue };
            let is_client = answer.seen.ip() == client;
            self.findings.look(
                "the client's address is kept where it should be",
                is_client == (front == Front::Kept),
                || format!("{front:?}: {} saw {}", answer.backend, answer.seen),
            );
        }
    }

    fn look_at_long(&mut self) {
        for connection in self.long.iter().flat_map(Busy::now) {
            self.findings.look(
                "no connection of the whole time is cut",
                connection.failure.is_none(),
                || format!("{connection:?}"),
            );
        }
    }

    fn look_at_failures(&mut self, invariant: &'static str, tally: &Tally) {
        self.findings.look(invariant, tally.failures.is_empty(), || format!("{:?}", tally.failures));
    }
}

fn name(number: u8) -> String {
    format!("backend-{number}")
}
