//! Entries of the tables as rows of the maps, and back: the only place that knows both.

use std::net::IpAddr;

use blixt_core::config::{Endpoint, Protocol};
use blixt_core::host::Mac;
use blixt_core::tables::{BackendEntry, BackendState, DeviceEntry, FrontendEntry, HopEntry, Way};
use blixt_packet::abi::{
    BACKEND_DRAINING, BACKEND_GONE, BACKEND_SERVING, Backend, DEVICE_OF_HOST, DEVICE_XDP_SENDER,
    DEVICE_XDP_TARGET, Device, EndpointKey, Frontend, Hop, Link, WAY_LOCAL, WAY_NAT, WAY_TRANSPARENT,
};

use crate::Error;
use crate::family::MapAddress;

/// `None` for an address of the other family.
pub(crate) fn endpoint_key<A: MapAddress>(endpoint: &Endpoint) -> Option<EndpointKey<A>> {
    Some(EndpointKey {
        address: A::from_ip(endpoint.address)?,
        port: endpoint.port.to_be(),
        protocol: endpoint.protocol.number().into(),
    })
}

pub(crate) fn endpoint<A: MapAddress>(map: &'static str, key: &EndpointKey<A>) -> Result<Endpoint, Error> {
    let protocol = protocol(key.protocol.into()).ok_or_else(|| Error::Row {
        map,
        key: format!("{key:?}"),
        field: "protocol",
        value: key.protocol.into(),
    })?;
    Ok(Endpoint { address: key.address.to_ip(), port: u16::from_be(key.port), protocol })
}

pub(crate) fn frontend_row(entry: &FrontendEntry) -> Frontend {
    Frontend { ring: entry.ring, slots: entry.slots, route: entry.route, reserved: 0 }
}

pub(crate) fn frontend(row: &Frontend) -> FrontendEntry {
    FrontendEntry { ring: row.ring, slots: row.slots, route: row.route }
}

/// `None` for a backend of the other family.
pub(crate) fn backend_row<A: MapAddress>(entry: &BackendEntry) -> Option<Backend<A>> {
    Some(Backend {
        address: A::from_ip(entry.endpoint.address)?,
        source: A::from_ip(entry.source).unwrap_or_default(),
        port: entry.endpoint.port.to_be(),
        incarnation: entry.incarnation,
        state: match entry.state {
            BackendState::Gone => BACKEND_GONE,
            BackendState::Serving => BACKEND_SERVING,
            BackendState::Draining => BACKEND_DRAINING,
        },
        way: match entry.way {
            Way::Nat => WAY_NAT,
            Way::Transparent => WAY_TRANSPARENT,
            Way::Local => WAY_LOCAL,
        },
        protocol: entry.endpoint.protocol.number(),
        reserved: 0,
        hop: entry.hop,
        route: entry.route,
    })
}

/// `None` for a slot that was never used.
pub(crate) fn backend<A: MapAddress>(
    map: &'static str,
    slot: u32,
    row: &Backend<A>,
) -> Result<Option<BackendEntry>, Error> {
    if *row == Backend::default() {
        return Ok(None);
    }
    let unknown = |field, value: u8| Error::Row { map, key: slot.to_string(), field, value: value.into() };
    Ok(Some(BackendEntry {
        endpoint: Endpoint {
            address: row.address.to_ip(),
            port: u16::from_be(row.port),
            protocol: protocol(row.protocol.into()).ok_or_else(|| unknown("protocol", row.protocol))?,
        },
        incarnation: row.incarnation,
        state: match row.state {
            BACKEND_GONE => BackendState::Gone,
            BACKEND_SERVING => BackendState::Serving,
            BACKEND_DRAINING => BackendState::Draining,
            state => return Err(unknown("state", state)),
        },
        way: match row.way {
            WAY_NAT => Way::Nat,
            WAY_TRANSPARENT => Way::Transparent,
            WAY_LOCAL => Way::Local,
            way => return Err(unknown("way", way)),
        },
        source: row.source.to_ip(),
        hop: row.hop,
        route: row.route,
    }))
}

/// A hop without a neighbour has no deadline: the program asks the kernel.
pub(crate) fn hop_row(entry: &HopEntry, deadline: u32) -> Hop {
    Hop {
        link: Link::new(entry.device, 0),
        deadline: entry.destination.map_or(0, |_| deadline),
        mtu: entry.mtu,
        destination: entry.destination.map(mac_row).unwrap_or_default(),
        source: mac_row(entry.source),
    }
}

/// `None` for an id that is not in use.
pub(crate) fn hop(row: &Hop) -> Option<HopEntry> {
    (*row != Hop::default()).then(|| HopEntry {
        next_hop: None::<IpAddr>,
        device: row.link.ifindex(),
        mtu: row.mtu,
        source: mac(row.source),
        destination: (row.destination != [0; 3]).then(|| mac(row.destination)),
    })
}

pub(crate) fn device_row(ifindex: u32, entry: &DeviceEntry) -> Device {
    Device {
        ifindex,
        mtu: entry.mtu,
        mac: mac_row(entry.mac),
        flags: if entry.xdp_target { DEVICE_XDP_TARGET } else { 0 }
            | if entry.xdp_sender { DEVICE_XDP_SENDER } else { 0 }
            | if entry.of_host { DEVICE_OF_HOST } else { 0 },
    }
}

/// `None` for a slot without a device.
pub(crate) fn device(row: &Device) -> Option<(u32, DeviceEntry)> {
    (row.ifindex != 0).then(|| {
        let xdp_target = row.flags & DEVICE_XDP_TARGET != 0;
        let xdp_sender = row.flags & DEVICE_XDP_SENDER != 0;
        let of_host = row.flags & DEVICE_OF_HOST != 0;
        (row.ifindex, DeviceEntry { mac: mac(row.mac), mtu: row.mtu, xdp_target, xdp_sender, of_host })
    })
}

fn protocol(number: u32) -> Option<Protocol> {
    u8::try_from(number).ok().and_then(Protocol::from_number)
}

fn mac_row(Mac(bytes): Mac) -> [u16; 3] {
    [0, 2, 4].map(|at| u16::from_ne_bytes([bytes[at], bytes[at + 1]]))
}

fn mac(words: [u16; 3]) -> Mac {
    let [[a, b], [c, d], [e, f]] = words.map(u16::to_ne_bytes);
    Mac([a, b, c, d, e, f])
}
