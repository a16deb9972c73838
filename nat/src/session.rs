//! Sessions, one cache line each, in a slab that is as large as it will ever be.

mod slab;

pub(crate) use slab::Slab;

use core::net::Ipv4Addr;

use crate::endpoint::{Direction, Ends, Tuple, protocol};
use crate::tcp::{History, LastSyn};
use crate::translate::{Changes, Translation};

/// No session, no mapping, no link.
pub(crate) const NONE: u32 = u32::MAX;

/// A session's place in the table; valid until the session ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub(crate) u32);

impl SessionId {
    /// The place as a number below the configured number of sessions.
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// The session is in the table.
pub(crate) const LIVE: u8 = 1;
/// A packet travelled in the reply direction.
pub(crate) const REPLIED: u8 = 2;
/// The destination was translated.
pub(crate) const DNAT: u8 = 4;
/// The source was translated.
pub(crate) const SNAT: u8 = 8;
/// Packets of a direction refresh it, original and reply.
const REFRESHED: [u8; 2] = [16, 32];
/// It holds the mapping that its opener talks to, besides its own.
pub(crate) const HOLDS: u8 = 64;
/// The mapping that it began lives with it.
pub(crate) const HOSTS: u8 = 128;

/// Which idle time a session has: a place among [`Lifetimes`](crate::config::Lifetimes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Class {
    Udp,
    UdpShort,
    Icmp,
    Other,
    TcpTransitory,
    TcpEstablished,
}

/// A number below 2^24, in three octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count([u8; 3]);

impl Count {
    pub(crate) const NOTHING: Self = Self([0; 3]);

    pub(crate) const fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }

    pub(crate) const fn set(&mut self, number: u32) {
        let [a, b, c, _] = number.to_le_bytes();
        self.0 = [a, b, c];
    }
}

/// A session: two tuples, and what was decided when it was bound. A mapping lives in the place of
/// the session that began it, see `mapping`.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Session {
    /// The endpoints of packets of each direction, original and reply, as they arrive.
    pub(crate) addresses: [u64; 2],
    pub(crate) ports: [u32; 2],
    pub(crate) residue: [u32; 2],
    pub(crate) protocol: u8,
    pub(crate) flags: u8,
    pub(crate) history: History,
    pub(crate) class: Class,
    /// Whose it is.
    pub(crate) client: u8,
    /// Of its mapping's sessions those that the internal endpoint opened or answered.
    pub(crate) own: Count,
    /// Of the original direction; the reply direction's are the reverse.
    pub(crate) changes: Changes,
    /// The first second in which it is no more; of a mapping at rest, in which its rest is over.
    pub(crate) expires: u32,
    /// Neighbours in the list of its timer, or of mappings at rest; a free place has the next free
    /// one. The first of a timer's list has the timer's slot, see `timers`.
    pub(crate) previous: u32,
    pub(crate) next: u32,
    /// The place of its mapping. Where the mapping lives: how many sessions use it, or, at rest,
    /// which kind of port.
    pub(crate) mapping: u32,
    pub(crate) last_syn: LastSyn,
}

impl Session {
    /// None. No packet has its tuples: protocol 0 has no ports.
    pub(crate) const VACANT: Self = Self {
        addresses: [0; 2],
        ports: [u32::MAX; 2],
        residue: [0; 2],
        protocol: 0,
        flags: 0,
        history: History::NEW,
        class: Class::Other,
        client: 0,
        own: Count::NOTHING,
        changes: Changes::NONE,
        expires: 0,
        previous: NONE,
        next: NONE,
        mapping: NONE,
        last_syn: LastSyn::NONE,
    };

    /// The tuple of the packet that opened it, as it arrived.
    #[inline]
    pub const fn original(&self) -> Tuple {
        self.tuple(Direction::Original)
    }

    /// The tuple of an answer, as it arrives.
    #[inline]
    pub const fn reply(&self) -> Tuple {
        self.tuple(Direction::Reply)
    }

    /// The tuple of packets of a direction, as they arrive.
    #[inline]
    pub const fn tuple(&self, direction: Direction) -> Tuple {
        Tuple::of(self.protocol, self.ends(direction))
    }

    #[inline]
    pub(crate) const fn ends(&self, direction: Direction) -> Ends {
        let at = direction as usize;
        Ends { addresses: self.addresses[at], ports: self.ports[at] }
    }

    /// How packets of a direction are translated.
    #[inline(always)]
    pub const fn translation(&self, direction: Direction) -> Translation {
        // What leaves is the inverse of what comes back.
        match direction {
            Direction::Original => Translation::of(self.ends(Direction::Reply).inverted(), self.changes),
            Direction::Reply => {
                Translation::of(self.ends(Direction::Original).inverted(), self.changes.reversed())
            }
        }
    }

