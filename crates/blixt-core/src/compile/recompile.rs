//! A small change of a large Config: only the frontends of the routes that it touches are compiled anew.
//!
//! Backend slots and rings belong to one route each, so the rest stays as it is, and the result is that of
//! compiling everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::rings::Slots;
use super::{Compilation, Frontends, Problem, addresses, compile, compile_part, devices, hops, routes};
use crate::config::{Config, Endpoint, differing};
use crate::diff::diff;
use crate::host::Host;
use crate::tables::{BackendState, Family, HopEntry, Limits, Op, Tables};

/// With more than one part in so many changed, all is compiled.
const FEW: usize = 4;

/// What was compiled last, and from what.
#[derive(Clone, Copy, Debug)]
pub struct Last<'a> {
    /// The Config.
    pub config: &'a Config,
    /// The machine.
    pub host: &'a Host,
    /// What the maps hold since then.
    pub tables: &'a Tables,
    /// What could not be had.
    pub problems: &'a [Problem],
}

/// What leads from the last tables to others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// In the order in which they must be applied.
    pub ops: Vec<Op>,
    /// What could not be had, all of it.
    pub problems: Vec<Problem>,
}

/// The change to what [`compile()`] makes of the last tables, in less time when little changed.
pub fn recompile(config: &Config, host: &Host, last: &Last<'_>, limits: &Limits) -> Change {
    let Some(Touched { routes: touched, endpoints }) = touched(config, host, last, limits) else {
        let Compilation { tables, problems } = compile(config, host, last.tables, limits);
        return Change { ops: diff(last.tables, &tables), problems };
    };
    // No id is 0: a frontend without a route has it.
    let routes = part(&last.tables.routes, |_, entry| touched.contains(&entry.hash));
    let is_ours = |id: u32| if id == 0 { touched.contains(&0) } else { routes.contains_key(&id) };
    let before = part(&last.tables.frontends, |_, entry| is_ours(entry.route));
    let frontends: BTreeSet<&Endpoint> = before.keys().chain(endpoints).collect();
    let frontends: Frontends<'_> = frontends
        .into_iter()
        .filter_map(|endpoint| config.frontends.get_key_value(endpoint))
        .map(|(endpoint, frontend)| (endpoint, &**frontend))
        .collect();
    let rings: BTreeSet<u32> = before.values().map(|entry| entry.ring).collect();

    let mut problems: Vec<Problem> = last
        .problems
        .iter()
        .filter(|problem| problem.frontend().is_some_and(|endpoint| !before.contains_key(endpoint)))
        .cloned()
        .collect();
    let compiled =
        compile_part(Slots::OfNewRings, &frontends, is_ours, host, last.tables, limits, &mut problems);
    let to = Tables {
        devices: devices(host, last.tables),
        hops: hops_after(&compiled, host, last),
        addresses: addresses(config, host, last.tables, limits, &mut problems),
        ..compiled
    };
    let from = Tables {
        devices: last.tables.devices.clone(),
        hops: last.tables.hops.clone(),
        routes,
        backends: of(&last.tables.backends, to.backends.keys()),
        rings: of(&last.tables.rings, &rings),
        frontends: before,
        addresses: last.tables.addresses.clone(),
    };
    let Compilation { tables, problems } = Compilation::new(to, problems);
    Change { ops: diff(&from, &tables), problems }
}

/// What must be compiled anew.
pub(super) struct Touched<'a> {
    /// The hashes of the routes, 0 for none: all their frontends.
    pub(super) routes: FxHashSet<u64>,
    /// The frontends that differ, before or after.
    endpoints: Vec<&'a Endpoint>,
}

