//! Backend slots. A slot is known by route and endpoint; flows name it, so whoever stands in one keeps it.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blixt_packet::abi::BackendId;
use rustc_hash::FxHashMap;

use super::routes::Routes;
use super::{Frontends, Problem, endpoint_of};
use crate::config::{Backend, Endpoint, Forwarding};
use crate::host::{Host, Path};
use crate::tables::{BackendEntry, BackendSlot, BackendState, Family, Limits, Tables, Way};

/// The pools of all frontends, in their order, over one list of members.
pub(super) struct Pools<'a> {
    pub(super) members: Members<'a>,
    pub(super) of_frontend: Vec<PoolMembers>,
}

pub(super) type Members<'a> = Vec<Member<'a>>;

/// A pool whose backends are indices of [`Pools::members`].
pub(super) struct PoolMembers {
    pub(super) shares: Vec<(u32, Vec<usize>)>,
    draining: Vec<usize>,
}

/// One that is to stand in a slot.
pub(super) struct Member<'a> {
    pub(super) identity: Identity,
    pub(super) path: Option<&'a Path>,
    /// Without one there was no room.
    pub(super) slot: Option<(BackendSlot, BackendId)>,
    pub(super) hop: u32,
    route: u32,
    state: BackendState,
}

/// One route may serve by several ways, where Gateways of several classes share it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    route_hash: u64,
    pub(super) endpoint: Endpoint,
    pub(super) way: Way,
}

pub(super) fn pools<'a>(frontends: &Frontends<'_>, host: &'a Host, routes: &Routes) -> Pools<'a> {
    let mut pools = Pools { members: Vec::new(), of_frontend: Vec::with_capacity(frontends.len()) };
    // Only looked up, never walked: its order decides nothing.
    let mut indices: FxHashMap<Identity, usize> = FxHashMap::default();
    for ((endpoint, frontend), route) in frontends.iter().zip(&routes.of_frontend) {
        let mut enlist = |backend: &Backend, state: BackendState| {
            let path = host.paths.get(&backend.address);
            let way = way(backend, path, frontend.forwarding, host);
            let endpoint = endpoint_of(backend, endpoint);
            let identity = Identity { route_hash: route.hash, endpoint, way };
            let index = *indices.entry(identity).or_insert_with(|| {
                pools.members.push(Member { identity, path, slot: None, hop: 0, route: route.id, state });
                pools.members.len() - 1
            });
            let member = &mut pools.members[index];
            member.state = member.state.min(state);
            index
        };
        let same_family = |backend: &&Backend| backend.address.is_ipv4() == endpoint.address.is_ipv4();
        let shares = frontend
            .pool
            .shares
            .iter()
            .map(|share| {
                let backends = share.backends.iter().filter(same_family);
                (share.weight, backends.map(|backend| enlist(backend, BackendState::Serving)).collect())
            })
            .collect();
        let draining = frontend.pool.draining.iter().filter(same_family);
        let draining = draining.map(|backend| enlist(backend, BackendState::Draining)).collect();
        pools.of_frontend.push(PoolMembers { shares, draining });
    }
    pools
}

/// Gives every member a slot, and returns those slots and the ones that nobody of ours stands in any more.
pub(super) fn assign(
    members: &mut Members<'_>,
    is_ours: impl Fn(u32) -> bool,
    previous: &Tables,
    limits: &Limits,
) -> BTreeMap<BackendSlot, BackendEntry> {
    let is_ours = |entry: &BackendEntry| entry.state != BackendState::Gone && is_ours(entry.route);
    let ours: Vec<(BackendSlot, &BackendEntry)> = previous
        .backends
        .iter()
        .filter(|(_, entry)| is_ours(entry))
        .map(|(slot, entry)| (*slot, entry))
        .collect();
    keep(members, &ours, previous);
    for family in [Family::V4, Family::V6] {
        let of_family = |member: &&mut Member<'_>| Family::from(member.identity.endpoint.address) == family;
        let mut without =
            members.iter_mut().filter(|member| member.slot.is_none()).filter(of_family).peekable();
        if without.peek().is_some() {
            let mut free = Free::new(family, previous, limits);
            without.for_each(|member| member.slot = free.take());
        }
    }
    let gone = ours.into_iter().map(|(slot, entry)| {
        (slot, BackendEntry { state: BackendState::Gone, hop: 0, route: 0, ..entry.clone() })
    });
    let there = members.iter().filter_map(|member| member.slot.map(|(slot, id)| (slot, member.entry(id))));
    gone.chain(there).collect()
}

