//! Which addresses each Gateway serves on.
//!
//! Static ones as they are asked for, in a cluster only those of the class's pools; else from the pools, one of each
//! family that they have; else the machine's own. A Gateway keeps what it was given before, whoever asks for it later; a
//! new one starts to look at a place that follows from its name, so that Gateways which come and go do not move the
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address_pool::AddressPool;
use super::address_range::AddressRange;
use super::gateway::GatewayState;
use super::refusal::Refusal;
use crate::api::{Gateway, GatewayAddress, ObjectKey};
use crate::snapshot::Snapshot;
use crate::tables::Family;

/// The annotation by which Gateways share addresses, all that give it the same value: those of one namespace what pools
/// gave them, those of several what they name.
const SHARE: &str = "blixt.dev/share-address";

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
pub fn assign<'a>(snapshot: &'a Snapshot, gateways: &mut [GatewayState<'a>]) {
    let reserved = reserved(snapshot);
    let mut giver = Giver {
        snapshot,
        held: snapshot.machine.addresses.iter().chain(reserved.keys()).copied().collect(),
        reserved,
        holders: BTreeMap::new(),
        shared: BTreeMap::new(),
    };
    let accepted = |state: &&mut GatewayState<'_>| state.refusal.is_none();
    // What a Gateway has it keeps, before anybody else is asked.
    for state in gateways.iter_mut().filter(accepted) {
        giver.named(state, true);
        giver.keep(state);
    }
    for state in gateways.iter_mut().filter(accepted) {
        giver.named(state, false);
    }
    for state in gateways.iter_mut().filter(accepted) {
        giver.any(state);
    }
    for state in gateways {
        state.addresses.sort();
        state.addresses.dedup();
    }
}

/// The addresses of a cluster's own nodes and Services, and what each is. Whoever took one at every node would cut the
/// cluster off from the node or the Service, the API server's included.
fn reserved(snapshot: &Snapshot) -> BTreeMap<IpAddr, Reserved<'_>> {
    let nodes = snapshot.node_addresses.iter().map(|(address, node)| (*address, Reserved::Node(node)));
    let services = snapshot.services.values().filter(|_| snapshot.is_cluster);
    let services = services.flat_map(|service| service.spec.cluster_ips.iter().copied());
    nodes.chain(services.map(|address| (address, Reserved::Service))).collect()
}

/// What in a cluster has an address.
#[derive(Clone, Copy)]
enum Reserved<'a> {
    Service,
    Node(&'a str),
}

impl fmt::Display for Reserved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("is the clusterIP of a Service"),
            Self::Node(name) => write!(f, "is an address of node {name}"),
        }
    }
}

/// Who has what.
struct Giver<'a> {
    snapshot: &'a Snapshot,
    /// What Gateways have, the machine's own, and what is reserved.
    held: BTreeSet<IpAddr>,
    /// What nobody can have.
    reserved: BTreeMap<IpAddr, Reserved<'a>>,
    /// Who had an address first.
    holders: BTreeMap<IpAddr, Holder<'a>>,
    /// What the Gateways that share have.
    shared: BTreeMap<Group<'a>, BTreeSet<IpAddr>>,
}

/// The Gateway that had an address first: the others have it by its leave.
struct Holder<'a> {
    key: &'a ObjectKey,
    gateway: &'a Gateway,
    /// A pool gave it the address, which it does not name.
    given: bool,
}

impl Holder<'_> {
    /// Why another Gateway cannot have its address too. One that a pool gave it stays in its namespace and class; one that
    /// both name is of their namespace, or of all who agree on it.
    fn fault(&self, state: &GatewayState<'_>) -> Option<String> {
        let same_namespace = self.gateway.metadata.namespace == state.gateway.metadata.namespace;
        let agreed = share_name(self.gateway).is_some_and(|name| share_name(state.gateway) == Some(name));
        let shares = if self.given {
            agreed && group(self.gateway) == group(state.gateway)
        } else {
            agreed || same_namespace
        };
        if shares || self.key == state.key {
            return None;
        }
        let how = if self.given { "was given to" } else { "is of" };
        let next = if self.given && !same_namespace {
            "name another".to_owned()
        } else {
            format!("name another, or let both share it by the annotation {SHARE}")
        };
        Some(format!("{how} {}: {next}", self.key))
    }
}

/// Class, namespace and the value of [`SHARE`].
type Group<'a> = (&'a str, &'a str, &'a str);

