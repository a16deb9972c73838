//! What passes a port, read from the pcap file that QEMU's `filter-dump` writes while it runs.

use crate::error::{Context, Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The magic number of a pcap file with microseconds, in the byte order of its writer.
const MAGIC: u32 = 0xa1b2_c3d4;

/// Octets of the file header, and of the header of each packet.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;

/// The largest packet that is believed; `filter-dump` cuts at 65536 octets.
const PACKET_MAX: usize = 1 << 18;

/// A pcap file that may still grow.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    file: Option<File>,
    /// Read, but not yet taken.
    octets: Vec<u8>,
    has_header: bool,
}

impl Capture {
    /// Follows the file at `path`, which need not exist yet.
    pub fn follow(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, octets: Vec::new(), has_header: false }
    }

    /// The frames that were written since the last call.
    ///
    /// # Errors
    /// The file cannot be read, or is no pcap file of this machine's byte order.
    pub fn frames(&mut self) -> Result<Vec<Vec<u8>>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        file.read_to_end(&mut self.octets).context(|| format!("cannot read {}", self.path.display()))?;
        if !self.has_header && !self.take_header()? {
            return Ok(Vec::new());
        }
        let mut frames = Vec::new();
        let mut taken = 0;
        while let Some((frame, length)) = packet(self.octets.get(taken..).unwrap_or_default())? {
            frames.push(frame.to_vec());
            taken += length;
        }
        self.octets.drain(..taken);
        Ok(frames)
    }

    fn take_header(&mut self) -> Result<bool> {
        if self.octets.len() < FILE_HEADER {
            return Ok(false);
        }
        if word(&self.octets, 0) != Some(MAGIC) {
            return Err(Error::new(format!("{} is no pcap file", self.path.display())));
        }
        self.octets.drain(..FILE_HEADER);
        self.has_header = true;
        Ok(true)
    }
}

/// The packet at the front and how many octets it takes in the file; `None` when it is not complete yet.
fn packet(octets: &[u8]) -> Result<Option<(&[u8], usize)>> {
    // ts_sec, ts_usec, incl_len, orig_len
    let Some(length) = word(octets, 8) else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > PACKET_MAX {
        return Err(Error::new("the capture is damaged: a packet claims more octets than a frame can have"));
    }
    let end = PACKET_HEADER + length;
    Ok(octets.get(PACKET_HEADER..end).map(|frame| (frame, end)))
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::io::Write;

    fn header() -> Vec<u8> {
        [&MAGIC.to_ne_bytes()[..], &[0; 20]].concat()
    }

    fn record(frame: &[u8]) -> Vec<u8> {
        let length = u32::try_from(frame.len()).unwrap().to_ne_bytes();
        [&[0; 8][..], &length, &length, frame].concat()
    }

    #[test]
    fn it_follows_a_growing_file_octet_by_octet() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.join("pcap");
        let mut capture = Capture::follow(&path);
        assert!(capture.frames().unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        let mut seen = Vec::new();
        for octet in [header(), record(b"first"), record(b"second")].concat() {
            file.write_all(&[octet]).unwrap();
            seen.extend(capture.frames().unwrap());
        }
        assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn what_is_no_capture_is_an_error() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.join("pcap");
        std::fs::write(&path, [7; 64]).unwrap();
        assert!(Capture::follow(&path).frames().is_err());
        std::fs::write(&path, [header(), vec![0xff; 16]].concat()).unwrap();
        assert!(Capture::follow(&path).frames().is_err());
    }
}
