//! The kernel's programs beside the model of `blixt-model`: whole stories, a million frames at a time.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData};
use blixt_cases::{Given, Hook, Place};
use blixt_model::network::{SETTINGS, tables};
use blixt_model::{
    Outcome, Plan, Row, Script, Sight, Step, Story, Target, Tuple, difference, fuzz, hex, key_bytes,
    replay_corpus, rows,
};
use blixt_packet::DropReason;

use super::program::{Programs, clear, table};

/// Frames that are judged where nobody says how many.
const CASES: u64 = 300_000;
/// Connections that a story begins at most, and more.
const ROOM: u32 = 4096;
/// Seconds that a story may take: the clock of the kernel goes on meanwhile.
const SLOWEST: u32 = 30;

#[test]
fn tc_does_with_packets_what_the_model_does() {
    check(Hook::Tc);
}

#[test]
fn xdp_does_with_packets_what_the_model_does() {
    check(Hook::Xdp);
}

/// The stories that are kept, and then new ones.
fn check(hook: Hook) {
    Programs::run_with(hook, ROOM, SETTINGS, |programs| {
        let mut kernel = Kernel::new(hook, programs);
        let played = replay_corpus(&mut kernel).unwrap_or_else(|report| panic!("{report}"));
        assert!(played > 0);
        fuzz(&mut kernel, &Plan::from_environment(CASES)).unwrap_or_else(|report| panic!("{report}"));
    });
}

/// The programs as a target.
struct Kernel<'a> {
    hook: Hook,
    programs: &'a mut Programs,
    v4: HashMap<MapData, [u8; 16], [u8; 32]>,
    v6: HashMap<MapData, [u8; 40], [u8; 56]>,
    /// What was dropped until the story at hand.
    dropped: BTreeMap<DropReason, u64>,
}

impl<'a> Kernel<'a> {
    fn new(hook: Hook, programs: &'a mut Programs) -> Self {
        programs.begin(&tables());
        let pins = programs.pins();
        Self {
            hook,
            v4: table(pins.join("FLOWS_V4")),
            v6: table(pins.join("FLOWS_V6")),
            dropped: programs.drops(),
            programs,
        }
    }

    fn go(&mut self, story: &Story) -> Result<(), String> {
        let mut wanted = self.dropped.clone();
        for (index, (step, outcome)) in story.script.steps.iter().zip(&story.outcomes).enumerate() {
            match (step, outcome) {
                (Step::Frame(given), Some(outcome)) => {
                    let reason = self.show(given, outcome).map_err(|error| {
                        let counted = off(&wanted, &self.programs.drops());
                        format!("step {index}\n{error}\n  counted beside what should be: {counted}")
                    })?;
                    if let Some(reason) = reason {
                        *wanted.entry(reason).or_insert(0) += 1;
                    }
                }
                (Step::Frame(_), None) => return Err(format!("step {index}: the model judged nothing")),
                (Step::Wait(seconds), _) => self.programs.wait(*seconds),
                (Step::Change(change), _) => {
                    let ops = change.ops(self.programs.tables());
                    self.programs.apply(&ops);
                }
                (Step::Forget(tuple), _) => self.forget(tuple),
            }
        }
        self.dropped = self.programs.drops();
        if self.dropped != wanted {
            return Err(format!("counted beside what should be: {}", off(&wanted, &self.dropped)));
        }
        self.compare_flows(story)
    }

    /// What must be counted for the frame, if it was judged as it must be.
    fn show(&mut self, given: &Given, outcome: &Outcome) -> Result<Option<DropReason>, String> {
        let (action, frame) = self.programs.pass_by(given);
        let verdict = outcome.verdict();
        let is_tagged = given.frame.get(12..14) == Some(&[0x81, 0]);
        if is_tagged && matches!(outcome, Outcome::Deliver(_)) {
            // TC would find the tag beside the bytes, where a single run of a program cannot put it: what XDP leaves stays as it is.
            let is_left = action == Programs::tc_action(verdict) && frame == given.frame;
            return if is_left {
                Ok(None)
            } else {
                Err("a tagged frame that is TC's was not left alone".into())
            };
        }
        let wanted = outcome.frame(&given.frame);
        if action != self.programs.action(given, verdict) || wanted.is_some_and(|wanted| wanted != frame) {
            return Err(format!(
                "  model  {verdict:?}\n         {}\n  target action {action}\n         {}",
                wanted.map(hex).unwrap_or_default(),
                hex(&frame)
            ));
        }
        Ok(verdict.reason())
    }

