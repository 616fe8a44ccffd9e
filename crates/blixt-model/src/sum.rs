//! Internet checksums (RFC 1071), always over all of it.

use std::net::IpAddr;

/// The folded sum of bytes in network order; an odd last byte counts as a high one.
pub fn sum(pieces: &[&[u8]]) -> u16 {
    let mut total: u64 = 0;
    for piece in pieces {
        let mut words = piece.chunks_exact(2);
        total += words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>();
        total += words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// What a checksum field must hold that was 0 when `sum` was made.
pub fn checksum(sum: u16) -> u16 {
    !sum
}

/// What a checksum field must hold for a packet to be just as right, or just as wrong, as it was: nobody on the way may make a
/// damaged packet whole. `before` is the sum of all that it covered, the field included; `rest` that of all that it covers now but
/// the field. Of a packet whose sum was right this is [`checksum`].
pub fn carried(before: u16, rest: u16) -> u16 {
    ((u32::from(before) + 0xffff - u32::from(rest)) % 0xffff) as u16
}

/// The pseudo header of TCP and UDP (RFC 9293, section 3.1), and in IPv6 of ICMP (RFC 8200, section 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [octets(source), octets(destination)].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, protocol]);
    bytes
}

/// An address in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
