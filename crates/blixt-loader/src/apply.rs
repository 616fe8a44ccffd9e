//! Operations on the tables become writes to the maps, many at a time.
//!
//! Neighbouring operations of one kind are one batch: the kernel writes a batch in order, so their order is kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use blixt_core::config::Endpoint;
use blixt_core::tables::{
    BackendEntry, BackendSlot, BackendState, DeviceEntry, Family, FrontendEntry, HopEntry, Op, Ring,
    RouteEntry,
};
use blixt_packet::abi::{DEVICE_SLOTS, Device, Hop, OwnedAddress, RouteHash};
use blixt_packet::known;

use crate::Error;
use crate::family::{FamilyMaps, MapAddress};
use crate::maps::Maps;
use crate::row;

/// What user space must know of the maps' content to change them: it is read once, and followed since.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    /// Who stands, or stood, in each slot.
    pub(crate) backends: BTreeMap<BackendSlot, Standing>,
    /// Which addresses are known.
    pub(crate) known: Known,
    /// How many backends are one endpoint.
    pub(crate) endpoints: BTreeMap<Endpoint, u32>,
    /// Hops that have a neighbour: their deadlines are renewed.
    pub(crate) hops: BTreeMap<u32, Hop>,
    /// Routes, with their hashes.
    pub(crate) routes: BTreeMap<u32, u64>,
}

/// The elements of `KNOWN_*` that are not 0.
pub(crate) type Known = BTreeMap<(Family, u32), u64>;

/// Who stands in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) endpoint: Endpoint,
    pub(crate) incarnation: u8,
    pub(crate) is_there: bool,
}

/// Operations that go into one batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Device,
    Hop,
    Route,
    Backend,
    Ring,
    RingGone,
    Frontend,
    FrontendGone,
    Address,
    AddressGone,
}

/// Applies operations in order. `deadline` is that of hops that have a neighbour.
pub(crate) fn apply(maps: &Maps, mirror: &mut Mirror, ops: &[Op], deadline: u32) -> Result<(), Error> {
    know(&maps.v4, mirror, ops)?;
    know(&maps.v6, mirror, ops)?;
    ops.chunk_by(|a, b| kind(a) == kind(b)).try_for_each(|run| match run.first().map(kind) {
        None => Ok(()),
        Some(Kind::Device) => set_devices(maps, run.iter().filter_map(device)),
        Some(Kind::Hop) => set_hops(maps, mirror, run.iter().filter_map(hop), deadline),
        Some(Kind::Route) => set_routes(maps, mirror, run.iter().filter_map(route)),
        Some(Kind::Backend) => {
            set_backends(maps, mirror, &run.iter().filter_map(backend).collect::<Vec<_>>())
        }
        Some(Kind::Ring) => {
            let rings = run.iter().filter_map(|op| ring(op).and_then(|(id, ring)| Some((id, ring?))));
            maps.rings.set(&rings.collect::<Vec<_>>())
        }
        Some(Kind::RingGone) => {
            maps.rings.remove(&run.iter().filter_map(|op| ring(op).map(|(id, _)| id)).collect::<Vec<_>>())
        }
        Some(Kind::Frontend | Kind::FrontendGone) => {
            let run: Vec<_> = run.iter().filter_map(frontend).collect();
            set_frontends(&maps.v4, &run)?;
            set_frontends(&maps.v6, &run)
        }
        Some(Kind::Address | Kind::AddressGone) => {
            set_addresses(&maps.v4, run)?;
            set_addresses(&maps.v6, run)
        }
    })
}

impl Standing {
    pub(crate) fn new(entry: &BackendEntry) -> Self {
        Self {
            endpoint: entry.endpoint,
            incarnation: entry.incarnation,
            is_there: entry.state != BackendState::Gone,
        }
    }

    fn endpoint(&self) -> Option<Endpoint> {
        self.is_there.then_some(self.endpoint)
    }
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::SetDevice(..) => Kind::Device,
        Op::SetHop(..) => Kind::Hop,
        Op::SetRoute(..) => Kind::Route,
        Op::SetBackend(..) => Kind::Backend,
        Op::SetRing(_, Some(_)) => Kind::Ring,
        Op::SetRing(_, None) => Kind::RingGone,
        Op::SetFrontend(_, Some(_)) => Kind::Frontend,
        Op::SetFrontend(_, None) => Kind::FrontendGone,
        Op::SetAddress(_, Some(_)) => Kind::Address,
        Op::SetAddress(_, None) => Kind::AddressGone,
    }
}