    fn forget(&mut self, tuple: &Tuple) {
        // One that the table has not is what was wanted.
        let key = key_bytes(tuple);
        if let Ok(key) = <[u8; 16]>::try_from(&key[..]) {
            let _ = self.v4.remove(&key);
        } else if let Ok(key) = <[u8; 40]>::try_from(&key[..]) {
            let _ = self.v6.remove(&key);
        }
    }

    /// Compares the flow table with the model's, all but the clock, and takes what it finds out of it.
    fn compare_flows(&mut self, story: &Story) -> Result<(), String> {
        let wanted = rows(&story.end);
        let mut seen: BTreeMap<Tuple, Row> = BTreeMap::new();
        let now = now();
        for (tuple, row) in &wanted {
            let key = key_bytes(tuple);
            let value = match <[u8; 16]>::try_from(&key[..]) {
                Ok(key) => self.v4.get(&key, 0).map(Vec::from),
                Err(_) => self.v6.get(&key[..].try_into().unwrap(), 0).map(Vec::from),
            };
            self.forget(tuple);
            let Ok(value) = value else { continue };
            let found = Row::read(&value);
            let (age, wanted_age) = (now - found.seen, story.end.now - row.seen);
            if !(wanted_age..wanted_age + SLOWEST).contains(&age) {
                return Err(format!("{tuple:?} was seen {age} s ago instead of {wanted_age}"));
            }
            seen.insert(*tuple, Row { seen: row.seen, ..found });
        }
        if let Some(key) = self.v4.keys().next() {
            return Err(format!("a flow that the model has not: {:02x?}", key.unwrap()));
        }
        if let Some(key) = self.v6.keys().next() {
            return Err(format!("a flow that the model has not: {:02x?}", key.unwrap()));
        }
        difference(&wanted, &seen).map_or(Ok(()), Err)
    }
}

impl Target for Kernel<'_> {
    fn name(&self) -> &'static str {
        if self.hook == Hook::Tc { "tc" } else { "xdp" }
    }

    fn can_see(&self, script: &Script) -> bool {
        script.settings == SETTINGS
            && script.steps.iter().all(|step| match step {
                Step::Frame(Given { place, frame, segment }) => {
                    let kind = frame.get(12..14).unwrap_or_default();
                    let shortest = if kind == [8, 0] { 34 } else { 58 };
                    let is_tagged = kind == [0x81, 0];
                    *segment == 0
                        && frame.len() >= shortest
                        && !(is_tagged && (self.hook == Hook::Tc || matches!(place, Place::Leaves(_))))
                }
                _ => true,
            })
    }

    fn sight(&self) -> Sight {
        if self.hook == Hook::Tc { Sight::Tc } else { Sight::Xdp }
    }

    fn play(&mut self, story: &Story) -> Result<(), String> {
        let result = self.go(story);
        match &result {
            Ok(()) => {
                self.programs.write(&tables());
                self.programs.age_stray(u32::MAX);
                clear::<16, 12>(self.programs.pins().join("FRAGMENTS_V4"));
                clear::<40, 12>(self.programs.pins().join("FRAGMENTS_V6"));
            }
            Err(_) => {
                self.programs.begin(&tables());
                self.dropped = self.programs.drops();
            }
        }
        result
    }
}

/// By how much counters are off.
fn off(wanted: &BTreeMap<DropReason, u64>, seen: &BTreeMap<DropReason, u64>) -> String {
    let counters = seen.iter().map(|(reason, count)| (reason, *count as i64 - wanted[reason] as i64));
    let off: Vec<_> =
        counters.filter(|(_, by)| *by != 0).map(|(reason, by)| format!("{reason:?} {by:+}")).collect();
    off.join(", ")
}

/// The coarse monotonic clock, in seconds, as the program reads it.
fn now() -> u32 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).unwrap().tv_sec() as u32
}
