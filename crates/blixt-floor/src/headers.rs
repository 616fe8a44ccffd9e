//! The headers that a measured packet has: no options, no VLAN tag.

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::{TcContext, XdpContext};

/// Ethernet, IPv4 and TCP, as they lie in the packet.
#[repr(C, packed)]
pub struct Headers {
    pub frame_destination: [u16; 3],
    pub frame_source: [u16; 3],
    pub ethertype: u16,
    pub version: u8,
    pub service: u8,
    pub total: u16,
    pub id: u16,
    pub fragment: u16,
    pub hops: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source_high: u16,
    pub source_low: u16,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: [u32; 3],
    pub transport_checksum: u16,
    pub urgent: u16,
}

/// Ethernet, IPv6 and ports, as they lie in the packet.
#[repr(C, packed)]
pub struct HeadersV6 {
    pub frame: [u16; 7],
    pub version: u32,
    pub length: u16,
    pub next: u8,
    pub hops: u8,
    pub source_high: [u16; 7],
    pub source_low: u16,
    pub destination: [u32; 4],
    pub source_port: u16,
    pub destination_port: u16,
}

/// A packet at either hook.
pub trait Frame: EbpfContext {
    /// Where it begins and ends.
    fn bounds(&self) -> (usize, usize);
}

impl Frame for TcContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }
}

impl Frame for XdpContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }
}

/// The first bytes of the packet, if there are as many.
#[inline(always)]
pub fn place<T>(ctx: &impl Frame) -> Option<*mut T> {
    let (start, end) = ctx.bounds();
    if start + size_of::<T>() > end {
        return None;
    }
    Some(start as *mut T)
}
