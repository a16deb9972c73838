//! Who is next on a link: ARP (RFC 826, RFC 1122 2.3.2, RFC 5227), as a bounded cache.
//!
//! The table answers with a MAC or keeps the packet for a moment; what is asked and learnt is
//! decided here, who may claim an address by [`Routes::is_neighbor`](crate::route::Routes).
//! A full table lets go of an entry of the port that has most, see `crowd`: an address that is in use survives a
//! flood of claims, and a scan of one subnet costs no other port its neighbours.
//!
//! ```text
//! used, and its station not heard of for 0.3 s -> a request to the station alone
//!   no answer for 0.2 s -> requests to all, about one a second; packets still go where it was
//!     no answer to three -> forgotten; the next packet waits and asks again
//! ```
//!
//! So a neighbour that got another station without a word is found within a second. A frame from its
//! station, of whatever kind, spares the request; an answer is wanted once a minute in any case.

mod arp;
mod crowd;
mod stations;
mod upkeep;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::Ipv4Addr;
use core::ops::Range;

use hashbrown::HashMap;
use netback::Head;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::contract;
use crate::hash::Seeded;
use stations::Stations;
use upkeep::NEVER;

pub use arp::{emit, parse};
pub use upkeep::Due;

/// Neighbours that are remembered, over all ports.
pub const NEIGHBORS: usize = 1024;
/// Packets that wait for one neighbour (RFC 1122 2.3.2.2 asks for at least one).
pub const QUEUE: usize = 4;
/// Packets that wait for neighbours, over all of them.
pub const WAITING: usize = 64;
/// Requests for one address before its packets are given up, one a second (RFC 1122 2.3.2.1).
const REQUESTS: u8 = 3;
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a neighbour is used that is not heard of, before it is asked (RFC 1122 2.3.2.1, unicast poll).
const POLL_AFTER: Duration = Duration::from_millis(300);
/// How long its station has for an answer before all stations are asked.
const POLL_PATIENCE: Duration = Duration::from_millis(200);
/// How long a neighbour that is heard of is used before it is asked again.
const REACHABLE: Duration = Duration::from_secs(60);
/// Frames of a station count as a sign of it for this long.
const HEARD: Duration = Duration::from_millis(100);
/// How long a neighbour that nobody uses is remembered.
const IDLE: Duration = Duration::from_secs(300);

/// A packet that waits for its next hop's MAC.
pub struct Waiting<F> {
    /// The new header, its destination MAC still open.
    pub head: Head,
    /// The received frame, and what of it follows the header.
    pub payload: Option<(F, Range<usize>)>,
    /// The port it came from, for the ICMP error if nobody answers.
    pub input: usize,
    /// Whether the frame is the one that was received, and so can be quoted in that error. A piece of
    /// one is a copy of its data only.
    pub is_received: bool,
}

/// Why a packet could not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its neighbour's queue is full.
    Queue,
    /// The table is full of neighbours in use.
    Table,
}

/// A packet waits, as its next hop is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// A request should go out now: nobody asked before.
    pub ask: bool,
}

/// Port and address, in one word so that it hashes in one step.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(u64);

impl Key {
    fn new(port: usize, address: Ipv4Addr) -> Self {
        Self((port as u64) << 32 | u64::from(address.to_bits()))
    }

    fn port(self) -> usize {
        (self.0 >> 32) as usize
    }

    fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 as u32)
    }
}

impl core::hash::Hash for Key {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

struct Entry {
    key: Key,
    mac: Option<EthernetAddress>,
    /// When it last spoke ARP.
    answered: Instant,
    /// When it was last known to be there: it spoke ARP, or a frame came from its station.
    confirmed: Instant,
    /// When the last request was sent.
    asked: Instant,
    /// Requests since it was confirmed; of one that has a station the first goes to it alone.
    requests: u8,
    /// Its link was down: where it was says little.
    is_doubted: bool,
    /// Used to send since the last look: the second chance.
    in_use: bool,
    used: Instant,
    /// Packets in the pool that wait for it.
    waiting: usize,
}

/// The neighbours of all ports.
pub struct Neighbors<F> {
    entries: Vec<Entry>,
    index: HashMap<Key, u16, Seeded>,
    /// Where the one that was looked up last is, by port; and the last ones of all, by a few bits of their hash.
    last: [u16; LAST],
    recent: [u16; RECENT],
    /// The packets that wait, of all neighbours, in the order they came.
    waiting: heapless::Deque<(Key, Waiting<F>), WAITING>,
    /// Where eviction looks next.
    hand: usize,
    /// Entries of each port.
    of_port: Box<[u16]>,
    /// How far a pass of upkeep has come; between passes there is no entry at this position.
    pass: usize,
    /// No entry is due before, of those that a pass under way has looked at.
    next: Instant,
    stations: Stations,
}

/// Neighbours that are found without a search, and those that are without a hash.
const RECENT: usize = 64;
const LAST: usize = 64;

impl<F> Neighbors<F> {
    /// Octets that [`Neighbors::new`] allocates for so many ports.
    pub const fn footprint(ports: usize) -> usize {
        NEIGHBORS * size_of::<Entry>()
            + contract::hash_map::<Key, u16>(NEIGHBORS)
            + ports * size_of::<u16>()
            + Stations::footprint(ports)
    }

