//! Every map that user space reads or writes.

use blixt_packet::abi::{Device, Hop, RouteCounters, RouteHash, V4, V6};

use crate::Error;
use crate::cpu_table::CpuTable;
use crate::family::FamilyMaps;
use crate::object::Fds;
use crate::rings::Rings;
use crate::table::Table;

/// The maps of one load.
#[derive(Debug)]
pub struct Maps {
    pub(crate) v4: FamilyMaps<V4>,
    pub(crate) v6: FamilyMaps<V6>,
    pub(crate) rings: Rings,
    pub(crate) hops: Table<u32, Hop>,
    pub(crate) devices: Table<u32, Device>,
    pub(crate) routes: Table<u32, RouteHash>,
    pub(crate) route_counters: CpuTable<RouteCounters>,
    pub(crate) drops: CpuTable<u64>,
}

impl Maps {
    pub(crate) fn new(fds: &Fds, cpus: usize) -> Result<Self, Error> {
        Ok(Self {
            v4: FamilyMaps::new(fds, cpus)?,
            v6: FamilyMaps::new(fds, cpus)?,
            rings: Rings::new(fds.table("RINGS")?, fds.table("RING_HASHES")?),
            hops: fds.table("HOPS")?,
            devices: fds.table("DEVICES")?,
            routes: fds.table("ROUTES")?,
            route_counters: fds.cpu_table("ROUTE_COUNTERS", cpus)?,
            drops: fds.cpu_table("DROPS", cpus)?,
        })
    }
}
