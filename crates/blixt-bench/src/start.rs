//! Cold starts with 10 000 routes: how soon the last frontend answers, and what the process holds then.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use blixt_bars::{Bar, Line, Part};
use blixt_lab::Machine;

use crate::chains::Chains;
use crate::fleet::{self, LARGE, NODES};
use crate::stage::{PATIENCE, Stage};

/// One cold start.
#[derive(Clone, PartialEq, Debug)]
pub struct Start {
    /// Seconds from the start of the process to the first answer on the last frontend.
    pub seconds: f64,
    /// MB that the process keeps resident once it has come to rest.
    pub resident: f64,
    /// MB that it held at most.
    pub peak: f64,
    /// Seconds of processor time up to rest.
    pub processor: f64,
}

/// MB of a MiB.
const MEBIBYTE: f64 = 1.048_576;
/// After the first answer: statuses are written, and memory is given back.
const REST: Duration = Duration::from_secs(3);
/// One attempt of a client.
const ATTEMPT: Duration = Duration::from_millis(50);

/// The lines of as many cold starts as there are rounds, of many routes and of one.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    let many = starts(blixt, rounds, LARGE)?;
    let one = starts(blixt, rounds, 1)?;
    let (_, seconds) = Chains::load()?;
    Ok(vec![
        time(&many),
        against_chains(&many, seconds),
        memory("P23 resident memory of the process at 10 000 routes x 3 backends", 100.0, 50.0, &many),
        memory("P23 resident memory of the process at one route", 25.0, 15.0, &one),
    ])
}

fn starts(blixt: &Path, rounds: usize, routes: u32) -> Result<Vec<Start>> {
    let mut stage = Stage::new(blixt, NODES)?;
    fleet::route_pods(&stage.lab)?;
    let _servers = fleet::serve(&stage.lab)?;
    fleet::write(&stage, routes)?;
    (0..rounds).map(|_| start(&mut stage, routes)).collect()
}

fn time(starts: &[Start]) -> Line {
    Line {
        what: "P22 a cold start with 10 000 routes x 3 backends answers on the last frontend",
        unit: "s",
        bar: Bar::AtMost(2.0),
        stretch: Some(0.5),
        rounds: starts.iter().map(|start| start.seconds).collect(),
        parts: vec![Part::new(
            "processor time up to rest",
            "s",
            starts.iter().map(|start| start.processor).collect(),
        )],
    }
}

/// Loading nftables takes a minute or two, and is far from the bar: once is enough for all rounds.
fn against_chains(starts: &[Start], seconds: f64) -> Line {
    let times: Vec<f64> = starts.iter().map(|start| start.seconds).collect();
    let loads = vec![seconds; times.len()];
    Line::ratio(
        "P22 a cold start with 10 000 routes x 3 backends, against loading nftables",
        Bar::AtMost(0.1),
        Part::new("Blixt", "s", times),
        Part::new("nftables, once for all rounds", "s", loads),
    )
    .stretched(0.017)
}

fn memory(what: &'static str, bar: f64, stretch: f64, starts: &[Start]) -> Line {
    Line {
        what,
        unit: "MB",
        bar: Bar::AtMost(bar),
        stretch: Some(stretch),
        rounds: starts.iter().map(|start| start.resident).collect(),
        parts: vec![Part::new("most at any time", "MB", starts.iter().map(|start| start.peak).collect())],
    }
}

fn start(stage: &mut Stage, routes: u32) -> Result<Start> {
    let begun = stage.start()?;
    let last = fleet::frontend(routes - 1);
    while !answers(&stage.lab.client, last) {
        stage.assert_running()?;
        if begun.elapsed() > PATIENCE {
            bail!("{last} does not answer after {PATIENCE:?}:\n{}", stage.log());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let seconds = begun.elapsed().as_secs_f64();
    thread::sleep(REST);
    let start = Start {
        seconds,
        resident: stage.memory("VmRSS")? * MEBIBYTE,
        peak: stage.memory("VmHWM")? * MEBIBYTE,
        processor: stage.processor_time()?,
    };
    stage.stop()?;
    Ok(start)
}

/// Whether a backend's greeting comes.
fn answers(client: &Machine, frontend: SocketAddr) -> bool {
    let greeting = || -> io::Result<String> {
        let stream = client.run(|| TcpStream::connect_timeout(&frontend, ATTEMPT))?;
        stream.set_read_timeout(Some(ATTEMPT))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    greeting().is_ok_and(|line| line.starts_with("backend-"))
}
