//! The wire by which processes of this machine reach the addresses that only Blixt owns: their packets come in by no device.
//!
//! ```text
//! process ─► rule, route ─► blixt0 ══ blixt1 ─► the program, as with any client
//!         ◄─── the stack ◄─ blixt0 ══ blixt1 ◄─ what it sends back
//! ```
//!
//! The routes are in a table of their own, which a rule opens to what this machine itself sends: what comes in by a device that is not
//! hooked, and would be forwarded, is not served by this door.
//!
//! Both ends have one MAC address, and nobody is asked for it: what a device without ARP sends is addressed to its own. They work on
//! without this process, and belong to the network namespace. With an end goes the other, and with it every route; the rule does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use blixt_core::host::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::constants::NETLINK_ROUTE;

use super::HostError;
use super::link::{Link, LinkKind};
use super::netlink::Asker;
use super::path::family;

/// The end that the routes lead to.
const STACK_END: &str = "blixt0";
/// The end that carries the program.
const PROGRAM_END: &str = "blixt1";
/// `blixt` behind the first byte of an address that no maker gives out.
const MAC: Mac = Mac(*b"\x02blixt");
/// Who made the routes and rules (`rtm_protocol`): a number that no routing daemon has.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(66);
/// The table of the routes: the number of the port that metrics are served at.
const TABLE: u32 = 9641;
/// The rule comes before that of the main table, 32766, and behind nearly everybody else's.
const PRIORITY: u32 = 32_700;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The wire as its keeper knows it.
#[derive(Debug, Default)]
pub struct Wire {
    /// The addresses that are routed to it, with what the machine sends from.
    routed: BTreeMap<IpAddr, Option<IpAddr>>,
    /// The device that they are routed to.
    ifindex: u32,
}

/// An end of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireEnd {
    /// Where the routes lead.
    Stack,
    /// Where the program is.
    Program,
}

impl Link {
    /// Which end of our wire it is.
    pub fn wire_end(&self) -> Option<WireEnd> {
        if self.kind != LinkKind::Veth || self.mac != MAC {
            return None;
        }
        match &*self.name {
            STACK_END => Some(WireEnd::Stack),
            PROGRAM_END => Some(WireEnd::Program),
            _ => None,
        }
    }
}

impl Wire {
    /// Sees to it that the wire is there, and routes these addresses to it once its program is. `primary`: what the machine sends
    /// from, one address of each family.
    pub fn follow(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        primary: &[IpAddr],
        links: &BTreeMap<u32, Link>,
        has_program: impl Fn(u32) -> bool,
    ) -> Result<(), HostError> {
        let end = |end| links.values().find(|link| link.wire_end() == Some(end));
        let (Some(stack), Some(program)) = (end(WireEnd::Stack), end(WireEnd::Program)) else {
            *self = Self::default();
            return if addresses.is_empty() { Ok(()) } else { lay() };
        };
        if !(stack.up && program.up) {
            // The kernel has taken the routes away with it.
            *self = Self::default();
            return start(&mut Asker::open(NETLINK_ROUTE)?, [stack.ifindex, program.ifindex]);
        }
        if !has_program(program.ifindex) {
            return Ok(());
        }
        self.route(addresses, primary, stack.ifindex)
    }

    fn route(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        primary: &[IpAddr],
        ifindex: u32,
    ) -> Result<(), HostError> {
        let source =
            |address: &IpAddr| primary.iter().find(|own| own.is_ipv4() == address.is_ipv4()).copied();
        let wanted: BTreeMap<IpAddr, Option<IpAddr>> =
            addresses.iter().map(|address| (*address, source(address))).collect();
        if self.ifindex == ifindex && self.routed == wanted {
            return Ok(());
        }
        let mut asker = Asker::open(NETLINK_ROUTE)?;
        open_table(&mut asker, addresses)?;
        if self.ifindex != ifindex {
            self.routed = found(&mut asker, ifindex)?;
            self.ifindex = ifindex;
        }
        let gone: Vec<_> =
            self.routed.keys().filter(|address| !wanted.contains_key(address)).copied().collect();
        let requests: Vec<_> = gone
            .iter()
            .map(|address| RouteNetlinkMessage::DelRoute(route(*address, None, ifindex)))
            .collect();
        // One that is gone already is what was wanted.
        asker.ask("remove routes", &requests, NLM_F_ACK)?;
        self.routed.retain(|address, _| wanted.contains_key(address));
        let fresh: Vec<_> =
            wanted.into_iter().filter(|(address, source)| self.routed.get(address) != Some(source)).collect();
        let requests: Vec<_> = fresh
            .iter()
            .map(|(address, source)| RouteNetlinkMessage::NewRoute(route(*address, *source, ifindex)))
            .collect();
        let answers = asker.ask("add routes", &requests, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK)?;
        let mut failed = None;
        for (entry, answer) in fresh.into_iter().zip(answers) {
            match answer {
                Ok(_) => drop(self.routed.insert(entry.0, entry.1)),
                Err(code) => failed = Some(code),
            }
        }
        failed.map_or(Ok(()), |code| Err(refused("add routes", code)))
    }
}

