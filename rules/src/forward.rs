//! Static forwards: the external ports that dnat rules answer for.
//!
//! Whoever gives out external ports must leave these alone (RFC 4787 REQ-3). A rule counts with what it says
//! about protocol, destination address and destination port; what else it matches makes no port free.

use core::net::Ipv4Addr;

use crate::policy::Policy;
use crate::table::{Action, Field, Match, Rule, Step, Test};

/// The external ports of one dnat rule, one run of them.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    rule: &'static Rule,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Forward {
    /// Whether the rule may take packets of this protocol to this address.
    #[must_use]
    pub fn takes(&self, protocol: u8, address: Ipv4Addr) -> bool {
        matches(self.rule).all(|wanted| match wanted.field {
            Field::Protocol => wanted.test.holds(protocol.into()) != wanted.negated,
            Field::Destination => wanted.test.holds(address.to_bits()) != wanted.negated,
            _ => true,
        })
    }
}

fn matches(rule: &'static Rule) -> impl Iterator<Item = &'static Match> {
    rule.steps.iter().filter_map(|step| match step {
        Step::Match(wanted) => Some(wanted),
        Step::Count(_) | Step::Do(_) => None,
    })
}

/// The runs of ports that a match of destination ports allows; none for one that only excludes.
fn runs(wanted: &'static Match) -> impl Iterator<Item = (u32, u32)> {
    let none: &[(u32, u32)] = &[];
    let (one, many) = match wanted.test {
        Test::Equal(port) => (Some((port, port)), none),
        Test::Range(first, last) => (Some((first, last)), none),
        Test::In(ranges) => (None, ranges),
        Test::Masked { .. } => (None, none),
    };
    let applies = wanted.field == Field::DestinationPort && !wanted.negated;
    one.into_iter().chain(many.iter().copied()).filter(move |_| applies)
}

impl Policy {
    /// The external ports that dnat rules answer for, rule by rule.
    pub fn forwards(&self) -> impl Iterator<Item = Forward> {
        let rules = self.chains.iter().flat_map(|chain| chain.rules);
        let translating =
            rules.filter(|rule| rule.steps.iter().any(|step| matches!(step, Step::Do(Action::Dnat(..)))));
        translating.flat_map(|rule| {
            matches(rule).flat_map(runs).filter_map(move |(first, last)| {
                let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
                Some(Forward { rule, first, last })
            })
        })
    }
}
