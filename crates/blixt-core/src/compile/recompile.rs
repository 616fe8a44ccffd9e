//! A small change of a large Config: only the frontends of the routes that it touches are compiled anew.
//!
//! Backend slots and rings belong to one route each, so the rest stays as it is, and the result is that of
//! compiling everything.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::{Compilation, Frontends, Problem, addresses, compile, compile_part, devices, hops};
use crate::config::{Config, Endpoint, RouteName};
use crate::host::Host;
use crate::tables::{BackendEntry, BackendSlot, Family, HopEntry, Limits, Tables};

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

/// The same as [`compile()`] with the last tables, in less time when little changed.
pub fn recompile(config: &Config, host: &Host, last: &Last<'_>, limits: &Limits) -> Compilation {
    let Some(touched) = touched(config, host, last, limits) else {
        return compile(config, host, last.tables, limits);
    };
    let is_touched = |route: &Option<RouteName>| touched.contains(&route.as_ref());
    let frontends: Frontends<'_> =
        config.frontends().filter(|(_, frontend)| is_touched(&frontend.route)).collect();
    let left = |endpoint: &Endpoint| {
        last.config.frontends.get(endpoint).is_none_or(|frontend| is_touched(&frontend.route))
    };
    let ids: FxHashSet<u32> = last
        .tables
        .routes
        .iter()
        .filter(|(_, entry)| is_touched(&entry.name))
        .map(|(id, _)| *id)
        .chain(touched.contains(&None).then_some(0))
        .collect();
    let rings: FxHashSet<u32> = last
        .tables
        .frontends
        .iter()
        .filter(|(endpoint, _)| left(endpoint))
        .map(|(_, entry)| entry.ring)
        .collect();

    let mut problems: Vec<Problem> = last
        .problems
        .iter()
        .filter(|problem| problem.frontend().is_some_and(|endpoint| !left(endpoint)))
        .cloned()
        .collect();
    let part = compile_part(&frontends, |id| ids.contains(&id), host, last.tables, limits, &mut problems);
    let tables = Tables {
        devices: devices(host, last.tables),
        hops: merged_hops(part.hops, &part.backends, host, last),
        routes: merged(&last.tables.routes, |id| !ids.contains(id), part.routes),
        backends: part.backends,
        rings: merged(&last.tables.rings, |id| !rings.contains(id), part.rings),
        frontends: merged(&last.tables.frontends, |endpoint| !left(endpoint), part.frontends),
        addresses: addresses(config, host, last.tables, limits, &mut problems),
    };
    Compilation::new(tables, problems)
}

/// The routes of frontends that changed; `None`: too much changed, or what changed may touch everything.
fn touched<'a>(
    config: &'a Config,
    host: &Host,
    last: &Last<'a>,
    limits: &Limits,
) -> Option<FxHashSet<Option<&'a RouteName>>> {
    let same_ways = host.name == last.host.name
        && host.paths == last.host.paths
        && host.devices.keys().eq(last.host.devices.keys());
    let named = last.tables.hops.values().all(|hop| hop.next_hop.is_some())
        && last.tables.routes.values().all(|route| route.name.is_some());
    let short = last.problems.iter().any(Problem::is_shortage);
    let room = [Family::V4, Family::V6].into_iter().all(|family| {
        let of_family = config.frontends.keys().filter(|endpoint| Family::from(endpoint.address) == family);
        of_family.count() <= limits.frontends as usize
    });
    if !same_ways || !named || short || !room {
        return None;
    }
    let came = config
        .frontends
        .iter()
        .filter(|(endpoint, frontend)| last.config.frontends.get(endpoint) != Some(*frontend));
    let went = last
        .config
        .frontends
        .iter()
        .filter(|(endpoint, frontend)| config.frontends.get(endpoint) != Some(*frontend));
    let changed: Vec<Option<&RouteName>> =
        came.chain(went).map(|(_, frontend)| frontend.route.as_ref()).collect();
    (changed.len() <= config.frontends.len() / FEW).then(|| changed.into_iter().collect())
}

fn merged<K: Ord + Copy, V: Clone>(
    last: &BTreeMap<K, V>,
    stays: impl Fn(&K) -> bool,
    part: BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let mut all: BTreeMap<K, V> =
        last.iter().filter(|(key, _)| stays(key)).map(|(key, value)| (*key, value.clone())).collect();
    all.extend(part);
    all
}

/// Hops are shared among routes: those stay that a backend needs.
fn merged_hops(
    part: BTreeMap<u32, HopEntry>,
    backends: &BTreeMap<BackendSlot, BackendEntry>,
    host: &Host,
    last: &Last<'_>,
) -> BTreeMap<u32, HopEntry> {
    let needed: FxHashSet<u32> = backends.values().map(|entry| entry.hop).collect();
    let same = host.neighbours == last.host.neighbours && host.devices == last.host.devices;
    let renew = |hop: &HopEntry| if same { hop.clone() } else { hops::renewed(hop, host) };
    let mut all: BTreeMap<u32, HopEntry> = last
        .tables
        .hops
        .iter()
        .filter(|(id, _)| needed.contains(id))
        .map(|(id, hop)| (*id, renew(hop)))
        .collect();
    all.extend(part);
    all
}