/// Takes the wire away, every route with it, and the rule.
pub fn remove_wire() -> Result<(), HostError> {
    let mut asker = Asker::open(NETLINK_ROUTE)?;
    let rules = FAMILIES.map(|family| RouteNetlinkMessage::DelRule(rule(family)));
    // One that is not there is what is wanted.
    asker.ask("remove rules", &rules, NLM_F_ACK)?;
    let messages = asker.dump("list devices", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = messages.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => super::link::link(message),
        _ => None,
    });
    let Some(link) = links.into_iter().find(|link| link.wire_end().is_some()) else {
        return Ok(());
    };
    let mut message = LinkMessage::default();
    message.header.index = link.ifindex;
    const OP: &str = "remove the device blixt0";
    for answer in asker.ask(OP, &[RouteNetlinkMessage::DelLink(message)], NLM_F_ACK)? {
        answer.map_err(|code| refused(OP, code))?;
    }
    Ok(())
}

/// Makes both ends. They are up when they are heard of.
fn lay() -> Result<(), HostError> {
    const OP: &str = "make the devices blixt0 and blixt1";
    let end = |name: &str| {
        let mut end = LinkMessage::default();
        end.header.flags = LinkFlags::Noarp;
        end.header.change_mask = LinkFlags::Noarp;
        end.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Address(MAC.0.to_vec())];
        end
    };
    let mut message = end(STACK_END);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(PROGRAM_END)))),
    ]));
    let mut asker = Asker::open(NETLINK_ROUTE)?;
    let requests = [RouteNetlinkMessage::NewLink(message)];
    for answer in asker.ask(OP, &requests, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK)? {
        answer.map_err(|code| refused(OP, code))?;
    }
    Ok(())
}

/// Sets both ends up, without addresses of their own.
fn start(asker: &mut Asker, ends: [u32; 2]) -> Result<(), HostError> {
    const OP: &str = "set the devices blixt0 and blixt1 up";
    let message = |ifindex| {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message
    };
    let silent = ends.map(|ifindex| {
        let mut message = message(ifindex);
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
        RouteNetlinkMessage::SetLink(message)
    });
    // A kernel without IPv6 refuses, and gives no addresses anyway.
    asker.ask(OP, &silent, NLM_F_ACK)?;
    let up = ends.map(|ifindex| {
        let mut message = message(ifindex);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        RouteNetlinkMessage::SetLink(message)
    });
    for answer in asker.ask(OP, &up, NLM_F_ACK)? {
        answer.map_err(|code| refused(OP, code))?;
    }
    Ok(())
}

/// What a process before this one has routed to the device.
fn found(asker: &mut Asker, ifindex: u32) -> Result<BTreeMap<IpAddr, Option<IpAddr>>, HostError> {
    let mut found = BTreeMap::new();
    for address in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
        let mut request = RouteMessage::default();
        request.header.address_family = family(address);
        for message in asker.dump("list routes", RouteNetlinkMessage::GetRoute(request))? {
            let RouteNetlinkMessage::NewRoute(route) = message else { continue };
            found.extend(ours(&route, ifindex));
        }
    }
    Ok(found)
}

/// Lets this machine's own packets see the table.
fn open_table(asker: &mut Asker, addresses: &BTreeSet<IpAddr>) -> Result<(), HostError> {
    let families: BTreeSet<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
    let of = |is_v4| if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let rules: Vec<_> =
        families.into_iter().map(|is_v4| RouteNetlinkMessage::NewRule(rule(of(is_v4)))).collect();
    const OP: &str = "add rules";
    for answer in asker.ask(OP, &rules, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK)? {
        match answer {
            Ok(_) | Err(libc::EEXIST) => {}
            Err(code) => return Err(refused(OP, code)),
        }
    }
    Ok(())
}

/// What comes from the loopback device is what this machine sends.
fn rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::Table(TABLE),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Protocol(PROTOCOL),
    ];
    rule
}

fn ours(route: &RouteMessage, ifindex: u32) -> Option<(IpAddr, Option<IpAddr>)> {
    let (mut address, mut source, mut device) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => address = super::path::ip(destination),
            RouteAttribute::PrefSource(preferred) => source = super::path::ip(preferred),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    (route.header.protocol == PROTOCOL && device == Some(ifindex)).then_some((address?, source))
}

fn route(address: IpAddr, source: Option<IpAddr>, ifindex: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family(address),
        destination_prefix_length: if address.is_ipv4() { 32 } else { 128 },
        protocol: PROTOCOL,
        scope: RouteScope::Link,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Destination(address.into()),
        RouteAttribute::Oif(ifindex),
        RouteAttribute::Table(TABLE),
    ];
    route.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    route
}

fn refused(op: &'static str, code: i32) -> HostError {
    HostError::Ask { op, source: std::io::Error::from_raw_os_error(code) }
}
