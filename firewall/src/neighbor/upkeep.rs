//! Neighbours whose time has come: they are asked again, given up, or forgotten.
//!
//! The table knows a time before which nobody is due. A pass over the entries, a part of them in each round, finds
//! the next such time; until then upkeep costs one comparison.

use core::net::Ipv4Addr;

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::{
    Entry, HEARD, IDLE, Neighbors, POLL_AFTER, POLL_PATIENCE, REACHABLE, REQUEST_INTERVAL, REQUESTS, Waiting,
};

/// What the caller does for an entry whose time has come.
pub enum Due<F> {
    /// Request `address` on `port` of this station alone.
    Poll {
        /// The port to ask on.
        port: usize,
        /// The address to ask for.
        address: Ipv4Addr,
        /// Where it was.
        station: EthernetAddress,
    },
    /// Broadcast a request for `address` on `port`.
    Ask {
        /// The port to ask on.
        port: usize,
        /// The address to ask for.
        address: Ipv4Addr,
    },
    /// Nobody answered: this packet's sender gets ICMP 3/1.
    GiveUp(Waiting<F>),
}

/// What a look at an entry comes to.
enum Look {
    Nothing,
    /// It is to be asked for: of its station alone, or of all.
    Ask(Option<EthernetAddress>),
    /// Nobody uses it, or nobody answers.
    Over,
}

/// Later than all that will be.
pub(super) const NEVER: Instant = Instant::from_micros_const(i64::MAX);

impl Entry {
    /// Whether somebody has to be asked, now or once [`Entry::due`] has come.
    fn is_wanted(&self) -> bool {
        self.mac.is_none() || self.is_doubted || self.requests > 0 || self.used > self.trusted_until()
    }

    /// Whoever was there may be used until then without a word.
    pub(super) fn trusted_until(&self) -> Instant {
        self.confirmed + HEARD
    }

    /// When it is to be looked at.
    pub(super) fn due(&self) -> Instant {
        match (self.mac, self.requests) {
            _ if !self.is_wanted() => self.used + IDLE,
            (Some(_), 0) if self.is_doubted => self.confirmed,
            (Some(_), 0) => self.confirmed + POLL_AFTER,
            (Some(_), 1) if !self.is_doubted => self.asked + POLL_PATIENCE,
            (None, 0) => self.asked,
            _ => self.asked + REQUEST_INTERVAL,
        }
    }
}

impl<F> Neighbors<F> {
    /// What is to be done next, if something is; each entry that is looked at is taken from `budget`.
    #[inline]
    pub fn due(&mut self, now: Instant, budget: &mut usize) -> Option<Due<F>> {
        if self.pass >= self.entries.len() && now < self.next {
            return None;
        }
        self.go_on(now, budget)
    }

    /// Goes on with a pass over the entries, or begins one.
    fn go_on(&mut self, now: Instant, budget: &mut usize) -> Option<Due<F>> {
        if self.pass >= self.entries.len() {
            (self.pass, self.next) = (0, NEVER);
        }
        while self.pass < self.entries.len() {
            *budget = budget.checked_sub(1)?;
            let position = self.pass;
            match self.look(position, now) {
                Look::Nothing => self.pass += 1,
                Look::Ask(station) => {
                    self.pass += 1;
                    let key = self.entries.get(position)?.key;
                    let (port, address) = (key.port(), key.address());
                    return Some(match station {
                        Some(station) => Due::Poll { port, address, station },
                        None => Due::Ask { port, address },
                    });
                }
                Look::Over => match self.take_waiting(position) {
                    Some(packet) => return Some(Due::GiveUp(packet)),
                    // Who takes its place is looked at next.
                    None => self.remove(position),
                },
            }
        }
        self.pass = usize::MAX;
        None
    }

    /// Looks at one entry.
    fn look(&mut self, position: usize, now: Instant) -> Look {
        let Some(entry) = self.entries.get_mut(position) else { return Look::Nothing };
        if let Some(station) = entry.mac
            && !entry.is_doubted
            && now - entry.answered < REACHABLE
            && let Some(heard) =
                self.stations.heard(entry.key.port(), station).filter(|&heard| heard > entry.confirmed)
        {
            entry.confirmed = heard;
            entry.requests = 0;
        }
        let due = entry.due();
        if due > now {
            self.next = self.next.min(due);
            return Look::Nothing;
        }
        let polls = u8::from(entry.mac.is_some());
        if !entry.is_wanted() || entry.requests >= REQUESTS + polls {
            return Look::Over;
        }
        entry.asked = now;
        entry.requests += 1;
        self.next = self.next.min(entry.due());
        Look::Ask(entry.mac.filter(|_| entry.requests == 1 && !entry.is_doubted))
    }

    /// When [`due`](Self::due) may have something to say; not before.
    pub fn next_upkeep(&self) -> Option<Instant> {
        match self.pass < self.entries.len() {
            true => Some(Instant::ZERO),
            false => Some(self.next).filter(|&next| next != NEVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use netback::Head;
    use smoltcp::time::Duration;

    use super::*;

    const PORTS: usize = 2;

    fn station(port: usize, host: u8) -> EthernetAddress {
        EthernetAddress([2, 0, 0, 0, port as u8, host])
    }

    fn waiting() -> Waiting<()> {
        Waiting { head: Head::EMPTY, payload: None, input: 1, is_received: false }
    }

    /// Somebody may be due, or nobody is before the time that is told.
    fn nobody_is_missed(neighbors: &Neighbors<()>) -> bool {
        let first = neighbors.entries.iter().map(Entry::due).min();
        neighbors.pass < neighbors.entries.len() || first.is_none_or(|first| neighbors.next <= first)
    }

    #[test]
    fn nobody_is_missed_and_nobody_is_looked_at_before_somebody_is_due() {
        let mut neighbors = Neighbors::<()>::new(PORTS, 7);
        let (mut now, mut chance) = (Instant::from_secs(1), 88_172_645_463_325_252_u64);
        let (mut quiet, mut told) = (0, 0);
        for step in 0..200_000 {
            for shift in [13, -7_i32, 17] {
                chance ^= if shift > 0 { chance << shift } else { chance >> -shift };
            }
            let (port, host) = ((chance >> 8) as usize % PORTS, (chance >> 16) as u8 % 40);
            let address = Ipv4Addr::new(10, 0, port as u8, host);
            match chance % 16 {
                0..4 => drop(neighbors.lookup(port, address, now)),
                4..7 => neighbors.hear(port, station(port, host), now),
                7 => neighbors.learn(port, address, station(port, host), true, now, |_| {}),
                8 => drop(neighbors.enqueue(port, address, waiting(), now, |_| {})),
                9 if chance >> 32 & 63 == 0 => neighbors.doubt(port),
                9 if chance >> 32 & 63 == 1 => neighbors.forget(port, |_| {}),
                _ => now += Duration::from_micros(chance >> 32 & 0xffff),
            }
            assert!(nobody_is_missed(&neighbors), "step {step}");
            let (mut budget, next) = (8, neighbors.next_upkeep());
            let dues = core::iter::from_fn(|| neighbors.due(now, &mut budget)).count();
            assert!(nobody_is_missed(&neighbors), "step {step}");
            if next.is_none_or(|next| next > now) {
                assert_eq!((dues, budget), (0, 8), "step {step}");
                quiet += 1;
            }
            told += dues;
        }
        assert!(quiet > 10_000 && told > 10_000, "{quiet} {told}");
    }
}
