//! What the first packets of sessions meet: base chains without the rules that are for others.
//!
//! Of the first packet of a session the state is known, and where it goes and its protocol tell much of the rest. For
//! each of those cases the compiler has left out of short chains the rules that cannot hold, and of the others the
//! matches that must.

use crate::candidate::{Candidate, State};
use crate::table::Base;

/// The chains of each case.
#[derive(Debug, Clone, Copy)]
pub struct Openings {
    /// The class of each port, and behind the last that of no port. Rules tell no ports of a class apart.
    pub ports: &'static [u8],
    /// How many classes there are.
    pub classes: u8,
    /// For each base chain that has them the chains by the class of the incoming port, that of the outgoing port,
    /// and [protocol](protocol()).
    pub chains: &'static [u16],
}

/// The kinds of protocols, see [`protocol`].
pub const PROTOCOLS: usize = 3;

/// The kind of a protocol: 0 for TCP, 1 for UDP, 2 for others.
#[must_use]
pub const fn protocol(number: u8) -> usize {
    match number {
        6 => 0,
        17 => 1,
        _ => 2,
    }
}

impl Openings {
    /// Every packet meets the base chains themselves.
    pub const NONE: Self = Self { ports: &[], classes: 0, chains: &[] };

    /// The chain that a packet meets at a base chain.
    #[inline]
    pub(crate) fn chain(&self, base: &Base, candidate: &Candidate) -> u16 {
        match candidate.state {
            State::New => self.find(base, candidate).unwrap_or(base.chain),
            _ => base.chain,
        }
    }

    #[inline]
    fn find(&self, base: &Base, candidate: &Candidate) -> Option<u16> {
        let (none, ports) = self.ports.split_last()?;
        let class = |port: Option<u8>| {
            Some(usize::from(match port {
                Some(port) => *ports.get(usize::from(port))?,
                None => *none,
            }))
        };
        let ports = class(candidate.input)? * usize::from(self.classes) + class(candidate.output)?;
        let at = base.openings as usize + ports * PROTOCOLS + protocol(candidate.protocol);
        self.chains.get(at).copied()
    }
}
