//! Fragments: virtual reassembly, and cutting what is larger than the next link takes.
//!
//! The first fragment of a datagram has its ports; what becomes of it becomes of the others. They
//! are forwarded as they come once it is known, and held until then, in a bounded pool. Nothing is
//! put together: only which octets have passed is remembered, so that no fragment overwrites
//! another (RFC 1858, RFC 5722).

mod cut;
mod datagram;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use hashbrown::HashMap;
use nat::{Fragment, Hit, Packet, Translation};
use smoltcp::time::{Duration, Instant};

use crate::contract;
use crate::hash::{Seeded, fold};
use crate::route::Hop;
use datagram::Datagram;

pub use cut::{Piece, pieces, set_identification, set_piece};

/// Datagrams of which some fragments have come.
pub const DATAGRAMS: usize = 512;
/// Datagrams incomplete of one source, and fragments of it that wait, unless the pool is so small that
/// a quarter of it is less: a datagram of 65 507 octets in reverse order over Ethernet has 45. Beyond that
/// the oldest datagram of the source ends: what was lost on the way stops nothing that comes later.
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
    /// Its session, if the packets like it go the same way.
    pub hit: Option<Hit>,
}

impl Way {
    /// That of a packet of a session with this number, as it is.
    pub const fn new(hop: Hop, translation: Translation, flow: u32) -> Self {
        Self { hop, translation, identification: None, flow, hit: None }
    }
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

/// When a datagram began, its class of sources and the port it comes in by: what tells which one ends for another, apart
/// from the rest so that all of them are looked at in little time.
#[derive(Clone, Copy)]
struct Age {
    expires: Instant,
    class: u8,
    input: u8,
}

/// That of no datagram.
const NOBODY: Age = Age { expires: Instant::from_micros_const(i64::MAX), class: 0, input: u8::MAX };

/// The datagrams of which fragments have come.
pub struct Fragments<F> {
    datagrams: Vec<Option<Datagram>>,
    /// By place.
    ages: Box<[Age]>,
    free: Vec<u16>,
    index: HashMap<Key, u16, Seeded>,
    /// Fragments that wait for their first one, of all datagrams, in the order in which they came.
    held: VecDeque<(Key, F)>,
    /// How many they may be: each keeps a buffer of its port.
    capacity: usize,
    /// Datagrams and fragments held of each class of sources.
    usage: Box<[(u16, u16)]>,
    /// The same of each input port: when there is no room, the one that has most makes some.
    inputs: [(u16, u16); PORTS_MAX],
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
        DATAGRAMS * (size_of::<Option<Datagram>>() + size_of::<Age>() + size_of::<u16>())
            + contract::hash_map::<Key, u16>(DATAGRAMS)
            + capacity * size_of::<(Key, F)>()
            + CLASSES * size_of::<(u16, u16)>()
    }

    /// An empty table that holds up to `capacity` fragments; `seed` keys its hashing.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            datagrams: (0..DATAGRAMS).map(|_| None).collect(),
            ages: alloc::vec![NOBODY; DATAGRAMS].into_boxed_slice(),
            free: (0..DATAGRAMS as u16).rev().collect(),
            index: HashMap::with_capacity_and_hasher(DATAGRAMS, Seeded::new(seed)),
            held: VecDeque::with_capacity(capacity),
            capacity,
            usage: alloc::vec![(0, 0); CLASSES].into_boxed_slice(),
            inputs: [(0, 0); PORTS_MAX],
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
        let is_class_full = self.usage.get(usize::from(class)).is_some_and(|usage| usage.0 >= QUOTA as u16);
        if is_class_full || self.free.is_empty() {
            let most = self.input_with_most(|usage| usage.0);
            self.evict(most, |_, age| !is_class_full || age.class == class);
        }
        let index = self.free.pop().ok_or(Refused::Quota)?;
        for usage in self.accounts(class, key) {
            usage.0 += 1;
        }
        let (runs, expires) = (heapless::Vec::new(), now + TIMEOUT);
        let datagram = Datagram { key, fate: Fate::Unknown, class, held: 0, expires, runs, end: None };
        let place = self.datagrams.get_mut(usize::from(index)).zip(self.ages.get_mut(usize::from(index)));
        if let Some((place, age)) = place {
            (*place, *age) = (Some(datagram), Age { expires, class, input: key.input() as u8 });
        }
        self.index.insert(key, index);
        Ok(())
    }

    /// What is charged for a datagram: its class of sources, and the port it comes in by.
    fn accounts(&mut self, class: u8, key: Key) -> impl Iterator<Item = &mut (u16, u16)> {
        let of_class = self.usage.get_mut(usize::from(class));
        of_class.into_iter().chain(self.inputs.get_mut(key.input()))
    }

    fn input_with_most(&self, of: impl Fn(&(u16, u16)) -> u16) -> usize {
        let most = self.inputs.iter().enumerate().max_by_key(|(_, usage)| of(usage));
        most.map_or(0, |(input, _)| input)
    }

    /// Ends the oldest datagram among those that may go, one of this input port if there is any.
    fn evict(&mut self, input: usize, may_go: impl Fn(&Option<Datagram>, &Age) -> bool) {
        let all = self.ages.iter().zip(&self.datagrams).filter(|(age, datagram)| may_go(datagram, age));
        let oldest = all.min_by_key(|(age, _)| (usize::from(age.input) != input, age.expires));
        if let Some(key) = oldest.and_then(|(_, datagram)| datagram.as_ref()).map(|datagram| datagram.key) {
            self.remove(key);
        }
    }

    /// Holds a fragment until its first one comes.
    ///
    /// # Errors
    /// [`Refused::Quota`]: its source holds too much.
    pub fn hold(&mut self, key: Key, frame: F) -> Result<(), Refused> {
        let class = self.class(key);
        let held = |it: &Self| it.usage.get(usize::from(class)).map_or(0, |usage| usize::from(usage.1));
        if held(self) >= self.quota() {
            let holds = |datagram: &Datagram| datagram.held > 0 && datagram.key != key;
            let most = self.input_with_most(|usage| usage.1);
            self.evict(most, |datagram, age| age.class == class && datagram.as_ref().is_some_and(holds));
            if held(self) >= self.quota() {
                return Err(Refused::Quota);
            }
        }
        if self.held.len() >= self.capacity {
            // What is held longest, of the port that has most, makes room: a flood ends its own.
            let most = self.input_with_most(|usage| usage.1);
            if let Some((oldest, _)) = self.held.iter().find(|(key, _)| key.input() == most) {
                self.remove(*oldest);
            }
        }
        let Some(datagram) = self.find(key) else { return Err(Refused::Quota) };
        datagram.held += 1;
        for usage in self.accounts(class, key) {
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
        let class = self.class(key);
        let Some(datagram) = self.find(key) else { return };
        let held = core::mem::take(&mut datagram.held);
        if held == 0 {
            return;
        }
        for usage in self.accounts(class, key) {
            usage.1 = usage.1.saturating_sub(held);
        }
        // Of the oldest they stand in front, and so little has to move.
        let mut at = 0;
        for _ in 0..held {
            while self.held.get(at).is_some_and(|(wanted, _)| *wanted != key) {
                at += 1;
            }
            if let Some((_, frame)) = self.held.remove(at) {
                take(frame);
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
        if let Some(age) = self.ages.get_mut(usize::from(index)) {
            *age = NOBODY;
        }
        for usage in self.accounts(datagram.class, key) {
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

#[cfg(test)]
mod tests;