/// What is wrong with single backends.
pub(super) fn problems<'a>(
    frontends: &'a Frontends<'_>,
    pools: &'a Pools<'_>,
    limits: &'a Limits,
) -> impl Iterator<Item = Problem> + 'a {
    let of_members = frontends.iter().zip(&pools.of_frontend).flat_map(|((endpoint, frontend), pool)| {
        let shared = pool.shares.iter().flat_map(|(_, members)| members);
        shared.chain(&pool.draining).filter_map(|index| {
            let member = &pools.members[*index];
            let backend = member.identity.endpoint;
            if member.slot.is_none() {
                return Some(Problem::backends_full(endpoint, frontend, backend, limits.backends));
            }
            let reachable = member.path.is_some() || member.identity.way == Way::Local;
            (!reachable).then(|| Problem::no_path(endpoint, frontend, backend))
        })
    });
    let of_others = frontends.iter().flat_map(|(endpoint, frontend)| {
        let backends = frontend.pool.shares.iter().flat_map(|share| &share.backends);
        backends
            .filter(|backend| backend.address.is_ipv4() != endpoint.address.is_ipv4())
            .map(|backend| Problem::other_family(endpoint, frontend, endpoint_of(backend, endpoint)))
    });
    of_members.chain(of_others)
}

fn way(backend: &Backend, path: Option<&Path>, forwarding: Forwarding, host: &Host) -> Way {
    let on_this_node = backend.node.as_ref().is_some_and(|node| *node == host.name);
    if on_this_node || path.is_some_and(|path| path.local) {
        return Way::Local;
    }
    match forwarding {
        Forwarding::Nat => Way::Nat,
        Forwarding::Transparent => Way::Transparent,
    }
}

/// Members find the slots that they stand in: first by the way too, then by any way, since a backend that is
/// reached otherwise is still the same.
fn keep(members: &mut Members<'_>, ours: &[(BackendSlot, &BackendEntry)], previous: &Tables) {
    let mut standing: FxHashMap<Identity, (BackendSlot, BackendId)> = ours
        .iter()
        .map(|(slot, entry)| {
            let route_hash = previous.routes.get(&entry.route).map_or(0, |route| route.hash);
            let identity = Identity { route_hash, endpoint: entry.endpoint, way: entry.way };
            (identity, (*slot, BackendId::new(slot.slot, entry.incarnation)))
        })
        .collect();
    for member in members.iter_mut() {
        member.slot = standing.remove(&member.identity);
    }
    if standing.is_empty() {
        return;
    }
    for member in members.iter_mut().filter(|member| member.slot.is_none()) {
        member.slot = [Way::Nat, Way::Transparent, Way::Local]
            .into_iter()
            .find_map(|way| standing.remove(&Identity { way, ..member.identity }));
    }
}

/// Slots to give away. Those that are gone come first, the least often used before all, until each of their incarnations
/// was used: every slot that was ever used takes memory, and backends come and go for ever. Then those never used, and only
/// where there are none the first incarnations again: an id that flows may still name comes back as late as possible.
struct Free {
    family: Family,
    next: u32,
    limit: u32,
    gone: Peekable<std::vec::IntoIter<(u8, u32)>>,
}

impl Free {
    fn new(family: Family, previous: &Tables, limits: &Limits) -> Self {
        let slots = || {
            let slot = |slot| BackendSlot { family, slot };
            previous.backends.range(slot(0)..=slot(u32::MAX))
        };
        let mut gone: Vec<(u8, u32)> = slots()
            .filter(|(_, entry)| entry.state == BackendState::Gone)
            .map(|(slot, entry)| (entry.incarnation, slot.slot))
            .collect();
        gone.sort_unstable();
        let next = slots().next_back().map_or(1, |(slot, _)| slot.slot + 1);
        let limit = limits.backends.min(BackendId::SLOTS - 1);
        Self { family, next, limit, gone: gone.into_iter().peekable() }
    }

    fn take(&mut self) -> Option<(BackendSlot, BackendId)> {
        let (slot, incarnation) = if let Some((last, slot)) = self.gone.next_if(|(last, _)| *last < u8::MAX) {
            (slot, last + 1)
        } else if self.next <= self.limit {
            self.next += 1;
            (self.next - 1, 0)
        } else {
            let (last, slot) = self.gone.next()?;
            (slot, last.wrapping_add(1))
        };
        Some((BackendSlot { family: self.family, slot }, BackendId::new(slot, incarnation)))
    }
}

impl Member<'_> {
    fn entry(&self, id: BackendId) -> BackendEntry {
        let none = match self.identity.endpoint.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        BackendEntry {
            endpoint: self.identity.endpoint,
            incarnation: id.incarnation(),
            state: self.state,
            way: self.identity.way,
            source: self.path.map_or(none, |path| path.source),
            hop: self.hop,
            route: self.route,
        }
    }
}
