//! `Config` for one `Host` becomes `Tables`. Pure: what does not fit or has no way is a [`Problem`], and the rest
//! is compiled all the same.
//!
//! Ids (slots, rings, hops, routes) are kept from the previous tables wherever they name the same thing, so that
//! flows keep their backends and a diff stays small. An id that is given up is not given away in the same step.

mod backends;
mod hops;
mod problem;
mod recompile;
mod rings;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::{Backend, Config, Endpoint, Frontend};
use crate::host::{Device, Host};
use crate::tables::{DeviceEntry, Family, FrontendEntry, Limits, Ring, Tables};

use backends::Members;
pub use problem::Problem;
pub use recompile::{Change, Last, recompile};
use rings::Slots;

/// What one machine's maps should hold, and what could not be had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compilation {
    /// The content of the maps.
    pub tables: Tables,
    /// What a person should know, in the order of the frontends.
    pub problems: Vec<Problem>,
}

/// Compiles what the maps of this machine should hold. `previous` is what they hold now; slots of a ring that they hold already are
/// what `previous` knows of them.
pub fn compile(config: &Config, host: &Host, previous: &Tables, limits: &Limits) -> Compilation {
    compile_with(Slots::OfNewRings, config, host, previous, limits)
}

fn compile_with(
    slots: Slots,
    config: &Config,
    host: &Host,
    previous: &Tables,
    limits: &Limits,
) -> Compilation {
    let mut problems = Vec::new();
    let frontends = admit(config, previous, limits, &mut problems);
    let mut tables = compile_part(slots, &frontends, |_| true, host, previous, limits, &mut problems);
    // Slots are never given back.
    for (slot, entry) in &previous.backends {
        tables.backends.entry(*slot).or_insert_with(|| entry.clone());
    }
    tables.devices = devices(host, previous);
    tables.addresses = addresses(config, host, previous, limits, &mut problems);
    Compilation::new(tables, problems)
}

/// The same tables with the slots of their rings, where the Config and the machine still lead to them.
pub fn with_slots(tables: &Tables, config: &Config, host: &Host, limits: &Limits) -> Tables {
    let compiled = compile_with(Slots::OfAllRings, config, host, tables, limits).tables;
    let ring =
        |id: &u32, ring: &Ring| compiled.rings.get(id).filter(|same| *same == ring).unwrap_or(ring).clone();
    let rings = tables.rings.iter().map(|(id, known)| (*id, ring(id, known))).collect();
    Tables { rings, ..tables.clone() }
}

/// Compiles some frontends: all of certain routes. Of the tables it makes only what belongs to them;
/// `is_ours` knows their routes by id.
fn compile_part(
    slots: Slots,
    frontends: &Frontends<'_>,
    is_ours: impl Fn(u32) -> bool,
    host: &Host,
    previous: &Tables,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) -> Tables {
    let routes = routes::assign(frontends, previous, limits, problems);
    let mut pools = backends::pools(frontends, host, &routes);
    let hops = hops::assign(&mut pools.members, host, previous, limits);
    let backends = backends::assign(&mut pools.members, is_ours, previous, limits);
    problems.extend(backends::problems(frontends, &pools, limits));
    let rings = rings::assign(slots, frontends, &pools, previous, limits);
    let entries = frontends.iter().enumerate().map(|(index, (endpoint, frontend))| {
        let ring = rings.of_frontend[index];
        if ring.is_none() && rings.wanted(index) {
            problems.push(Problem::rings_full(endpoint, frontend, limits.rings));
        }
        let (ring, slots) = ring.unwrap_or_default();
        (**endpoint, FrontendEntry { ring, slots, route: routes.of_frontend[index].id })
    });
    let frontends = entries.collect();
    Tables { hops, routes: routes.entries, backends, rings: rings.entries, frontends, ..Tables::default() }
}

impl Compilation {
    fn new(tables: Tables, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { tables, problems }
    }
}

type Frontends<'a> = Vec<(&'a Endpoint, &'a Frontend)>;

/// The frontends that the maps have room for: those that are served already come first.
fn admit<'a>(
    config: &'a Config,
    previous: &Tables,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) -> Frontends<'a> {
    let served = |endpoint: &Endpoint| previous.frontends.contains_key(endpoint);
    let mut admitted: Frontends<'a> = config.frontends().collect();
    for family in [Family::V4, Family::V6] {
        let mut members: Frontends<'a> = admitted
            .iter()
            .copied()
            .filter(|(endpoint, _)| Family::from(endpoint.address) == family)
            .collect();
        if members.len() <= limits.frontends as usize {
            continue;
        }
        members.sort_by_key(|(endpoint, _)| !served(endpoint));
        let refused: BTreeSet<Endpoint> =
            members.split_off(limits.frontends as usize).into_iter().map(|(endpoint, _)| *endpoint).collect();
        admitted.retain(|(endpoint, frontend)| {
            let refused = refused.contains(endpoint);
            if refused {
                problems.push(Problem::frontends_full(endpoint, frontend, limits.frontends));
            }
            !refused
        });
    }
    admitted
}

/// Two devices whose indices share a slot of the map cannot both be in it: the one that is there stays.
fn devices(host: &Host, previous: &Tables) -> BTreeMap<u32, DeviceEntry> {
    let slot = |index: &u32| index % blixt_packet::abi::DEVICE_SLOTS;
    let mut holders: BTreeMap<u32, u32> = BTreeMap::new();
    let known = host.devices.keys().filter(|index| previous.devices.contains_key(index));
    for index in known.chain(host.devices.keys()) {
        holders.entry(slot(index)).or_insert(*index);
    }
    host.devices
        .iter()
        .filter(|(index, _)| holders.get(&slot(index)) == Some(index))
        .map(|(index, device)| {
            let Device { mac, mtu, xdp_target, xdp_sender, of_host, .. } = *device;
            (*index, DeviceEntry { mac, mtu, xdp_target, xdp_sender, of_host })
        })
        .collect()
}

/// What Gateways hold and the machine does not have, with the device that answers for it.
fn addresses(
    config: &Config,
    host: &Host,
    previous: &Tables,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) -> BTreeMap<IpAddr, u32> {
    let mut owned: Vec<IpAddr> =
        config.addresses.iter().filter(|address| !host.addresses.contains(address)).copied().collect();
    owned.sort_by_key(|address| !previous.addresses.contains_key(address));
    let mut room = BTreeMap::from([(Family::V4, limits.addresses), (Family::V6, limits.addresses)]);
    let mut entries = BTreeMap::new();
    for address in owned {
        let room = room.entry(Family::from(address)).or_default();
        if *room == 0 {
            problems.push(Problem::AddressesFull { address, limit: limits.addresses });
            continue;
        }
        *room -= 1;
        entries.insert(address, host.on_link.get(&address).copied().unwrap_or(0));
    }
    entries
}

fn endpoint_of(backend: &Backend, frontend: &Endpoint) -> Endpoint {
    Endpoint { address: backend.address, port: backend.port, protocol: frontend.protocol }
}

#[cfg(test)]
mod tests;
