//! An IP packet with TCP or UDP in it, said in words.

use std::net::IpAddr;

use blixt_core::config::Protocol;

use super::{ACK, FIN, RST, SYN, Segment, ip_with, tcp_with, udp};

/// An IP packet that carries a segment or a datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpPacket {
    protocol: Protocol,
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    between: Vec<u8>,
    segment: Segment,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl IpPacket {
    /// A SYN, or a datagram, with a little payload.
    pub fn new(protocol: Protocol, (source, from): (IpAddr, u16), (destination, to): (IpAddr, u16)) -> Self {
        let segment =
            Segment { ports: [from, to], sequence: 7, flags: SYN, window: 1000, ..Segment::default() };
        Self {
            protocol,
            source,
            destination,
            hops: 64,
            between: Vec::new(),
            segment,
            options: Vec::new(),
            payload: b"odd".to_vec(),
        }
    }

    /// The same, between others, one hop further.
    pub fn routed(&self, (source, from): (IpAddr, u16), (destination, to): (IpAddr, u16)) -> Self {
        let moved = self.translated((source, from), (destination, to));
        Self { hops: self.hops - 1, ..moved }
    }

    /// The same, between others.
    pub fn translated(&self, (source, from): (IpAddr, u16), (destination, to): (IpAddr, u16)) -> Self {
        let segment = Segment { ports: [from, to], ..self.segment };
        Self { source, destination, segment, ..self.clone() }
    }

    /// With other flags, [`ACK`] and the acknowledgement that belongs to it.
    pub fn flags(self, flags: u8) -> Self {
        assert_eq!(flags & !(FIN | SYN | RST | ACK), 0);
        let acknowledgement = if flags & ACK != 0 { 99 } else { 0 };
        Self { segment: Segment { flags, acknowledgement, ..self.segment }, ..self }
    }

    /// Whom it is for.
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// With other hops.
    pub fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// With IPv4 options, or IPv6 extension headers: see [`ip_with`].
    pub fn between(self, between: &[u8]) -> Self {
        Self { between: between.to_vec(), ..self }
    }

    /// With TCP options.
    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// With another payload.
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// The segment or datagram alone.
    pub fn body(&self) -> Vec<u8> {
        match self.protocol {
            Protocol::Tcp => {
                tcp_with(self.source, self.destination, self.segment, &self.options, &self.payload)
            }
            Protocol::Udp => udp(self.source, self.destination, self.segment.ports, &self.payload),
        }
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        ip_with(self.source, self.destination, self.protocol.number(), self.hops, &self.between, &body)
    }

    /// All of it but its payload: what an ICMP error of ours carries.
    pub fn head(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(bytes.len() - self.payload.len() - self.options.len());
        bytes
    }
}
