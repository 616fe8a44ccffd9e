//! One changed EndpointSlice among 10 000 routes: how long until the maps hold it, beside nftables with as many services.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use blixt_bars::{Bar, Line, Part, median, quantile};

use crate::chains::Chains;
use crate::fleet::{self, LARGE, LAST_SLICE, NODES};
use crate::stage::{PATIENCE, Stage};

/// Changes in a round.
const CHANGES: usize = 50;
/// Between two changes: as long as the work that follows the first may take.
const PAUSE: Duration = Duration::from_millis(150);
/// Between two looks into the maps.
const LOOK: Duration = Duration::from_micros(200);

/// A running instance with 10 000 routes, whose last slice changes again and again; after each of its changes nftables has one.
pub fn measure(blixt: &Path, rounds: usize) -> Result<Vec<Line>> {
    let (mut chains, _) = Chains::load()?;
    let mut stage = Stage::new(blixt, NODES)?;
    fleet::route_pods(&stage.lab)?;
    fleet::write(&stage, LARGE)?;
    stage.start_and_wait()?;
    let watched = Watched::open(&stage)?;
    let mut worst = Vec::new();
    let mut usual = Vec::new();
    let mut of_chains = Vec::new();
    for _ in 0..rounds {
        let mut times = Vec::new();
        let mut chains_times = Vec::new();
        for _ in 0..CHANGES {
            times.push(change(&mut stage, &watched)?);
            chains_times.push(chains.change()? * 1e3);
        }
        worst.push(quantile(&times, 0.99));
        usual.push(median(&times));
        of_chains.push(median(&chains_times));
    }
    let resident = stage.memory("VmRSS")?;
    stage.stop()?;
    Ok(vec![
        Line {
            what: "P21 a changed EndpointSlice among 10 000 routes is in the maps, p99 of 50 changes",
            unit: "ms",
            bar: Bar::AtMost(50.0),
            stretch: Some(10.0),
            rounds: worst.clone(),
            parts: vec![
                Part::new("median of the changes", "ms", usual),
                Part::new("resident memory after all changes", "MiB", vec![resident]),
            ],
        },
        // The worst of ours, the usual one of theirs.
        Line::ratio(
            "P21 a changed EndpointSlice among 10 000 routes, p99, against the median of nftables",
            Bar::AtMost(0.2),
            Part::new("Blixt, p99 of 50 changes", "ms", worst),
            Part::new("nftables, median of 50 changes", "ms", of_chains),
        )
        .stretched(0.05),
    ])
}

/// Replaces one backend by another and waits for it, in milliseconds.
fn change(stage: &mut Stage, watched: &Watched) -> Result<f64> {
    thread::sleep(PAUSE);
    let (goes, comes) = watched.next()?;
    let mut backends = fleet::backends(LARGE - 1);
    backends[0] = comes;
    let ring = watched.ring()?;
    let renamed = stage.write(LAST_SLICE, &fleet::slice(LARGE - 1, &backends))?;
    while !(watched.holds(comes)? && !watched.holds(goes)? && watched.ring()? != ring) {
        if renamed.elapsed() > PATIENCE {
            bail!("{LAST_SLICE} is not in the maps after {PATIENCE:?}:\n{}", stage.log());
        }
        thread::sleep(LOOK);
    }
    let time = renamed.elapsed().as_secs_f64() * 1e3;
    stage.assert_running()?;
    Ok(time)
}

/// The pinned maps, as any other process sees them.
struct Watched {
    endpoints: HashMap<MapData, [u16; 4], u32>,
    frontends: HashMap<MapData, [u16; 4], [u32; 4]>,
    rings: Array<MapData, [u64; 2]>,
}

impl Watched {
    fn open(stage: &Stage) -> Result<Self> {
        let pins = stage.pins()?;
        let open =
            |name: &str| MapData::from_pin(pins.join(name)).with_context(|| format!("{name}: not pinned"));
        Ok(Self {
            endpoints: Map::HashMap(open("ENDPOINTS_V4")?).try_into()?,
            frontends: Map::HashMap(open("FRONTENDS_V4")?).try_into()?,
            rings: Map::Array(open("RING_HASHES")?).try_into()?,
        })
    }

    /// The backend that is there and is to go, and the one that is to come.
    fn next(&self) -> Result<(SocketAddr, SocketAddr)> {
        let [first, second] = [fleet::backend(1, LARGE - 1), fleet::backend(1, LARGE)];
        Ok(if self.holds(first)? { (first, second) } else { (second, first) })
    }

    fn holds(&self, backend: SocketAddr) -> Result<bool> {
        Ok(look_up(&self.endpoints, backend)?.is_some())
    }

    /// What the ring of the last frontend is made of.
    fn ring(&self) -> Result<Option<[u64; 2]>> {
        let Some([ring, ..]) = look_up(&self.frontends, fleet::frontend(LARGE - 1))? else { return Ok(None) };
        Ok(Some(self.rings.get(&ring, 0)?))
    }
}

fn look_up<V: Pod>(map: &HashMap<MapData, [u16; 4], V>, endpoint: SocketAddr) -> Result<Option<V>> {
    match map.get(&key(endpoint)?, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `EndpointKey<V4>` of a TCP endpoint.
fn key(endpoint: SocketAddr) -> Result<[u16; 4]> {
    const TCP: u16 = 6;
    let IpAddr::V4(address) = endpoint.ip() else { bail!("{endpoint}: not IPv4") };
    let [a, b, c, d] = address.octets();
    Ok([u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), endpoint.port().to_be(), TCP])
}
