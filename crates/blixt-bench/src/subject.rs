//! What can be measured alone.

use anyhow::Result;
use blixt_bars::Line;

use crate::{Args, bulk, change, connections, packet, start};

/// A subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Subject {
    /// A packet of an established flow.
    Packet,
    /// Every kind of packet at both hooks, against floors of one step each.
    Path,
    /// Bulk TCP.
    Bulk,
    /// New connections a second.
    Connections,
    /// A changed EndpointSlice among 10 000 routes.
    Change,
    /// A cold start with 10 000 routes, and the memory that it leaves the process with.
    Start,
}

impl Subject {
    /// Its lines.
    pub fn measure(self, args: &Args) -> Result<Vec<Line>> {
        let Args { blixt, floor, .. } = args;
        let rounds = args.rounds as usize;
        match self {
            Self::Packet => packet::measure(floor, rounds),
            Self::Path => packet::measure_all(floor, rounds),
            Self::Bulk => bulk::measure(blixt, rounds),
            Self::Connections => connections::measure(blixt, rounds),
            Self::Change => Ok(vec![change::measure(blixt, rounds)?]),
            Self::Start => start::measure(blixt, rounds),
        }
    }
}
