//! Looking into the flow tables.

use blixt_packet::abi::{Flow, FlowKey};

use crate::Error;
use crate::family::{FamilyMaps, MapAddress};
use crate::maps::Maps;

/// Entries that are read to judge the rest by.
const SAMPLE: u64 = 16_384;

/// Entries of a flow table.
pub type FlowEntries<A> = Vec<(FlowKey<A>, Flow<A>)>;

/// About how many entries both flow tables hold (two for each connection); exactly, as long as they are few.
pub(crate) fn estimate(maps: &Maps) -> Result<u64, Error> {
    Ok(estimate_family(&maps.v4)? + estimate_family(&maps.v6)?)
}

/// Up to `limit` entries of a flow table.
pub(crate) fn list<A: MapAddress>(maps: &FamilyMaps<A>, limit: usize) -> Result<FlowEntries<A>, Error> {
    let mut flows = Vec::new();
    maps.flows.walk(|some| {
        flows.extend(some);
        flows.len() < limit
    })?;
    flows.truncate(limit);
    Ok(flows)
}

/// Entries are spread evenly over the buckets of a hash: so many of the buckets hold so many of the entries.
fn estimate_family<A: MapAddress>(maps: &FamilyMaps<A>) -> Result<u64, Error> {
    let mut entries = 0;
    let buckets = u64::from(maps.flows.max_entries().next_power_of_two());
    let seen = maps.flows.walk(|some| {
        entries += some.len() as u64;
        entries < SAMPLE
    })?;
    Ok(match u64::from(seen) {
        0 => entries,
        seen => entries * buckets / seen.min(buckets),
    })
}
