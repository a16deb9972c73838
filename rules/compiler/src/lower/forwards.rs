//! Static forwards: which external ports packets from the uplink may take to a dnat rule.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rules::site::Prefix;
use rules::table::{Action, Field, Kind, RuleId};
use rules::translation::{DestinationChoice, SourceChoice};
use rules::{Forward, Hook, SourceNat};

use super::graph::Graph;
use super::ranges::{Ranges, complement, intersection, normalise};
use super::{Lowering, Span};
use crate::program::{Match, Rule, Step, Test};

/// The protocols with ports that mappings take.
const PROTOCOLS: [(u8, &str); 2] = [(6, "tcp"), (17, "udp")];

/// Every port that a packet may be for.
const PORTS: (u32, u32) = (1, 65_535);

/// A chain that is called in more ways than this is taken to be called in all their mixtures.
const CALLS_MAX: usize = 32;

/// The most runs of ports.
const RUNS_MAX: usize = 65_536;

/// Packets that come to a rule, as far as external ports go; more of them at worst, never fewer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach {
    protocols: [bool; 2],
    /// Which of the external addresses.
    addresses: Vec<bool>,
    ports: Ranges,
}

impl Reach {
    fn is_none(&self) -> bool {
        self.protocols == [false; 2] || !self.addresses.contains(&true) || self.ports.is_empty()
    }

    fn join(&mut self, other: &Self) {
        let pairs = self.protocols.iter_mut().zip(&other.protocols);
        pairs.chain(self.addresses.iter_mut().zip(&other.addresses)).for_each(|(one, more)| *one |= more);
        self.ports.extend(&other.ports);
        self.ports = normalise(std::mem::take(&mut self.ports)).0;
    }
}

/// What one rule answers for.
struct Answer {
    rule: RuleId,
    reach: Reach,
    /// The one host that it leads to, ports kept.
    host: Option<Ipv4Addr>,
}

impl Answer {
    /// The address of which it takes everything for its host, if it is one address.
    fn whole(&self, external: &[Ipv4Addr]) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let Reach { protocols, addresses, ports } = &self.reach;
        let mut own = addresses.iter().zip(external).filter(|(has, _)| **has).map(|(_, &address)| address);
        let (one, more) = (own.next()?, own.next());
        let is_whole = *protocols == [true; 2] && ports[..] == [PORTS] && more.is_none();
        self.host.filter(|_| is_whole).map(|host| (host, one))
    }
}

/// The ports of sets of addresses, by protocol.
type Groups = BTreeMap<(usize, Vec<bool>), Ranges>;