    /// An empty table for this many ports; `seed` keys its hashing.
    pub fn new(ports: usize, seed: u64) -> Self {
        Self {
            entries: Vec::with_capacity(NEIGHBORS),
            index: HashMap::with_capacity_and_hasher(NEIGHBORS, Seeded::new(seed)),
            last: [0; LAST],
            recent: [0; RECENT],
            waiting: heapless::Deque::new(),
            hand: 0,
            of_port: alloc::vec![0; ports].into_boxed_slice(),
            pass: usize::MAX,
            next: NEVER,
            stations: Stations::new(ports),
        }
    }

    /// A frame came from this station: whoever has it is there.
    #[inline]
    pub fn hear(&mut self, port: usize, station: EthernetAddress, now: Instant) {
        self.stations.hear(port, station, now);
    }

    /// The link of a port was down: all its neighbours are to be asked again, those first that are used.
    /// Until they answer, packets go where they were.
    pub fn doubt(&mut self, port: usize) {
        for entry in self.entries.iter_mut().filter(|entry| entry.key.port() == port && entry.mac.is_some()) {
            entry.is_doubted = true;
            entry.requests = 0;
            self.next = Instant::ZERO;
        }
    }

    /// Forgets the neighbours of a port. Packets that wait for them, and that came in there, are handed
    /// to `take`.
    pub fn forget(&mut self, port: usize, mut take: impl FnMut(Waiting<F>)) {
        for _ in 0..self.waiting.len() {
            match self.waiting.pop_front() {
                Some((key, packet)) if key.port() == port || packet.input == port => {
                    if let Some(entry) = self.find(key.port(), key.address()) {
                        entry.waiting = entry.waiting.saturating_sub(1);
                    }
                    take(packet);
                }
                // The pool has room: this was in it a moment ago.
                Some(other) => drop(self.waiting.push_back(other)),
                None => break,
            }
        }
        // From behind: what takes the place of a removed entry was looked at.
        for position in (0..self.entries.len()).rev() {
            if self.entries.get(position).is_some_and(|entry| entry.key.port() == port) {
                self.remove(position);
            }
        }
    }

    /// Neighbours in the table, known or being asked for.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline(always)]
    fn find(&mut self, port: usize, address: Ipv4Addr) -> Option<&mut Entry> {
        let key = Key::new(port, address);
        let position = match self.last[port % LAST] {
            last if self.entries.get(usize::from(last)).is_some_and(|entry| entry.key == key) => last,
            _ => self.search(key)?,
        };
        self.entries.get_mut(usize::from(position))
    }

    /// Where a neighbour is that is not the last one of its port; it is now.
    #[inline(never)]
    fn search(&mut self, key: Key) -> Option<u16> {
        let recent = &mut self.recent[self.index.hasher().hash_one(key) as usize % RECENT];
        if self.entries.get(usize::from(*recent)).is_none_or(|entry| entry.key != key) {
            *recent = *self.index.get(&key)?;
        }
        self.last[key.port() % LAST] = *recent;
        Some(*recent)
    }

    /// The MAC of `address` on `port`, if it is known.
    #[inline(always)]
    pub fn lookup(&mut self, port: usize, address: Ipv4Addr, now: Instant) -> Option<EthernetAddress> {
        let entry = self.find(port, address)?;
        let trusted = entry.trusted_until();
        let is_fresh_use = entry.used <= trusted && now > trusted;
        let mac = entry.mac;
        entry.in_use = mac.is_some();
        entry.used = now;
        if is_fresh_use {
            let due = trusted - HEARD + POLL_AFTER;
            self.expect(due);
        }
        mac
    }

    /// Keeps a packet until `address` is known, which [`lookup`](Self::lookup) did not find. If there is no room, the
    /// packet that waits longest on that port, which has its share of the pool, or of all goes for it to `oust`: most
    /// often it waits for nobody, and whoever is there answers soon.
    ///
    /// # Errors
    /// [`Refused`], with the packet gone.
    pub fn enqueue(
        &mut self,
        port: usize,
        address: Ipv4Addr,
        packet: Waiting<F>,
        now: Instant,
        oust: impl FnOnce(Waiting<F>),
    ) -> Result<Queued, Refused> {
        let key = Key::new(port, address);
        let fresh = self.find(port, address).is_none();
        if fresh {
            self.insert(key, now)?;
            self.expect(now + REQUEST_INTERVAL);
        }
        let entry = self.find(port, address).ok_or(Refused::Table)?;
        if fresh {
            entry.requests = 1;
            entry.asked = now;
        }
        if entry.waiting >= QUEUE {
            return Err(Refused::Queue);
        }
        if let Some(oldest) = self.make_room(port) {
            oust(oldest);
        }
        self.waiting.push_back((key, packet)).map_err(|_| Refused::Queue)?;
        if let Some(entry) = self.find(port, address) {
            entry.waiting += 1;
        }
        Ok(Queued { ask: fresh })
    }

