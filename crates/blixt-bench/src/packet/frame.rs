//! Packets of one client after another, as the driver makes them.

use blixt_packet::checksum::Delta;

/// Bytes of a frame, its headers included: as many as the driver writes.
pub const FRAME: usize = 80;
/// Ports of one client, as the driver has them.
const PORTS: u32 = 16_384;
/// The first one.
const FIRST_PORT: u16 = 32_768;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// The family, and where addresses lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    V4,
    V6,
}

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Transport {
    Tcp,
    Udp,
}

/// Who is somewhere: the last two bytes of an address, and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Network and number in it.
    pub address: [u8; 2],
    /// Port.
    pub port: u16,
}

/// The frontend that is balanced.
pub const FRONTEND: Place = Place { address: [99, 1], port: 80 };
/// Somebody else's.
pub const FOREIGN: Place = Place { address: [98, 1], port: 80 };

/// A family and a transport.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    pub family: Family,
    pub transport: Transport,
}

impl Shape {
    /// A client's packet of the flow of this number.
    pub fn of_client(self, flow: u32, to: Place, flags: u8) -> [u8; FRAME] {
        let client = 2 + (flow / PORTS) as u16;
        let from = Place { address: client.to_be_bytes(), port: FIRST_PORT + (flow % PORTS) as u16 };
        self.build(
            self.address(CLIENTS, from.address),
            self.address(0, to.address),
            [from.port, to.port],
            flags,
        )
    }

    /// What a backend answers to a packet that it got.
    pub fn answer(self, request: &[u8; FRAME], flags: u8) -> [u8; FRAME] {
        let (from, to, ports) = self.places();
        let width = self.width();
        let port = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let address = |at: usize| request[at..at + width].to_vec();
        self.build(address(to), address(from), [port(ports + 2), port(ports)], flags)
    }

    /// Where source, destination and ports begin in a frame.
    pub const fn places(self) -> (usize, usize, usize) {
        match self.family {
            Family::V4 => (26, 30, 34),
            Family::V6 => (22, 38, 54),
        }
    }

    /// Bytes of an address.
    pub const fn width(self) -> usize {
        match self.family {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }

    /// An address of a network.
    pub fn address(self, network: u8, [high, low]: [u8; 2]) -> Vec<u8> {
        match self.family {
            Family::V4 => vec![10, network, high, low],
            Family::V6 => {
                let mut address = vec![0; 16];
                address[0] = 0xfd;
                address[13] = network;
                address[14..].copy_from_slice(&[high, low]);
                address
            }
        }
    }

    /// Ethernet, IP, transport and a few bytes; the transport's checksum is no sum, and nobody looks at it.
    pub fn build(self, from: Vec<u8>, to: Vec<u8>, ports: [u16; 2], flags: u8) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        // Loopback's MAC address is all zero: such a frame is for this machine.
        frame[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9]);
        let protocol = match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        let (source, destination, transport) = self.places();
        match self.family {
            Family::V4 => {
                frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
                frame[16..18].copy_from_slice(&((FRAME - 14) as u16).to_be_bytes());
                frame[22..24].copy_from_slice(&[64, protocol]);
            }
            Family::V6 => {
                frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                frame[18..20].copy_from_slice(&((FRAME - 54) as u16).to_be_bytes());
                frame[20..22].copy_from_slice(&[protocol, 64]);
            }
        }
        frame[source..source + from.len()].copy_from_slice(&from);
        frame[destination..destination + to.len()].copy_from_slice(&to);
        frame[transport..transport + 2].copy_from_slice(&ports[0].to_be_bytes());
        frame[transport + 2..transport + 4].copy_from_slice(&ports[1].to_be_bytes());
        match self.transport {
            Transport::Tcp => {
                frame[transport + 12..transport + 14].copy_from_slice(&[0x50, flags]);
                frame[transport + 16..transport + 18].copy_from_slice(&[0xab, 0xcd]);
            }
            Transport::Udp => {
                let length = (FRAME - transport) as u16;
                frame[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
                frame[transport + 6..transport + 8].copy_from_slice(&[0xab, 0xcd]);
            }
        }
        if self.family == Family::V4 {
            let words = frame[14..34].chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            let sum = words.fold(Delta::default(), |sum, word| sum.add(word.into()));
            frame[24..26].copy_from_slice(&(!sum.fold()).to_be_bytes());
        }
        frame
    }
}

/// The network of clients.
pub const CLIENTS: u8 = 200;
