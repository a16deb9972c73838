//! Fragments: virtual reassembly, and cutting what is larger than the next link takes.
//!
//! The first fragment of a datagram has its ports; what becomes of it becomes of the others. They
//! are forwarded as they come once it is known, and held until then, in a bounded pool. Nothing is
//! put together: only which octets have passed is remembered, so that no fragment overwrites
//! another (RFC 1858, RFC 5722).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use hashbrown::HashMap;
use nat::{Fragment, Packet, Translation};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::Ipv4Packet;

use crate::contract;
use crate::hash::{Seeded, fold};
use crate::route::Hop;

/// Datagrams of which some fragments have come.
pub const DATAGRAMS: usize = 512;
/// Datagrams incomplete of one source, and fragments of it that wait, unless the pool is so small that
/// a quarter of it is less: a datagram of 65 507 octets in reverse order over Ethernet has 45.
pub const QUOTA: usize = 64;
/// Gaps that the octets of a datagram may have before it is given up.
const RUNS: usize = 64;
/// How long a datagram may take (RFC 1122 3.3.2 wants 60 to 120 seconds of end systems).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Ports of an appliance: the uplink and 32 clients.
const PORTS_MAX: usize = 33;
/// Sources are counted in so many classes, by a keyed hash.
const CLASSES: usize = 256;

/// Which datagram a fragment belongs to (RFC 791 3.2), and the port it came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    addresses: u64,
    rest: u64,
}

impl Key {
    /// The datagram of a packet that came in by this port.
    pub fn new(input: usize, packet: &Packet) -> Self {
        let bits = |address: Ipv4Addr| u64::from(address.to_bits());
        Self {
            addresses: bits(packet.source()) << 32 | bits(packet.destination()),
            rest: (input as u64) << 24
                | u64::from(packet.protocol()) << 16
                | u64::from(packet.identification()),
        }
    }
}

impl Key {
    fn input(self) -> usize {
        (self.rest >> 24) as usize
    }
}

impl core::hash::Hash for Key {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.addresses);
        state.write_u64(self.rest);
    }
}

/// How a packet leaves: where to, translated how, and for fragments of translated sources under
/// which identification.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The next hop.
    pub hop: Hop,
    /// What becomes of its endpoints.
    pub translation: Translation,
    /// A fresh identification, where its own may be another client's too.
    pub identification: Option<u16>,
    /// The number of its session.
    pub flow: u32,
}

/// What became of a datagram's first fragment.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It has not come yet.
    Unknown,
    /// It left this way.
    Forwarded(Way),
    /// The appliance answered it, as it will the others.
    Answered,
    /// It ended here, and so do all others.
    Ended,
}

/// Why a fragment ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It came before.
    Duplicate,
    /// It overlaps others, or reaches beyond the last: the whole datagram ends.
    Overlap,
    /// Its source has too many incomplete datagrams, or too many fragments held.
    Quota,
    /// The first fragment of its datagram ended.
    Ended,
}

struct Datagram {
    key: Key,
    fate: Fate,
    class: u8,
    held: u16,
    expires: Instant,
    /// What has come, as runs of octets: apart, in order.
    runs: heapless::Vec<(u16, u16), RUNS>,
    /// Where the datagram ends, once its last fragment has come.
    end: Option<u16>,
}