    /// Takes the packet that waits longest out of the pool, if there is room for no other of this port.
    fn make_room(&mut self, port: usize) -> Option<Waiting<F>> {
        // No port takes more than half of the pool: a client that scans does not hold up the others.
        let of_port = self.waiting.iter().filter(|(waiting, _)| waiting.port() == port).count();
        let longest = match of_port < WAITING / 2 {
            true if self.waiting.is_full() => self.waiting.front(),
            true => None,
            false => self.waiting.iter().find(|(waiting, _)| waiting.port() == port),
        };
        let key = longest?.0;
        let position = *self.index.get(&key)?;
        self.take_waiting(position.into())
    }

    /// Takes the packet that has waited longest for the entry at `position` out of the pool.
    fn take_waiting(&mut self, position: usize) -> Option<Waiting<F>> {
        let entry = self.entries.get_mut(position).filter(|entry| entry.waiting > 0)?;
        entry.waiting -= 1;
        let (key, mut oldest) = (entry.key, None);
        // Once around, so that the others keep their order.
        for _ in 0..self.waiting.len() {
            match self.waiting.pop_front() {
                Some((wanted, packet)) if wanted == key && oldest.is_none() => oldest = Some(packet),
                // The pool has room: this was in it a moment ago.
                Some(other) => drop(self.waiting.push_back(other)),
                None => break,
            }
        }
        oldest
    }

    /// Takes the packets that wait for `key` out of the pool, in the order they came.
    fn release(&mut self, key: Key, mut take: impl FnMut(Waiting<F>)) {
        for _ in 0..self.waiting.len() {
            match self.waiting.pop_front() {
                Some((wanted, packet)) if wanted == key => take(packet),
                // The pool has room: this was in it a moment ago.
                Some(other) => drop(self.waiting.push_back(other)),
                None => break,
            }
        }
    }

    /// Notes that `address` is at `mac`; the packets that waited for it are handed to `release`.
    ///
    /// `asked` tells that the claim answers us or concerns us: only then is a new entry made, so
    /// that chatter between others fills no table. A table in use keeps what it has.
    pub fn learn(
        &mut self,
        port: usize,
        address: Ipv4Addr,
        mac: EthernetAddress,
        asked: bool,
        now: Instant,
        release: impl FnMut(Waiting<F>),
    ) {
        if self.find(port, address).is_none()
            && (!asked || self.insert(Key::new(port, address), now).is_err())
        {
            return;
        }
        let Some(entry) = self.find(port, address) else {
            return;
        };
        entry.mac = Some(mac);
        entry.answered = now;
        entry.confirmed = now;
        entry.is_doubted = false;
        entry.requests = 0;
        let (waiting, due) = (core::mem::take(&mut entry.waiting), entry.due());
        self.expect(due);
        if waiting > 0 {
            self.release(Key::new(port, address), release);
        }
    }

    /// Somebody will be due then.
    fn expect(&mut self, due: Instant) {
        self.next = self.next.min(due);
    }

    fn insert(&mut self, key: Key, now: Instant) -> Result<(), Refused> {
        if self.entries.len() == NEIGHBORS {
            self.evict()?;
        }
        let index = u16::try_from(self.entries.len()).map_err(|_| Refused::Table)?;
        self.entries.push(Entry {
            key,
            mac: None,
            answered: now,
            confirmed: now,
            is_doubted: false,
            asked: now,
            requests: 0,
            in_use: false,
            used: now,
            waiting: 0,
        });
        self.index.insert(key, index);
        if let Some(count) = self.of_port.get_mut(key.port()) {
            *count += 1;
        }
        Ok(())
    }

    fn remove(&mut self, position: usize) {
        if position >= self.entries.len() {
            return;
        }
        let entry = self.entries.swap_remove(position);
        self.index.remove(&entry.key);
        if let Some(count) = self.of_port.get_mut(entry.key.port()) {
            *count = count.saturating_sub(1);
        }
        if let (Some(moved), Ok(position)) = (self.entries.get(position), u16::try_from(position)) {
            self.index.insert(moved.key, position);
            // Perhaps a pass that is under way will not see it.
            let due = moved.due();
            self.expect(due);
        }
    }
}
