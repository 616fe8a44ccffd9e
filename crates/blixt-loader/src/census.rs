//! How full the flow tables are, and how many of their entries gave way to others.
//!
//! A map that gives up what was not used for the longest time says to nobody that it does, nor how full it is. But the program counts what it
//! puts in and takes out, which costs an established connection nothing, and what is there a walk counts: the rest was evicted.
//!
//! ```text
//! evicted = added - removed - what the walk finds
//! ```
//!
//! What comes while the walk is under way may be found without being counted. So as long as connections begin, somewhat fewer may be said
//! than were evicted, and none that was not: the next walk makes up for it.

use blixt_packet::abi::{FLOW_COUNTERS, Flow, FlowCounters, FlowKey, Settings, V4, V6};
use blixt_packet::flow::Silence;

use crate::Error;
use crate::cpu_table::CpuTable;
use crate::family::{FamilyMaps, Flows, MapAddress};
use crate::machine;
use crate::maps::Maps;

/// What a flow table holds and gave up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowCount {
    /// Entries that there is room for, two for each connection.
    pub room: u64,
    /// Entries that are there. Those that are over stay until their place is needed.
    pub entries: u64,
    /// Entries of connections that are not over.
    pub open: u64,
    /// Entries that gave way to others since the maps were made.
    pub evicted: u64,
    /// Entries that were ever put in.
    pub added: u64,
}

/// Counts, beside whatever else is done with the maps.
#[derive(Debug)]
pub struct Census {
    v4: FamilyCensus<V4>,
    v6: FamilyCensus<V6>,
    settings: Settings,
}

#[derive(Debug)]
struct FamilyCensus<A: MapAddress> {
    flows: Flows<A>,
    counters: CpuTable<FlowCounters>,
}

impl Census {
    pub(crate) fn new(maps: &Maps, settings: Settings) -> Result<Self, Error> {
        Ok(Self { v4: FamilyCensus::new(&maps.v4)?, v6: FamilyCensus::new(&maps.v6)?, settings })
    }

    /// Counts the tables of IPv4 and IPv6, each entry of them, unless nothing came since `last` and nothing was open then.
    pub fn take(&self, [v4, v6]: [FlowCount; 2]) -> Result<[FlowCount; 2], Error> {
        let now = u32::try_from(machine::now().as_secs()).unwrap_or(u32::MAX);
        Ok([self.v4.take(v4, now, &self.settings)?, self.v6.take(v6, now, &self.settings)?])
    }
}

impl<A: MapAddress> FamilyCensus<A> {
    fn new(maps: &FamilyMaps<A>) -> Result<Self, Error> {
        Ok(Self { flows: maps.flows.try_clone()?, counters: maps.flow_counters.try_clone()? })
    }

    fn take(&self, last: FlowCount, now: u32, settings: &Settings) -> Result<FlowCount, Error> {
        let FlowCounters { added, removed } =
            self.counters.sums(FLOW_COUNTERS, sum)?.into_iter().fold(FlowCounters::default(), sum);
        if last.room > 0 && last.added == added && last.open == 0 {
            return Ok(last);
        }
        let (mut entries, mut open) = (0, 0);
        self.flows.walk(|some| {
            entries += some.len() as u64;
            open += some.iter().filter(|(key, flow)| is_open(key, flow, now, settings)).count() as u64;
            true
        })?;
        let evicted = added.saturating_sub(removed).saturating_sub(entries);
        Ok(FlowCount {
            room: self.flows.max_entries().into(),
            entries,
            open,
            // Nothing comes back: a walk that found what came meanwhile takes nothing of it back.
            evicted: evicted.max(last.evicted),
            added,
        })
    }
}

/// Counters of two CPUs, or of two elements, together.
pub(crate) fn sum(a: FlowCounters, b: FlowCounters) -> FlowCounters {
    FlowCounters { added: a.added + b.added, removed: a.removed + b.removed }
}

fn is_open<A: MapAddress>(key: &FlowKey<A>, flow: &Flow<A>, now: u32, settings: &Settings) -> bool {
    let limit = match flow.silence(key.protocol as u8) {
        Silence::Udp => settings.udp_idle,
        Silence::Unconfirmed => settings.syn_idle,
        Silence::Closed => return false,
        Silence::Lasting => return true,
    };
    now.saturating_sub(flow.seen) <= limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use blixt_packet::flow::{CONFIRMED, RESET};

    #[test]
    fn a_flow_is_open_until_it_is_closed_or_silent_for_too_long() {
        let settings = Settings { udp_idle: 120, syn_idle: 60, ..Settings::DEFAULT };
        let (tcp, udp) = (6, 17);
        for (protocol, state, silent, expected) in [
            (udp, 0, 120, true),
            (udp, 0, 121, false),
            (tcp, 0, 60, true),
            (tcp, 0, 61, false),
            (tcp, CONFIRMED, 100_000, true),
            (tcp, CONFIRMED | RESET, 0, false),
        ] {
            let key = FlowKey::<V4> { protocol, ..FlowKey::default() };
            let flow = Flow { state, seen: 1, ..Flow::default() };
            assert_eq!(is_open(&key, &flow, 1 + silent, &settings), expected, "{protocol} {state} {silent}");
        }
    }
}
