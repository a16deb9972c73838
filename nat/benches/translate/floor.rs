//! What translation costs at least: checks, one lookup in a flat table, the rewrite in place.
//!
//! No timers, no TCP states, no quotas, no filtering, no fragments: nothing but the work that
//! every translator of UDP has to do.

use crate::packets::{EXTERNAL, Octets};

/// Both endpoints and the protocol: addresses, then ports and protocol.
type Key = (u64, u64);

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    /// The source and destination behind us.
    addresses: u64,
    ports: u32,
    /// What the change adds to the sums over addresses and over ports.
    difference: (u16, u16),
}

const FREE: Entry = Entry { key: (0, 0), addresses: 0, ports: 0, difference: (0, 0) };

/// Open addressing, a third full at most.
pub struct Floor {
    entries: Box<[Entry]>,
    shift: u32,
    room: usize,
    next_port: u16,
}

fn word<const N: usize>(octets: &Octets, at: usize) -> [u8; N] {
    octets[at..].first_chunk().copied().unwrap_or([0; N])
}

fn u32_at(octets: &Octets, at: usize) -> u32 {
    u32::from_ne_bytes(word(octets, at))
}

fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// RFC 1624: `~(~checksum + difference)`.
fn update(checksum: u16, difference: u32) -> u16 {
    let sum = u32::from(!checksum) + difference;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The tuple of a whole UDP datagram whose header is right.
fn check(octets: &Octets) -> Option<Key> {
    let total = u16::from_be_bytes(word(octets, 2));
    let fragment = u16::from_ne_bytes(word(octets, 6)) & 0x3fff_u16.to_be();
    if octets[0] != 0x45 || usize::from(total) > octets.len() || total < 28 || fragment != 0 {
        return None;
    }
    let sum: u64 = (0..20).step_by(4).map(|at| u64::from(u32_at(octets, at))).sum();
    let length = u16::from_be_bytes(word(octets, 24));
    if fold(sum) != 0xffff || octets[8] < 2 || octets[9] != 17 || length < 8 || length > total - 20 {
        return None;
    }
    Some((u64::from_ne_bytes(word(octets, 12)), u64::from(u32_at(octets, 20)) | 17 << 32))
}

fn hash(key: Key) -> u64 {
    (key.0 ^ key.1.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Floor {
    /// For this many flows.
    pub fn new(flows: usize) -> Self {
        let bits = (flows * 6).next_power_of_two().trailing_zeros();
        let entries = vec![FREE; 1 << bits].into_boxed_slice();
        Self { entries, shift: 64 - bits, room: flows, next_port: 1024 }
    }

    fn find(&self, key: Key) -> Result<usize, usize> {
        let mut at = (hash(key) >> self.shift) as usize;
        loop {
            let entry = &self.entries[at];
            if entry.key == key {
                return Ok(at);
            }
            if entry.key.1 == 0 {
                return Err(at);
            }
            at = (at + 1) & (self.entries.len() - 1);
        }
    }

    fn put(&mut self, key: Key, addresses: u64, ports: u32) {
        let sum = |word: u64| u64::from(!fold(word)) + u64::from(fold(addresses));
        let port = u64::from(!fold(key.1 & 0xffff_ffff)) + u64::from(fold(ports.into()));
        let difference = (fold(sum(key.0)), fold(port));
        if let Err(at) = self.find(key) {
            self.entries[at] = Entry { key, addresses, ports, difference };
        }
    }

    /// Begins the flow of a packet in both directions; false if there is no room.
    #[inline(never)]
    fn open(&mut self, key: Key) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        let external = u32::from_ne_bytes(EXTERNAL.octets());
        let (server, client) = (key.0 >> 32, key.0 & 0xffff_ffff);
        let (server_port, client_port) = (key.1 as u32 >> 16, key.1 as u32 & 0xffff);
        let port = u32::from(self.next_port.to_be());
        self.next_port = self.next_port.wrapping_add(1).max(1024);
        self.put(key, u64::from(external) | server << 32, port | server_port << 16);
        let reply = (server | u64::from(external) << 32, u64::from(server_port | port << 16) | 17 << 32);
        self.put(reply, server | client << 32, server_port | client_port << 16);
        true
    }

    /// Translates a packet in place; false if it is not to leave.
    #[inline]
    pub fn translate(&mut self, octets: &mut Octets) -> bool {
        let Some(key) = check(octets) else {
            return false;
        };
        let at = match self.find(key) {
            Ok(at) => at,
            Err(_) if self.open(key) => match self.find(key) {
                Ok(at) => at,
                Err(_) => return false,
            },
            Err(_) => return false,
        };
        let entry = &self.entries[at];
        let (addresses, ports) = (u32::from(entry.difference.0), u32::from(entry.difference.1));
        octets[8] -= 1;
        let lowered = u32::from(u16::from_ne_bytes([0xfe, 0xff]));
        let header = update(u16::from_ne_bytes(word(octets, 10)), addresses + lowered);
        octets[10..12].copy_from_slice(&header.to_ne_bytes());
        octets[12..20].copy_from_slice(&entry.addresses.to_ne_bytes());
        octets[20..24].copy_from_slice(&entry.ports.to_ne_bytes());
        let checksum = u16::from_ne_bytes(word(octets, 26));
        if checksum != 0 {
            let updated = update(checksum, addresses + ports);
            let updated = if updated == 0 { 0xffff } else { updated };
            octets[26..28].copy_from_slice(&updated.to_ne_bytes());
        }
        true
    }

    /// Loads what a packet's translation will need.
    #[inline]
    pub fn warm(&self, octets: &Octets) -> u64 {
        check(octets).map_or(0, |key| self.entries[(hash(key) >> self.shift) as usize].addresses)
    }
}