impl Datagram {
    /// Notes the octets of a fragment.
    fn cover(&mut self, fragment: Fragment) -> Result<(), Refused> {
        let (start, end) = (fragment.offset, fragment.end());
        let beyond = self.end.is_some_and(|last| end > last || !fragment.more && end != last);
        let behind = !fragment.more && self.runs.last().is_some_and(|run| run.1 > end);
        if beyond || behind {
            return Err(Refused::Overlap);
        }
        // The runs that the fragment touches: from the first that ends at its start or later.
        let first = self.runs.iter().position(|run| run.1 >= start).unwrap_or(self.runs.len());
        let (mut low, mut high) = (start, end);
        let mut touched = 0;
        for &(run_start, run_end) in self.runs.iter().skip(first).take_while(|run| run.0 <= end) {
            if run_start <= start && end <= run_end {
                return Err(Refused::Duplicate);
            }
            if run_start < end && start < run_end {
                return Err(Refused::Overlap);
            }
            (low, high) = (low.min(run_start), high.max(run_end));
            touched += 1;
        }
        for _ in 0..touched {
            self.runs.remove(first);
        }
        self.runs.insert(first, (low, high)).map_err(|_| Refused::Overlap)?;
        if !fragment.more {
            self.end = Some(end);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        matches!((self.end, self.runs.as_slice()), (Some(end), &[(0, covered)]) if covered == end)
    }
}

/// The datagrams of which fragments have come.
pub struct Fragments<F> {
    datagrams: Vec<Option<Datagram>>,
    free: Vec<u16>,
    index: HashMap<Key, u16, Seeded>,
    /// Fragments that wait for their first one, of all datagrams, in the order in which they came.
    held: VecDeque<(Key, F)>,
    /// How many they may be: each keeps a buffer of its port.
    capacity: usize,
    /// Datagrams and fragments held of each class of sources.
    usage: Box<[(u16, u16)]>,
    seed: u64,
    /// Where upkeep looks next.
    upkeep: usize,
    /// Held fragments that are gone, of each input port, since they were last taken.
    lost: [u32; PORTS_MAX],
    has_lost: bool,
}

impl<F> Fragments<F> {
    /// Octets that [`Fragments::new`] allocates; the buffers of what is held are the pool's.
    pub const fn footprint(capacity: usize) -> usize {
        DATAGRAMS * (size_of::<Option<Datagram>>() + size_of::<u16>())
            + contract::hash_map::<Key, u16>(DATAGRAMS)
            + capacity * size_of::<(Key, F)>()
            + CLASSES * size_of::<(u16, u16)>()
    }

