//! Stories from a seed.
//!
//! The author looks at the model while it writes: most frames belong to a connection that the flow table has by then, or nearly
//! do. What it makes is right in every field first; then, now and then, something in it is made wrong.

mod control;
mod damage;
mod draft;

use blixt_cases::{Given, Place};
use blixt_core::tables::{BackendState, Way};
use blixt_packet::abi::{Link, Settings};

use crate::change::{Change, SOURCES};
use crate::flow::{End, Half, Tuple};
use crate::network::{
    BACKEND_SIDE, BACKENDS, CLIENT_SIDE, CLIENTS, FIRST_BACKEND, FRONTEND_PORTS, HOST, OWNED, OWNED_INSIDE,
    OWNED_NOWHERE, RINGS, ROUTER, SECOND_MAC, SETTINGS, SOURCE, WIRE, address, macs, mtu, shares,
};
use crate::packet::{ACK, Ethernet, FIN, Packet, RST, SYN, TCP, UDP};
use crate::random::Random;
use crate::story::{Sight, Step, Story, Target};

use draft::{Draft, Segment, tcp, udp};

/// Most steps of a story.
const LONGEST: usize = 250;
/// Ports of clients: few, so that they meet.
const CLIENT_PORTS: [u16; 5] = [4242, 4243, 5000, 20_001, 20_003];

/// Who writes stories.
pub struct Author {
    random: Random,
    sight: Sight,
}

/// Somebody on a link.
#[derive(Clone, Copy)]
struct Site {
    link: Link,
    mac: [u8; 6],
}

impl Author {
    /// Writes what a target can see.
    pub fn new(seed: u64, target: &dyn Target) -> Self {
        Self { random: Random(seed), sight: target.sight() }
    }

    /// A story. It ends before anything that the model does not decide.
    pub fn write(&mut self) -> Story {
        let mut story = Story::new(self.settings());
        let steps = 4 + self.random.below(LONGEST - 4);
        while story.script.steps.len() < steps {
            for step in self.steps(&story) {
                story.goes_on(step);
                if !story.is_decided(self.sight) {
                    story.script.steps.pop();
                    return Story::of(&story.script);
                }
            }
        }
        story
    }

    fn settings(&mut self) -> Settings {
        if self.sight != Sight::Everything || self.random.chance(50) {
            return SETTINGS;
        }
        let last_port = SETTINGS.first_port + self.random.pick(&[0, 1, 7, 40, 12_767]);
        let answers = self.random.pick(&[0, 2, 5, 50]);
        let new_flows = self.random.pick(&[0, 1, 5, 50, 50]);
        Settings { last_port, answers, new_flows, ..SETTINGS }
    }

    /// What happens next.
    fn steps(&mut self, story: &Story) -> Vec<Step> {
        let flows = &story.end.flows;
        let known = (!flows.is_empty()).then(|| {
            let nth = self.random.below(flows.len());
            flows.iter().nth(nth).map(|(key, half)| (*key, *half))
        });
        let known = known.flatten();
        match (self.random.below(100), known) {
            (0..46, Some((key, half))) => self.belongs(&key, &half),
            (46..58, Some((key, half))) => vec![self.error(&key, &half)],
            (58..61, _) => {
                vec![Step::Wait(self.random.pick(&[1, 2, 3, 9, 10, 11, 29, 30, 31, 60, 61, 119, 120, 121]))]
            }
            (61..66, _) => vec![Step::Change(self.change())],
            (66..68, Some((key, _))) => vec![Step::Forget(key)],
            (68..75, _) => vec![self.question()],
            (75..79, _) => vec![self.stranger()],
            _ => self.begins(),
        }
    }

    /// A packet of a connection.
    fn belongs(&mut self, key: &Tuple, half: &Half) -> Vec<Step> {
        let flags = match self.random.below(20) {
            0..10 => ACK,
            10..13 => FIN | ACK,
            13 => RST,
            14 => RST | ACK,
            15 => SYN,
            16 => SYN | ACK,
            _ => self.random.byte() & 0x3f,
        };
        let place = self.place_of(half);
        if self.random.chance(8) {
            return self.parts(key, place);
        }
        let draft = self.draft(key, place.1, flags);
        vec![self.shows(place.0, &draft)]
    }

    /// Where the packets of a half are seen, and who sends them: mostly who did before.
    fn place_of(&mut self, half: &Half) -> (Place, Site) {
        if half.is_request {
            let mut site = Site { link: half.client, mac: half.client_mac };
            if self.random.chance(8) {
                site = self.client_site();
            }
            return (Place::Enters(site.link.ifindex()), site);
        }
        let inside = Site { link: Link::new(BACKEND_SIDE, 0), mac: macs(BACKEND_SIDE).0 };
        if half.is_to_stack != self.random.chance(5) {
            return (Place::Leaves(self.random.pick(&[CLIENT_SIDE, BACKEND_SIDE])), inside);
        }
        (Place::Enters(BACKEND_SIDE), inside)
    }

