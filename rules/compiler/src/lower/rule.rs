//! Rules: statements to steps.

use std::net::Ipv4Addr;

use rules::table::{Action, Field, Kind};
use rules::{Hook, Reject};

use super::graph::{Graph, reached_only_by};
use super::shadow::Told;
use super::{Context, Lowering, Premises, chains};
use crate::diagnostics::{meant, quoted};
use crate::names::{self, find};
use crate::program::{Match, Rule, Step, Test};
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{self, Chain, Family, RejectWith, Ruleset, Span, Statement, Value, What};

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
                let line = self.source.line_of(taker.start);
                let message = format!("no packet comes to this rule: the one of line {line} takes them all");
                self.refuse::<()>(rule.span.clone(), message);
                is_told = true;
            }
            let id = self.rule_id(&rule.span);
            let errors = self.diagnostics.errors();
            let Some(Premises { steps, is_ipv4, is_ipv4_told, .. }) = self.rule(rule, context, graph) else {
                continue;
            };
            // In a table of family inet, a rule may leave IPv6 to others.
            let is_ipv4 = context.family == Family::Inet && (is_ipv4 || is_ipv4_told);
            let is_sound = self.diagnostics.errors() == errors;
            let ends = matches!(steps.last(), Some(Step::Do(action)) if !matches!(action, Action::Jump(_)));
            let takes_all = ends && !steps.iter().any(|step| matches!(step, Step::Match(_)));
            if takes_all && is_sound && !is_ipv4 && end.is_none() {
                end = Some(rule.span.clone());
            }
            // Rules behind one that takes everything were told already.
            if end.as_ref().is_none_or(|end| *end == rule.span) {
                texts.push(Told { span: rule.span.clone(), allows_shadowed: rule.allows_shadowed, is_ipv4 });
            }
            rules.push(Rule { id, steps });
        }
        if self.plan.is_sound && context.family != Family::Ip6 {
            self.shadows(context, &rules, &texts);
        }
        rules
    }

    fn rule(&mut self, rule: &tree::Rule, context: &Context, graph: &Graph) -> Option<Premises> {
        let mut premises = Premises::default();
        let mut is_over = false;
        for statement in &rule.statements {
            if is_over {
                return self.refuse(statement.span.clone(), "nothing may follow a verdict in its rule");
            }
            is_over = !matches!(statement.what, What::Match(_) | What::Counter);
            self.statement(statement, context, graph, &mut premises)?;
        }
        Some(premises)
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
            What::Counter => {
                if !premises.is_never {
                    let counter = self.counter_id(&statement.span);
                    premises.push(Step::Count(counter));
                }
                return Some(());
            }
            What::Continue => return Some(()),
            What::Accept => Action::Accept,
            What::Drop => Action::Drop,
            What::Return => Action::Return,
            What::Jump(name, _) => Action::Jump(target(graph, context, name)?),
            What::Goto(name, _) => Action::Goto(target(graph, context, name)?),
            What::Reject(with) => self.reject(with, &statement.span, context, premises)?,
            What::Masquerade => {
                self.nat_allowed("masquerade", Hook::Postrouting, &statement.span, context)?;
                Action::Masquerade
            }
            What::Snat { names_family, to } => {
                self.nat_allowed("snat", Hook::Postrouting, &statement.span, context)?;
                self.names_family(*names_family, &statement.span, context, premises)?;
                self.snat(to)?
            }
            What::Dnat { names_family, to, port } => {
                self.nat_allowed("dnat", Hook::Prerouting, &statement.span, context)?;
                self.names_family(*names_family, &statement.span, context, premises)?;
                self.dnat(to, port.as_ref(), premises)?
            }
        };
        premises.push(Step::Do(action));
        Some(())
    }

    fn reject(
        &mut self,
        with: &RejectWith,
        span: &Span,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<Action> {
        let hooks = [Hook::Input, Hook::Forward, Hook::Output].map(|hook| (Kind::Filter, hook));
        if !reached_only_by(context, &hooks) {
            return self
                .refuse(span.clone(), "reject has its place in filter chains at input, forward and output");
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
            RejectWith::Icmpx(name) if context.family != Family::Inet => {
                return self.refuse(name.clone(), "icmpx is for tables of family inet; write icmp");
            }
            RejectWith::Icmp(name) => Reject::Icmp(self.reject_code(name, names::REJECT_CODES)?),
            RejectWith::Icmpx(name) => Reject::Icmp(self.reject_code(name, names::REJECT_CODES_X)?),
        };
        Some(Action::Reject(reject))
    }

    fn reject_code(&mut self, span: &Span, known: &'static [(&'static str, u32)]) -> Option<u8> {
        let name = self.source.slice(span);
        if let Some(code) = find(known, name) {
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

    fn nat_allowed(&mut self, what: &str, hook: Hook, span: &Span, context: &Context) -> Option<()> {
        if reached_only_by(context, &[(Kind::Nat, hook)]) {
            return Some(());
        }
        let hook = if hook == Hook::Prerouting { "prerouting" } else { "postrouting" };
        self.refuse(span.clone(), format!("{what} has its place in nat chains at {hook}"))
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
            Family::Inet if !is_said && !premises.is_ipv4 => {
                self.refuse(span.clone(), "in a table of family inet, write \"ip to\" for an IPv4 address")
            }
            _ => Some(()),
        }
    }

    fn snat(&mut self, to: &Value) -> Option<Action> {
        let address = Ipv4Addr::from(self.single(to, Datatype::Address)?);
        if self.plan.is_sound && !self.plan.is_external(address) {
            let message = format!("{address} is neither the uplink's address nor one of its extra addresses");
            return self.refuse(to.span.clone(), message);
        }
        Some(Action::Snat(address))
    }

    fn dnat(&mut self, to: &Value, port: Option<&Value>, premises: &Premises) -> Option<Action> {
        let address = Ipv4Addr::from(self.single(to, Datatype::Address)?);
        if self.plan.is_sound && !self.plan.is_behind_a_client(address) {
            return self.refuse(to.span.clone(), format!("{address} is no host behind a client port"));
        }
        let Some(value) = port else { return Some(Action::Dnat(address, None)) };
        let number = self.single(value, Datatype::Port)?;
        if !premises.has_ports() {
            let message = "a port needs a match on tcp or udp before it, such as tcp dport 80";
            return self.refuse(value.span.clone(), message);
        }
        match u16::try_from(number).ok().filter(|&port| port != 0) {
            Some(port) => Some(Action::Dnat(address, Some(port))),
            None => self.refuse(value.span.clone(), "port 0 is no port to send to"),
        }
    }
}

/// The chain of a jump; an unknown one was told before.
fn target(graph: &Graph, context: &Context, name: &str) -> Option<u16> {
    graph.find(context.table, name).and_then(|chain| u16::try_from(chain).ok())
}
