//! ICMP errors about what was sent on, echo, and questions for neighbours.

use blixt_cases::{Given, Place};
use blixt_packet::abi::Link;

use super::draft::{Draft, Segment, icmp, tcp, udp};
use super::{Author, Site};
use crate::flow::{Half, Tuple};
use crate::network::{
    BACKEND_SIDE, CLIENT_SIDE, CLIENTS, HOST, OWNED, OWNED_INSIDE, OWNED_NOWHERE, ROUTER, address, macs,
};
use crate::packet::{ACK, TCP};
use crate::story::Step;

impl Author {
    /// An error about a packet of a half, as whoever got it would send it.
    pub(super) fn error(&mut self, key: &Tuple, half: &Half) -> Step {
        let sent = half.written(key.protocol);
        let is_v4 = sent.from.0.is_ipv4();
        let about = if self.random.chance(90) { sent } else { *key };
        let quoted = self.quoted(&about);
        let speaker = if self.random.chance(60) { about.to.0 } else { address(is_v4, ROUTER) };
        let head = self.kind(is_v4);
        let rest = [&[0, 0, 5, self.random.byte()], &quoted[..]].concat();
        let to = if self.random.chance(95) { about.from.0 } else { address(is_v4, OWNED) };

        let (place, site) = if half.is_request {
            let site = Site { link: Link::new(BACKEND_SIDE, 0), mac: macs(BACKEND_SIDE).0 };
            let leaves = half.is_to_stack != self.random.chance(5);
            (if leaves { Place::Leaves(CLIENT_SIDE) } else { Place::Enters(BACKEND_SIDE) }, site)
        } else {
            let site = Site { link: half.client, mac: half.client_mac };
            (Place::Enters(half.client.ifindex()), site)
        };
        let key = Tuple { from: (speaker, 0), to: (to, 0), protocol: icmp_number(is_v4) };
        let draft = Draft { body: icmp(speaker, to, head, &rest), ..self.envelope(&key, site) };
        self.shows(place, &draft)
    }

    /// Type and code of an error, seldom of something else.
    fn kind(&mut self, is_v4: bool) -> [u8; 2] {
        let kinds: &[u8] = if is_v4 { &[3, 3, 3, 11, 12, 5] } else { &[1, 2, 3, 4, 2, 137] };
        [self.random.pick(kinds), self.random.below(6) as u8]
    }

    /// A packet of a tuple as an error quotes it: cut anywhere.
    fn quoted(&mut self, about: &Tuple) -> Vec<u8> {
        let site = Site { link: Link::new(BACKEND_SIDE, 0), mac: [0; 6] };
        let length = self.random.below(60);
        let payload = self.random.bytes(length);
        let body = if about.protocol == TCP {
            tcp(about, &Segment { sequence: 1, acknowledgement: 2, flags: ACK, options: vec![], payload })
        } else {
            udp(about, &payload)
        };
        let envelope = self.envelope(about, site);
        let more = self.random.chance(10);
        let mut draft = Draft { body, hops: 63, more, ..envelope };
        if self.random.chance(3) {
            draft.offset = 8;
        }
        if self.random.chance(5) {
            // A sum that says nothing, or a wrong one.
            let at = if about.protocol == TCP { 16 } else { 6 };
            let wrong = self.random.pick(&[[0, 0], [0xff, 0xff], [1, 2]]);
            draft.body[at..at + 2].copy_from_slice(&wrong);
        }
        let mut ip = draft.ip();
        let headers = ip.len() - draft.body.len();
        match self.random.below(10) {
            0..4 => ip.truncate(headers + 8),
            4 => {
                let end = self.random.below(ip.len());
                ip.truncate(end);
            }
            5 => {
                let end = headers + self.random.below(draft.body.len() + 1);
                ip.truncate(end);
            }
            _ => {}
        }
        ip
    }

    /// An echo request, or a question for a neighbour.
    pub(super) fn question(&mut self) -> Step {
        match self.random.below(5) {
            0 | 1 => self.echo(),
            2 => self.asks(),
            _ => self.solicits(),
        }
    }