    /// An empty table that holds up to `capacity` fragments; `seed` keys its hashing.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            datagrams: (0..DATAGRAMS).map(|_| None).collect(),
            free: (0..DATAGRAMS as u16).rev().collect(),
            index: HashMap::with_capacity_and_hasher(DATAGRAMS, Seeded::new(seed)),
            held: VecDeque::with_capacity(capacity),
            capacity,
            usage: alloc::vec![(0, 0); CLASSES].into_boxed_slice(),
            seed,
            upkeep: 0,
            lost: [0; PORTS_MAX],
            has_lost: false,
        }
    }

    /// Fragments that wait for their first one.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Fragments that one source may have waiting.
    fn quota(&self) -> usize {
        QUOTA.min(self.capacity / 4)
    }

    fn class(&self, key: Key) -> u8 {
        fold(self.seed ^ key.addresses >> 32 ^ (key.rest >> 24) << 32) as u8
    }

    fn find(&mut self, key: Key) -> Option<&mut Datagram> {
        let index = *self.index.get(&key)?;
        self.datagrams.get_mut(usize::from(index))?.as_mut()
    }

    /// Notes that a fragment has come; what became of its datagram's first one.
    ///
    /// # Errors
    /// [`Refused`]: it ends here.
    pub fn arrive(&mut self, key: Key, fragment: Fragment, now: Instant) -> Result<Fate, Refused> {
        if self.find(key).is_some_and(|datagram| datagram.expires <= now) {
            self.remove(key);
        }
        if self.find(key).is_none() {
            self.begin(key, now)?;
        }
        let Some(datagram) = self.find(key) else { return Err(Refused::Quota) };
        if matches!(datagram.fate, Fate::Ended) {
            return Err(Refused::Ended);
        }
        let covered = datagram.cover(fragment);
        if covered == Err(Refused::Overlap) {
            datagram.fate = Fate::Ended;
        }
        covered.map(|()| datagram.fate)
    }

    fn begin(&mut self, key: Key, now: Instant) -> Result<(), Refused> {
        let class = self.class(key);
        let usage = self.usage.get_mut(usize::from(class)).ok_or(Refused::Quota)?;
        if usage.0 >= QUOTA as u16 {
            return Err(Refused::Quota);
        }
        usage.0 += 1;
        if self.free.is_empty() {
            self.evict();
        }
        let index = self.free.pop().ok_or(Refused::Quota)?;
        let (runs, expires) = (heapless::Vec::new(), now + TIMEOUT);
        let datagram = Datagram { key, fate: Fate::Unknown, class, held: 0, expires, runs, end: None };
        if let Some(place) = self.datagrams.get_mut(usize::from(index)) {
            *place = Some(datagram);
        }
        self.index.insert(key, index);
        Ok(())
    }

    /// Ends the oldest datagram.
    fn evict(&mut self) {
        let oldest = self.datagrams.iter().flatten().min_by_key(|datagram| datagram.expires);
        if let Some(key) = oldest.map(|datagram| datagram.key) {
            self.remove(key);
        }
    }

    /// Holds a fragment until its first one comes.
    ///
    /// # Errors
    /// [`Refused::Quota`]: its source holds too much.
    pub fn hold(&mut self, key: Key, frame: F) -> Result<(), Refused> {
        let class = usize::from(self.class(key));
        if self.usage.get(class).is_none_or(|usage| usize::from(usage.1) >= self.quota()) {
            return Err(Refused::Quota);
        }
        if self.held.len() >= self.capacity
            && let Some((oldest, _)) = self.held.front()
        {
            // Who holds longest makes room: a flood ends its own.
            self.remove(*oldest);
        }
        let Some(datagram) = self.find(key) else { return Err(Refused::Quota) };
        datagram.held += 1;
        if let Some(usage) = self.usage.get_mut(class) {
            usage.1 += 1;
        }
        self.held.push_back((key, frame));
        Ok(())
    }

    /// Tells what became of a datagram's first fragment; those that waited are handed to `take`.
    pub fn decide(&mut self, key: Key, fate: Fate, take: impl FnMut(F)) {
        if let Some(datagram) = self.find(key) {
            datagram.fate = fate;
        }
        self.release(key, take);
    }

    /// Forgets a datagram that is complete.
    pub fn forget_complete(&mut self, key: Key) {
        if self.find(key).is_some_and(|datagram| datagram.held == 0 && datagram.is_complete()) {
            self.remove(key);
        }
    }

    fn release(&mut self, key: Key, mut take: impl FnMut(F)) {
        let class = usize::from(self.class(key));
        let Some(datagram) = self.find(key) else { return };
        let held = core::mem::take(&mut datagram.held);
        if held == 0 {
            return;
        }
        if let Some(usage) = self.usage.get_mut(class) {
            usage.1 = usage.1.saturating_sub(held);
        }
        for _ in 0..self.held.len() {
            match self.held.pop_front() {
                Some((wanted, frame)) if wanted == key => take(frame),
                Some(other) => self.held.push_back(other),
                None => break,
            }
        }
    }

    /// Ends a datagram; what it held is lost.
    fn remove(&mut self, key: Key) {
        let mut lost = 0;
        self.release(key, |_| lost += 1);
        if let Some(count) = self.lost.get_mut(key.input()) {
            *count += lost;
            self.has_lost |= lost > 0;
        }
        let Some(index) = self.index.remove(&key) else { return };
        let Some(datagram) = self.datagrams.get_mut(usize::from(index)).and_then(Option::take) else {
            return;
        };
        self.free.push(index);
        if let Some(usage) = self.usage.get_mut(usize::from(datagram.class)) {
            usage.0 = usage.0.saturating_sub(1);
        }
    }

    /// Ends the datagrams that came in by a port, or that leave by it.
    pub fn forget(&mut self, port: usize) {
        for place in 0..DATAGRAMS {
            let Some(datagram) = self.datagrams.get(place).and_then(Option::as_ref) else { continue };
            let leaves = matches!(datagram.fate, Fate::Forwarded(way) if way.hop.port == port);
            let key = datagram.key;
            if leaves || key.input() == port {
                self.remove(key);
            }
        }
    }

    /// An input port, and how many of its held fragments are gone since they were last taken; nothing when all are
    /// told.
    pub fn take_lost(&mut self) -> Option<(usize, u32)> {
        if !self.has_lost {
            return None;
        }
        let lost = self.lost.iter_mut().enumerate().find(|(_, count)| **count > 0);
        let lost = lost.map(|(input, count)| (input, core::mem::take(count)));
        self.has_lost = lost.is_some();
        lost
    }

    /// Looks at up to `budget` datagrams and ends the expired.
    pub fn upkeep(&mut self, now: Instant, budget: usize) {
        if self.index.is_empty() {
            return;
        }
        for _ in 0..budget {
            self.upkeep = (self.upkeep + 1) % DATAGRAMS;
            let datagram = self.datagrams.get(self.upkeep).and_then(Option::as_ref);
            if let Some(key) =
                datagram.filter(|datagram| datagram.expires <= now).map(|datagram| datagram.key)
            {
                self.remove(key);
            }
        }
    }

    /// When [`upkeep`](Self::upkeep) is wanted next.
    pub fn next_upkeep(&self, now: Instant) -> Option<Instant> {
        (!self.index.is_empty()).then_some(now + Duration::from_secs(1))
    }
}

