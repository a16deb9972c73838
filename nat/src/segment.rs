//! What a TCP header says (RFC 9293 3.1).

use crate::packet::TCP;

/// TCP control bits (RFC 9293 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is significant.
    pub const ACK: u8 = 0x10;
}
use flags::{ACK, FIN, RST, SYN};

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Sequence number of the first octet, or of SYN.
    pub sequence: u32,
    /// Acknowledgement number; without meaning unless ACK is set.
    pub acknowledgement: u32,
    /// Octets of sequence space that it takes: payload, SYN and FIN.
    pub length: u32,
    /// The window as sent, not scaled.
    pub window: u16,
    /// How many octets more it may have in later fragments; 0 if it is whole.
    pub(crate) rest: u16,
    /// CWR to FIN, as in octet 13 of the header.
    pub flags: u8,
    /// One more than the shift that a SYN offers; 0 for none.
    pub(crate) scaling: u8,
}

/// Kinds of options (RFC 9293 3.2, RFC 7323 2.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;

/// Kind and length of the maximum segment size, and of the scale after a no-operation; words that
/// tell of SACK, and of timestamps too (RFC 2018 2, RFC 7323 3.2).
const MSS: u32 = 0x0204;
const SCALE: u32 = 0x01_0303;
const SACK: u32 = 0x0101_0402;
const SACK_AND_TIMES: u32 = 0x0402_080a;

impl Segment {
    /// The one of packets that have none.
    pub(crate) const NONE: Self =
        Self { sequence: 0, acknowledgement: 0, length: 0, window: 0, rest: 0, flags: 0, scaling: 0 };

    /// The shift of its sender's windows; a SYN alone offers one.
    pub const fn window_scale(&self) -> Option<u8> {
        self.scaling.checked_sub(1)
    }

    /// ACK alone among SYN, ACK, FIN and RST.
    #[inline(always)]
    pub(crate) const fn is_usual(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == ACK
    }

    #[inline(always)]
    pub(crate) const fn has_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    #[inline(always)]
    pub(crate) const fn has_ack(&self) -> bool {
        self.flags & ACK != 0
    }

    #[inline(always)]
    pub(crate) const fn has_fin(&self) -> bool {
        self.flags & FIN != 0
    }

    /// Reads the options of a SYN, no more than 40 octets; the header's offset was checked.
    #[cold]
    pub(crate) fn read_options(&mut self, header: &[u8]) {
        let from = |at: usize| header.get(at..).unwrap_or_default();
        let word = |at| from(at).first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        // As nearly all have them, in words.
        let mut at = TCP;
        if word(at) >> 16 == MSS {
            at += 4;
        }
        at += match word(at) {
            SACK => 4,
            SACK_AND_TIMES => 12,
            _ => 0,
        };
        match word(at) {
            scale if scale >> 8 == SCALE => self.scaling = (scale as u8).min(14) + 1,
            _ => self.walk_options(from(at)),
        }
    }

    /// Reads options of any kind, in any order.
    #[cold]
    #[inline(never)]
    fn walk_options(&mut self, mut options: &[u8]) {
        while let Some((&kind, rest)) = options.split_first() {
            options = match (kind, rest.split_first()) {
                (END_OF_OPTIONS, _) => return,
                (NO_OPERATION, _) => rest,
                (WINDOW_SCALE, Some((3, [shift, ..]))) => {
                    self.scaling = (*shift).min(14) + 1;
                    return;
                }
                (_, Some((&length @ 2.., _))) => options.get(usize::from(length)..).unwrap_or_default(),
                _ => return,
            };
        }
    }

    /// Reads a TCP header; `length` is the sequence space that the segment takes.
    #[inline(always)]
    pub(crate) const fn read(tcp: &[u8; 20], length: u32) -> Self {
        Self {
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
            length,
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            rest: 0,
            flags: tcp[13],
            scaling: 0,
        }
    }

    /// The sequence number that acknowledges all of it, or of its first fragment.
    #[inline]
    pub const fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.length)
    }

    /// The last sequence number that may acknowledge all of it.
    pub(crate) const fn end_max(&self) -> u32 {
        self.end().wrapping_add(self.rest as u32)
    }

    /// Whether it is the first fragment of one whose length is not known.
    #[inline(always)]
    pub(crate) const fn is_cut(&self) -> bool {
        self.rest > 0
    }

    /// SYN alone among SYN, ACK, FIN and RST.
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == SYN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_syn_are_walked() {
        let scale = |options: &[u8]| {
            let mut segment = Segment::default();
            segment.read_options(&[&[0; 20], options].concat());
            segment.window_scale()
        };
        assert_eq!(scale(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]), Some(7));
        assert_eq!(scale(&[3, 3, 200, 0]), Some(14));
        for odd in
            [&[][..], &[3], &[3, 3], &[3, 2, 5], &[0, 3, 3, 7], &[9, 0, 3, 3, 7], &[9, 1], &[9, 200, 3]]
        {
            assert_eq!(scale(odd), None, "{odd:?}");
        }
    }

    /// Layouts of Linux with and without timestamps, of Windows and of macOS: whole, cut short, and with
    /// any octet changed.
    #[test]
    fn usual_options_are_read_as_a_walk_reads_them() {
        let layouts: [&[u8]; 4] = [
            &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
            &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 9],
            &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
            &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 4, 2, 0, 0],
        ];
        for layout in layouts {
            for (length, at) in (0..=layout.len()).flat_map(|length| (0..=length).map(move |at| (length, at)))
            {
                for change in 0..=u8::MAX {
                    let mut header = [&[0; 20], &layout[..length]].concat();
                    header.push(0);
                    header[20 + at] ^= change;
                    header.truncate(20 + length);
                    let (mut read, mut walked) = (Segment::default(), Segment::default());
                    read.read_options(&header);
                    walked.walk_options(&header[20..]);
                    assert_eq!(read, walked, "{header:?}");
                }
            }
        }
    }
}
