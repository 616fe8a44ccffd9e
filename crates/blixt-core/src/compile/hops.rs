//! Next hops: one for each device, neighbour and packet size that backends are reached by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::Members;
use crate::host::{Host, Path};
use crate::tables::{HopEntry, Limits, Tables};

/// Gives every member that is no process of this machine its hop. Without room for one it has hop 0: the program asks the
/// kernel, and cannot tell who is a neighbour of a local one.
pub(super) fn assign(
    members: &mut Members<'_>,
    host: &Host,
    previous: &Tables,
    limits: &Limits,
) -> BTreeMap<u32, HopEntry> {
    let mut known: FxHashMap<Key, u32> = FxHashMap::default();
    let mut unnamed: BTreeMap<u32, &HopEntry> = BTreeMap::new();
    for (id, hop) in &previous.hops {
        match hop.next_hop {
            Some(next_hop) => {
                known.insert(Key { device: hop.device, next_hop, mtu: hop.mtu }, *id);
            }
            None => {
                unnamed.insert(*id, hop);
            }
        }
    }
    // Who was reached by one that has no name is so again: two may be alike, such as those to both addresses of a machine.
    let mut reached: FxHashMap<IpAddr, u32> = FxHashMap::default();
    if !unnamed.is_empty() {
        reached.extend(previous.backends.values().map(|entry| (entry.endpoint.address, entry.hop)));
    }
    let mut ids: FxHashMap<Key, u32> = FxHashMap::default();
    let mut hops = Vec::new();
    let mut fresh = (1..=limits.hops).filter(|id| !previous.hops.contains_key(id));
    for member in members.iter_mut() {
        let Some(path) = member.path.filter(|path| !path.local) else {
            continue;
        };
        let key = Key::from(path);
        member.hop = *ids.entry(key).or_insert_with(|| {
            let Some(entry) = entry(&key, host) else {
                return 0;
            };
            // One that was read back has no name, but one that would not be written anew is as good.
            let alike = || {
                let own = reached.get(&member.identity.endpoint.address).copied();
                let own = own.filter(|id| unnamed.get(id).is_some_and(|hop| **hop == entry));
                let first = || unnamed.iter().find(|(_, hop)| ***hop == entry).map(|(id, _)| *id);
                let id = own.or_else(first)?;
                unnamed.remove(&id).map(|_| id)
            };
            let Some(id) = known.get(&key).copied().or_else(alike).or_else(|| fresh.next()) else {
                return 0;
            };
            hops.push((id, entry));
            id
        });
    }
    hops.into_iter().collect()
}

/// The same hop on a host whose devices or neighbours changed.
pub(super) fn renewed(hop: &HopEntry, host: &Host) -> HopEntry {
    let key = hop.next_hop.map(|next_hop| Key { device: hop.device, next_hop, mtu: hop.mtu });
    key.and_then(|key| entry(&key, host)).unwrap_or_else(|| hop.clone())
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: u32,
    next_hop: IpAddr,
    mtu: u32,
}

impl From<&Path> for Key {
    fn from(path: &Path) -> Self {
        Self { device: path.device, next_hop: path.next_hop, mtu: path.mtu }
    }
}

fn entry(key: &Key, host: &Host) -> Option<HopEntry> {
    let device = host.devices.get(&key.device)?;
    Some(HopEntry {
        next_hop: Some(key.next_hop),
        device: key.device,
        mtu: key.mtu,
        source: device.mac,
        destination: host.neighbours.get(&(key.device, key.next_hop)).copied(),
    })
}