    /// Makes these the endpoints of both directions.
    pub(crate) const fn set_ends(&mut self, original: Ends, reply: Ends) {
        self.addresses = [original.addresses, reply.addresses];
        self.ports = [original.ports, reply.ports];
    }

    /// Whether packets of a direction have this tuple.
    #[inline]
    pub(crate) fn has(&self, tuple: &Tuple, direction: Direction) -> bool {
        self.ends(direction) == tuple.ends() && self.protocol == tuple.protocol()
    }

    /// Whether a packet was seen in the reply direction; until then the session's packets are new.
    #[inline]
    pub const fn has_reply(&self) -> bool {
        self.flags & REPLIED != 0
    }

    /// What the policy left to do for packets of a direction; opaque here.
    #[inline]
    pub const fn residue(&self, direction: Direction) -> u32 {
        self.residue[direction as usize]
    }

    /// Whether the destination was translated.
    #[inline]
    pub const fn is_dnat(&self) -> bool {
        self.flags & DNAT != 0
    }

    /// Whether the source was translated.
    #[inline]
    pub const fn is_snat(&self) -> bool {
        self.flags & SNAT != 0
    }

    /// Whether it is a TCP session that is neither opening nor closing.
    pub const fn is_tcp_established(&self) -> bool {
        self.protocol == protocol::TCP && self.history.is_established()
    }

    /// Whether it is a TCP session that was reset, or that both sides have closed.
    pub const fn is_over(&self) -> bool {
        self.protocol == protocol::TCP && self.history.is_over()
    }

    /// Whether both sides took part: TCP beyond its handshake, else more than a question and its answer.
    pub(crate) const fn is_assured(&self) -> bool {
        self.history.was_established()
    }

    /// Whether it was answered, and is not known to go on.
    #[inline]
    pub(crate) const fn may_be_over(&self) -> bool {
        self.has_reply() && !self.history.was_established()
    }

    /// It goes on in a later second than its answer: it is more than a question. Of what is no TCP the history tells
    /// only that.
    pub(crate) const fn go_on(&mut self) {
        if self.protocol != protocol::TCP {
            self.history = History::PICKED_UP;
        }
    }

    /// Whether a full table may let go of it: it is over, or not assured.
    pub(crate) const fn is_expendable(&self) -> bool {
        match self.protocol {
            protocol::TCP => self.history.is_expendable(),
            _ => !self.is_assured(),
        }
    }

    /// Decides whose packets refresh it: the internal side's (RFC 4787 REQ-6), TCP's judge
    /// themselves.
    pub(crate) const fn set_refreshed(&mut self, by_all: bool) {
        self.flags |= match by_all || self.protocol == protocol::TCP {
            true => REFRESHED[0] | REFRESHED[1],
            false => REFRESHED[self.outbound() as usize],
        };
    }

    /// Whether a packet of a direction refreshes it.
    #[inline]
    pub(crate) const fn is_refreshed_by(&self, direction: Direction) -> bool {
        self.flags & REFRESHED[direction as usize] != 0
    }

    /// The address that its mapping's internal endpoint talks to.
    pub(crate) const fn peer(&self) -> Ipv4Addr {
        match self.is_snat() {
            true => self.reply().source().address,
            false => self.original().source().address,
        }
    }

    /// The internal host that it is charged to.
    pub(crate) const fn owner(&self) -> Ipv4Addr {
        match self.outbound() {
            Direction::Original => self.original().source().address,
            Direction::Reply => self.reply().source().address,
        }
    }

    /// Whether a mapping lives in its place.
    #[inline]
    pub(crate) const fn hosts(&self) -> bool {
        self.flags & HOSTS != 0
    }

    #[inline]
    pub(crate) const fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// The direction that leads away from the internal side: the opener's if its source is
    /// translated or nothing is, the answering side's if only the destination is translated, as
    /// the opener is outside then.
    const fn outbound(&self) -> Direction {
        match self.flags & (SNAT | DNAT) {
            DNAT => Direction::Reply,
            _ => Direction::Original,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_cache_line() {
        assert_eq!(size_of::<Session>(), 64);
        assert_eq!(align_of::<Session>(), 64);
    }

    #[test]
    fn a_count_has_24_bits() {
        let mut count = Count::NOTHING;
        for number in [0, 1, 255, 256, 65_536, (1 << 24) - 1] {
            count.set(number);
            assert_eq!(count.get(), number);
        }
    }
}
