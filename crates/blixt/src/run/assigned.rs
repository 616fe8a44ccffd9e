//! The addresses that Gateways hold, kept across restarts so that a pool gives each the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use blixt_core::api::ObjectKey;
use blixt_core::status::{Status, Statuses};

use crate::atomic;

/// Addresses by Gateway.
pub type Assigned = BTreeMap<ObjectKey, BTreeSet<IpAddr>>;

/// What the statuses say.
pub fn of(statuses: &Statuses) -> Assigned {
    let addresses = |status: &Status| match status {
        Status::Gateway(gateway) => {
            gateway.addresses.iter().filter_map(|address| address.value.parse().ok()).collect()
        }
        _ => BTreeSet::new(),
    };
    statuses
        .iter()
        .map(|(key, status)| (key.clone(), addresses(status)))
        .filter(|(_, addresses)| !addresses.is_empty())
        .collect()
}

/// What was saved. What cannot be read is nothing: addresses are given anew.
pub fn load(path: &Path) -> Assigned {
    let list: Option<Vec<(ObjectKey, BTreeSet<IpAddr>)>> =
        fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    list.unwrap_or_default().into_iter().collect()
}

/// Saves it.
pub fn save(path: &Path, assigned: &Assigned) -> io::Result<()> {
    let list: Vec<_> = assigned.iter().collect();
    atomic::write(path, &serde_json::to_vec(&list)?)
}
