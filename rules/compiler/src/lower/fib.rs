//! `fib`: what the routing table says of an address. The table is that of `weir.toml`, and known here.

use rules::Hook;
use rules::table::{Field, Key, Kind};

use super::graph::reached_only_by;
use super::known::Known;
use super::ranges::{Ranges, Shared, complement, intersection, normalise};
use super::{Context, Lowering, Premises};
use crate::program::{Lookup, Match, Step, Test};
use crate::syntax::keys::Datatype;
use crate::syntax::tree::{Fib, Operator, Value, ValueWhat, Way};

/// Types of addresses, as `names::FIB_TYPES` has them.
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
const BROADCAST: u32 = 3;
const MULTICAST: u32 = 5;

impl Lowering<'_> {
    pub(super) fn fib(&mut self, fib: &Fib, context: &Context, premises: &mut Premises) -> Option<()> {
        let negated = match fib.operator {
            Operator::Implicit | Operator::Equal => false,
            Operator::NotEqual => true,
            _ => return self.refuse(fib.value.span.clone(), "what fib finds has no order"),
        };
        if context.family == crate::syntax::tree::Family::Ip6 {
            let message = "fib in a table of family ip6 is not in this version's subset";
            return self.refuse(fib.key_span.clone(), message);
        }
        if let Some(input) = &fib.of_input {
            let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward];
            let allowed = hooks.map(|hook| [(Kind::Filter, hook), (Kind::Nat, hook)]).concat();
            if !reached_only_by(context, &allowed) {
                let message = "fib by iif has its place at prerouting, input and forward";
                return self.refuse(input.clone(), message);
            }
        }
        if fib.wanted == Way::Type {
            return self.address_type(fib, negated, context, premises);
        }
        if fib.of_input.is_some() {
            return self.way_back(fib, negated, premises);
        }
        let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward];
        let allowed = hooks.map(|hook| [(Kind::Filter, hook), (Kind::Nat, hook)]).concat();
        if !reached_only_by(context, &allowed) {
            let message = "the way that fib finds has its place at prerouting, input and forward";
            return self.refuse(fib.key_span.clone(), message);
        }
        self.way_to(fib, negated, context, premises)
    }

    /// `fib saddr|daddr [. iif] type ...`
    fn address_type(
        &mut self,
        fib: &Fib,
        negated: bool,
        context: &Context,
        premises: &mut Premises,
    ) -> Option<()> {
        let wanted = self.ranges(fib.value.resolved(), Datatype::FibType)?;
        let holds = |kind: u32| wanted.iter().any(|&(first, last)| (first..=last).contains(&kind));
        let field = if fib.is_source { Field::Source } else { Field::Destination };
        let span = fib.key_span.start..fib.value.span.end;
        if fib.of_input.is_none() {
            let ranges: Shared = self.of_types(holds, self.own_addresses()).into();
            return self.among(Known { field, ranges, negated, max: u32::MAX }, span, context, premises);
        }
        // What is local is so on one interface, and unicast on the others.
        let mut rows = Vec::new();
        for port in 0..=u8::try_from(self.plan.clients.len()).ok()? {
            let of_port = self.of_types(holds, self.own_address(port));
            rows.extend(of_port.into_iter().flat_map(|range| [(port.into(), port.into()), range]));
        }
        let mut key = Key { fields: [Field::InputPort; rules::table::KEY_MAX], width: 2 };
        key.fields[1] = field;
        premises.push(Step::Lookup(Lookup { key, rows: rows.into(), is_sorted: false, negated }));
        Some(())
    }

    /// All addresses of the types, when these are the local ones.
    fn of_types(&self, holds: impl Fn(u32) -> bool, local: Ranges) -> Ranges {
        // Loopback is local everywhere; own addresses come before broadcasts, as the kernel has it.
        let mut local = local;
        local.push((0x7f00_0000, 0x7fff_ffff));
        let local = normalise(local).0;
        let multicast = vec![(0xe000_0000, 0xefff_ffff)];
        let mut broadcast = vec![(0, 0x00ff_ffff), (u32::MAX, u32::MAX)];
        let subnets = self.plan.clients.iter().map(|client| client.on_link());
        let subnets = subnets.chain([self.plan.uplink.address]);
        broadcast.extend(
            subnets.filter_map(|subnet| subnet.broadcast()).map(|end| (end.to_bits(), end.to_bits())),
        );
        let broadcast = normalise(broadcast).0;
        let special = normalise([&local[..], &multicast, &broadcast].concat()).0;
        let unicast = complement(&special, u32::MAX);
        let of_kind = [(UNICAST, unicast), (LOCAL, local), (BROADCAST, broadcast), (MULTICAST, multicast)];
        let chosen = of_kind.into_iter().filter(|(kind, _)| holds(*kind)).flat_map(|(_, ranges)| ranges);
        normalise(chosen.collect()).0
    }

    fn own_addresses(&self) -> Ranges {
        let own = self.plan.external().chain(self.plan.clients.iter().map(|client| client.address));
        normalise(own.map(|own| (own.to_bits(), own.to_bits())).collect()).0
    }

    fn own_address(&self, port: u8) -> Ranges {
        let own: Vec<_> = match port.checked_sub(1).and_then(|at| self.plan.clients.get(usize::from(at))) {
            Some(client) => vec![client.address],
            None => self.plan.external().collect(),
        };
        normalise(own.into_iter().map(|own| (own.to_bits(), own.to_bits())).collect()).0
    }

    /// `fib saddr|daddr oif|oifname ...`: the interface that routes choose for an address; none for own addresses,
    /// broadcasts and multicasts.
    fn way_to(&mut self, fib: &Fib, negated: bool, context: &Context, premises: &mut Premises) -> Option<()> {
        let behind = self.ways();
        let value = fib.value.resolved();
        let is_asked = matches!(self.source.slice(&value.span), "exists" | "missing" | "0");
        let span = fib.key_span.start..fib.value.span.end;
        let (ranges, negated) = if is_asked && fib.wanted == Way::Interface {
            (normalise(behind.concat()).0, self.existence(value)? == negated)
        } else {
            let datatype = match fib.wanted {
                Way::Name => Datatype::Interface,
                Way::Interface | Way::Type => Datatype::InterfaceIndex,
            };
            let wanted = self.ranges(&fib.value, datatype)?;
            let is_wanted = |port: u32| wanted.iter().any(|&(first, last)| (first..=last).contains(&port));
            let of_wanted = (0u32..).zip(&behind).filter(|(port, _)| is_wanted(*port));
            (normalise(of_wanted.flat_map(|(_, ranges)| ranges.clone()).collect()).0, negated)
        };
        let field = if fib.is_source { Field::Source } else { Field::Destination };
        self.among(Known { field, ranges: ranges.into(), negated, max: u32::MAX }, span, context, premises)
    }

    /// The hosts that routes lead to, by port.
    fn ways(&self) -> Vec<Ranges> {
        let others = self.of_types(|kind| kind != UNICAST, self.own_addresses());
        let world = crate::prove::World::new(self.plan);
        world.behind.iter().map(|behind| intersection(behind, &complement(&others, u32::MAX))).collect()
    }

    /// `fib saddr . iif oif exists|missing`: that a source is behind its port was seen ahead of the rules.
    fn way_back(&mut self, fib: &Fib, negated: bool, premises: &mut Premises) -> Option<()> {
        if !fib.is_source {
            let message = "of the ways by iif that fib finds, \"fib saddr . iif oif\" alone is in this version's subset";
            return self.refuse(fib.key_span.clone(), message);
        }
        if fib.wanted == Way::Name {
            let message = "oifname is a name, which neither exists nor is missing: write oif";
            return self.refuse(fib.key_span.clone(), message);
        }
        let exists = self.existence(fib.value.resolved())? != negated;
        let span = fib.key_span.start..fib.value.span.end;
        // Without a gateway nothing leads back to sources that are not on the uplink's link.
        let strangers = (self.plan.uplink.gateway.is_none()).then(|| {
            let subnet = self.plan.uplink.address;
            (u32::from(subnet.network()), u32::from(subnet.last()))
        });
        match (exists, strangers) {
            // On Linux there may be packets for which it is not so.
            (true, None) => premises.leaves_others = true,
            (false, None) => {
                let message =
                    "this is never true: a packet whose source is not behind its port is dropped before";
                self.warning(span, message.to_owned());
                let test = Test::In(Shared::from([]));
                premises.push(Step::Match(Match { field: Field::Source, test, negated: false }));
            }
            (exists, Some((first, last))) => {
                let mut key = Key { fields: [Field::InputPort; rules::table::KEY_MAX], width: 2 };
                key.fields[1] = Field::Source;
                let clients = u32::try_from(self.plan.clients.len()).ok()?;
                let rows = [(0, 0), (first, last), (1, clients.max(1)), (0, u32::MAX)];
                let lookup = Lookup { key, rows: Shared::from(rows), is_sorted: false, negated: !exists };
                premises.push(Step::Lookup(lookup));
            }
        }
        Some(())
    }

    /// Whether a way is asked to be there.
    fn existence(&mut self, value: &Value) -> Option<bool> {
        match (&value.what, self.source.slice(&value.span)) {
            (ValueWhat::Word, "exists") => Some(true),
            (ValueWhat::Word, "missing") | (ValueWhat::Number, "0") => Some(false),
            _ => self.refuse(value.span.clone(), "expected \"exists\" or \"missing\""),
        }
    }
}
