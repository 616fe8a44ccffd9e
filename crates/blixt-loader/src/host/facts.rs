//! Everything that is known of the machine, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use blixt_core::host::{Device, Host, Mac, Path};
use globset::GlobSet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::LinkMessage;

use super::link::{Link, LinkKind, hooked, link};
use super::neighbour::{Neighbour, NeighbourKey};
use super::netlink::Asker;
use super::wire::WireEnd;
use super::{HostError, Observation, neighbour, xdp};

/// What netlink said last.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) addresses: Vec<LocalAddress>,
    pub(super) paths: Arc<BTreeMap<IpAddr, Path>>,
    /// Sources of the default routes.
    pub(super) primary: Vec<IpAddr>,
    pub(super) neighbours: HashMap<NeighbourKey, Neighbour>,
    /// The neighbours that frames for the backends go to, as links and paths say.
    pub(super) next_hops: BTreeSet<NeighbourKey>,
}

/// An address of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LocalAddress {
    device: u32,
    address: IpAddr,
    prefix_length: u8,
    scope: AddressScope,
}

impl Facts {
    /// Devices and their addresses.
    pub(super) fn ask_links(&mut self, asker: &mut Asker) -> Result<(), HostError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.links = asker
            .dump("list devices", request)?
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => link(message),
                _ => None,
            })
            .map(|link| (link.ifindex, link))
            .collect();
        let targets = xdp::targets();
        let with_vlans: BTreeSet<u32> = self.links.values().filter_map(|link| link.vlan_of).collect();
        for link in self.links.values_mut() {
            link.hides_tags = with_vlans.contains(&link.ifindex) && xdp::hides_tags(link);
            link.xdp_target = targets.contains(&link.ifindex);
            link.xdp_sender = xdp::is_sender(link);
        }
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.addresses = asker
            .dump("list addresses", request)?
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) => local_address(message),
                _ => None,
            })
            .collect();
        Ok(())
    }

    /// All neighbours.
    pub(super) fn ask_neighbours(&mut self, asker: &mut Asker, now: Instant) -> Result<(), HostError> {
        let messages = neighbour::dump(asker)?;
        let mut known = std::mem::take(&mut self.neighbours);
        for message in &messages {
            if let Some(key) = neighbour::key(message) {
                let neighbour = neighbour::neighbour(message, known.remove(&key).as_ref(), now);
                self.neighbours.insert(key, neighbour);
            }
        }
        for (key, neighbour) in known {
            if neighbour.mac(now).is_some() {
                self.neighbours.insert(key, neighbour.gone(now));
            }
        }
        Ok(())
    }

    /// After links or paths changed.
    pub(super) fn find_next_hops(&mut self) {
        let is_resolvable =
            |device: u32| self.links.get(&device).is_some_and(|link| link.up && link.arp && link.ethernet);
        let mut hops: Vec<NeighbourKey> =
            self.paths.values().filter(|path| !path.local).map(|path| (path.device, path.next_hop)).collect();
        // Addresses that follow each other mostly go the same way: what is left is soon sorted.
        hops.dedup();
        self.next_hops = hops.into_iter().filter(|(device, _)| is_resolvable(*device)).collect();
    }

    /// The next hops whose MAC address is known.
    pub(super) fn known_neighbours(&self, now: Instant) -> impl Iterator<Item = (NeighbourKey, Mac)> {
        self.next_hops.iter().filter_map(move |key| Some((*key, self.neighbours.get(key)?.mac(now)?)))
    }

    /// What all of it means for who asked.
    pub(super) fn observation(
        &self,
        node: &str,
        wanted: &BTreeSet<IpAddr>,
        interfaces: &GlobSet,
        followed: u64,
        now: Instant,
    ) -> Observation {
        let addresses: BTreeSet<IpAddr> = self.addresses.iter().map(|local| local.address).collect();
        let hooked: BTreeSet<u32> = hooked(&self.links, interfaces).into_iter().collect();
        let (mut on_link, mut unanswered) = (BTreeMap::new(), BTreeMap::new());
        for address in wanted.difference(&addresses) {
            if let Some(device) = self.on_link(*address, |device| hooked.contains(&device)) {
                on_link.insert(*address, device);
            } else if let Some(device) = self.on_link(*address, |_| true) {
                unanswered.insert(*address, device);
            }
        }
        let devices = self
            .links
            .values()
            .filter(|link| link.kind != LinkKind::Loopback)
            .map(|link| {
                let of_host = link.wire_end() == Some(WireEnd::Program);
                let Link { ifindex, name, mac, mtu, xdp_target, xdp_sender, .. } = link.clone();
                (ifindex, Device { name, mac, mtu, xdp_target, xdp_sender, of_host })
            })
            .collect();
        let neighbours = self.known_neighbours(now).collect();
        let host = Host {
            name: node.to_owned(),
            addresses,
            devices,
            paths: Arc::clone(&self.paths),
            on_link,
            neighbours,
        };
        Observation { host, links: self.links.clone(), primary: self.primary(), unanswered, followed }
    }

    /// Of some devices the one with the smallest subnet that holds the address, where neighbours ask for it.
    fn on_link(&self, address: IpAddr, is_meant: impl Fn(u32) -> bool) -> Option<u32> {
        self.addresses
            .iter()
            .filter(|local| is_meant(local.device))
            .filter(|local| contains(local, address))
            .filter(|local| {
                self.links.get(&local.device).is_some_and(|link| link.up && link.arp && link.ethernet)
            })
            .max_by_key(|local| (local.prefix_length, std::cmp::Reverse(local.device)))
            .map(|local| local.device)
    }

    fn primary(&self) -> Vec<IpAddr> {
        let first_global = |is_v4: bool| {
            let carried = |local: &&LocalAddress| {
                self.links.get(&local.device).is_some_and(|link| link.up && link.kind != LinkKind::Loopback)
            };
            self.addresses
                .iter()
                .filter(carried)
                .filter(|local| local.scope == AddressScope::Universe && local.address.is_ipv4() == is_v4)
                .min_by_key(|local| local.device)
                .map(|local| local.address)
        };
        let of_default =
            |is_v4: bool| self.primary.iter().copied().find(|address| address.is_ipv4() == is_v4);
        [true, false]
            .into_iter()
            .filter_map(|is_v4| of_default(is_v4).or_else(|| first_global(is_v4)))
            .collect()
    }
}

