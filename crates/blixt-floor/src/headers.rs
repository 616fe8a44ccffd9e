//! The headers that a measured packet has: no options, no VLAN tag.

use aya_ebpf::programs::TcContext;

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
    pub rest: [u32; 4],
}

/// The first bytes of the packet, if there are as many.
#[inline(always)]
pub fn place<T>(ctx: &TcContext) -> Option<*mut T> {
    if ctx.data() + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(ctx.data() as *mut T)
}
