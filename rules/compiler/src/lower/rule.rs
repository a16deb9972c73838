//! Rules: statements to steps.

use rules::table::{Action, Effect, Field, Kind};
use rules::{Hook, Reject};

use super::graph::{Graph, reached_only_by};
use super::map::Piece;
use super::shadow::Told;
use super::{Context, Lowering, Premises, chains};
use crate::diagnostics::{meant, quoted};
use crate::names::{self, find};
use crate::program::{Match, Rule, Step, Test};
use crate::syntax::tree::{
    self, Chain, Family, Operator, RejectWith, Ruleset, Span, Statement, Target, Translation, What,
};

impl Lowering<'_> {
    /// Lowers the rules of all chains. Those of family ip6 are checked and left out.
    pub(super) fn rules(&mut self, graph: &Graph, ruleset: &Ruleset) {
        for (at, (table, of, chain)) in chains(ruleset).enumerate() {
            if self.diagnostics.is_full() {
                return;
            }
            self.table = table;
            let Some(&context) = graph.contexts.get(at) else { continue };
            let ids = (self.program.locations.len(), self.program.counters.len());
            let rules = self.chain(chain, &context, graph);
            if of.family == Family::Ip6 {
                self.program.locations.truncate(ids.0);
                self.program.counters.truncate(ids.1);
                self.program.chains.push(Vec::new());
            } else {
                self.program.chains.push(rules);
            }
        }
    }

    fn chain(&mut self, chain: &Chain, context: &Context, graph: &Graph) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(chain.rules.len());
        let mut end: Option<Span> = None;
        let mut is_told = false;
        let mut texts = Vec::new();
        for rule in &chain.rules {
            if self.diagnostics.is_full() {
                break;
            }
            if let Some(taker) = end.as_ref().filter(|_| !is_told && !rule.allows_shadowed) {
                let line = self.source.line_beside(self.source.line_of(taker.start), &rule.span);
                let message = format!("no packet comes to this rule: the one of {line} takes them all");
                self.refuse::<()>(rule.span.clone(), message);
                is_told = true;
            }
            let errors = self.diagnostics.errors();
            let Some(pieces) = self.rule(rule, context, graph) else {
                continue;
            };
            let is_sound = self.diagnostics.errors() == errors;
            let is_of_ipv6 = pieces.iter().all(|piece| piece.premises.is_never);
            self.program.rules_of_ipv6 += usize::from(is_of_ipv6 || context.family == Family::Ip6);
            for Piece { span, premises } in pieces {
                let Premises { steps, is_ipv4, is_ipv4_told, leaves_others, .. } = premises;
                let id = self.rule_id(&span);
                // In a table of family inet, a rule may leave IPv6 to others.
                let is_ipv4 = leaves_others || context.family == Family::Inet && (is_ipv4 || is_ipv4_told);
                let ends =
                    matches!(steps.last(), Some(Step::Do(action)) if !matches!(action, Action::Jump(_)));
                let lets_all = |step: &Step| {
                    matches!(
                        step,
                        Step::Count(_)
                            | Step::Do(_)
                            | Step::Act(Effect::Log(_) | Effect::Mark(_) | Effect::Segment(_))
                    )
                };
                let takes_all = ends && steps.iter().all(lets_all);
                let is_first = end.is_none();
                if takes_all && is_sound && !is_ipv4 && is_first {
                    end = Some(span.clone());
                }
                // Rules behind one that takes everything were told already.
                if is_first {
                    texts.push(Told { span, allows_shadowed: rule.allows_shadowed, is_ipv4 });
                }
                rules.push(Rule { id, steps });
            }
        }
        if self.plan.is_sound && context.family != Family::Ip6 {
            self.shadows(context, &rules, &texts);
        }
        self.told.push(texts);
        rules
    }

    /// A rule is one piece, unless it looks into a map: then each element is one.
    fn rule(&mut self, rule: &tree::Rule, context: &Context, graph: &Graph) -> Option<Vec<Piece>> {
        self.block = rule.block;
        let mut premises = Premises::default();
        let mut before = Vec::new();
        let mut ends_in_map = false;
        let mut pieces = None;
        let mut is_over = false;
        for statement in &rule.statements {
            if is_over {
                return self.refuse(statement.span.clone(), "nothing may follow a verdict in its rule");
            }
            is_over = statement.what.is_last();
            match &statement.what {
                What::Verdicts(map) => pieces = Some(self.verdicts(map, rule, context, graph, &premises)?),
                What::FibVerdicts(fib, items) => {
                    pieces = Some(self.fib_verdicts((fib, items), rule, context, graph, &premises)?);
                }
                What::Mark(mark) if mark.map.is_some() => {
                    self.hook_allows(mark.key, Operator::Implicit, &statement.span, context)?;
                    let (elements, rest) = self.marks(mark, rule, context, premises)?;
                    before.extend(elements);
                    premises = rest;
                    ends_in_map = true;
                    continue;
                }
                What::Translate(of) => {
                    self.translation_allowed(of, &statement.span, context, &premises)?;
                    match &of.to {
                        Target::Map(map) => {
                            pieces = Some(self.translations(of, map, rule, context, &premises)?);
                        }
                        Target::Value(place) => {
                            let action = self.translation(of, place, &premises)?;
                            premises.push(Step::Do(action));
                        }
                        Target::Ports(ports) => {
                            let action = self.ports_alone(of, ports, &premises)?;
                            premises.push(Step::Do(action));
                        }
                    }
                }
                What::Redirect { ports, random } => {
                    let flags = (ports.as_ref(), random.as_ref());
                    pieces = Some(self.redirect(flags, &statement.span, rule, context, &premises)?);
                }
                _ => self.statement(statement, context, graph, &mut premises)?,
            }
            ends_in_map = false;
        }
        if ends_in_map {
            return Some(before);
        }
        before.extend(pieces.unwrap_or_else(|| vec![Piece { span: rule.span.clone(), premises }]));
        Some(before)
    }

    fn statement(
        &mut self,
        statement: &Statement,
        context: &Context,
        graph: &Graph,
        premises: &mut Premises,
    ) -> Option<()> {
        let action = match &statement.what {
            What::Match(wanted) => return self.comparison(wanted, context, premises),
            What::Concatenation(wanted) => return self.concatenation(wanted, context, premises),
            What::Fib(wanted) => return self.fib(wanted, context, premises),
            What::Continue => return Some(()),
            What::Reject(with) => self.reject(with, &statement.span, context, premises)?,
            What::Masquerade { ports, random } => {
                self.nat_allowed("masquerade", &[Hook::Postrouting], &statement.span, context)?;
                self.masquerade(ports.as_ref(), random.is_some(), premises)?
            }
            what if !what.is_last() => {
                return self.stateful(what, &statement.span, context, premises);
            }
            what => self.verdict(what, context, graph)?,
        };
        premises.push(Step::Do(action));
        Some(())
    }

    /// A verdict that says no more; none for anything else.
    pub(super) fn verdict(&self, what: &What, context: &Context, graph: &Graph) -> Option<Action> {
        match what {
            What::Accept => Some(Action::Accept),
            What::Drop => Some(Action::Drop),
            What::Return => Some(Action::Return),
            What::Jump(name, _) => target(graph, context, name).map(Action::Jump),
            What::Goto(name, _) => target(graph, context, name).map(Action::Goto),
            _ => None,
        }
    }

    fn reject(
        &mut self,
        with: &RejectWith,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<Action> {
        let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output];
        if !reached_only_by(context, &hooks.map(|hook| (Kind::Filter, hook))) {
            let message = "reject has its place in filter chains, and not at postrouting";
            return self.refuse(span.clone(), message);
        }
        let reject = match with {
            RejectWith::Default => Reject::Icmp(3),
            RejectWith::TcpReset => {
                self.tcp_only(span, premises)?;
                Reject::TcpReset
            }
            RejectWith::Icmp(name) if context.family == Family::Ip6 => {
                return self.refuse(name.clone(), "ICMP of IPv4 has no place in a table of family ip6");
            }
            RejectWith::Icmp(name) if premises.is_never => {
                return self.refuse(name.clone(), "ICMP of IPv4 is no answer to IPv6; write icmpv6 or icmpx");
            }
            RejectWith::Icmpx(name) if context.family != Family::Inet => {
                return self.refuse(name.clone(), "icmpx is for tables of family inet; write icmp");
            }
            RejectWith::Icmpv6(name) if context.family == Family::Ip || premises.is_ipv4 => {
                return self.refuse(name.clone(), "ICMPv6 is no answer to IPv4; write icmp");
            }
            RejectWith::Icmpv6(name) => {
                self.reject_code(name, names::REJECT_CODES_V6)?;
                premises.is_never = true;
                Reject::Icmp(3)
            }
            RejectWith::Icmp(name) => {
                // In a table that holds both, it leaves IPv6 to others.
                premises.is_ipv4_told = true;
                Reject::Icmp(self.reject_code(name, names::REJECT_CODES)?)
            }
            RejectWith::Icmpx(name) => Reject::Icmp(self.reject_code(name, names::REJECT_CODES_X)?),
        };
        Some(Action::Reject(reject))
    }

    fn reject_code(&mut self, span: &Span, known: &'static [(&'static str, u32)]) -> Option<u8> {
        let name = self.source.slice(span);
        let numbers = known.iter().map(|&(_, number)| number);
        let number = names::decimal(name).filter(|number| numbers.clone().any(|known| known == *number));
        if let Some(code) = find(known, name).or(number) {
            return u8::try_from(code).ok();
        }
        let label = meant(name, known.iter().map(|&(name, _)| name));
        self.refuse_with(span.clone(), format!("{} is no code that reject sends", quoted(name)), label)
    }

    /// A reset is for TCP: known to be, or matched for ahead of the whole rule, as nft does.
    fn tcp_only(&mut self, span: &Span, premises: &mut Premises) -> Option<()> {
        match premises.protocols().as_deref() {
            Some([(6, 6)]) => Some(()),
            Some(_) => self.refuse(
                span.clone(),
                "reject with tcp reset is for TCP alone, and the rule takes others too",
            ),
            None if premises.is_never => Some(()),
            None => {
                let test = Test::Equal(6);
                premises.steps.insert(0, Step::Match(Match { field: Field::Protocol, test, negated: false }));
                Some(())
            }
        }
    }

    pub(super) fn nat_allowed(
        &mut self,
        what: &str,
        hooks: &[Hook],
        span: &Span,
        context: &Context,
    ) -> Option<()> {
        let allowed: Vec<_> = hooks.iter().map(|&hook| (Kind::Nat, hook)).collect();
        if reached_only_by(context, &allowed) {
            return Some(());
        }
        let hook = if hooks.contains(&Hook::Prerouting) { "prerouting" } else { "postrouting" };
        self.refuse(span.clone(), format!("{what} has its place in nat chains at {hook}"))
    }

    fn translation_allowed(
        &mut self,
        of: &Translation,
        span: &Span,
        context: &Context,
        premises: &Premises,
    ) -> Option<()> {
        let (what, hooks) = if of.is_snat {
            ("snat", [Hook::Postrouting, Hook::Input])
        } else {
            ("dnat", [Hook::Prerouting, Hook::Output])
        };
        self.nat_allowed(what, &hooks, span, context)?;
        if matches!(of.to, Target::Ports(_)) {
            return Some(());
        }
        self.names_family(of.names_family, span, context, premises)
    }

    /// A table of family inet needs to be told that an IPv4 address is one.
    fn names_family(
        &mut self,
        is_said: bool,
        span: &Span,
        context: &Context,
        premises: &Premises,
    ) -> Option<()> {
        match context.family {
            Family::Ip6 => self.refuse(span.clone(), "an IPv4 address has no place in a table of family ip6"),
            Family::Inet if premises.is_never => {
                self.refuse(span.clone(), "an IPv4 address has no place in a rule for IPv6")
            }
            Family::Inet if !is_said && !premises.is_ipv4 && !premises.is_ipv4_by_nfproto => {
                self.refuse(span.clone(), "in a table of family inet, write \"ip to\" for an IPv4 address")
            }
            _ => Some(()),
        }
    }
}

/// The chain of a jump; an unknown one was told before.
fn target(graph: &Graph, context: &Context, name: &str) -> Option<u16> {
    graph.find(context.table, name).and_then(|chain| u16::try_from(chain).ok())
}
