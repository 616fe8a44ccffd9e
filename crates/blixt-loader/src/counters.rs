//! What the kernel program counted, summed over CPUs.

use std::collections::BTreeMap;

use blixt_core::tables::{BackendSlot, Family};
use blixt_packet::DropReason;
use blixt_packet::abi::{RouteCounters, Traffic};

use crate::Error;
use crate::apply::Mirror;
use crate::maps::Maps;

/// All counters at one time. They begin when the maps are made, those of a route when its name changes, those of a
/// backend with its incarnation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// By route id.
    pub routes: BTreeMap<u32, RouteCounters>,
    /// Connections that each backend took.
    pub backends: BTreeMap<BackendSlot, u64>,
    /// Packets that were not sent on.
    pub drops: BTreeMap<DropReason, u64>,
}

pub(crate) fn read(maps: &Maps, mirror: &Mirror) -> Result<Counters, Error> {
    let end = mirror.routes.last_key_value().map_or(0, |(id, _)| id + 1);
    let routes = maps.route_counters.sums(end, add_routes)?;
    let drops = maps.drops.sums(DropReason::COUNT as u32, |a, b| a + b)?;
    let slots =
        |family| mirror.backends.keys().filter(move |slot| slot.family == family).map(|slot| slot.slot);
    let mut backends = BTreeMap::new();
    for (family, counters) in
        [(Family::V4, &maps.v4.backend_counters), (Family::V6, &maps.v6.backend_counters)]
    {
        let sums = counters.sums(slots(family).max().map_or(0, |slot| slot + 1), |a, b| a + b)?;
        backends.extend(
            slots(family).filter_map(|slot| Some((BackendSlot { family, slot }, *sums.get(slot as usize)?))),
        );
    }
    Ok(Counters {
        routes: mirror.routes.keys().filter_map(|id| Some((*id, *routes.get(*id as usize)?))).collect(),
        backends,
        drops: DropReason::ALL.iter().copied().zip(drops).collect(),
    })
}

fn add_routes(a: RouteCounters, b: RouteCounters) -> RouteCounters {
    let add = |a: Traffic, b: Traffic| Traffic { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    RouteCounters {
        requests: add(a.requests, b.requests),
        replies: add(a.replies, b.replies),
        connections: a.connections + b.connections,
        refused: a.refused + b.refused,
    }
}