/// One piece of a packet that is too large for its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the packet's IP payload, in octets.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Cuts an IP payload of `length` octets so that each piece, with `header` octets in front, fits `mtu`
/// (RFC 791 3.2); in order. None if not even 8 octets fit.
pub fn pieces(header: usize, length: usize, mtu: usize) -> Option<impl Iterator<Item = Piece>> {
    let room = mtu.checked_sub(header)? & !7;
    (room > 0)
        .then(|| (0..length).step_by(room).map(move |start| Piece { start, end: length.min(start + room) }))
}

/// Makes the IPv4 header, which is all of `head`, that of a piece.
///
/// `offset` and `more` are those of the packet that is cut; `length` is that of its IP payload.
pub fn set_piece(head: &mut [u8], piece: Piece, offset: u16, more: bool, length: usize) {
    if head.len() < 20 || head.len() < usize::from(head[0] & 0x0f) * 4 {
        return;
    }
    let mut header = Ipv4Packet::new_unchecked(head);
    let header_len = usize::from(header.header_len());
    header.set_total_len((header_len + piece.end - piece.start) as u16);
    header.set_frag_offset(offset.saturating_add(piece.start as u16));
    header.set_more_frags(more || piece.end < length);
    header.fill_checksum();
}

/// Gives the IPv4 header at the beginning of `head` another identification.
pub fn set_identification(head: &mut [u8], identification: u16) {
    if head.len() >= 20 && head.len() >= usize::from(head[0] & 0x0f) * 4 {
        let mut header = Ipv4Packet::new_unchecked(head);
        header.set_ident(identification);
        header.fill_checksum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { addresses: 1, rest: 2 };
    const HELD: usize = 256;
    const NOW: Instant = Instant::from_millis_const(5);

    fn part(offset: u16, length: u16, more: bool) -> Fragment {
        Fragment { offset, length, more }
    }

    fn key(source: u64, datagram: u64) -> Key {
        Key { addresses: source << 32, rest: datagram }
    }

    #[test]
    fn rfc_5722_overlaps_end_the_datagram_and_duplicates_do_not() {
        let mut fragments = Fragments::<()>::new(HELD, 1);
        assert!(fragments.arrive(KEY, part(0, 16, true), NOW).is_ok());
        assert_eq!(fragments.arrive(KEY, part(0, 16, true), NOW).err(), Some(Refused::Duplicate));
        assert_eq!(fragments.arrive(KEY, part(8, 16, true), NOW).err(), Some(Refused::Overlap));
        assert_eq!(fragments.arrive(KEY, part(16, 16, true), NOW).err(), Some(Refused::Ended));
    }

    #[test]
    fn nothing_lies_behind_the_last_fragment_and_there_is_one_last() {
        for late in [part(40, 8, true), part(32, 16, false), part(16, 8, false)] {
            let mut fragments = Fragments::<()>::new(HELD, 1);
            assert!(fragments.arrive(KEY, part(24, 8, false), NOW).is_ok());
            assert_eq!(fragments.arrive(KEY, late, NOW).err(), Some(Refused::Overlap), "{late:?}");
        }
    }

    #[test]
    fn req_14_any_order_completes_and_is_forgotten() {
        let parts = [part(0, 16, true), part(16, 16, true), part(32, 16, true), part(48, 3, false)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let mut fragments = Fragments::<()>::new(HELD, 1);
            for (count, index) in order.into_iter().enumerate() {
                assert!(fragments.arrive(KEY, parts[index], NOW).is_ok());
                fragments.forget_complete(KEY);
                assert_eq!(fragments.index.is_empty(), count == 3);
            }
        }
    }

    #[test]
    fn req_14_a_flood_is_bounded_per_source_and_in_total_and_locks_nobody_out() {
        let mut fragments = Fragments::new(HELD, 7);
        for datagram in 0..20_000 {
            let flood = key(10, datagram);
            if fragments.arrive(flood, part(8, 8, true), NOW).is_ok() {
                let _ = fragments.hold(flood, ());
            }
            assert!(fragments.held() <= QUOTA);
        }
        for source in 100..20_000 {
            let spread = key(source, 0);
            if fragments.arrive(spread, part(8, 8, true), NOW).is_ok() {
                let _ = fragments.hold(spread, ());
            }
            assert!(fragments.held() <= HELD);
        }
        assert_eq!(fragments.datagrams.iter().flatten().count(), fragments.index.len());
        // Another source's datagram still gets through, also back to front.
        let (other, mut released) = ((11..20).map(|source| key(source, 1)), 0);
        for other in other {
            assert!(fragments.arrive(other, part(8, 8, false), NOW).is_ok());
            assert_eq!(fragments.hold(other, ()), Ok(()));
            assert!(matches!(fragments.arrive(other, part(0, 8, true), NOW), Ok(Fate::Unknown)));
            fragments.decide(other, Fate::Ended, |()| released += 1);
        }
        assert_eq!(released, 9);
    }

    #[test]
    fn what_never_completes_is_gone_after_its_time() {
        let mut fragments = Fragments::new(HELD, 7);
        for datagram in 0..40 {
            assert!(fragments.arrive(key(1, datagram), part(8, 8, true), NOW).is_ok());
            assert!(fragments.hold(key(1, datagram), ()).is_ok());
        }
        fragments.upkeep(NOW + TIMEOUT - Duration::from_millis(1), DATAGRAMS);
        assert_eq!((fragments.take_lost(), fragments.held()), (None, 40));
        fragments.upkeep(NOW + TIMEOUT, DATAGRAMS);
        assert_eq!((fragments.take_lost(), fragments.held()), (Some((0, 40)), 0));
        assert_eq!(fragments.next_upkeep(NOW), None);
        assert_eq!(fragments.take_lost(), None);
        assert!(fragments.usage.iter().all(|&usage| usage == (0, 0)));
    }

    #[test]
    fn req_13_pieces_are_in_order_aligned_and_fit() {
        for (length, mtu) in [(1461, 1400), (8000, 1500), (100, 68), (1380, 1400), (0, 1500)] {
            let mut next = 0;
            for piece in pieces(20, length, mtu).unwrap() {
                assert_eq!(piece.start, next);
                assert!(20 + piece.end - piece.start <= mtu);
                assert!(piece.end == length || piece.end % 8 == 0);
                next = piece.end;
            }
            assert_eq!(next, length);
        }
        assert!(pieces(60, 100, 67).is_none());
    }
}
