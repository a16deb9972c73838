//! The packets of a capture: pcap and pcapng, read block by block.
//!
//! A capture is a stranger's file. One buffer is kept, and it grows up to a limit; what cannot be read ends with the
//! place where that is so.

use crate::error::{Error, Result};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::path::Path;

/// Octets read at once.
const CHUNK: usize = 1 << 16;

/// The largest block that is read, in octets: lists of names and notes may be that long, packets are not.
const BLOCK_MAX: usize = 1 << 24;

/// Interfaces of one section.
const INTERFACES_MAX: usize = 4096;

/// The largest packet that is believed, in octets: what `tcpdump` writes at most.
const PACKET_MAX: usize = 1 << 18;

const MICROS_A_SECOND: i128 = 1_000_000;

/// What is in front of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// Nothing: IPv4 or IPv6.
    Raw,
}

/// One packet as it was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From 1.
    pub number: u64,
    /// When it was captured, in microseconds; `None` where the capture does not say.
    pub micros: Option<i64>,
    /// What it begins with.
    pub layer: Layer,
    /// As far as it was captured.
    pub octets: Vec<u8>,
    /// Octets that it had on the link.
    pub length: usize,
}

/// How the packets of an interface are written.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Linktype,
    /// Units of time a second; `None` for one that no clock has.
    resolution: Option<u64>,
    /// Seconds to be added.
    offset: i64,
}

/// A capture file.
pub struct Records {
    name: String,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Octets of room in the reader.
    room: usize,
    interfaces: Vec<Interface>,
    number: u64,
}

impl Records {
    /// Opens a capture.
    ///
    /// # Errors
    /// There is no such file, or it is no capture.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|cause| Error::new(format!("cannot open {name}: {cause}")))?;
        let reader = create_reader(CHUNK, file).map_err(|error| match error {
            PcapError::Eof => Error::new(format!("{name} is empty")),
            PcapError::ReadError => Error::new(format!("cannot read {name}")),
            _ => Error::new(format!("{name} is neither a pcap nor a pcapng file"))
                .advise("tcpdump -w FILE and wireshark write such files"),
        })?;
        Ok(Self { name, reader, room: CHUNK, interfaces: Vec::new(), number: 0 })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// What comes next cannot be read, with its place.
    pub fn read(&mut self) -> Result<Option<Record>> {
        loop {
            let found = match self.reader.next() {
                Ok((length, block)) => Ok((length, understand(block, &mut self.interfaces))),
                Err(error) => Err(stop(&error)),
            };
            match found {
                Ok((length, Ok(found))) => {
                    self.reader.consume(length);
                    if let Some((micros, layer, octets, length)) = found {
                        self.number += 1;
                        return Ok(Some(Record { number: self.number, micros, layer, octets, length }));
                    }
                }
                Ok((_, Err(reason))) => return Err(self.here(&reason)),
                Err(Stop::End) => return Ok(None),
                Err(Stop::More) => self.fill()?,
                Err(Stop::Wrong(reason)) => return Err(self.here(reason)),
            }
        }
    }

    /// Reads on, with more room where there is none left.
    fn fill(&mut self) -> Result<()> {
        let before = self.reader.data().len();
        if before >= self.room / 2 {
            if self.room >= BLOCK_MAX {
                return Err(self.here(&format!("a block is larger than {} MiB", BLOCK_MAX >> 20)));
            }
            self.room *= 2;
            self.reader.grow(self.room);
        }
        if self.reader.refill().is_err() {
            return Err(self.here("the file cannot be read"));
        }
        Ok(())
    }

    fn here(&self, reason: &str) -> Error {
        let place = format!("octet {}, behind packet {}", self.reader.consumed(), self.number);
        Error::new(format!("{}: {place}: {reason}", self.name))
    }
}

