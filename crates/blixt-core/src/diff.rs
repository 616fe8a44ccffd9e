//! The changes that lead from one content of the maps to another.
//!
//! Order is everything: what is pointed to is written before what points to it, and removed after it, so that
//! after any prefix every frontend leads to backends that stand, by hops that exist.

use std::collections::BTreeMap;

use crate::tables::{BackendState, Op, Tables};

/// The operations that make `to` of `from`. Slots of backends are never given back: a slot that `to` does not
/// know is left alone.
pub fn diff(from: &Tables, to: &Tables) -> Vec<Op> {
    let backends = || {
        to.backends
            .iter()
            .filter(|(slot, entry)| from.backends.get(slot) != Some(*entry))
            .map(|(slot, entry)| (*slot, entry.clone()))
    };
    let serves = |op: &Op| matches!(op, Op::SetBackend(_, entry) if entry.state == BackendState::Serving);
    let (rise, fall): (Vec<Op>, Vec<Op>) =
        backends().map(|(slot, entry)| Op::SetBackend(slot, entry)).partition(serves);

    let mut ops = Vec::new();
    // Two devices may share a slot of the map: the old one goes first.
    ops.extend(removed(&from.devices, &to.devices).map(|index| Op::SetDevice(index, None)));
    ops.extend(written(&from.devices, &to.devices).map(|(index, entry)| Op::SetDevice(index, Some(entry))));
    ops.extend(written(&from.hops, &to.hops).map(|(id, entry)| Op::SetHop(id, Some(entry))));
    ops.extend(written(&from.routes, &to.routes).map(|(id, entry)| Op::SetRoute(id, Some(entry))));
    ops.extend(rise);
    ops.extend(written(&from.rings, &to.rings).map(|(id, ring)| Op::SetRing(id, Some(ring))));
    // An address without its frontends would refuse their clients.
    ops.extend(
        written(&from.frontends, &to.frontends)
            .map(|(endpoint, entry)| Op::SetFrontend(endpoint, Some(entry))),
    );
    ops.extend(
        written(&from.addresses, &to.addresses)
            .map(|(address, device)| Op::SetAddress(address, Some(device))),
    );
    ops.extend(removed(&from.frontends, &to.frontends).map(|endpoint| Op::SetFrontend(endpoint, None)));
    ops.extend(removed(&from.addresses, &to.addresses).map(|address| Op::SetAddress(address, None)));
    ops.extend(fall);
    ops.extend(removed(&from.rings, &to.rings).map(|id| Op::SetRing(id, None)));
    ops.extend(removed(&from.routes, &to.routes).map(|id| Op::SetRoute(id, None)));
    ops.extend(removed(&from.hops, &to.hops).map(|id| Op::SetHop(id, None)));
    ops
}

impl Tables {
    /// What the maps hold after one operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::SetDevice(index, entry) => set(&mut self.devices, index, entry),
            Op::SetHop(id, entry) => set(&mut self.hops, id, entry),
            Op::SetRoute(id, entry) => set(&mut self.routes, id, entry),
            Op::SetBackend(slot, entry) => {
                self.backends.insert(*slot, entry.clone());
            }
            Op::SetRing(id, ring) => set(&mut self.rings, id, ring),
            Op::SetFrontend(endpoint, entry) => set(&mut self.frontends, endpoint, entry),
            Op::SetAddress(address, device) => set(&mut self.addresses, address, device),
        }
    }
}

fn written<'a, K: Ord + Copy, V: PartialEq + Clone>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> + 'a {
    to.iter().filter(|(key, value)| from.get(key) != Some(*value)).map(|(key, value)| (*key, value.clone()))
}

fn removed<'a, K: Ord + Copy, V>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    from.keys().filter(|key| !to.contains_key(key)).copied()
}

fn set<K: Ord + Copy, V: Clone>(map: &mut BTreeMap<K, V>, key: &K, value: &Option<V>) {
    match value {
        Some(value) => map.insert(*key, value.clone()),
        None => map.remove(key),
    };
}