fn group(gateway: &Gateway) -> Option<Group<'_>> {
    Some((&gateway.spec.gateway_class_name, &gateway.metadata.namespace, share_name(gateway)?))
}

fn share_name(gateway: &Gateway) -> Option<&str> {
    gateway.metadata.annotations.get(SHARE)
}

impl<'a> Giver<'a> {
    /// `GatewaySpec.addresses`, the ones with a value: those that the Gateway had before, or the others. What cannot be
    /// used is `AddressNotUsable`, the rest serves.
    fn named(&mut self, state: &mut GatewayState<'a>, had: bool) {
        for (index, asked) in state.gateway.spec.addresses.iter().enumerate() {
            let Some(value) = asked.value.as_deref().filter(|value| !value.is_empty()) else { continue };
            let address = value.parse().ok();
            if address.is_some_and(|address| self.had(state, address)) != had {
                continue;
            }
            let fault = match address {
                None => Some("is no IP address: give an IPv4 or IPv6 address".to_owned()),
                Some(address) => self.fault(state, address),
            };
            match (address, fault) {
                (Some(address), None) => self.hold(state, address, false),
                (_, fault) => {
                    let message = format!("spec.addresses[{index}]: {value} {}", fault.unwrap_or_default());
                    state.address_refusal = Some(Refusal::new("AddressNotUsable", message));
                }
            }
        }
    }

    fn had(&self, state: &GatewayState<'_>, address: IpAddr) -> bool {
        self.snapshot.assigned.get(state.key).is_some_and(|had| had.contains(&address))
    }

    /// Why a Gateway cannot have the address that it names.
    fn fault(&self, state: &GatewayState<'a>, address: IpAddr) -> Option<String> {
        if let Some(fault) = unusable(address) {
            return Some(format!("{fault}: give an address that clients can reach"));
        }
        if let Some(reserved) = self.reserved.get(&address) {
            return Some(format!("{reserved}: name another, and keep such addresses out of pools"));
        }
        let pools = pools(state);
        if pools.is_empty() && self.snapshot.is_cluster {
            return Some(format!(
                "is of no address pool, and in a cluster only addresses of pools are given: give GatewayClass {} a \
                 BlixtClass with addressPools",
                state.gateway.spec.gateway_class_name
            ));
        }
        let of_machine = self.snapshot.machine.addresses.contains(&address);
        let mut around = pools.iter().filter(|pool| pool.contains(address)).peekable();
        if around.peek().is_none() && !pools.is_empty() && !of_machine {
            return Some("is in no address pool of the class: name one that is, or add it to a pool".into());
        }
        let first = around.peek().map(|pool| pool.name.clone()).unwrap_or_default();
        if !pools.is_empty() && !of_machine && !around.any(|pool| pool.admits(state.gateway)) {
            return Some(format!(
                "is of address pool {first}, which is not for this Gateway: name another, or change the pool's \
                 namespaces and gatewaySelector"
            ));
        }
        // What a machine has itself is of all its Gateways, named or not.
        let holder = self.holders.get(&address).filter(|_| !of_machine)?;
        holder.fault(state)
    }

    /// A Gateway that names no address keeps the ones that it was given, or has those that it shares.
    fn keep(&mut self, state: &mut GatewayState<'a>) {
        if !wants_any(state) {
            return;
        }
        self.share(state);
        for address in self.snapshot.assigned.get(state.key).into_iter().flatten() {
            let held = self.held.contains(address);
            if may_get(state, *address) && !has_family(state, (*address).into()) && !held {
                self.hold(state, *address, true);
            }
        }
    }

    /// What others that share with a Gateway have, of each family that it lacks.
    fn share(&mut self, state: &mut GatewayState<'a>) {
        let shared =
            group(state.gateway).and_then(|group| self.shared.get(&group)).cloned().unwrap_or_default();
        for address in shared {
            if may_get(state, address) && !has_family(state, address.into()) {
                state.addresses.push(address);
            }
        }
    }

    fn hold(&mut self, state: &mut GatewayState<'a>, address: IpAddr, given: bool) {
        self.held.insert(address);
        let holder = Holder { key: state.key, gateway: state.gateway, given };
        self.holders.entry(address).or_insert(holder);
        state.addresses.push(address);
        if let Some(group) = group(state.gateway) {
            self.shared.entry(group).or_default().insert(address);
        }
    }

