//! `forward` on the host as a target.

use std::collections::BTreeMap;

use blixt_cases::host::{Clock, begin, show};
use blixt_core::simulation::{AddressFamily, Simulation};
use blixt_core::tables::Tables;
use blixt_packet::abi::{FlowKey, Settings, V4, V6};
use blixt_packet::state::State;

use crate::flow::Tuple;
use crate::network;
use crate::story::{Script, Sight, Step, Story, Target, hex};
use crate::table::{Row, difference, rows};

/// The data plane of `blixt-core`.
#[derive(Default)]
pub struct Host {
    flaw: Option<Flaw>,
}

/// What is wrong with tables and settings before `forward` sees them.
pub type Flaw = fn(&mut Tables, &mut Settings);

impl Host {
    /// One that sees other tables or settings than the model: it must be found out.
    pub fn flawed(flaw: Flaw) -> Self {
        Self { flaw: Some(flaw) }
    }
}

impl Target for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn can_see(&self, _: &Script) -> bool {
        true
    }

    fn sight(&self) -> Sight {
        Sight::Everything
    }

    fn play(&mut self, story: &Story) -> Result<(), String> {
        let mut versions = versions(story);
        let mut settings = story.script.settings;
        if let Some(flaw) = self.flaw {
            versions.iter_mut().for_each(|tables| flaw(tables, &mut settings));
        }
        let mut versions = versions.iter();
        let clock = Clock::default();
        clock.0.set(story.beginning());
        let tables = versions.next().ok_or("a story begins with tables")?;
        let mut simulation = begin(tables, &clock, settings);
        for (index, (step, outcome)) in story.script.steps.iter().zip(&story.outcomes).enumerate() {
            match (step, outcome) {
                (Step::Frame(given), Some(outcome)) => {
                    let (verdict, bytes) = show(&simulation, given);
                    let wanted = outcome.frame(&given.frame);
                    if verdict != outcome.verdict() || wanted.is_some_and(|wanted| wanted != bytes) {
                        return Err(format!(
                            "step {index}\n  model  {:?}\n         {}\n  target {verdict:?}\n         {}",
                            outcome.verdict(),
                            wanted.map(hex).unwrap_or_default(),
                            hex(&bytes)
                        ));
                    }
                }
                (Step::Frame(_), None) => return Err(format!("step {index}: the model judged nothing")),
                (Step::Wait(seconds), _) => clock.0.set(clock.0.get() + seconds),
                (Step::Change(_), _) => {
                    let tables = versions.next().ok_or("every change makes tables")?;
                    simulation = simulation.over(tables);
                }
                (Step::Forget(tuple), _) if tuple.from.0.is_ipv4() => forget::<V4>(&simulation, tuple),
                (Step::Forget(tuple), _) => forget::<V6>(&simulation, tuple),
            }
        }
        let mut seen: BTreeMap<Tuple, Row> = BTreeMap::new();
        seen.extend(simulation.flows::<V4>().iter().map(|(key, flow)| Row::of(key, flow)));
        seen.extend(simulation.flows::<V6>().iter().map(|(key, flow)| Row::of(key, flow)));
        difference(&rows(&story.end), &seen).map_or(Ok(()), Err)
    }
}

/// The tables at first, and after each change.
fn versions(story: &Story) -> Vec<Tables> {
    let mut versions = vec![network::tables()];
    for step in &story.script.steps {
        if let Step::Change(change) = step
            && let Some(tables) = versions.last()
        {
            let mut tables = tables.clone();
            change.ops(&tables).iter().for_each(|op| tables.apply(op));
            versions.push(tables);
        }
    }
    versions
}

fn forget<A: AddressFamily>(simulation: &Simulation<'_>, tuple: &Tuple) {
    if let (Some(source), Some(destination)) = (A::from_ip(tuple.from.0), A::from_ip(tuple.to.0)) {
        let ports = [tuple.from.1.to_be(), tuple.to.1.to_be()];
        let protocol = u32::from(tuple.protocol);
        State::<A>::remove_flow(simulation, &FlowKey { source, destination, ports, protocol });
    }
}
