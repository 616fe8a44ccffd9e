//! Which addresses each Gateway serves on.
//!
//! Static ones as they are asked for; else from the class's pools, one of each family that the pools have; else the
//! machine's own. A Gateway keeps what it was given before; a new one starts to look at a place that
//! follows from its name, so that Gateways which come and go do not move the others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::address_range::AddressRange;
use super::gateway::GatewayState;
use super::refusal::Refusal;
use crate::snapshot::Snapshot;
use crate::tables::Family;

/// Gives every accepted Gateway its addresses.
pub fn assign(snapshot: &Snapshot, gateways: &mut [GatewayState<'_>]) {
    let mut taken = snapshot.machine.addresses.clone();
    for state in gateways.iter_mut().filter(|state| state.refusal.is_none()) {
        static_addresses(state);
        taken.extend(&state.addresses);
    }
    let wanting: Vec<usize> = (0..gateways.len()).filter(|index| wants_any(&gateways[*index])).collect();
    for index in &wanting {
        keep_assigned(snapshot, &mut gateways[*index], &mut taken);
    }
    for index in &wanting {
        assign_any(snapshot, &mut gateways[*index], &mut taken);
    }
    for state in gateways {
        state.addresses.sort();
        state.addresses.dedup();
    }
}

/// `GatewaySpec.addresses`: the ones with a value. What cannot be used is `AddressNotUsable`, the rest serves.
fn static_addresses(state: &mut GatewayState<'_>) {
    for (index, address) in state.gateway.spec.addresses.iter().enumerate() {
        let Some(value) = address.value.as_deref().filter(|value| !value.is_empty()) else { continue };
        match value.parse().map_err(|_| "is no IP address").and_then(usable) {
            Ok(address) => state.addresses.push(address),
            Err(fault) => {
                state.address_refusal = Some(Refusal::new(
                    "AddressNotUsable",
                    format!(
                        "spec.addresses[{index}]: {value} {fault}: give an address that clients can reach"
                    ),
                ));
            }
        }
    }
}

/// An address that clients elsewhere can send to.
fn usable(address: IpAddr) -> Result<IpAddr, &'static str> {
    match unusable(address) {
        Some(fault) => Err(fault),
        None => Ok(address),
    }
}

/// Why no packet between machines can have this address.
pub fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("is the unspecified address");
    }
    if address.is_loopback() {
        return Some("is a loopback address");
    }
    if address.is_multicast() {
        return Some("is a multicast address");
    }
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(address) if address.is_link_local() => Some("is a link-local address"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("is a link-local address"),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => Some("is an IPv4 address in IPv6 form"),
        _ => None,
    }
}

/// `GatewaySpec.addresses` absent, or with an entry without a value: the implementation assigns.
fn wants_any(state: &GatewayState<'_>) -> bool {
    let asked = &state.gateway.spec.addresses;
    let without_value = |value: &Option<String>| value.as_deref().unwrap_or_default().is_empty();
    state.refusal.is_none() && (asked.is_empty() || asked.iter().any(|address| without_value(&address.value)))
}

fn ranges<'a>(state: &GatewayState<'a>) -> &'a [AddressRange] {
    state.settings.map(|settings| settings.ranges.as_slice()).unwrap_or_default()
}

fn has_family(state: &GatewayState<'_>, family: Family) -> bool {
    state.addresses.iter().any(|address| Family::from(*address) == family)
}

fn keep_assigned(snapshot: &Snapshot, state: &mut GatewayState<'_>, taken: &mut BTreeSet<IpAddr>) {
    for address in snapshot.assigned.get(state.key).into_iter().flatten() {
        let in_pool = ranges(state).iter().any(|range| range.contains(*address));
        if in_pool && !has_family(state, (*address).into()) && taken.insert(*address) {
            state.addresses.push(*address);
        }
    }
}

/// `GatewayReasonAddressNotAssigned`: pools are exhausted, or there is nothing to assign from.
fn assign_any(snapshot: &Snapshot, state: &mut GatewayState<'_>, taken: &mut BTreeSet<IpAddr>) {
    let ranges = ranges(state);
    if ranges.is_empty() {
        state.addresses.extend(&snapshot.machine.default_addresses);
        if state.addresses.is_empty() {
            state.address_refusal = Some(Refusal::new(
                "AddressNotAssigned",
                "there is no address pool, and the machine has no address: \
                 set spec.addresses, or name a BlixtClass with addressPools in the class",
            ));
        }
        return;
    }
    for family in [Family::V4, Family::V6] {
        let of_family: Vec<&AddressRange> = ranges.iter().filter(|range| range.family() == family).collect();
        if of_family.is_empty() || has_family(state, family) {
            continue;
        }
        match free_address(&of_family, &state.key.to_string(), taken) {
            Some(address) => {
                taken.insert(address);
                state.addresses.push(address);
            }
            None => {
                let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
                state.address_refusal = Some(Refusal::new(
                    "AddressNotAssigned",
                    format!(
                        "the {name} address pools of the class are exhausted: add addresses to its BlixtClass"
                    ),
                ));
            }
        }
    }
}

/// The first free address from a place that follows from the name, around to that place again.
fn free_address(ranges: &[&AddressRange], name: &str, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let size = ranges.iter().fold(0_u128, |size, range| size.saturating_add(range.len()));
    let start = u128::from(xxhash_rust::xxh3::xxh3_64(name.as_bytes())) % size;
    (0..size)
        .map(|step| nth(ranges, (start + step) % size))
        .find(|address| !taken.contains(address) && unusable(*address).is_none())
}

fn nth(ranges: &[&AddressRange], mut index: u128) -> IpAddr {
    for range in ranges {
        if index < range.len() {
            return range.address(index);
        }
        index -= range.len();
    }
    ranges[0].address(0)
}