    /// A client dials.
    fn begins(&mut self) -> Vec<Step> {
        let is_v4 = self.random.chance(50);
        let site = self.client_site();
        let client = address(is_v4, self.random.pick(&CLIENTS));
        let host = self.random.pick(&[HOST, HOST, HOST, OWNED, OWNED_INSIDE]);
        let mut port = self.random.pick(&FRONTEND_PORTS);
        if self.random.chance(4) {
            port = self.random.next() as u16;
        }
        let protocol = self.random.pick(&[TCP, UDP]);
        let from = (client, self.random.pick(&CLIENT_PORTS));
        let key = Tuple { from, to: (address(is_v4, host), port), protocol };
        let place = (Place::Enters(site.link.ifindex()), site);
        if self.random.chance(6) {
            return self.parts(&key, place);
        }
        let flags = self.random.pick(&[SYN, SYN, SYN, SYN, SYN, ACK, RST, SYN | FIN, SYN | RST, FIN | ACK]);
        let draft = self.draft(&key, site, flags);
        vec![self.shows(place.0, &draft)]
    }

    /// Anything from anybody.
    fn stranger(&mut self) -> Step {
        let is_v4 = self.random.chance(50);
        let end = |author: &mut Self| -> End {
            let host = author.random.pick(&[
                1,
                8,
                HOST,
                OWNED,
                OWNED_INSIDE,
                OWNED_NOWHERE,
                SOURCE,
                ROUTER,
                FIRST_BACKEND,
                FIRST_BACKEND + 2,
                FIRST_BACKEND + 4,
            ]);
            let port = author.random.pick(&[80, 83, 8080, 4242, 20_000, 9]);
            (address(is_v4, host), port)
        };
        let (from, mut to) = (end(self), end(self));
        // Whether the machine would forward what one backend sends another is the kernel's to say.
        if is_backend(from) && is_backend(to) {
            to.0 = address(is_v4, SOURCE);
        }
        let protocol = self.random.pick(&[TCP, UDP]);
        let key = Tuple { from, to, protocol };
        let site = self.client_site();
        let flags = self.random.byte();
        let mut draft = self.draft(&key, site, flags);
        match self.random.below(8) {
            0 => draft.protocol = self.random.pick(&[0, 1, 2, 44, 47, 50, 51, 58, 59, 60, 132, 255]),
            1 => draft.source = self.odd_address(is_v4),
            2 if !is_backend(from) => draft.destination = self.odd_address(is_v4),
            3 => draft.source = draft.destination,
            _ => {}
        }
        let place = if self.random.chance(15) {
            Place::Leaves(CLIENT_SIDE)
        } else {
            Place::Enters(site.link.ifindex())
        };
        self.shows(place, &draft)
    }

    /// An address that is no machine's.
    fn odd_address(&mut self, is_v4: bool) -> std::net::IpAddr {
        if is_v4 {
            let first = self.random.pick(&[0, 127, 224, 239, 240, 255]);
            return [first, 0, 0, self.random.pick(&[0, 1, 255])].into();
        }
        self.random
            .pick(&[
                [0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 1],
                [0, 0, 0, 0, 0, 0, 0, 2],
                [0xff02, 0, 0, 0, 0, 0, 0, 1],
                [0xff0e, 0, 0, 0, 0, 0, 0, 9],
                [0, 0, 0, 0, 0, 0xffff, 0x0a00, 1],
            ])
            .into()
    }

    /// A packet in parts, in some order, some of them not there.
    fn parts(&mut self, key: &Tuple, (place, site): (Place, Site)) -> Vec<Step> {
        let mut whole = self.draft(key, site, ACK);
        whole.whole = false;
        whole.id = self.random.below(3) as u32 + 7;
        let count = 60 + self.random.below(100);
        let more_body = self.random.bytes(count);
        whole.body.extend(more_body);
        if key.protocol == UDP {
            let tuple = *key;
            let payload = whole.body.split_off(8);
            whole.body = udp(&tuple, &payload);
        }
        let first = self.random.pick(&[8, 16, 24, 32, 40]);
        let second = first + self.random.pick(&[8, 24]);
        let mut cuts = vec![(0, first), (first, second), (second, whole.body.len())];
        match self.random.below(10) {
            0 => cuts.reverse(),
            1 => cuts[1].0 -= 8,
            2 => {
                cuts.remove(0);
            }
            3 => cuts.truncate(2),
            _ => {}
        }
        let parts: Vec<Step> = cuts
            .into_iter()
            .map(|(start, end)| {
                let mut part = whole.clone();
                part.body = whole.body[start..end].to_vec();
                part.offset = start as u16;
                part.more = end < whole.body.len();
                self.shows(place, &part)
            })
            .collect();
        parts
    }

    /// A right packet of a tuple, in the frame of somebody.
    fn draft(&mut self, key: &Tuple, site: Site, flags: u8) -> Draft {
        let length = match self.random.below(20) {
            0..6 => 0,
            6..16 => self.random.below(40),
            16..18 => self.random.below(300),
            _ => 1280 + self.random.below(220),
        };
        let payload = self.random.bytes(length);
        let body = if key.protocol == TCP {
            let options = 4 * if self.random.chance(80) { 0 } else { self.random.below(11) };
            let segment = Segment {
                sequence: self.random.next() as u32,
                acknowledgement: if flags & ACK != 0 { self.random.next() as u32 } else { 0 },
                flags,
                options: self.random.bytes(options),
                payload,
            };
            tcp(key, &segment)
        } else {
            udp(key, &payload)
        };
        let mut draft = self.envelope(key, site);
        draft.body = body;
        draft
    }