/// Why the reader has no block for us.
enum Stop {
    End,
    More,
    Wrong(&'static str),
}

fn stop(error: &PcapError<&[u8]>) -> Stop {
    match error {
        PcapError::Eof => Stop::End,
        PcapError::Incomplete(_) | PcapError::BufferTooSmall => Stop::More,
        PcapError::UnexpectedEof => Stop::Wrong("the file ends within a block"),
        PcapError::ReadError => Stop::Wrong("the file cannot be read"),
        _ => Stop::Wrong("this is no block of a capture"),
    }
}

/// Time, layer, octets and original length of a packet.
type Found = (Option<i64>, Layer, Vec<u8>, usize);

/// What a block says: a packet, or how packets are to be read.
fn understand(
    block: PcapBlockOwned,
    interfaces: &mut Vec<Interface>,
) -> std::result::Result<Option<Found>, String> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            interfaces.push(Interface { link: header.network, resolution: Some(resolution), offset: 0 });
            Ok(None)
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = interface(interfaces, 0)?;
            let resolution = interface.resolution.unwrap_or(1_000_000);
            let ticks = u128::from(packet.ts_sec) * u128::from(resolution) + u128::from(packet.ts_usec);
            Ok(Some(found(interface, Some(ticks), packet.data, packet.origlen)?))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            Ok(None)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(it)) => {
            if interfaces.len() >= INTERFACES_MAX {
                return Err(format!("there are more than {INTERFACES_MAX} interfaces"));
            }
            let (resolution, offset) = (resolution(it.if_tsresol), it.if_tsoffset);
            interfaces.push(Interface { link: it.linktype, resolution, offset });
            Ok(None)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = interface(interfaces, packet.if_id)?;
            let ticks = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
            Ok(Some(found(interface, Some(ticks), packet.packet_data(), packet.origlen)?))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let interface = interface(interfaces, 0)?;
            Ok(Some(found(interface, None, packet.packet_data(), packet.origlen)?))
        }
        PcapBlockOwned::NG(_) => Ok(None),
    }
}

fn interface(interfaces: &[Interface], index: u32) -> std::result::Result<Interface, String> {
    let at = usize::try_from(index).ok().and_then(|index| interfaces.get(index));
    at.copied().ok_or_else(|| format!("a packet is from interface {index}, which nothing describes"))
}

fn found(
    interface: Interface,
    ticks: Option<u128>,
    octets: &[u8],
    length: u32,
) -> std::result::Result<Found, String> {
    if octets.len() > PACKET_MAX {
        return Err(format!("a packet has {} octets, more than {PACKET_MAX}", octets.len()));
    }
    let layer = match interface.link {
        Linktype::ETHERNET => Layer::Ethernet,
        Linktype::RAW | Linktype::IPV4 | Linktype(12 | 14) => Layer::Raw,
        Linktype(other) => {
            return Err(format!(
                "packets of link type {other}; Ethernet (1) and raw IP (101) are understood, as a capture on \
                 one interface has them"
            ));
        }
    };
    let micros = match (ticks, interface.resolution) {
        (Some(ticks), Some(resolution)) => Some(micros(ticks, resolution, interface.offset)),
        _ => None,
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX).max(octets.len());
    Ok((micros, layer, octets.to_vec(), length))
}

/// Units a second: `if_tsresol` is a negative power of 10, or of 2 with the highest bit set.
fn resolution(exponent: u8) -> Option<u64> {
    match exponent & 0x80 {
        0 => 10_u64.checked_pow(exponent.into()),
        _ => 1_u64.checked_shl((exponent & 0x7f).into()),
    }
}

