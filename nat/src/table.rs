//! The sessions in force.
//!
//! A packet is looked up (`lookup`), then decided upon elsewhere, then admitted (`admit`); or, if
//! it opens something and may, bound (`bind`) to an external endpoint (`source`), if need be in
//! place of what may go (`eviction`). In the end everything goes (`end`). Nothing changes before
//! the packet is sure to leave.

mod admit;
mod bind;
mod end;
mod eviction;
mod external;
mod forget;
mod lookup;
mod source;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use smoltcp::time::Instant;

use crate::config::{ClientQuota, Config, Lifetimes, Options, Reserved};
use crate::contacts::Contacts;
use crate::endpoint::{Direction, Endpoint, Tuple};
use crate::expendable::Expendable;
use crate::index::{ITEMS_MAX, Index};
use crate::keyed::{Chance, Key};
use crate::mapping::Mappings;
use crate::ports::Ports;
use crate::quota::Quota;
use crate::session::{Session, SessionId, Slab};
use crate::timers::Wheel;
use crate::window::Windows;
use external::Externals;
pub use lookup::Guess;
use lookup::Vain;

/// The session that a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    /// The session.
    pub session: SessionId,
    /// The way the packet travels in it.
    pub direction: Direction,
}

/// What became of an admitted packet's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// It was the first packet in the reply direction: the session is established to the policy.
    pub first_reply: bool,
}

impl Admitted {
    const NOTHING: Self = Self { first_reply: false };
}

/// The source that a session's packets get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceNat {
    /// Their own.
    None,
    /// This external address, and a port of it.
    Address(Ipv4Addr),
    /// This external address, and a port of it from the first to the last given, as far as the
    /// configured ones go. Clients have no floor among these, but of all ports.
    Range(Ipv4Addr, u16, u16),
    /// This external address, and a port of it that chance picks: from the first to the last if
    /// they are given.
    Random(Ipv4Addr, Option<(u16, u16)>),
    /// This address and the same port: the address is the source's alone (1:1).
    Static(Ipv4Addr),
}

impl SourceNat {
    /// The external address that gives a port, and the ports that a rule names.
    fn pool(self) -> Option<(Ipv4Addr, Option<RangeInclusive<u16>>)> {
        match self {
            Self::None | Self::Static(_) => None,
            Self::Address(address) | Self::Random(address, None) => Some((address, None)),
            Self::Range(address, first, last) | Self::Random(address, Some((first, last))) => {
                Some((address, Some(first..=last)))
            }
        }
    }
}

/// A session to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The opening packet's tuple, as it arrived.
    pub original: Tuple,
    /// Its destination behind us. For ICMP the port stays as it is.
    pub destination: Endpoint,
    /// Its source behind us.
    pub source: SourceNat,
    /// What the policy left to do, original and reply direction.
    pub residue: [u32; 2],
}

impl Binding {
    /// The internal host that the session is charged to, see [`Session::owner`].
    fn owner(&self) -> Ipv4Addr {
        match self.source == SourceNat::None && self.destination != self.original.destination() {
            true => self.destination.address,
            false => self.original.source().address,
        }
    }
}

/// Why no session came to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unbound {
    /// No external port of the class is free.
    PortsExhausted,
    /// No room for a session.
    TableFull,
    /// Another session has one of the two tuples.
    Conflict,
    /// The packet opens nothing.
    NotOpening,
    /// The address is not among the external ones.
    NotExternal,
}

/// Why no session of a client came to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// The client has as much as it may have.
    Quota,
    /// Everybody would have been refused.
    Unbound(Unbound),
}

impl From<Unbound> for Refusal {
    fn from(unbound: Unbound) -> Self {
        Self::Unbound(unbound)
    }
}

/// What goes away, for [`Nat::forget`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// A client, as [`Nat::bind_for`] has it.
    Client(u8),
    /// An external address.
    External(Ipv4Addr),
}

/// How much is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Sessions, those included that ended within the last second or two.
    pub sessions: u32,
    /// Mappings.
    pub mappings: u32,
}

/// Ends of sessions that may be waiting to be taken note of, besides one of each: more than one turn brings.
const ENDS: usize = 16_384;

/// The translator.
pub struct Nat {
    sessions: Slab,
    /// Of TCP sessions, by their place.
    windows: Box<[Windows]>,
    expendable: Expendable,
    session_quota: Quota,
    /// By kind of port.
    mapping_quotas: Vec<Quota>,
    index: Index,
    key: Key,
    externals: Externals,
    wheel: Wheel,
    mappings: Mappings,
    contacts: Contacts,
    ports: Ports,
    lifetimes: Lifetimes,
    inbound_refresh: bool,
    options: Options,
    /// Sessions that have ended since somebody asked; without room when nobody does.
    ended: Vec<u32>,
    /// Where a full table looks next for who has most.
    hand: u32,
    /// Sessions that were not over and had to go for others, since somebody asked.
    given_way: u32,
    /// Sessions that have no mapping.
    unmapped: u32,
    /// Whether a session ever had a tuple of packets to an external address but its mapping's.
    is_crossed: bool,
    /// What was looked up last in vain, and what was found out.
    missed: (Tuple, Vain),
}

