//! What happens to a machine, step by step, and what the model did.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

use blixt_cases::{Given, Place};
use blixt_packet::abi::Settings;

use crate::change::Change;
use crate::flow::Tuple;
use crate::model::Model;
use crate::network::{SETTINGS, tables};
use crate::outcome::Outcome;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame comes by.
    Frame(Given),
    /// Seconds go by.
    Wait(u32),
    /// User space writes.
    Change(Change),
    /// The table gives the place of one half of a connection away.
    Forget(Tuple),
}

/// Everything that happens, and what the program was loaded with.
#[derive(Clone, Debug)]
pub struct Script {
    /// Constants of the program.
    pub settings: Settings,
    /// In order.
    pub steps: Vec<Step>,
}

/// A script, and what the model did.
pub struct Story {
    /// What happens.
    pub script: Script,
    /// What must become of each step's frame.
    pub outcomes: Vec<Option<Outcome>>,
    /// The model in the end.
    pub end: Model,
}

/// What a target sees of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// Any frame, segments that are cut later, any settings.
    Everything,
    /// As the TC program in single runs: no VLAN tag in the bytes, and an IP header in every packet.
    Tc,
    /// As the XDP program in single runs: an IP header in every packet, and none larger than its device takes, which is for generic XDP
    /// one that the kernel has put together.
    Xdp,
}

/// Whoever can be shown a story.
pub trait Target {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// It can be shown this at all.
    fn can_see(&self, script: &Script) -> bool;

    /// What it sees of the world.
    fn sight(&self) -> Sight;

    /// Plays a story from its beginning; an error says where it left the model's way, and how.
    fn play(&mut self, story: &Story) -> Result<(), String>;
}

/// The second in which every story begins: later than the longest timeout.
const BEGINNING: u32 = 100_000;

impl Story {
    /// Nothing happened yet.
    pub fn new(settings: Settings) -> Self {
        let script = Script { settings, steps: vec![] };
        Self { script, outcomes: vec![], end: Model::new(tables(), settings, BEGINNING) }
    }

    /// What the model does in a script.
    pub fn of(script: &Script) -> Self {
        let mut story = Self::new(script.settings);
        script.steps.iter().for_each(|step| story.goes_on(step.clone()));
        story
    }

    /// One thing more happens.
    pub fn goes_on(&mut self, step: Step) {
        let model = &mut self.end;
        let mut outcome = None;
        match &step {
            Step::Frame(Given { place, frame, segment }) => {
                outcome = Some(match *place {
                    Place::Enters(ifindex) => model.enters(frame, ifindex, *segment),
                    Place::Leaves(ifindex) => model.leaves(frame, ifindex, *segment),
                });
            }
            Step::Wait(seconds) => model.now += seconds,
            Step::Change(change) => {
                change.ops(&model.tables).iter().for_each(|op| model.tables.apply(op));
            }
            Step::Forget(tuple) => {
                model.flows.remove(tuple);
            }
        }
        self.outcomes.push(outcome);
        self.script.steps.push(step);
    }

    /// Nothing in it is the kernel's to say, nor its clock's.
    pub fn is_decided(&self, sight: Sight) -> bool {
        let Model { asks_kernel, is_close, has_late_syn, .. } = self.end;
        !(asks_kernel || is_close && sight != Sight::Everything || has_late_syn && sight == Sight::Xdp)
    }

    /// The clock when the story began.
    pub fn beginning(&self) -> u32 {
        BEGINNING
    }

    /// Frames that are judged in it.
    pub fn frames(&self) -> usize {
        self.outcomes.iter().flatten().count()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { first_port, last_port, answers, new_flows, .. } = self.settings;
        writeln!(f, "settings {first_port} {last_port} {answers} {new_flows}")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(Given { place, frame, segment }) => {
                match place {
                    Place::Enters(ifindex) => write!(f, "enters {ifindex} {segment} ")?,
                    Place::Leaves(ifindex) => write!(f, "leaves {ifindex} {segment} ")?,
                }
                f.write_str(&hex(frame))
            }
            Self::Wait(seconds) => write!(f, "wait {seconds}"),
            Self::Change(change) => write!(f, "change {change}"),
            Self::Forget(Tuple { from, to, protocol }) => {
                write!(f, "forget {} {} {} {} {protocol}", from.0, from.1, to.0, to.1)
            }
        }
    }
}

impl FromStr for Script {
    type Err = String;

    /// Lines that are empty or begin with `#` say nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self { settings: SETTINGS, steps: vec![] };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(settings) = line.strip_prefix("settings ") {
                script.settings =
                    parse_settings(settings).ok_or_else(|| format!("{line}: not four numbers"))?;
            } else {
                script.steps.push(line.parse()?);
            }
        }
        Ok(script)
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let step = match word {
            "enters" | "leaves" => parse_frame(word, rest).map(Self::Frame),
            "wait" => rest.parse().ok().map(Self::Wait),
            "change" => return rest.parse().map(Self::Change),
            "forget" => parse_tuple(rest).map(Self::Forget),
            _ => None,
        };
        step.ok_or_else(|| format!("{line}: no such step"))
    }
}

/// Bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_settings(text: &str) -> Option<Settings> {
    let numbers: Vec<u32> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [first, last, answers, new_flows] = numbers[..] else { return None };
    Some(Settings { first_port: first as u16, last_port: last as u16, answers, new_flows, ..SETTINGS })
}

fn parse_frame(word: &str, text: &str) -> Option<Given> {
    let mut words = text.split_whitespace();
    let ifindex = words.next()?.parse().ok()?;
    let segment = words.next()?.parse().ok()?;
    let digits = words.next()?;
    let bytes = (0..digits.len() / 2).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok());
    let place = if word == "enters" { Place::Enters(ifindex) } else { Place::Leaves(ifindex) };
    Some(Given { place, frame: bytes.collect::<Option<_>>()?, segment })
}

fn parse_tuple(text: &str) -> Option<Tuple> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [from, from_port, to, to_port, protocol] = words[..] else { return None };
    let end = |address: &str, port: &str| Some((address.parse::<IpAddr>().ok()?, port.parse().ok()?));
    Some(Tuple { from: end(from, from_port)?, to: end(to, to_port)?, protocol: protocol.parse().ok()? })
}
