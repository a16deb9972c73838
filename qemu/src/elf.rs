//! Smaller and other copies of the image's ELF file: only what a loader reads.

/// Offsets in the ELF64 header (System V ABI, "ELF Header").
const CLASS: usize = 4;
const PHOFF: usize = 32;
const SHOFF: usize = 40;
const PHENTSIZE: usize = 54;
const SHENTSIZE: usize = 58;
const HEADER_64: usize = 64;
const HEADER_32: usize = 52;
const SEGMENT_64: usize = 56;
const SEGMENT_32: usize = 32;

/// A program header of an ELF64 file.
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// The file without sections: symbols and debug information gone, segments where they were. `None` when it is no
/// little-endian ELF64 file with program headers.
pub fn strip(elf: &[u8]) -> Option<Vec<u8>> {
    let segments = segments(elf)?;
    let mut stripped = elf.get(..end(&segments, PHOFF_64 + segments.len() * SEGMENT_64)?)?.to_vec();
    stripped.get_mut(SHOFF..SHOFF + 8)?.fill(0);
    // e_shentsize, e_shnum, e_shstrndx
    stripped.get_mut(SHENTSIZE..HEADER_64)?.fill(0);
    Some(stripped)
}

/// Octets of memory from the first loaded segment to the end of the last.
pub fn loaded(elf: &[u8]) -> Option<u64> {
    const LOAD: u32 = 1;
    let segments = segments(elf)?;
    let loaded = || segments.iter().filter(|segment| segment.kind == LOAD);
    let first = loaded().map(|segment| segment.physical_address).min()?;
    let ends = loaded().map(|segment| segment.physical_address.checked_add(segment.memory_size));
    ends.collect::<Option<Vec<_>>>()?.into_iter().max()?.checked_sub(first)
}

/// The same program as an ELF32 file, for loaders that take nothing else (Xen HVM). `None` besides for what has an
/// address above 4 GiB.
pub fn to_elf32(elf: &[u8]) -> Option<Vec<u8>> {
    let segments = segments(elf)?;
    let count = u16::try_from(segments.len()).ok()?;
    let mut copy = elf.get(..end(&segments, HEADER_32 + segments.len() * SEGMENT_32)?)?.to_vec();
    let mut head = elf.get(..16)?.to_vec();
    *head.get_mut(CLASS)? = 1;
    // e_type; e_machine EM_386; e_version
    head.extend_from_slice(elf.get(16..18)?);
    head.extend_from_slice(&3_u16.to_le_bytes());
    head.extend_from_slice(&1_u32.to_le_bytes());
    let entry = u32::try_from(number(elf, 24, 8)?).ok()?;
    for word in [entry, HEADER_32 as u32, 0, 0] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    for half in [HEADER_32 as u16, SEGMENT_32 as u16, count, 0, 0, 0] {
        head.extend_from_slice(&half.to_le_bytes());
    }
    for segment in &segments {
        let words = [
            u64::from(segment.kind),
            segment.offset,
            segment.virtual_address,
            segment.physical_address,
            segment.file_size,
            segment.memory_size,
            u64::from(segment.flags),
            segment.align,
        ];
        for word in words {
            head.extend_from_slice(&u32::try_from(word).ok()?.to_le_bytes());
        }
    }
    // The new headers are shorter than the old ones, which stood in the same place.
    copy.get_mut(..head.len())?.copy_from_slice(&head);
    Some(copy)
}

/// Where the program headers of our files stand: right behind the ELF header.
const PHOFF_64: usize = HEADER_64;