/// Addresses are known before anything leads to them, and for ever: a flow may outlive its backend, and the process that wrote both.
fn know<A: MapAddress>(maps: &FamilyMaps<A>, mirror: &mut Mirror, ops: &[Op]) -> Result<(), Error> {
    let mut more: BTreeMap<u32, u64> = BTreeMap::new();
    for (element, bit) in ops.iter().filter_map(served).filter_map(A::from_ip).map(known::place) {
        let known = mirror.known.get(&(A::FAMILY, element)).copied().unwrap_or(0);
        if known & bit == 0 {
            *more.entry(element).or_insert(known) |= bit;
        }
    }
    let rows: Vec<_> = more.into_iter().collect();
    maps.known.set(&rows)?;
    mirror.known.extend(rows.into_iter().map(|(element, bits)| ((A::FAMILY, element), bits)));
    Ok(())
}

/// The address whose packets may be ours by an operation.
fn served(op: &Op) -> Option<IpAddr> {
    match op {
        Op::SetBackend(_, entry) => Some(entry.endpoint.address),
        Op::SetFrontend(endpoint, Some(_)) => Some(endpoint.address),
        Op::SetAddress(address, Some(_)) => Some(*address),
        _ => None,
    }
}

fn set_devices<'a>(
    maps: &Maps,
    run: impl Iterator<Item = (u32, Option<&'a DeviceEntry>)>,
) -> Result<(), Error> {
    let mut rows: BTreeMap<u32, Device> = BTreeMap::new();
    for (ifindex, entry) in run {
        let slot = ifindex % DEVICE_SLOTS;
        match entry {
            Some(entry) => {
                rows.insert(slot, row::device_row(ifindex, entry));
            }
            None => {
                let there = match rows.get(&slot) {
                    Some(row) => Some(*row),
                    None => maps.devices.get(&slot)?,
                };
                // The slot may belong to another device by now.
                if there.is_some_and(|row| row.ifindex == ifindex) {
                    rows.insert(slot, Device::default());
                }
            }
        }
    }
    maps.devices.set(&rows.into_iter().collect::<Vec<_>>())
}

fn set_hops<'a>(
    maps: &Maps,
    mirror: &mut Mirror,
    run: impl Iterator<Item = (u32, Option<&'a HopEntry>)>,
    deadline: u32,
) -> Result<(), Error> {
    let rows: Vec<_> = run
        .map(|(id, entry)| (id, entry.map_or(Hop::default(), |entry| row::hop_row(entry, deadline))))
        .collect();
    maps.hops.set(&rows)?;
    for (id, row) in rows {
        if row.deadline == 0 {
            mirror.hops.remove(&id)
        } else {
            mirror.hops.insert(id, row)
        };
    }
    Ok(())
}

fn set_routes<'a>(
    maps: &Maps,
    mirror: &mut Mirror,
    run: impl Iterator<Item = (u32, Option<&'a RouteEntry>)>,
) -> Result<(), Error> {
    let rows: Vec<_> =
        run.map(|(id, entry)| (id, RouteHash { hash: entry.map_or(0, |entry| entry.hash) })).collect();
    let changed: Vec<u32> = rows
        .iter()
        .filter(|(id, row)| mirror.routes.get(id).copied().unwrap_or(0) != row.hash)
        .map(|(id, _)| *id)
        .collect();
    maps.route_counters.clear(&changed)?;
    maps.routes.set(&rows)?;
    for (id, row) in rows {
        if row.hash == 0 {
            mirror.routes.remove(&id)
        } else {
            mirror.routes.insert(id, row.hash)
        };
    }
    Ok(())
}

/// An endpoint is known before its first backend stands, and until its last one is gone.
fn set_backends(maps: &Maps, mirror: &mut Mirror, run: &[(BackendSlot, &BackendEntry)]) -> Result<(), Error> {
    let mut counts: BTreeMap<Endpoint, u32> = BTreeMap::new();
    let mut standings: BTreeMap<BackendSlot, Standing> = BTreeMap::new();
    let mut fresh: Vec<BackendSlot> = Vec::new();
    for (slot, entry) in run {
        let old = standings.get(slot).or(mirror.backends.get(slot)).copied();
        let new = Standing::new(entry);
        let mut count = |endpoint: Endpoint, change: fn(u32) -> u32| {
            let known = mirror.endpoints.get(&endpoint).copied().unwrap_or(0);
            let count = counts.entry(endpoint).or_insert(known);
            *count = change(*count);
        };
        if let Some(endpoint) = old.and_then(|old| old.endpoint()) {
            count(endpoint, |count| count.saturating_sub(1));
        }
        if let Some(endpoint) = new.endpoint() {
            count(endpoint, |count| count + 1);
        }
        if old.is_some_and(|old| old.incarnation != new.incarnation) {
            fresh.push(*slot);
        }
        standings.insert(*slot, new);
    }
    let (more, fewer): (Vec<_>, Vec<_>) = counts
        .into_iter()
        .partition(|(endpoint, count)| *count > mirror.endpoints.get(endpoint).copied().unwrap_or(0));

    set_endpoints(maps, mirror, more)?;
    set_family_backends(&maps.v4, run, &fresh)?;
    set_family_backends(&maps.v6, run, &fresh)?;
    if mirror.backends.is_empty() {
        mirror.backends = standings;
    } else {
        mirror.backends.extend(standings);
    }
    set_endpoints(maps, mirror, fewer)
}

