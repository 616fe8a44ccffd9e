//! Route ids: the indices of counters, kept by the hash of the route's name.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::xxh3_64;

use super::{Frontends, Problem};
use crate::config::{Frontend, RouteName};
use crate::tables::{Limits, RouteEntry, Tables};

/// The routes of all frontends with their ids.
pub(super) struct Routes {
    pub(super) entries: BTreeMap<u32, RouteEntry>,
    /// For each frontend, in their order.
    pub(super) of_frontend: Vec<RouteId>,
}

/// How a frontend's route is known.
#[derive(Clone, Copy, Default)]
pub(super) struct RouteId {
    /// 0 where there is no route.
    pub(super) hash: u64,
    /// 0 where there is no route, or no room for it.
    pub(super) id: u32,
}

pub(super) fn assign(
    frontends: &Frontends<'_>,
    previous: &Tables,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) -> Routes {
    let hashes: Vec<u64> = frontends.iter().map(|(_, frontend)| hash(frontend)).collect();
    let wanted: FxHashSet<u64> = hashes.iter().copied().collect();
    let known = previous.routes.iter().filter(|(_, entry)| wanted.contains(&entry.hash));
    let known: FxHashMap<u64, u32> = known.map(|(id, entry)| (entry.hash, *id)).collect();
    let mut fresh = (1..=limits.routes).filter(|id| !previous.routes.contains_key(id));
    let mut ids: FxHashMap<u64, u32> = FxHashMap::default();
    let mut entries = Vec::new();
    let mut of_frontend = Vec::with_capacity(frontends.len());
    for ((endpoint, frontend), hash) in frontends.iter().zip(hashes) {
        let Some(name) = &frontend.route else {
            of_frontend.push(RouteId::default());
            continue;
        };
        let id = *ids.entry(hash).or_insert_with(|| {
            let Some(id) = known.get(&hash).copied().or_else(|| fresh.next()) else {
                return 0;
            };
            entries.push((id, RouteEntry { hash, name: Some(name.clone()) }));
            id
        });
        if id == 0 {
            problems.push(Problem::routes_full(endpoint, frontend, limits.routes));
        }
        of_frontend.push(RouteId { hash, id });
    }
    Routes { entries: entries.into_iter().collect(), of_frontend }
}

/// What the maps know the route of a frontend by; 0 without one.
pub(super) fn hash(frontend: &Frontend) -> u64 {
    let Some(RouteName { kind, namespace, name }) = &frontend.route else { return 0 };
    // A name of the API holds no NUL, so no two names make the same bytes. 0 means no route.
    let mut text = Vec::with_capacity(kind.len() + namespace.len() + name.len() + 2);
    text.extend(kind.bytes().chain([0]).chain(namespace.bytes()).chain([0]).chain(name.bytes()));
    xxh3_64(&text).max(1)
}
