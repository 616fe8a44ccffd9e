//! The content of the maps as tables, for a process that takes them over.

use blixt_core::config::Endpoint;
use blixt_core::tables::{BackendSlot, RouteEntry, Tables};

use crate::Error;
use crate::apply::{Known, Mirror, Standing, set_endpoints};
use crate::family::{FamilyMaps, MapAddress};
use crate::maps::Maps;
use crate::row;

/// Everything but the slots of rings, the names of routes and the neighbours of hops: of those the kernel keeps
/// hashes and MAC addresses only.
pub(crate) fn read_back(maps: &Maps) -> Result<Tables, Error> {
    let mut tables = Tables {
        devices: maps.devices.all()?.iter().filter_map(|(_, row)| row::device(row)).collect(),
        hops: maps.hops.all()?.iter().filter_map(|(id, row)| Some((*id, row::hop(row)?))).collect(),
        routes: maps
            .routes
            .all()?
            .into_iter()
            .filter(|(_, row)| row.hash != 0)
            .map(|(id, row)| (id, RouteEntry { hash: row.hash, name: None }))
            .collect(),
        rings: maps.rings.read()?.into_iter().collect(),
        ..Tables::default()
    };
    read_family(&maps.v4, &mut tables)?;
    read_family(&maps.v6, &mut tables)?;
    Ok(tables)
}

/// What `apply` must know, from tables that were read back.
///
/// Endpoints follow from the backends. A process that died between two writes may have left their count behind: it is
/// put right here.
pub(crate) fn mirror(maps: &Maps, tables: &Tables) -> Result<Mirror, Error> {
    let mut mirror = Mirror {
        backends: tables.backends.iter().map(|(slot, entry)| (*slot, Standing::new(entry))).collect(),
        hops: maps.hops.all()?.into_iter().filter(|(_, row)| row.deadline != 0).collect(),
        routes: tables.routes.iter().map(|(id, entry)| (*id, entry.hash)).collect(),
        known: read_known(&maps.v4)?.into_iter().chain(read_known(&maps.v6)?).collect(),
        endpoints: read_endpoints(&maps.v4)?.into_iter().chain(read_endpoints(&maps.v6)?).collect(),
    };
    let mut counts = std::collections::BTreeMap::new();
    for standing in mirror.backends.values().filter(|standing| standing.is_there) {
        *counts.entry(standing.endpoint).or_insert(0) += 1;
    }
    let gone =
        mirror.endpoints.keys().filter(|endpoint| !counts.contains_key(endpoint)).map(|gone| (*gone, 0));
    let wrong = counts.iter().filter(|(endpoint, count)| mirror.endpoints.get(endpoint) != Some(count));
    let repairs: Vec<_> = gone.chain(wrong.map(|(endpoint, count)| (*endpoint, *count))).collect();
    set_endpoints(maps, &mut mirror, repairs)?;
    Ok(mirror)
}

fn read_family<A: MapAddress>(maps: &FamilyMaps<A>, tables: &mut Tables) -> Result<(), Error> {
    for (slot, row) in maps.backends.all()? {
        if let Some(entry) = row::backend("BACKENDS", slot, &row)? {
            tables.backends.insert(BackendSlot { family: A::FAMILY, slot }, entry);
        }
    }
    for (key, row) in maps.frontends.all()? {
        tables.frontends.insert(row::endpoint("FRONTENDS", &key)?, row::frontend(&row));
    }
    for (address, row) in maps.addresses.all()? {
        tables.addresses.insert(address.to_ip(), row.ifindex);
    }
    Ok(())
}

fn read_known<A: MapAddress>(maps: &FamilyMaps<A>) -> Result<Known, Error> {
    let elements = maps.known.all()?.into_iter().filter(|(_, bits)| *bits != 0);
    Ok(elements.map(|(element, bits)| ((A::FAMILY, element), bits)).collect())
}

fn read_endpoints<A: MapAddress>(maps: &FamilyMaps<A>) -> Result<Vec<(Endpoint, u32)>, Error> {
    maps.endpoints
        .all()?
        .into_iter()
        .map(|(key, count)| Ok((row::endpoint("ENDPOINTS", &key)?, count)))
        .collect()
}
