//! The runner on the host: `forward` itself, over the tables of a case.

use std::cell::Cell;
use std::net::IpAddr;

use blixt_core::simulation::{Buffer, Memory, Simulation};
use blixt_core::tables::Tables;
use blixt_packet::Verdict;
use blixt_packet::abi::{Flow, FlowKey, Link, Settings, V4, V6};

use crate::case::{Given, Place};

/// A clock that is set by hand, of a data plane without a past.
#[derive(Debug, Default)]
pub struct Clock(pub Cell<u32>);

/// Shows the data plane a frame: the verdict, and the frame as it is afterwards.
pub fn show(simulation: &Simulation<'_>, given: &Given) -> (Verdict, Vec<u8>) {
    let (Place::Enters(ifindex) | Place::Leaves(ifindex)) = given.place;
    let mut pkt = Buffer {
        bytes: given.frame.clone(),
        link: Link::new(ifindex, 0),
        segment: given.segment,
        ..Buffer::default()
    };
    let verdict = match given.place {
        Place::Enters(_) => simulation.enters(&mut pkt),
        Place::Leaves(_) => simulation.leaves(&mut pkt),
    };
    (verdict, pkt.bytes)
}

/// A data plane that has just begun.
pub fn begin<'a>(tables: &'a Tables, clock: &'a Clock, settings: Settings) -> Simulation<'a> {
    Simulation::new(tables, clock, settings)
}

impl Memory for Clock {
    fn now(&self) -> u32 {
        self.0.get()
    }

    fn knows(&self, _: IpAddr) -> bool {
        false
    }

    fn flow_v4(&self, _: &FlowKey<V4>) -> Option<Flow<V4>> {
        None
    }

    fn flow_v6(&self, _: &FlowKey<V6>) -> Option<Flow<V6>> {
        None
    }
}