    fn echo(&mut self) -> Step {
        let is_v4 = self.random.chance(50);
        let site = self.client_site();
        let from = address(is_v4, self.random.pick(&CLIENTS));
        let to = address(is_v4, self.random.pick(&[OWNED, OWNED, OWNED_INSIDE, OWNED_NOWHERE, HOST]));
        let request = if is_v4 { 8 } else { 128 };
        let kind = if self.random.chance(90) { request } else { self.random.byte() };
        let length = self.random.below(40);
        let rest = self.random.bytes(length);
        let body = icmp(from, to, [kind, 0], &rest);
        let key = Tuple { from: (from, 0), to: (to, 0), protocol: icmp_number(is_v4) };
        let mut draft = Draft { body, ..self.envelope(&key, site) };
        if self.random.chance(15) {
            draft.id = 9;
            draft.more = self.random.chance(70);
            draft.offset = self.random.pick(&[0, 0, 8, 16, 48]);
        }
        if self.random.chance(5) {
            let end = self.random.below(8);
            draft.body.truncate(end);
        }
        self.shows(Place::Enters(site.link.ifindex()), &draft)
    }

    fn asks(&mut self) -> Step {
        let site = self.client_site();
        let ifindex = site.link.ifindex();
        let hosts = [OWNED, OWNED_INSIDE, OWNED_NOWHERE, HOST];
        let octets = |host| [10, 0, 0, host];
        let target = octets(self.random.pick(&hosts));
        let sender = self.random.pick(&[octets(1), octets(1), [0; 4], target]);
        let destination = self.random.pick(&[[0xff; 6], [0xff; 6], macs(ifindex).1, [2, 0, 0, 0, 0, 9]]);
        let mut frame = [destination, site.mac].concat();
        if site.link.vlan() != 0 {
            frame.extend([0x81, 0]);
            frame.extend(site.link.vlan().to_be_bytes());
        }
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([&site.mac[..], &sender, &[0; 6], &target].concat());
        let padding = self.random.pick(&[0, 0, 18]);
        frame.extend(self.random.bytes(padding));
        if self.random.chance(10) {
            let at = self.random.below(frame.len());
            frame[at] = self.random.byte();
        }
        if self.random.chance(5) {
            let end = 14 + self.random.below(frame.len() - 14);
            frame.truncate(end);
        }
        self.given(Place::Enters(ifindex), frame)
    }

    fn solicits(&mut self) -> Step {
        let mut site = self.client_site();
        let hosts = [OWNED, OWNED, OWNED_INSIDE, OWNED_NOWHERE, HOST];
        let host = self.random.pick(&hosts);
        if host == OWNED_INSIDE && self.random.chance(60) {
            site = Site { link: Link::new(BACKEND_SIDE, 0), mac: macs(BACKEND_SIDE).0 };
        }
        let target = address(false, host);
        let group: std::net::IpAddr = [0xff02, 0, 0, 0, 0, 1, 0xff00, u16::from(host)].into();
        let nobody: std::net::IpAddr = [0_u16; 8].into();
        let from = match self.random.below(8) {
            0 | 1 => nobody,
            2 => self.odd_address(false),
            _ => address(false, 1),
        };
        let to = if self.random.chance(80) { group } else { target };
        let code = if self.random.chance(95) { 0 } else { self.random.byte() };
        let mut rest = [&[0; 4][..], &crate::sum::octets(target)].concat();
        if self.random.chance(60) {
            rest.extend([1, 1]);
            rest.extend(site.mac);
        } else {
            let more = self.random.pick(&[0, 0, 3, 16]);
            rest.extend(self.random.bytes(more));
        }
        let body = icmp(from, to, [135, code], &rest);
        let key = Tuple { from: (from, 0), to: (to, 0), protocol: 58 };
        let hops = if self.random.chance(90) { 255 } else { 254 };
        let envelope = self.envelope(&key, site);
        let group_mac = [0x33, 0x33, 0xff, 0, 0, host];
        let destination_mac = if to == group { group_mac } else { envelope.destination_mac };
        let draft = Draft { body, hops, destination_mac, ..envelope };
        self.shows(Place::Enters(site.link.ifindex()), &draft)
    }

    /// A frame that is not an IP packet's.
    fn given(&mut self, place: Place, frame: Vec<u8>) -> Step {
        let frame = self.seen(frame);
        Step::Frame(Given { place, frame, segment: 0 })
    }
}

fn icmp_number(is_v4: bool) -> u8 {
    if is_v4 { 1 } else { 58 }
}