    /// `GatewayReasonAddressNotAssigned`: pools are exhausted, or there is nothing to assign from.
    fn any(&mut self, state: &mut GatewayState<'a>) {
        if !wants_any(state) {
            return;
        }
        let not_assigned = |message: String| Some(Refusal::new("AddressNotAssigned", message));
        if pools(state).is_empty() {
            state.addresses.extend(&self.snapshot.machine.default_addresses);
            if state.addresses.is_empty() {
                let message = if self.snapshot.is_cluster {
                    "the class has no address pool: give it a BlixtClass with addressPools"
                } else {
                    "the class has no address pool, and there is no machine whose address could serve: set \
                     spec.addresses, or name a BlixtClass with addressPools in the class"
                };
                state.address_refusal = not_assigned(message.into());
            }
            return;
        }
        self.share(state);
        let pools: Vec<&AddressPool> = own_pools(state).collect();
        if pools.is_empty() && state.addresses.is_empty() {
            state.address_refusal = not_assigned(
                "no address pool of the class gives addresses to this Gateway: set spec.addresses, or change the \
                 namespaces, gatewaySelector or autoAssign of a pool"
                    .into(),
            );
        }
        for family in [Family::V4, Family::V6] {
            let of_family = |pool: &&AddressPool| -> Vec<AddressRange> {
                pool.ranges.iter().filter(|range| range.family() == family).copied().collect()
            };
            let pools: Vec<Vec<AddressRange>> =
                pools.iter().map(of_family).filter(|ranges| !ranges.is_empty()).collect();
            if pools.is_empty() || has_family(state, family) {
                continue;
            }
            let name = state.key.to_string();
            let taken = [&self.held, &self.snapshot.resting];
            match pools.iter().find_map(|ranges| free_address(ranges, &name, &taken)) {
                Some(address) => self.hold(state, address, true),
                None => state.address_refusal = not_assigned(self.exhausted(family, pools.concat())),
            }
        }
    }

    fn exhausted(&self, family: Family, ranges: Vec<AddressRange>) -> String {
        let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
        let in_pools = |address: &&IpAddr| ranges.iter().any(|range| range.contains(**address));
        let resting = match self.snapshot.resting.iter().filter(in_pools).count() {
            0 => String::new(),
            count => format!(", {count} of their addresses rest since their last Gateway went"),
        };
        format!(
            "the {name} address pools of the class are exhausted{resting}: add addresses to its BlixtClass, or \
             delete a Gateway"
        )
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
    asked.is_empty() || asked.iter().any(without_value)
}

fn pools<'a>(state: &GatewayState<'a>) -> &'a [AddressPool] {
    state.settings.map(|settings| settings.pools.as_slice()).unwrap_or_default()
}

/// The pools that give addresses to a Gateway.
fn own_pools<'a>(state: &GatewayState<'a>) -> impl Iterator<Item = &'a AddressPool> {
    let gateway = state.gateway;
    pools(state).iter().filter(move |pool| pool.auto_assign && pool.admits(gateway))
}

fn may_get(state: &GatewayState<'_>, address: IpAddr) -> bool {
    own_pools(state).any(|pool| pool.contains(address))
}

fn has_family(state: &GatewayState<'_>, family: Family) -> bool {
    state.addresses.iter().any(|address| Family::from(*address) == family)
}

/// The first free address from a place that follows from the name, around to that place again. Ranges hold usable
/// addresses only, so that no more steps are taken than addresses are; of full ranges none is.
fn free_address(ranges: &[AddressRange], name: &str, taken: &[&BTreeSet<IpAddr>]) -> Option<IpAddr> {
    let is_full = |range: &&AddressRange| {
        taken.iter().any(|taken| {
            let held = taken.range(range.first()..=range.last()).count();
            u128::try_from(held).is_ok_and(|held| held >= range.len())
        })
    };
    let ranges: Vec<&AddressRange> = ranges.iter().filter(|range| !is_full(range)).collect();
    let size = ranges.iter().fold(0_u128, |size, range| size.saturating_add(range.len()));
    let start = u128::from(xxhash_rust::xxh3::xxh3_64(name.as_bytes())).checked_rem(size)?;
    (0..size)
        .map(|step| nth(&ranges, (start + step) % size))
        .find(|address| taken.iter().all(|taken| !taken.contains(address)))
}

fn nth(ranges: &[&AddressRange], mut index: u128) -> IpAddr {
    for range in ranges {
        if index < range.len() {
            return range.address(index);
        }
        index -= range.len();
    }
    ranges[0].first()
}
