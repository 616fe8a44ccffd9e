//! A small change of a large Config: only the frontends of the routes that it touches are compiled anew.
//!
//! Backend slots and rings belong to one route each, so the rest stays as it is, and the result is that of
//! compiling everything.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::rings::Slots;
use super::{Compilation, Frontends, Problem, addresses, compile, compile_part, devices, hops};
use crate::config::{Config, Endpoint, Frontend, RouteName};
use crate::diff::diff;
use crate::host::Host;
use crate::tables::{Family, HopEntry, Limits, Op, Tables};

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
    let Some(touched) = touched(config, host, last, limits) else {
        let Compilation { tables, problems } = compile(config, host, last.tables, limits);
        return Change { ops: diff(last.tables, &tables), problems };
    };
    let is_touched = |route: &Option<RouteName>| touched.contains(&route.as_ref());
    let frontends: Frontends<'_> =
        config.frontends().filter(|(_, frontend)| is_touched(&frontend.route)).collect();
    let left = |endpoint: &Endpoint| {
        last.config.frontends.get(endpoint).is_none_or(|frontend| is_touched(&frontend.route))
    };
    let routes = part(&last.tables.routes, |_, entry| is_touched(&entry.name));
    let is_ours = |id: u32| routes.contains_key(&id) || (id == 0 && touched.contains(&None));
    let before = part(&last.tables.frontends, |endpoint, _| left(endpoint));
    let rings: FxHashSet<u32> = before.values().map(|entry| entry.ring).collect();

    let mut problems: Vec<Problem> = last
        .problems
        .iter()
        .filter(|problem| problem.frontend().is_some_and(|endpoint| !left(endpoint)))
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
        backends: to
            .backends
            .keys()
            .filter_map(|slot| Some((*slot, last.tables.backends.get(slot)?.clone())))
            .collect(),
        rings: part(&last.tables.rings, |id, _| rings.contains(id)),
        frontends: before,
        addresses: last.tables.addresses.clone(),
    };
    let Compilation { tables, problems } = Compilation::new(to, problems);
    Change { ops: diff(&from, &tables), problems }
}

/// The routes of frontends that changed; `None`: too much changed, or what changed may touch everything.
pub(super) fn touched<'a>(
    config: &'a Config,
    host: &Host,
    last: &Last<'a>,
    limits: &Limits,
) -> Option<FxHashSet<Option<&'a RouteName>>> {
    let same_ways = host.name == last.host.name && host.devices.keys().eq(last.host.devices.keys());
    let moved = moved(host, last.host);
    let is_moved = |frontend: &Frontend| {
        !moved.is_empty() && frontend.pool.backends().any(|backend| moved.contains(&backend.address))
    };
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
    let moved_frontends =
        config.frontends().filter(|(_, frontend)| is_moved(frontend)).map(|(endpoint, _)| endpoint);
    let changed: FxHashSet<&Endpoint> =
        differing(&config.frontends, &last.config.frontends).into_iter().chain(moved_frontends).collect();
    let before_and_after = changed.iter().flat_map(|endpoint| {
        [config, last.config].into_iter().filter_map(|config| config.frontends.get(endpoint))
    });
    (changed.len() <= config.frontends.len() / FEW)
        .then(|| before_and_after.map(|frontend| frontend.route.as_ref()).collect())
}

/// The backends that are not reached as they were.
fn moved(host: &Host, last: &Host) -> FxHashSet<IpAddr> {
    if Arc::ptr_eq(&host.paths, &last.paths) {
        return FxHashSet::default();
    }
    differing(&host.paths, &last.paths).into_iter().copied().collect()
}

/// The keys under which the two do not hold the same.
fn differing<'a, K: Ord, V: PartialEq>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    let mut keys = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return keys,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = left.next_if(|_| order.is_le());
        let b = right.next_if(|_| order.is_ge());
        if a != b {
            keys.extend(a.or(b).map(|(key, _)| key));
        }
    }
}

fn part<K: Ord + Copy, V: Clone>(all: &BTreeMap<K, V>, belongs: impl Fn(&K, &V) -> bool) -> BTreeMap<K, V> {
    all.iter().filter(|(key, value)| belongs(key, value)).map(|(key, value)| (*key, value.clone())).collect()
}

/// Hops are shared among routes: those stay that a backend needs.
fn hops_after(compiled: &Tables, host: &Host, last: &Last<'_>) -> BTreeMap<u32, HopEntry> {
    let others = last.tables.backends.iter().filter(|(slot, _)| !compiled.backends.contains_key(slot));
    let needed: FxHashSet<u32> =
        others.map(|(_, entry)| entry.hop).chain(compiled.backends.values().map(|entry| entry.hop)).collect();
    let same = host.neighbours == last.host.neighbours && host.devices == last.host.devices;
    let renew = |hop: &HopEntry| if same { hop.clone() } else { hops::renewed(hop, host) };
    let mut all: BTreeMap<u32, HopEntry> = last
        .tables
        .hops
        .iter()
        .filter(|(id, _)| needed.contains(id))
        .map(|(id, hop)| (*id, renew(hop)))
        .collect();
    all.extend(compiled.hops.iter().map(|(id, hop)| (*id, hop.clone())));
    all
}
