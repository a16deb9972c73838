//! What the loop around the path asks of it: when to sleep, and how things stand.

use rules::Met;

use super::*;

/// Ends of chains that are kept for whoever asks: several for each hook that a packet passes.
pub const MET_MAX: usize = 32;

/// Figures of the whole appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Sessions in the table.
    pub sessions: u32,
    /// Mappings that hold an external port.
    pub mappings: u32,
    /// Sessions that were not over and had to go for others since boot, as there was no room.
    pub evicted: u64,
    /// Neighbours known or asked for.
    pub neighbors: usize,
}

impl<L: Link> Datapath<L> {
    /// Whether every link waits for an interrupt, so that the processor may halt.
    pub fn sleep(&mut self) -> bool {
        // All are asked, also behind the first that has work: `wake` takes it back from all.
        let (mut is_idle, mut has_changed) = (true, false);
        for port in &mut self.ports {
            is_idle &= port.link.sleep();
            has_changed |= port.link.take_change();
        }
        if has_changed {
            self.look_at_links();
        }
        is_idle && !has_changed
    }

    /// Takes [`sleep`](Self::sleep) back.
    pub fn wake(&mut self) {
        self.ports.iter_mut().for_each(|port| port.link.wake());
    }

    /// When there will be something to do without a frame coming in.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        // A device that does not start tells nobody when it could be tried again.
        let waits = self.ports.iter().any(|port| port.link.wants_tick());
        let tick = self.ticked.filter(|_| waits).map(|last| last + TICK);
        let fragments = self.fragments.next_upkeep(now);
        let (neighbors, syns) = (self.neighbors.next_upkeep(), self.syns.next_due());
        let first = [neighbors, fragments, syns, tick].into_iter().fold(self.nat.next_expiry(), earlier);
        first.map(|due| due.max(self.upkeep_due))
    }

    /// The ports, the uplink first.
    pub fn ports(&self) -> &[Port<L>] {
        &self.ports
    }

    /// The ports' links, for tests that play the other end.
    pub fn link_mut(&mut self, port: usize) -> Option<&mut L> {
        self.ports.get_mut(port).map(|port| &mut port.link)
    }

    /// The sessions and mappings in force.
    pub fn nat(&self) -> &Nat {
        &self.nat
    }

    /// What the tables hold.
    pub fn occupancy(&self) -> Occupancy {
        let counts = self.nat.counts();
        Occupancy {
            sessions: counts.sessions,
            mappings: counts.mappings,
            evicted: self.evicted,
            neighbors: self.neighbors.len(),
        }
    }

    /// The rules and chain policies that ended chains since this was last asked, the first of them first: at
    /// most [`MET_MAX`].
    pub fn take_met(&mut self) -> heapless::Vec<Met, MET_MAX> {
        core::mem::take(&mut self.effects.met)
    }

    /// From now on all that packets meet is kept until somebody takes it, at most `most` of it.
    pub fn watch(&mut self, most: usize) {
        self.effects.watched = Some(alloc::vec::Vec::with_capacity(most));
    }

    /// What packets have met since this was last asked; nothing without [`Datapath::watch`].
    pub fn take_watched(&mut self) -> alloc::vec::Vec<Met> {
        let Some(watched) = &mut self.effects.watched else { return alloc::vec::Vec::new() };
        let met = watched.clone();
        watched.clear();
        met
    }

    /// The policy's counters with the places of their rules.
    pub fn rule_counters(&self) -> impl Iterator<Item = (rules::Location, RuleCounter)> + '_ {
        self.policy.counters().zip(self.effects.counters.as_slice().iter().copied())
    }

    /// The rules and chain policies that ended packets, with how many.
    pub fn refusals(&self) -> impl Iterator<Item = (rules::Location, RuleCounter)> + '_ {
        let all = self.policy.locations().zip(self.refused.as_slice().iter().copied());
        all.filter(|(_, counter)| counter.packets > 0)
    }
}

/// The earlier of two times.
#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}
