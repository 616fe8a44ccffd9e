//! How the kernel would send to an address: its own lookup (`RTM_GETROUTE`), so that rules and every kind of route
//! count.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blixt_core::host::Path;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::HostError;
use super::link::Link;
use super::netlink::Asker;

/// Addresses of the world that nobody has a route of its own for: class E, and a part of 2000::/3 that is not given
/// out. The way to them is the default route.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0xffff, 0xffff, 0, 0, 0, 0, 1)),
];

/// Answers that are kept at once: each is a kilobyte, of which a path is a part of sixty bytes.
pub(super) const AT_ONCE: usize = 1024;

/// The path to each address; one without a path is left out.
pub(super) fn paths(
    asker: &mut Asker,
    addresses: &[IpAddr],
    links: &BTreeMap<u32, Link>,
) -> Result<BTreeMap<IpAddr, Path>, HostError> {
    let mut paths = Vec::with_capacity(addresses.len());
    for addresses in addresses.chunks(AT_ONCE) {
        let requests: Vec<RouteNetlinkMessage> = addresses.iter().copied().map(request).collect();
        let answers = asker.ask("look a route up", &requests, 0)?;
        paths.extend(addresses.iter().zip(answers).filter_map(|(address, answer)| match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
                Some((*address, path(*address, &route, links)?))
            }
            _ => None,
        }));
    }
    Ok(paths.into_iter().collect())
}

/// What the machine reaches the world from, for each family that has a default route.
pub(super) fn primary(asker: &mut Asker, links: &BTreeMap<u32, Link>) -> Result<Vec<IpAddr>, HostError> {
    let paths = paths(asker, &WORLD, links)?;
    Ok(WORLD.iter().filter_map(|address| paths.get(address)).map(|path| path.source).collect())
}

fn request(address: IpAddr) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(address);
    route.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    route.attributes.push(RouteAttribute::Destination(address.into()));
    RouteNetlinkMessage::GetRoute(route)
}

fn path(address: IpAddr, route: &RouteMessage, links: &BTreeMap<u32, Link>) -> Option<Path> {
    let local = match route.header.kind {
        RouteType::Unicast => false,
        RouteType::Local => true,
        _ => return None,
    };
    let mut device = 0;
    let mut next_hop = address;
    let mut source = None;
    let mut mtu = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = *index,
            RouteAttribute::Gateway(gateway) => next_hop = ip(gateway)?,
            RouteAttribute::Via(RouteVia::Inet(gateway)) => next_hop = IpAddr::V4(*gateway),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => next_hop = IpAddr::V6(*gateway),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let largest = links.get(&device).map_or(u32::MAX, |link| link.mtu);
    Some(Path {
        device,
        next_hop,
        source: source.or(local.then_some(address))?,
        mtu: mtu.map_or(largest, |mtu| mtu.min(largest)),
        local,
    })
}

pub(super) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(super) const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
