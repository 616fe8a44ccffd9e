//! Route ids: the indices of counters, kept by the hash of the route's name.

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use super::{Frontends, Problem};
use crate::config::{Frontend, RouteName};
use crate::tables::{Limits, RouteEntry, Tables};

/// The routes of all frontends with their ids.
pub(super) struct Routes<'a> {
    pub(super) entries: BTreeMap<u32, RouteEntry>,
    by_name: HashMap<&'a RouteName, (u64, u32)>,
}

impl Routes<'_> {
    /// 0 where there is no route, or no room for it.
    pub(super) fn id(&self, frontend: &Frontend) -> u32 {
        self.find(frontend).1
    }

    /// 0 where there is no route.
    pub(super) fn hash(&self, frontend: &Frontend) -> u64 {
        self.find(frontend).0
    }

    fn find(&self, frontend: &Frontend) -> (u64, u32) {
        frontend.route.as_ref().and_then(|name| self.by_name.get(name)).copied().unwrap_or_default()
    }
}

pub(super) fn assign<'a>(
    frontends: &Frontends<'a>,
    previous: &Tables,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) -> Routes<'a> {
    let known: HashMap<u64, u32> = previous.routes.iter().map(|(id, entry)| (entry.hash, *id)).collect();
    let mut fresh = (1..=limits.routes).filter(|id| !previous.routes.contains_key(id));
    let mut routes = Routes { entries: BTreeMap::new(), by_name: HashMap::new() };
    for (endpoint, frontend) in frontends {
        let Some(name) = &frontend.route else {
            continue;
        };
        let (_, id) = *routes.by_name.entry(name).or_insert_with(|| {
            let hash = hash(name);
            let Some(id) = known.get(&hash).copied().or_else(|| fresh.next()) else {
                return (hash, 0);
            };
            routes.entries.insert(id, RouteEntry { hash, name: Some(name.clone()) });
            (hash, id)
        });
        if id == 0 {
            problems.push(Problem::routes_full(endpoint, frontend, limits.routes));
        }
    }
    routes
}

fn hash(name: &RouteName) -> u64 {
    let RouteName { kind, namespace, name } = name;
    // A name of the API holds no NUL, so no two names make the same bytes. 0 means no route.
    xxh3_64(format!("{kind}\0{namespace}\0{name}").as_bytes()).max(1)
}
