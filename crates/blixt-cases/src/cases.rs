//! The table.

mod addressee;
mod change;
mod close;
mod connection;
mod control;
mod fault;
mod fragment;
mod neighbour;
mod other;
mod port;
mod refusal;
mod shape;
mod way;

use std::net::IpAddr;

use blixt_core::config::Protocol;
use blixt_core::tables::{Tables, Way};

use crate::case::{Case, Hook, Step};
use crate::network::{BACKEND_PORT, FRONTEND_PORT, Net, PROTOCOLS, nets, tables};
use crate::packet::IpPacket;

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        connection::cases(),
        port::cases(),
        way::cases(),
        close::cases(),
        change::cases(),
        refusal::cases(),
        shape::cases(),
        fragment::cases(),
        control::cases(),
        neighbour::cases(),
        fault::cases(),
        addressee::cases(),
        other::cases(),
    ]
    .concat()
}

const CLIENT_PORT: u16 = 4242;

/// A client and its backend, in one family and protocol.
#[derive(Clone, Copy)]
struct Talk {
    net: Net,
    protocol: Protocol,
}

impl Talk {
    /// What the client sends first.
    fn request(&self) -> IpPacket {
        self.request_to(self.net.frontend, FRONTEND_PORT)
    }

    fn request_to(&self, address: IpAddr, port: u16) -> IpPacket {
        IpPacket::new(self.protocol, (self.net.client, CLIENT_PORT), (address, port))
    }

    /// A request as full NAT sends it on.
    fn natted(&self, request: &IpPacket) -> Vec<u8> {
        self.natted_by(CLIENT_PORT, request)
    }

    fn natted_by(&self, port: u16, request: &IpPacket) -> Vec<u8> {
        request.routed((self.net.source, port), self.backend()).bytes()
    }

    /// What the backend answers to full NAT.
    fn reply(&self) -> IpPacket {
        self.reply_to(self.net.source, CLIENT_PORT)
    }

    fn reply_to(&self, address: IpAddr, port: u16) -> IpPacket {
        IpPacket::new(self.protocol, self.backend(), (address, port)).payload(b"even")
    }

    /// A reply as the client gets it.
    fn restored(&self, reply: &IpPacket) -> Vec<u8> {
        reply.routed(self.frontend(), self.client()).bytes()
    }

    fn client(&self) -> (IpAddr, u16) {
        (self.net.client, CLIENT_PORT)
    }

    fn frontend(&self) -> (IpAddr, u16) {
        (self.net.frontend, FRONTEND_PORT)
    }

    fn backend(&self) -> (IpAddr, u16) {
        (self.net.backend, BACKEND_PORT)
    }
}

/// A case of each family and protocol.
fn of_each(name: &str, way: Way, steps: impl Fn(&Talk) -> Vec<Step>) -> Vec<Case> {
    PROTOCOLS.into_iter().flat_map(|protocol| of(name, protocol, way, &steps)).collect()
}

/// A case of each family.
fn of(name: &str, protocol: Protocol, way: Way, steps: impl Fn(&Talk) -> Vec<Step>) -> Vec<Case> {
    let cases = nets().into_iter().map(|net| {
        let family = if net.client.is_ipv4() { "IPv4" } else { "IPv6" };
        case(&format!("{name} ({protocol}, {family})"), tables(way), steps(&Talk { net, protocol }))
    });
    cases.collect()
}

fn case(name: &str, tables: Tables, steps: Vec<Step>) -> Case {
    Case { name: name.to_owned(), tables, hooks: Hook::ALL, steps }
}

fn by(hooks: &'static [Hook], cases: Vec<Case>) -> Vec<Case> {
    cases.into_iter().map(|case| Case { hooks, ..case }).collect()
}