/// Microseconds since 1970, as far as they can be told.
fn micros(ticks: u128, resolution: u64, offset: i64) -> i64 {
    // Ticks have 64 bits at most (legacy seconds and their fraction too), so that nothing here overflows.
    let ticks = i128::try_from(ticks).unwrap_or(i128::MAX / MICROS_A_SECOND);
    let fine = ticks.saturating_mul(MICROS_A_SECOND) / i128::from(resolution.max(1));
    let whole = fine.saturating_add(i128::from(offset).saturating_mul(MICROS_A_SECOND));
    i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::captures::{ng, ng_block, ng_interface, ng_packet, pcap, record};
    use crate::scratch::Scratch;

    /// The packets of a file, and what ended it.
    fn read(octets: &[u8]) -> (Vec<Record>, Option<String>) {
        let scratch = Scratch::new().unwrap();
        let path = scratch.join("capture");
        std::fs::write(&path, octets).unwrap();
        let mut all = Vec::new();
        let mut records = match Records::open(&path) {
            Ok(records) => records,
            Err(error) => return (all, Some(error.message().to_owned())),
        };
        loop {
            match records.read() {
                Ok(Some(record)) => all.push(record),
                Ok(None) => return (all, None),
                Err(error) => return (all, Some(error.message().to_owned())),
            }
        }
    }

    #[test]
    fn both_byte_orders_and_both_resolutions_of_pcap() {
        for (magic, fraction) in [(0xa1b2_c3d4_u32, 500_000_u32), (0xa1b2_3c4d, 500_000_000)] {
            for big in [false, true] {
                let word = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
                let header = [magic, 0x0004_0002, 0, 0, 65_535, 101].map(word).concat();
                let packet = [[7, fraction, 3, 60].map(word).concat(), vec![0x45, 1, 2]].concat();
                let (records, error) = read(&[header, packet].concat());
                assert_eq!(error, None);
                let wanted = Record {
                    number: 1,
                    micros: Some(7_500_000),
                    layer: Layer::Raw,
                    octets: vec![0x45, 1, 2],
                    length: 60,
                };
                assert_eq!(records, [wanted]);
            }
        }
    }

    #[test]
    fn interfaces_of_pcapng_have_links_and_clocks_of_their_own() {
        let file = [
            ng(),
            ng_interface(1, &[]),
            ng_block(0x0b, b"what is not known is passed over"),
            // Nanoseconds, ten seconds ahead.
            ng_interface(101, &[(9, &[9]), (14, &10_i64.to_le_bytes())]),
            ng_packet(0, 3_000_001, b"one"),
            ng_packet(1, 1_500_000_000, b"two two"),
            ng_block(3, &[&3_u32.to_le_bytes()[..], b"tre "].concat()),
        ];
        let (records, error) = read(&file.concat());
        assert_eq!(error, None);
        let told: Vec<_> = records.iter().map(|it| (it.micros, it.layer, it.octets.as_slice())).collect();
        assert_eq!(
            told,
            [
                (Some(3_000_001), Layer::Ethernet, &b"one"[..]),
                (Some(11_500_000), Layer::Raw, b"two two"),
                (None, Layer::Ethernet, b"tre"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let one = [pcap(1), record(0, b"packet")].concat();
        let claims = [one.clone(), [0_u32, 0, 0x7fff_ffff, 60].map(u32::to_le_bytes).concat()].concat();
        let far = [ng(), ng_interface(1, &[]), ng_packet(1, 0, b"x")].concat();
        for (file, packets, told) in [
            (one[..one.len() - 1].to_vec(), 0, "octet 24, behind packet 0: the file ends within a block"),
            (one[..one.len() - 9].to_vec(), 0, "octet 24, behind packet 0: the file ends within a block"),
            (claims, 1, "octet 46, behind packet 1: the file ends within a block"),
            (far, 0, "a packet is from interface 1, which nothing describes"),
            ([pcap(113), record(0, b"cooked")].concat(), 0, "packets of link type 113"),
            ([pcap(1), record(0, &vec![0; PACKET_MAX + 1])].concat(), 0, "a packet has 262145 octets"),
            ([ng(), ng_block(5, &vec![0; BLOCK_MAX])].concat(), 0, "a block is larger than 16 MiB"),
            ([ng(), vec![6, 0, 0, 0, 1, 0, 0, 0]].concat(), 0, "octet 28, behind packet 0: "),
            (vec![], 0, "is empty"),
            (vec![7; 100], 0, "is neither a pcap nor a pcapng file"),
            (pcap(1)[..20].to_vec(), 0, "is neither a pcap nor a pcapng file"),
        ] {
            let (records, error) = read(&file);
            assert_eq!(records.len(), packets, "{told}");
            assert!(error.as_ref().is_some_and(|error| error.contains(told)), "{told}: {error:?}");
        }
    }

    #[test]
    fn changed_and_cut_captures_end_without_a_panic() {
        let packet = [7; 40];
        let files = [
            [pcap(1), record(0, &packet), record(1, &packet)].concat(),
            [ng(), ng_interface(1, &[(9, &[6])]), ng_packet(0, 5, &packet), ng_packet(0, 6, &packet)]
                .concat(),
        ];
        for file in files {
            for at in 0..file.len() {
                let _ = read(&file[..at]);
                for octet in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = file.clone();
                    changed[at] = octet;
                    assert!(read(&changed).0.len() <= 2);
                }
            }
        }
    }

    #[test]
    fn clocks_that_nobody_has() {
        assert_eq!((resolution(6), resolution(0x8a)), (Some(1_000_000), Some(1024)));
        assert_eq!((resolution(20), resolution(0xff)), (None, None));
        assert_eq!(micros(u128::from(u64::MAX), 1, i64::MAX), i64::MAX);
        assert_eq!(micros(0, 1, i64::MIN), i64::MIN);
    }
}
