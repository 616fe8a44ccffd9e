//! Which addresses each Gateway serves on.
//!
//! Static ones as they are asked for; else from the class's pools, one of each family that the pools have; else the
//! machine's own. A Gateway keeps what it was given before; a new one starts to look at a place that
//! follows from its name, so that Gateways which come and go do not move the others.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address_range::AddressRange;
use super::gateway::GatewayState;
use super::refusal::Refusal;
use crate::api::GatewayAddress;
use crate::snapshot::Snapshot;
use crate::tables::Family;

/// Blocks of addresses that no packet between machines can have, both ends included.
const UNUSABLE: [(IpAddr, IpAddr, &str); 10] = [
    (v4(0), v4(0), "is the unspecified address"),
    (v4(0x7f00_0000), v4(0x7fff_ffff), "is a loopback address"),
    (v4(0xa9fe_0000), v4(0xa9fe_ffff), "is a link-local address"),
    (v4(0xe000_0000), v4(0xefff_ffff), "is a multicast address"),
    (v4(u32::MAX), v4(u32::MAX), "is the broadcast address"),
    (v6(0), v6(0), "is the unspecified address"),
    (v6(1), v6(1), "is a loopback address"),
    (v6(0xffff << 32), v6((1 << 48) - 1), "is an IPv4 address in IPv6 form"),
    (v6(0xfe80 << 112), v6((0xfec0 << 112) - 1), "is a link-local address"),
    (v6(0xff << 120), v6(u128::MAX), "is a multicast address"),
];

const fn v4(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(number))
}

const fn v6(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(number))
}

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
    unusable_between(address, address).map(|(_, fault)| fault)
}

/// The first address from `first` to `last` that no packet between machines can have, and why.
pub fn unusable_between(first: IpAddr, last: IpAddr) -> Option<(IpAddr, &'static str)> {
    let found = UNUSABLE.into_iter().filter(|(from, to, _)| {
        first.is_ipv4() == from.is_ipv4() && last.is_ipv4() == to.is_ipv4() && first <= *to && last >= *from
    });
    found.map(|(from, _, fault)| (first.max(from), fault)).min()
}

/// `GatewaySpec.addresses` absent, or with an entry without a value: the implementation assigns.
fn wants_any(state: &GatewayState<'_>) -> bool {
    let asked = &state.gateway.spec.addresses;
    let without_value = |address: &GatewayAddress| address.value.as_deref().unwrap_or_default().is_empty();
    state.refusal.is_none() && (asked.is_empty() || asked.iter().any(without_value))
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

/// The first free address from a place that follows from the name, around to that place again. Ranges hold usable
/// addresses only, so that no more steps are taken than addresses are.
fn free_address(ranges: &[&AddressRange], name: &str, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let size = ranges.iter().fold(0_u128, |size, range| size.saturating_add(range.len()));
    let start = u128::from(xxhash_rust::xxh3::xxh3_64(name.as_bytes())) % size;
    (0..size).map(|step| nth(ranges, (start + step) % size)).find(|address| !taken.contains(address))
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
