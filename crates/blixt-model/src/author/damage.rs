//! What can be wrong with a frame.

use super::Author;
use super::draft::Draft;
use crate::packet::TCP;
use crate::story::Sight;
use crate::sum::{checksum, sum};

/// Bytes of the MAC and IPv4 headers: the kernel makes no packet of less for a single run of a program.
const SHORTEST_V4: usize = 14 + 20;
/// See [`SHORTEST_V4`].
const SHORTEST_V6: usize = 14 + 40;

/// What fits into one page, beside what the kernel needs.
const LONGEST: usize = 3000;

impl Author {
    /// The frame of a draft; about one of three has something wrong with it.
    pub(super) fn damaged(&mut self, mut draft: Draft) -> Vec<u8> {
        match self.random.below(60) {
            0 => draft.hops = self.random.below(3) as u8,
            1 => {
                draft.destination_mac =
                    self.random.pick(&[[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 0, 9]])
            }
            2 => draft.more = true,
            3 => draft.offset = self.random.pick(&[8, 16, 24, 800, 0xfff8]),
            4 => {
                let end = self.random.below(draft.body.len() + 1);
                draft.body.truncate(end);
            }
            5 => {
                let more = self.random.below(64);
                draft.padding = self.random.bytes(more);
            }
            6 => draft.fragment_header = true,
            7 => self.breaks_sum(&mut draft),
            8 => self.breaks_length(&mut draft),
            9 => {
                let count = self.random.below(4) + 4;
                draft.extensions = (0..count).map(|_| (60, vec![0, 0, 1, 4, 0, 0, 0, 0])).collect();
            }
            10 => {
                // A header of the greatest length, and another one.
                let mut content = self.random.bytes(2048);
                content[1] = 255;
                if self.random.chance(20) {
                    draft.extensions = vec![(60, content)];
                }
            }
            _ => {}
        }
        let is_v4 = draft.source.is_ipv4();
        let network = if draft.tag.is_some() { 18 } else { 14 };
        let mut frame = draft.frame();
        match self.random.below(60) {
            0..4 => {
                for _ in 0..=self.random.below(3) {
                    let at = self.random.below(frame.len().min(100));
                    frame[at] = self.random.byte();
                }
                if self.random.chance(75) {
                    resum(&mut frame, network);
                }
            }
            4 => {
                let end = self.random.below(frame.len());
                frame.truncate(end);
            }
            5 => {
                // A length of IP that is not the packet's.
                let at = network + if is_v4 { 2 } else { 4 };
                let by = self.random.pick(&[-40_i32, -20, -8, -1, 1, 8, 1000]);
                let length = i32::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + by;
                let length = if self.random.chance(10) { 0 } else { length };
                frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
                resum(&mut frame, network);
            }
            6 => {
                let at = network;
                frame[at] = self.random.pick(&[0x44, 0x46, 0x4f, 0x55, 0x60, 0x65]);
                resum(&mut frame, network);
            }
            _ => {}
        }
        self.seen(frame)
    }

    /// What the target can be shown of a frame.
    pub(super) fn seen(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.sight == Sight::Everything {
            return frame;
        }
        frame.truncate(LONGEST);
        let is_tagged = |frame: &[u8]| frame.len() >= 14 && frame[12..14] == [0x81, 0];
        if self.sight == Sight::Tc && is_tagged(&frame) {
            frame[12..14].copy_from_slice(&[8, 0]);
        }
        let shortest = match frame.get(12..14) {
            Some([0x86, 0xdd]) => SHORTEST_V6,
            Some([8, 0]) => SHORTEST_V4,
            // Behind a tag the kernel looks as well.
            _ => SHORTEST_V6 + 4,
        };
        let missing = shortest.saturating_sub(frame.len());
        frame.extend(self.random.bytes(missing));
        frame
    }

    fn breaks_sum(&mut self, draft: &mut Draft) {
        let at = if draft.protocol == TCP { 16 } else { 6 };
        let sum = self.random.pick(&[[0, 0], [0xff, 0xff], [0x12, 0x34]]);
        if let Some(field) = draft.body.get_mut(at..at + 2) {
            field.copy_from_slice(&sum);
        }
    }

    fn breaks_length(&mut self, draft: &mut Draft) {
        let value = self.random.pick(&[0, 7, 8, 9, 0x10, 0x40, 0x4f, 0x50, 0x60, 0xf0, 0xff]);
        // The data offset of TCP, the length of UDP.
        let at = if draft.protocol == TCP { 12 } else { 5 };
        if let Some(field) = draft.body.get_mut(at) {
            *field = value;
        }
    }
}

/// Makes the sum of an IPv4 header right again.
fn resum(frame: &mut [u8], network: usize) {
    let Some(first) = frame.get(network) else { return };
    let length = usize::from(first & 15) * 4;
    if first >> 4 == 4
        && length >= 20
        && let Some(header) = frame.get_mut(network..network + length)
    {
        header[10..12].fill(0);
        let field = checksum(sum(&[header]));
        header[10..12].copy_from_slice(&field.to_be_bytes());
    }
}