/// As many sessions as the index can hold, at most.
fn capacity(config: &Config<'_>) -> u32 {
    config.sessions.min(ITEMS_MAX / 2)
}

/// Ends of sessions that there is room for, if anybody asks for them.
fn ends(capacity: u32, options: &Options) -> usize {
    if options.tells_ends { capacity as usize + ENDS } else { 0 }
}

impl Nat {
    /// Octets that [`Nat::with_options`] allocates; nothing later does.
    pub fn footprint(config: &Config<'_>, options: &Options) -> usize {
        let capacity = capacity(config);
        let kinds = Ports::kinds_at(config.external.len());
        let quotas = if options.clients == 0 { 0 } else { kinds };
        let known = if options.knows_contacts() { capacity } else { 0 };
        Slab::footprint(capacity)
            + capacity as usize * size_of::<Windows>()
            + Expendable::footprint(capacity)
            + quotas * size_of::<Quota>()
            + (1 + quotas) * Quota::footprint(options.clients)
            + Index::footprint(2 * capacity)
            + Wheel::FOOTPRINT
            + Mappings::footprint(kinds)
            + Contacts::footprint(known)
            + Ports::footprint(config.external.len())
            + ends(capacity, options) * size_of::<u32>()
    }

    /// Makes room for everything; this allocates, and nothing later does.
    ///
    /// `reserved` is not to be given away: what static forwards and the appliance itself use. `seed` is secret and new at every boot.
    pub fn new(config: &Config<'_>, reserved: &[Reserved], seed: [u64; 2]) -> Self {
        Self::with_options(config, reserved, seed, Options::default())
    }

    /// As [`Nat::new`], with what a site asked for.
    pub fn with_options(
        config: &Config<'_>,
        reserved: &[Reserved],
        seed: [u64; 2],
        options: Options,
    ) -> Self {
        let capacity = capacity(config);
        let key = Key::new(seed);
        let chance = Chance::new(Key::new(seed.map(|word| word ^ 0x5057_4e54_5057_4e54)));
        let mut ports = Ports::new(config.external, &config.external_ports, chance);
        reserved.iter().for_each(|run| ports.reserve(run));
        let quota = |pool, by: ClientQuota| Quota::new(pool, options.clients, by.floor, by.ceiling);
        let kinds = if options.clients == 0 { 0 } else { ports.kinds() };
        Self {
            expendable: Expendable::new(capacity),
            session_quota: quota(capacity, options.session_quota),
            mapping_quotas: (0..kinds)
                .map(|kind| quota(ports.pool_len(kind).min(capacity), options.mapping_quota))
                .collect(),
            ended: Vec::with_capacity(ends(capacity, &options)),
            sessions: Slab::new(capacity),
            windows: vec![Windows::NONE; capacity as usize].into_boxed_slice(),
            index: Index::new(2 * capacity),
            key,
            externals: config.external.iter().fold(Externals::NONE, Externals::with),
            wheel: Wheel::new(),
            mappings: Mappings::new(ports.kinds()),
            contacts: Contacts::new(if options.knows_contacts() { capacity } else { 0 }, key),
            ports,
            lifetimes: Lifetimes::new(&config.timeouts, &options.udp_short),
            inbound_refresh: config.inbound_refresh,
            options,
            hand: 0,
            given_way: 0,
            unmapped: 0,
            is_crossed: false,
            missed: (Session::VACANT.original(), Vain::STALE),
        }
    }

    /// The present is now, for all that follows; time that goes back stands still.
    ///
    /// Nothing ends by that: see [`Nat::expire`].
    pub fn advance_to(&mut self, now: Instant) {
        self.wheel.advance(now);
    }

    /// A session.
    #[inline]
    pub fn session(&self, id: SessionId) -> &Session {
        self.sessions.get(id.0)
    }

    /// All sessions, those included that ended within the last second or two.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter()
    }

    /// Seconds that a session has left, if nothing refreshes it.
    pub fn remaining(&self, id: SessionId) -> u32 {
        let expires = self.sessions.get(id.0).expires;
        match self.wheel.is_past(expires) {
            true => 0,
            false => expires.wrapping_sub(self.wheel.present()),
        }
    }

    /// Sets what the policy left to do for packets of a direction.
    pub fn set_residue(&mut self, id: SessionId, direction: Direction, residue: u32) {
        if let Some(session) = self.sessions.get_mut(id.0) {
            session.residue[direction as usize] = residue;
        }
    }

    /// How much is in use.
    pub const fn counts(&self) -> Counts {
        Counts { sessions: self.sessions.live(), mappings: self.mappings.live() }
    }
}
