//! Devices, and which of them the programs are hooked to.

use std::collections::BTreeMap;
use std::fmt;

use blixt_core::host::Mac;
use globset::GlobSet;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use serde::{Deserialize, Serialize};

use super::wire::WireEnd;

/// A device of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Its MAC address; all zero where it has none.
    pub mac: Mac,
    /// It is set up.
    pub up: bool,
    /// There is somebody at the other end of its wire, or it has none.
    pub carrier: bool,
    /// How often that became so; older kernels do not count.
    pub carrier_ups: u32,
    /// Its frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Neighbours on it are found by ARP and NDP.
    pub arp: bool,
    /// The bridge, bond or VRF that it is a part of.
    pub master: Option<u32>,
    /// The device that it is a VLAN of, if that is in this network namespace.
    pub vlan_of: Option<u32>,
    /// VLANs are in use on it, and their tags are off its frames before XDP sees them.
    pub hides_tags: bool,
    /// It takes frames that XDP redirects to it.
    pub xdp_target: bool,
    /// What XDP sends back by it arrives.
    pub xdp_sender: bool,
}

/// What a device is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// The loopback device.
    Loopback,
    /// A network card, or what a hypervisor shows as one.
    #[default]
    Physical,
    /// One end of a wire between namespaces.
    Veth,
    /// A bridge.
    Bridge,
    /// Several devices as one: bond or team.
    Bond,
    /// A VLAN on another device.
    Vlan,
    /// A device whose other end is a process: tun or tap.
    Tun,
    /// Discards all that is sent to it.
    Dummy,
    /// Another kind, by the kernel's name.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Physical => "physical",
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Vlan => "vlan",
            Self::Tun => "tun",
            Self::Dummy => "dummy",
            Self::Other(name) => name,
        })
    }
}

/// The devices that the programs are hooked to: those with Ethernet frames whose name matches. A part of a bridge or
/// bond is left out when its master is hooked: frames would be looked at twice, and replies would bypass the
/// master. So is a device that carries nothing (dummy, ifb, nlmon). Of our own wire it is one end, whatever the names.
pub fn hooked(links: &BTreeMap<u32, Link>, names: &GlobSet) -> Vec<u32> {
    let eligible = |link: &Link| match link.wire_end() {
        Some(end) => end == WireEnd::Program,
        None => carries(link) && names.is_match(&link.name),
    };
    let behind_hooked = |link: &Link| {
        let master = link.master.and_then(|master| links.get(&master));
        master.is_some_and(|master| {
            matches!(master.kind, LinkKind::Bridge | LinkKind::Bond) && eligible(master)
        })
    };
    links.values().filter(|link| eligible(link) && !behind_hooked(link)).map(|link| link.ifindex).collect()
}

fn carries(link: &Link) -> bool {
    let idle = match &link.kind {
        LinkKind::Loopback | LinkKind::Dummy => true,
        LinkKind::Other(name) => matches!(name.as_str(), "ifb" | "nlmon" | "vcan" | "vrf"),
        _ => false,
    };
    link.ethernet && !idle
}

/// `None`: a message without the device's name.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let mut link = Link {
        ifindex: header.index,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        arp: !header.flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback),
        ..Link::default()
    };
    let (mut lower, mut is_elsewhere) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(ifindex) => lower = Some(*ifindex),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::CarrierUpCount(count) => link.carrier_ups = *count,
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = Mac(bytes.as_slice().try_into().unwrap_or_default());
            }
            LinkAttribute::Controller(master) => link.master = (*master != 0).then_some(*master),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = self::kind(&kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    if header.flags.contains(LinkFlags::Loopback) {
        link.kind = LinkKind::Loopback;
    }
    link.vlan_of = lower.filter(|_| link.kind == LinkKind::Vlan && !is_elsewhere);
    (!link.name.is_empty()).then_some(link)
}