fn segments(elf: &[u8]) -> Option<Vec<Segment>> {
    let is_elf64 = elf.get(..6)? == b"\x7fELF\x02\x01";
    let stands_as_expected =
        number(elf, PHOFF, 8)? == PHOFF_64 as u64 && number(elf, PHENTSIZE, 2)? == SEGMENT_64 as u64;
    let count = usize::try_from(number(elf, 56, 2)?).ok().filter(|count| *count > 0)?;
    if !is_elf64 || !stands_as_expected {
        return None;
    }
    (0..count)
        .map(|index| {
            let at = PHOFF_64 + index * SEGMENT_64;
            Some(Segment {
                kind: u32::try_from(number(elf, at, 4)?).ok()?,
                flags: u32::try_from(number(elf, at + 4, 4)?).ok()?,
                offset: number(elf, at + 8, 8)?,
                virtual_address: number(elf, at + 16, 8)?,
                physical_address: number(elf, at + 24, 8)?,
                file_size: number(elf, at + 32, 8)?,
                memory_size: number(elf, at + 40, 8)?,
                align: number(elf, at + 48, 8)?,
            })
        })
        .collect()
}

/// Where the last octet that a segment needs ends.
fn end(segments: &[Segment], headers: usize) -> Option<usize> {
    let ends = segments.iter().map(|segment| segment.offset.checked_add(segment.file_size));
    let last = ends.collect::<Option<Vec<_>>>()?.into_iter().max()?;
    Some(usize::try_from(last).ok()?.max(headers))
}

/// A little-endian number.
fn number(octets: &[u8], at: usize, length: usize) -> Option<u64> {
    let octets = octets.get(at..at.checked_add(length)?)?;
    Some(octets.iter().rev().fold(0, |number, octet| number << 8 | u64::from(*octet)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One segment at 16 MiB with 8 octets of file, then 100 octets that are sections.
    fn sample() -> Vec<u8> {
        let mut elf = vec![0; HEADER_64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 2;
        elf[18] = 62;
        elf[24..32].copy_from_slice(&0x0100_0004_u64.to_le_bytes());
        elf[PHOFF] = 64;
        elf[SHOFF] = 200;
        elf[PHENTSIZE] = 56;
        elf[56] = 1;
        elf[SHENTSIZE..HEADER_64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        elf.extend_from_slice(&1_u32.to_le_bytes());
        elf.extend_from_slice(&5_u32.to_le_bytes());
        for word in [120_u64, 0x0100_0000, 0x0100_0000, 8, 64, 4096] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
        elf.extend_from_slice(b"the code");
        elf.extend_from_slice(&[0xee; 100]);
        elf
    }

    #[test]
    fn stripping_keeps_segments_and_drops_sections() {
        let stripped = strip(&sample()).unwrap();
        assert_eq!(stripped.len(), 128);
        assert_eq!(&stripped[120..], b"the code");
        assert_eq!(number(&stripped, SHOFF, 8), Some(0));
        assert_eq!(number(&stripped, 60, 2), Some(0));
        assert_eq!(strip(&stripped), Some(stripped.clone()));
        assert_eq!(loaded(&stripped), Some(64));
    }

    #[test]
    fn the_elf32_copy_has_the_same_entry_and_segment() {
        let copy = to_elf32(&sample()).unwrap();
        assert_eq!(
            (copy[CLASS], number(&copy, 18, 2), number(&copy, 24, 4)),
            (1, Some(3), Some(0x0100_0004))
        );
        assert_eq!(
            (number(&copy, 28, 4), number(&copy, 42, 2), number(&copy, 44, 2)),
            (Some(52), Some(32), Some(1))
        );
        let fields: Vec<_> = (0..8).map(|field| number(&copy, HEADER_32 + field * 4, 4).unwrap()).collect();
        assert_eq!(fields, [1, 120, 0x0100_0000, 0x0100_0000, 8, 64, 5, 4096]);
        assert_eq!(&copy[120..], b"the code");
    }

    #[test]
    fn high_addresses_do_not_fit_elf32() {
        let mut elf = sample();
        elf[64 + 16 + 5] = 1;
        assert!(to_elf32(&elf).is_none() && strip(&elf).is_some());
    }

    #[test]
    fn cut_and_damaged_files_are_refused() {
        let elf = sample();
        for length in 0..128 {
            assert!(strip(&elf[..length]).is_none() && to_elf32(&elf[..length]).is_none(), "{length}");
        }
        for at in 0..6 {
            let mut damaged = elf.clone();
            damaged[at] ^= 1;
            assert!(strip(&damaged).is_none(), "octet {at}");
        }
    }
}