impl Lowering<'_> {
    /// Finds the external ports that dnat rules answer for.
    pub(super) fn forwards(&mut self, graph: &Graph) {
        if !self.plan.is_sound || self.diagnostics.errors() > 0 {
            return;
        }
        let external = self.plan.external().collect::<Vec<_>>();
        let Some(answers) = self.answers(graph, &external) else { return };
        self.one_to_one(&answers, &external);
        self.nothing_left(&answers, &external);
        self.shared_netmaps();
        let mut groups = Groups::new();
        for Answer { reach, .. } in answers {
            for protocol in (0..2).filter(|&protocol| reach.protocols[protocol]) {
                groups.entry((protocol, reach.addresses.clone())).or_default().extend(&reach.ports);
            }
        }
        if self.runs(groups, &external).is_none() {
            let message = format!("the dnat rules of this file hold more than {RUNS_MAX} runs of ports");
            self.refuse::<()>(0..0, message);
        }
    }

    /// The dnat rules that packets from the uplink come to.
    fn answers(&mut self, graph: &Graph, external: &[Ipv4Addr]) -> Option<Vec<Answer>> {
        let chains = std::mem::take(&mut self.program.chains);
        let mut calls: Vec<Vec<Reach>> = vec![Vec::new(); chains.len()];
        let bases = self.program.hooks[Hook::Prerouting as usize].iter();
        for base in bases.filter(|base| base.kind == Kind::Nat) {
            let all =
                Reach { protocols: [true; 2], addresses: vec![true; external.len()], ports: vec![PORTS] };
            calls.get_mut(usize::from(base.chain))?.push(all);
        }
        let mut answers = Vec::new();
        let mut result = Some(());
        'chains: for &chain in graph.order() {
            let callers = calls.get_mut(chain).map(std::mem::take).unwrap_or_default();
            for rule in chains.get(chain).into_iter().flatten() {
                for caller in &callers {
                    result = self.follow(rule, caller, external, &mut calls, &mut answers);
                    if result.is_none() {
                        break 'chains;
                    }
                }
            }
        }
        self.program.chains = chains;
        result.map(|()| answers)
    }

    /// Who comes through the matches of a rule goes where it leads.
    fn follow(
        &mut self,
        rule: &Rule,
        caller: &Reach,
        external: &[Ipv4Addr],
        calls: &mut [Vec<Reach>],
        answers: &mut Vec<Answer>,
    ) -> Option<()> {
        let Some(Step::Do(action)) = rule.steps.last() else { return Some(()) };
        if !matches!(action, Action::Jump(_) | Action::Goto(_) | Action::Dnat(..)) {
            return Some(());
        }
        let mut reach = caller.clone();
        for step in &rule.steps {
            if let Step::Match(wanted) = step
                && !self.through(&mut reach, wanted, external, rule.id)?
            {
                return Some(());
            }
        }
        match action {
            Action::Jump(target) | Action::Goto(target) => {
                let ways = calls.get_mut(usize::from(*target))?;
                if ways.contains(&reach) {
                    return Some(());
                }
                let has_room = ways.len() < CALLS_MAX;
                match ways.first_mut() {
                    Some(first) if !has_room => first.join(&reach),
                    _ => ways.push(reach),
                }
            }
            Action::Dnat(DestinationChoice::To { first, last, ports: None }) if first == last => {
                answers.push(Answer { rule: rule.id, reach, host: Some(*first) });
            }
            _ => answers.push(Answer { rule: rule.id, reach, host: None }),
        }
        Some(())
    }

    /// Cuts off what a match lets not through; false when nothing is left.
    fn through(
        &mut self,
        reach: &mut Reach,
        wanted: &Match,
        external: &[Ipv4Addr],
        rule: RuleId,
    ) -> Option<bool> {
        let lets = |value: u32| wanted.holds(value);
        match wanted.field {
            Field::InputPort => return Some(lets(0)),
            Field::Protocol => {
                for (has, (number, _)) in reach.protocols.iter_mut().zip(PROTOCOLS) {
                    *has &= lets(number.into());
                }
            }
            Field::Destination => {
                for (has, address) in reach.addresses.iter_mut().zip(external) {
                    *has &= lets(address.to_bits());
                }
            }
            Field::DestinationPort => {
                let ranges = match &wanted.test {
                    Test::Equal(port) => vec![(*port, *port)],
                    Test::Range(first, last) => vec![(*first, *last)],
                    Test::In(ranges) => ranges.to_vec(),
                    Test::Masked { .. } => return Some(true),
                };
                let line = self.line_of(rule);
                self.spend_many(ranges.len() + reach.ports.len(), &line)?;
                let ranges = if wanted.negated { complement(&ranges, PORTS.1) } else { ranges };
                reach.ports = intersection(&reach.ports, &ranges);
            }
            _ => {}
        }
        Some(!reach.is_none())
    }

    fn line_of(&self, rule: RuleId) -> Span {
        let line = self.program.locations.get(usize::from(rule.0)).copied().unwrap_or(1);
        let range = self.source.line_range(line);
        let indent = self.source.slice(&range).bytes().take_while(u8::is_ascii_whitespace).count();
        range.start + indent..range.end
    }

    /// Writes the runs down; `None` when they are too many.
    fn runs(&mut self, groups: Groups, external: &[Ipv4Addr]) -> Option<()> {
        let mut by_address: Vec<[Ranges; 2]> = vec![Default::default(); external.len()];
        let mut count = 0usize;
        for ((protocol, addresses), ports) in groups {
            let ports = normalise(ports).0;
            for (of, _) in by_address.iter_mut().zip(&addresses).filter(|(_, has)| **has) {
                count += ports.len();
                of[protocol].extend(&ports);
            }
            // Groups may share ports; far too many are told all the same.
            if count > 16 * RUNS_MAX {
                return None;
            }
        }
        for ports in by_address.iter_mut().flatten() {
            *ports = normalise(std::mem::take(ports)).0;
        }
        for (at, (number, _)) in PROTOCOLS.into_iter().enumerate() {
            let is_same = by_address.windows(2).all(|pair| pair[0][at] == pair[1][at]);
            for (of, &address) in by_address.iter().zip(external).take(if is_same { 1 } else { usize::MAX }) {
                let address = (!is_same).then_some(address);
                for &(first, last) in &of[at] {
                    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
                    self.program.forwards.push(Forward { protocol: number, address, first, last });
                }
            }
        }
        (self.program.forwards.len() <= RUNS_MAX).then_some(())
    }

    /// A rule that takes every port of an address leaves none for source translation.
    fn nothing_left(&mut self, answers: &[Answer], external: &[Ipv4Addr]) {
        let shown = self.shown_sources();
        let (first, last) = self.plan.nat.external_ports;
        let (first, last) = (u32::from(first), u32::from(last));
        let mut told = vec![false; external.len()];
        for Answer { rule, reach, .. } in answers {
            let takes_all = reach.ports.iter().any(|&(from, to)| from <= first && last <= to);
            let taken = reach.addresses.iter().zip(external).zip(&mut told);
            let taken = taken.filter(|((has, address), told)| **has && !**told && shown.contains(address));
            let Some(((_, address), told)) = taken.into_iter().next().filter(|_| takes_all) else { continue };
            *told = true;
            let protocols = PROTOCOLS.iter().zip(reach.protocols).filter(|(_, has)| *has);
            let names = protocols.map(|((_, name), _)| *name).collect::<Vec<_>>().join(" and ");
            let message =
                format!("this dnat takes every {names} port of {address}: none is left for sources");
            let line = self.line_of(*rule);
            self.warning(line, message);
        }
    }

    /// A host to which all of an address leads, and which shows that address, has it alone: its ports stay.
    fn one_to_one(&mut self, answers: &[Answer], external: &[Ipv4Addr]) {
        let pairs: Vec<_> = answers.iter().filter_map(|answer| answer.whole(external)).collect();
        let is_from = |rule: &Rule, host: Ipv4Addr| {
            let of = Match { field: Field::Source, test: Test::Equal(host.to_bits()), negated: false };
            rule.steps.contains(&Step::Match(of))
        };
        for rule in self.program.chains.iter_mut().flatten() {
            let Some(&Step::Do(Action::Snat(SourceChoice::Always(source)))) = rule.steps.last() else {
                continue;
            };
            let SourceNat::To { first, last, ports: None, random: false } = source else { continue };
            let is_pair =
                |&(host, own): &(Ipv4Addr, Ipv4Addr)| first == own && last == own && is_from(rule, host);
            if pairs.iter().any(is_pair)
                && let Some(step) = rule.steps.last_mut()
            {
                *step = Step::Do(Action::Snat(SourceChoice::Always(SourceNat::Static(first))));
            }
        }
    }

    /// An address that one host has alone is nobody else's.
    fn shared_netmaps(&mut self) {
        let shown = self.shown_sources();
        let rules = self.program.chains.iter().flatten();
        let shared = rules.filter_map(|rule| {
            let Some(Step::Do(Action::Snat(SourceChoice::Netmap(to)))) = rule.steps.last() else {
                return None;
            };
            let block = Prefix { address: to.address, length: to.length };
            shown.iter().find(|&&address| block.contains(address)).map(|&address| (rule.id, address))
        });
        for (rule, address) in shared.collect::<Vec<_>>() {
            let line = self.line_of(rule);
            let message = format!("prefix to gives {address} to one host alone, and other rules show it too");
            self.refuse::<()>(line, message);
        }
    }

    /// The external addresses of which masquerade and snat take ports.
    fn shown_sources(&self) -> Vec<Ipv4Addr> {
        let own = self.plan.uplink.address.address;
        let steps = self.program.chains.iter().flatten().filter_map(|rule| rule.steps.last());
        let shown = steps.filter_map(|step| match step {
            Step::Do(Action::Snat(SourceChoice::Always(source))) => match *source {
                SourceNat::Masquerade { .. } => Some((own, own)),
                SourceNat::To { first, last, .. } => Some((first, last)),
                SourceNat::Static(_) => None,
            },
            _ => None,
        });
        // The ends of each are external, and so is what is between them.
        let mut shown: Vec<_> = shown
            .flat_map(|(first, last)| (first.to_bits()..=last.to_bits()).map(Ipv4Addr::from_bits))
            .collect();
        shown.sort_unstable();
        shown.dedup();
        shown
    }
}