/// The routes of frontends that changed; `None`: too much changed, or what changed may touch everything.
pub(super) fn touched<'a>(
    config: &'a Config,
    host: &Host,
    last: &Last<'a>,
    limits: &Limits,
) -> Option<Touched<'a>> {
    let same_ways = host.name == last.host.name && host.devices.keys().eq(last.host.devices.keys());
    let named = last.tables.hops.values().all(|hop| hop.next_hop.is_some())
        && last.tables.routes.values().all(|route| route.name.is_some());
    let short = last.problems.iter().any(Problem::is_shortage);
    let room = [Family::V4, Family::V6].into_iter().all(|family| {
        let of_family = config.frontends.keys().filter(|endpoint| Family::from(endpoint.address) == family);
        of_family.count() <= limits.frontends as usize
    });
    // Who has no hop has no problem either.
    let has_hops = last.tables.hops.len() < limits.hops as usize;
    if !same_ways || !named || short || !room || !has_hops {
        return None;
    }
    let endpoints = differing(&config.frontends, &last.config.frontends);
    let before_and_after = endpoints.iter().flat_map(|endpoint| {
        [config, last.config].into_iter().filter_map(|config| config.frontends.get(endpoint))
    });
    let mut routes: FxHashSet<u64> = before_and_after.map(|frontend| routes::hash(frontend)).collect();
    let moved = moved(host, last.host);
    if !moved.is_empty() {
        // With room for all, every backend of a frontend that did not change stands in a slot.
        let standing = last.tables.backends.values().filter(|entry| entry.state != BackendState::Gone);
        let moved: FxHashSet<u32> = standing
            .filter(|entry| moved.contains(&entry.endpoint.address))
            .map(|entry| entry.route)
            .collect();
        routes.extend(moved.iter().map(|id| last.tables.routes.get(id).map_or(0, |route| route.hash)));
    }
    let few = config.frontends.len() / FEW;
    (endpoints.len() <= few && routes.len() <= few).then_some(Touched { routes, endpoints })
}

/// The backends that are not reached as they were.
fn moved(host: &Host, last: &Host) -> FxHashSet<IpAddr> {
    if Arc::ptr_eq(&host.paths, &last.paths) {
        return FxHashSet::default();
    }
    differing(&host.paths, &last.paths).into_iter().copied().collect()
}

/// What is known of these.
fn of<'a, K: Ord + Copy + 'a, V: Clone>(
    all: &BTreeMap<K, V>,
    keys: impl IntoIterator<Item = &'a K>,
) -> BTreeMap<K, V> {
    keys.into_iter().filter_map(|key| Some((*key, all.get(key)?.clone()))).collect()
}

fn part<K: Ord + Copy, V: Clone>(all: &BTreeMap<K, V>, belongs: impl Fn(&K, &V) -> bool) -> BTreeMap<K, V> {
    all.iter().filter(|(key, value)| belongs(key, value)).map(|(key, value)| (*key, value.clone())).collect()
}

/// Hops are shared among routes: those stay that a backend needs.
fn hops_after(compiled: &Tables, host: &Host, last: &Last<'_>) -> BTreeMap<u32, HopEntry> {
    let was_ours = |slot| last.tables.backends.get(slot).map(|entry| entry.hop);
    let mut idle: FxHashSet<u32> = compiled.backends.keys().filter_map(was_ours).collect();
    let mut others = last.tables.backends.iter().filter(|(slot, _)| !compiled.backends.contains_key(slot));
    idle.retain(|id| *id != 0 && !compiled.hops.contains_key(id));
    while !idle.is_empty()
        && let Some((_, entry)) = others.next()
    {
        idle.remove(&entry.hop);
    }
    let same = host.neighbours == last.host.neighbours && host.devices == last.host.devices;
    let renew = |hop: &HopEntry| if same { hop.clone() } else { hops::renewed(hop, host) };
    let stay = last.tables.hops.iter().filter(|(id, _)| !idle.contains(id));
    let mut all: BTreeMap<u32, HopEntry> = stay.map(|(id, hop)| (*id, renew(hop))).collect();
    all.extend(compiled.hops.iter().map(|(id, hop)| (*id, hop.clone())));
    all
}