fn set_family_backends<A: MapAddress>(
    maps: &FamilyMaps<A>,
    run: &[(BackendSlot, &BackendEntry)],
    fresh: &[BackendSlot],
) -> Result<(), Error> {
    let fresh: Vec<u32> =
        fresh.iter().filter(|slot| slot.family == A::FAMILY).map(|slot| slot.slot).collect();
    maps.backend_counters.clear(&fresh)?;
    let rows: Vec<_> = run
        .iter()
        .filter(|(slot, _)| slot.family == A::FAMILY)
        .filter_map(|(slot, entry)| Some((slot.slot, row::backend_row::<A>(entry)?)))
        .collect();
    maps.backends.set(&rows)
}

pub(crate) fn set_endpoints(
    maps: &Maps,
    mirror: &mut Mirror,
    counts: Vec<(Endpoint, u32)>,
) -> Result<(), Error> {
    set_family_endpoints(&maps.v4, &counts)?;
    set_family_endpoints(&maps.v6, &counts)?;
    for (endpoint, count) in counts {
        if count == 0 {
            mirror.endpoints.remove(&endpoint)
        } else {
            mirror.endpoints.insert(endpoint, count)
        };
    }
    Ok(())
}

fn set_family_endpoints<A: MapAddress>(
    maps: &FamilyMaps<A>,
    counts: &[(Endpoint, u32)],
) -> Result<(), Error> {
    let (there, gone): (Vec<_>, Vec<_>) = counts
        .iter()
        .filter_map(|(endpoint, count)| Some((row::endpoint_key::<A>(endpoint)?, *count)))
        .partition(|(_, count)| *count > 0);
    maps.endpoints.set(&there)?;
    maps.endpoints.remove(&gone.into_iter().map(|(key, _)| key).collect::<Vec<_>>())
}

fn set_frontends<A: MapAddress>(
    maps: &FamilyMaps<A>,
    run: &[(&Endpoint, Option<&FrontendEntry>)],
) -> Result<(), Error> {
    let keys =
        || run.iter().filter_map(|(endpoint, entry)| Some((row::endpoint_key::<A>(endpoint)?, *entry)));
    maps.frontends
        .set(&keys().filter_map(|(key, entry)| Some((key, row::frontend_row(entry?)))).collect::<Vec<_>>())?;
    maps.frontends
        .remove(&keys().filter(|(_, entry)| entry.is_none()).map(|(key, _)| key).collect::<Vec<_>>())
}

fn set_addresses<A: MapAddress>(maps: &FamilyMaps<A>, run: &[Op]) -> Result<(), Error> {
    let keys = || {
        run.iter().filter_map(|op| match op {
            Op::SetAddress(address, device) => Some((A::from_ip(*address)?, *device)),
            _ => None,
        })
    };
    let owned = |ifindex| OwnedAddress { ifindex, reserved: 0 };
    maps.addresses
        .set(&keys().filter_map(|(key, device)| Some((key, owned(device?)))).collect::<Vec<_>>())?;
    maps.addresses
        .remove(&keys().filter(|(_, device)| device.is_none()).map(|(key, _)| key).collect::<Vec<_>>())
}

fn device(op: &Op) -> Option<(u32, Option<&DeviceEntry>)> {
    match op {
        Op::SetDevice(ifindex, entry) => Some((*ifindex, entry.as_ref())),
        _ => None,
    }
}

fn hop(op: &Op) -> Option<(u32, Option<&HopEntry>)> {
    match op {
        Op::SetHop(id, entry) => Some((*id, entry.as_ref())),
        _ => None,
    }
}

fn route(op: &Op) -> Option<(u32, Option<&RouteEntry>)> {
    match op {
        Op::SetRoute(id, entry) => Some((*id, entry.as_ref())),
        _ => None,
    }
}

fn backend(op: &Op) -> Option<(BackendSlot, &BackendEntry)> {
    match op {
        Op::SetBackend(slot, entry) => Some((*slot, entry)),
        _ => None,
    }
}

fn ring(op: &Op) -> Option<(u32, Option<&Ring>)> {
    match op {
        Op::SetRing(id, ring) => Some((*id, ring.as_ref())),
        _ => None,
    }
}

fn frontend(op: &Op) -> Option<(&Endpoint, Option<&FrontendEntry>)> {
    match op {
        Op::SetFrontend(endpoint, entry) => Some((endpoint, entry.as_ref())),
        _ => None,
    }
}
