//! What can be measured alone.

use anyhow::Result;
use blixt_bars::Line;

use crate::{Args, bulk, change, connections, flood, generator, packet, ring, start};

/// A subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Subject {
    /// What a packet of an established flow costs in TC, in what it costs a program that does nothing but full NAT with the same helpers.
    Packet,
    /// What each kind of packet costs at both hooks, in what it costs a floor that does one step of it (P3 to P9): 1 would be a Blixt that does that step and nothing else. Also UDP in TCP's
    /// cost, IPv6 in IPv4's, and flows of 10 000 listeners in the cost of flows of one.
    Path,
    /// Bytes of a connection in the kernel (P19), instructions that the verifier looks at and seconds to load all programs (P24): no ratios.
    Size,
    /// Milliseconds to fill the largest ring, or where that is too long the same in the time of the paper's loop (P20).
    Ring,
    /// Packets a second without sockets through Blixt at either hook, in those through nftables and plain routing (P11, P12): 2 is twice as many.
    Generator,
    /// Gbit/s of bulk TCP at one stream and at four, in those of plain routing, nftables and proxies, with offloads (P13, P15) and as on a wire (P14): 1 is as fast, 2 twice as fast.
    Bulk,
    /// Connections a second in those by plain routing, nftables and proxies (P16): 1 is as many. Processor time that one adds to plain routing, in what nftables adds (P17), and the time of a request and its
    /// response in theirs (P18): less is better. Small datagrams in those through nftables, and connections to 10 000 listeners in those to one: 1 is as many.
    Connections,
    /// Connections a second amid a flood of SYNs, ten times as many as the table of flows has room for, in those of the same machine without it (R6): 1 is as many.
    Flood,
    /// Milliseconds until a changed EndpointSlice among 10 000 routes is in the maps, and the same in the time that nftables takes to change one service among as many (P21).
    Change,
    /// Seconds of a cold start with 10 000 routes, and the same in the time that nftables takes to load as many services (P22); the memory that the process keeps, and keeps with one route (P23).
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
            Self::Size => packet::size::measure(rounds),
            Self::Ring => Ok(vec![ring::measure(rounds)?]),
            Self::Generator => generator::measure(blixt, floor, rounds),
            Self::Bulk => bulk::measure(blixt, rounds),
            Self::Connections => connections::measure(blixt, rounds),
            Self::Flood => Ok(vec![flood::measure(blixt, rounds)?]),
            Self::Change => change::measure(blixt, rounds),
            Self::Start => start::measure(blixt, rounds),
        }
    }
}