fn local_address(message: &AddressMessage) -> Option<LocalAddress> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // Of a point-to-point device `Address` is the other end.
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(other) => address = address.or(Some(*other)),
            _ => {}
        }
    }
    Some(LocalAddress {
        device: message.header.index,
        address: address?,
        prefix_length: message.header.prefix_len,
        scope: message.header.scope,
    })
}

fn contains(local: &LocalAddress, address: IpAddr) -> bool {
    let (own, other, bits) = match (local.address, address) {
        (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    let host_bits = bits - u32::from(local.prefix_length).min(bits);
    let network = |address: u128| address.checked_shr(host_bits).unwrap_or(0);
    // A subnet of one address has no neighbours.
    host_bits > 0 && network(own) == network(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_contains_its_addresses() {
        for (local, prefix_length, address, expected) in [
            ("192.0.2.1", 24, "192.0.2.200", true),
            ("192.0.2.1", 24, "192.0.3.1", false),
            ("192.0.2.1", 32, "192.0.2.1", false),
            ("192.0.2.1", 0, "10.0.0.1", true),
            ("2001:db8::1", 64, "2001:db8::ffff:1", true),
            ("2001:db8::1", 64, "2001:db8:0:1::1", false),
            ("2001:db8::1", 0, "::2", true),
            ("192.0.2.1", 0, "2001:db8::1", false),
        ] {
            let local = LocalAddress {
                device: 1,
                address: local.parse().unwrap(),
                prefix_length,
                scope: AddressScope::Universe,
            };
            assert_eq!(contains(&local, address.parse().unwrap()), expected, "{local:?} {address}");
        }
    }
}
