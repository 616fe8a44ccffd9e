//! What an instance holds at one moment.

use std::fmt;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData};

use super::findings::Findings;
use crate::stage::Stage;

/// Memory may grow by this share of what it was,
const GROWTH: f64 = 0.01;
/// and this: pages that the allocator keeps, in MiB.
const SLACK: f64 = 2.0;

/// What it holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// Resident memory, in MiB.
    resident: f64,
    /// Files, sockets and maps that are open.
    descriptors: usize,
    /// Files below its directory of pins.
    pins: usize,
    /// Frontends and backends in the maps, of both families.
    entries: usize,
}

impl Sample {
    /// As it is now.
    pub fn take(stage: &Stage) -> Result<Self> {
        Ok(Self {
            resident: stage.memory("VmRSS")?,
            descriptors: stage.descriptors()?,
            pins: std::fs::read_dir(stage.pins()?)?.count(),
            entries: entries(stage)?,
        })
    }

    /// Nothing grew since an earlier one, of the same state.
    pub fn compare(self, earlier: Self, findings: &mut Findings) {
        let (now, then) = (self, earlier);
        let most = then.resident * (1.0 + GROWTH) + SLACK;
        findings.look("memory does not grow", now.resident <= most, || {
            format!("{:.1} MiB became {:.1} MiB", then.resident, now.resident)
        });
        for (what, now, then) in [
            ("descriptors do not grow", now.descriptors, then.descriptors),
            ("pins do not grow", now.pins, then.pins),
            ("maps hold what they held", now.entries, then.entries),
        ] {
            findings.look(what, now == then, || format!("{then} became {now}"));
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, descriptors, pins, entries } = self;
        write!(
            f,
            "{resident:.1} MiB, {descriptors} descriptors, {pins} pins, {entries} frontends and backends"
        )
    }
}

fn entries(stage: &Stage) -> Result<usize> {
    let count = |name: &str| -> Result<Map> {
        let data =
            MapData::from_pin(stage.pins()?.join(name)).with_context(|| format!("{name}: not pinned"))?;
        Ok(Map::HashMap(data))
    };
    // Keys and values have these sizes: address, port and protocol; see the map ABI.
    Ok(keys::<[u16; 4], u32>(count("ENDPOINTS_V4")?)?
        + keys::<[u16; 10], u32>(count("ENDPOINTS_V6")?)?
        + keys::<[u16; 4], [u32; 4]>(count("FRONTENDS_V4")?)?
        + keys::<[u16; 10], [u32; 4]>(count("FRONTENDS_V6")?)?)
}

fn keys<K: Pod, V: Pod>(map: Map) -> Result<usize> {
    let map: HashMap<MapData, K, V> = map.try_into()?;
    let mut count = 0;
    for key in map.keys() {
        key?;
        count += 1;
    }
    Ok(count)
}