fn kind(name: &str) -> LinkKind {
    match name {
        "veth" => LinkKind::Veth,
        "bridge" => LinkKind::Bridge,
        "bond" | "team" => LinkKind::Bond,
        "vlan" => LinkKind::Vlan,
        "tun" => LinkKind::Tun,
        "dummy" => LinkKind::Dummy,
        other => LinkKind::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use globset::{Glob, GlobSetBuilder};
    use netlink_packet_route::link::InfoKind;

    use super::*;

    #[test]
    fn devices_that_carry_traffic_are_hooked_and_parts_are_not_when_their_master_is() {
        for (names, expected) in [
            (&["*"][..], &["eth0", "br0", "eth9"][..]),
            (&["eth*"], &["eth0", "eth1", "eth9"]),
            (&["br0", "eth1"], &["br0"]),
            (&["lo", "dummy0"], &[]),
            (&["veth1"], &["veth1"]),
        ] {
            let links = machine();
            let found: Vec<&str> =
                hooked(&links, &globs(names)).iter().map(|index| links[index].name.as_str()).collect();
            assert_eq!(found, expected, "of {names:?}");
        }
    }

    #[test]
    fn of_our_own_wire_one_end_is_hooked_whatever_the_names_and_nobody_elses() {
        let end = |ifindex, name: &str, mac| Link {
            ifindex,
            name: name.to_owned(),
            kind: LinkKind::Veth,
            ethernet: true,
            mac,
            ..Link::default()
        };
        let ours = Mac(*b"\x02blixt");
        for (mac, names, expected) in [
            (ours, &["eth*"][..], &[2][..]),
            (ours, &["*"], &[2]),
            (Mac::default(), &["eth*"], &[]),
            (Mac::default(), &["*"], &[1, 2]),
        ] {
            let links = [end(1, "blixt0", mac), end(2, "blixt1", mac)];
            let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
            assert_eq!(hooked(&links, &globs(names)), expected, "{mac:?} of {names:?}");
        }
    }

    #[test]
    fn a_vlan_is_one_of_the_device_below_it_if_that_is_in_this_namespace() {
        let on = |kind, others: &[LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.attributes = [
                LinkAttribute::IfName("eth0.42".into()),
                LinkAttribute::Link(7),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ]
            .into();
            message.attributes.extend_from_slice(others);
            link(&message).unwrap().vlan_of
        };
        assert_eq!(on(InfoKind::Vlan, &[]), Some(7));
        assert_eq!(on(InfoKind::Vlan, &[LinkAttribute::LinkNetNsId(0)]), None);
        assert_eq!(on(InfoKind::Veth, &[]), None);
    }

    /// `lo`, `eth0`, a bridge of `eth1` and `veth1`, `eth9` in a VRF, a dummy, a tunnel without Ethernet frames.
    fn machine() -> BTreeMap<u32, Link> {
        let other = |name: &str| LinkKind::Other(name.to_owned());
        [
            (1, "lo", LinkKind::Loopback, None),
            (2, "eth0", LinkKind::Physical, None),
            (3, "br0", LinkKind::Bridge, None),
            (4, "eth1", LinkKind::Physical, Some(3)),
            (5, "veth1", LinkKind::Veth, Some(3)),
            (6, "vrf0", other("vrf"), None),
            (7, "eth9", LinkKind::Physical, Some(6)),
            (8, "dummy0", LinkKind::Dummy, None),
            (9, "wg0", other("wireguard"), None),
        ]
        .into_iter()
        .map(|(ifindex, name, kind, master)| {
            let link = Link {
                ifindex,
                name: name.to_owned(),
                ethernet: kind != other("wireguard"),
                kind,
                master,
                ..Link::default()
            };
            (ifindex, link)
        })
        .collect()
    }

    fn globs(names: &[&str]) -> GlobSet {
        let mut globs = GlobSetBuilder::new();
        for name in names {
            globs.add(Glob::new(name).unwrap());
        }
        globs.build().unwrap()
    }
}