    /// Everything around a body.
    fn envelope(&mut self, key: &Tuple, site: Site) -> Draft {
        let options = 4 * if self.random.chance(85) { 0 } else { self.random.below(11) };
        let mut extensions = Vec::new();
        if self.random.chance(12) {
            for _ in 0..self.random.pick(&[1, 1, 1, 2, 3, 6, 7]) {
                let kind = self.random.pick(&[0, 43, 51, 60, 60]);
                let units = self.random.pick(&[0, 0, 1, 2]);
                let length = if kind == 51 { (units + 2) * 4 } else { (units + 1) * 8 };
                let mut content = self.random.bytes(length);
                content[1] = units as u8;
                extensions.push((kind, content));
            }
        }
        let vlan = site.link.vlan();
        let priority = if self.sight != Sight::Tc && self.random.chance(10) { 0x6000 } else { 0 };
        Draft {
            destination_mac: macs(site.link.ifindex()).1,
            source_mac: site.mac,
            tag: (vlan != 0 || priority != 0).then_some(vlan | priority),
            source: key.from.0,
            destination: key.to.0,
            protocol: key.protocol,
            hops: if self.random.chance(92) { 64 } else { self.random.pick(&[255, 2, 1, 0]) },
            class: if self.random.chance(10) { self.random.byte() } else { 0 },
            id: self.random.next() as u32,
            whole: self.random.chance(50),
            more: false,
            offset: 0,
            options: self.random.bytes(options),
            extensions,
            fragment_header: self.random.chance(2),
            body: vec![],
            padding: if self.random.chance(10) { self.random.bytes(6) } else { vec![] },
        }
    }

    /// The frame of a draft comes by, perhaps damaged.
    fn shows(&mut self, place: Place, draft: &Draft) -> Step {
        let mut draft = draft.clone();
        if matches!(place, Place::Leaves(_)) {
            draft.tag = None;
        }
        let mut frame = self.damaged(draft);
        if let (Sight::Xdp, Place::Enters(ifindex)) = (self.sight, place) {
            frame.truncate(14 + mtu(ifindex));
        }
        let segment = self.random.pick(&[1, 500, 1340, 1348, 1360, 1400]);
        let is_cut = self.sight == Sight::Everything && self.random.chance(4) && can_be_cut(&frame, segment);
        Step::Frame(Given { place, frame, segment: if is_cut { segment } else { 0 } })
    }

    fn client_site(&mut self) -> Site {
        let ifindex =
            self.random.pick(&[CLIENT_SIDE, CLIENT_SIDE, CLIENT_SIDE, CLIENT_SIDE, BACKEND_SIDE, WIRE]);
        let vlan =
            if self.sight != Sight::Tc && self.random.chance(15) { self.random.pick(&[5, 4095]) } else { 0 };
        let mac = if self.random.chance(10) { SECOND_MAC } else { macs(ifindex).0 };
        Site { link: Link::new(ifindex, vlan), mac }
    }

    fn change(&mut self) -> Change {
        let which = self.random.below(BACKENDS as usize) as u32;
        match self.random.below(12) {
            0 | 1 => Change::State(which, BackendState::Gone),
            2 | 3 => Change::State(which, BackendState::Draining),
            4 | 5 => Change::State(which, BackendState::Serving),
            6 => Change::Renew(which),
            7 => Change::Source(which, self.random.pick(&SOURCES)),
            8 => Change::Way(which, self.random.pick(&[Way::Nat, Way::Transparent, Way::Local])),
            9 => {
                let ring = self.random.below(RINGS as usize) as u32;
                let at = self.random.below(shares(ring).len()) as u32;
                Change::Slot(ring, at, (!self.random.chance(20)).then_some(which))
            }
            10 => {
                let index = self.random.below(FRONTEND_PORTS.len()) as u32;
                if self.random.chance(50) { Change::Close(index) } else { Change::Open(index) }
            }
            _ => Change::Mtu(self.random.pick(&[1280, 1400, 1400, 1500])),
        }
    }
}

/// The kernel makes such packets of right ones alone, and only of more than one segment.
fn can_be_cut(frame: &[u8], segment: u32) -> bool {
    let packet = Ethernet::read(frame, 0).map(|ethernet| Packet::read(frame, ethernet, 0));
    packet.is_some_and(|packet| packet.is_ok_and(|packet| packet.payload().len() > segment as usize + 60))
}

fn is_backend((address, _): End) -> bool {
    let last = match address {
        std::net::IpAddr::V4(address) => address.octets()[3],
        std::net::IpAddr::V6(address) => address.octets()[15],
    };
    (FIRST_BACKEND..FIRST_BACKEND + BACKENDS as u8).contains(&last)
}
