//! A packet in a buffer.

use blixt_packet::DropReason;
use blixt_packet::abi::Link;
use blixt_packet::checksum::{Delta, Summed};
use blixt_packet::packet::Packet;

/// A whole frame, from its MAC header on. Not `EVERYWHERE`: as in XDP, it can leave by the device that it came by and by no
/// other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Buffer<const EVERYWHERE: bool = true> {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Where it came by; a VLAN's tag stands in the bytes.
    pub link: Link,
    /// Bytes of payload in each segment that it is cut into later; 0: it is one packet.
    pub segment: u32,
    /// Its transport checksum is unfinished.
    pub is_partial: bool,
}

/// What new room holds, so that who relies on it is found out.
const UNDEFINED: u8 = 0xaa;
/// Where a VLAN's tag stands: behind both MAC addresses.
const TAG: usize = 12;

impl<const EVERYWHERE: bool> Packet for Buffer<EVERYWHERE> {
    type Bytes = [u8];
    const GOES_EVERYWHERE: bool = EVERYWHERE;

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn link(&self) -> Link {
        self.link
    }

    fn segment(&self) -> u32 {
        self.segment
    }

    fn summed(&self) -> Summed {
        if self.is_partial { Summed::Partial } else { Summed::Whole }
    }

    fn can_leave_by(&self, link: Link) -> bool {
        link.ifindex() == self.link.ifindex()
    }

    fn sum(&self, at: usize, len: usize) -> Result<Delta, DropReason> {
        let bytes = self.bytes.get(at..at + len).ok_or(DropReason::Truncated)?;
        Ok(bytes.chunks(2).fold(Delta::default(), |sum, pair| {
            let pair = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum.add(u32::from(u16::from_ne_bytes(pair)))
        }))
    }

    fn grow(&mut self, network: usize, bytes: usize) -> Result<(), DropReason> {
        if network > self.bytes.len() {
            return Err(DropReason::Truncated);
        }
        self.bytes.splice(network..network, std::iter::repeat_n(UNDEFINED, bytes));
        Ok(())
    }

    fn shrink(&mut self, network: usize, bytes: usize) -> Result<(), DropReason> {
        if network + bytes > self.bytes.len() {
            return Err(DropReason::Truncated);
        }
        self.bytes.drain(network..network + bytes);
        Ok(())
    }

    fn truncate(&mut self, len: usize) -> Result<(), DropReason> {
        self.bytes.truncate(len);
        Ok(())
    }

    fn set_vlan(&mut self, vlan: u16) -> Result<(), DropReason> {
        const TAGGED: [u8; 2] = [0x81, 0];

        let is_tagged = self.read(TAG)? == TAGGED;
        if is_tagged {
            self.shrink(TAG, 4)?;
        }
        if vlan != 0 {
            let [high, low] = vlan.to_be_bytes();
            self.grow(TAG, 4)?;
            self.write(TAG, [TAGGED[0], TAGGED[1], high, low])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_set_changed_and_taken_away() {
        let untagged: Vec<u8> = (0..60).collect();
        let mut buffer = Buffer::<true> { bytes: untagged.clone(), ..Buffer::default() };
        for vlan in [7, 300, 0, 0] {
            buffer.set_vlan(vlan).unwrap();
            let tag: &[u8] = match vlan {
                7 => &[0x81, 0, 0, 7],
                300 => &[0x81, 0, 1, 44],
                _ => &[],
            };
            assert_eq!(buffer.bytes, [&untagged[..12], tag, &untagged[12..]].concat());
        }
    }
}
