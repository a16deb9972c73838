//! Base chains: type, hook, priority and policy.

use rules::Hook;
use rules::table::Kind;

use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::tree::{BaseSpec, Span};
use crate::diagnostics::{meant, quoted};
use crate::names;

impl Parser<'_, '_> {
    pub(super) fn policy(&mut self) -> Parsed<(bool, Span)> {
        let (_, span) = self.next();
        let accepts = match self.peek_word() {
            "accept" => true,
            "drop" => false,
            _ => return self.unexpected("\"accept\" or \"drop\""),
        };
        self.next();
        Ok((accepts, span))
    }

    /// `type T hook H priority P`
    pub(super) fn base(&mut self) -> Parsed<BaseSpec> {
        let (_, start) = self.next();
        let here = self.here();
        let kind = match self.peek_word() {
            "filter" => Kind::Filter,
            "nat" => Kind::Nat,
            // It filters, and asks for another route behind a new mark: marks choose no routes here.
            "route" => Kind::Filter,
            _ => return self.unexpected("\"filter\", \"nat\" or \"route\""),
        };
        let is_route = self.takes_word("route");
        if !is_route {
            self.next();
        }
        if !self.takes_word("hook") {
            return self.unexpected("\"hook\"");
        }
        let hook = self.hook(kind)?;
        if is_route && hook != Hook::Output {
            return self.error(here, "a chain of type route is at output");
        }
        if !self.takes_word("priority") {
            return self.unexpected("\"priority\"");
        }
        let (priority, end) = self.priority(kind, hook)?;
        let order = self.bases;
        self.bases += 1;
        Ok(BaseSpec { kind, hook, priority, span: start.start..end, order })
    }

    fn hook(&mut self, kind: Kind) -> Parsed<Hook> {
        let span = self.here();
        let word = self.peek_word();
        let hook = match word {
            "prerouting" => Hook::Prerouting,
            "input" => Hook::Input,
            "forward" => Hook::Forward,
            "output" => Hook::Output,
            "postrouting" => Hook::Postrouting,
            "ingress" | "egress" => return self.unbuilt(span, word),
            "" => return self.unexpected("a hook"),
            _ => {
                let hooks = ["prerouting", "input", "forward", "output", "postrouting"];
                return self.error_with(span, format!("{} is no hook", quoted(word)), meant(word, hooks));
            }
        };
        match (kind, hook) {
            (Kind::Nat, Hook::Forward) => self.error(span, "a nat chain has no hook forward"),
            _ => {
                self.next();
                Ok(hook)
            }
        }
    }

    fn priority(&mut self, kind: Kind, hook: Hook) -> Parsed<(i32, usize)> {
        let start = self.here();
        let mut end = start.end;
        let named = match (self.peek_word(), hook) {
            ("", _) => None,
            ("raw", _) => Some(-300),
            ("mangle", _) => Some(-150),
            ("dstnat", Hook::Prerouting) => Some(-100),
            ("filter", _) => Some(0),
            ("security", _) => Some(50),
            ("srcnat", Hook::Postrouting) => Some(100),
            ("dstnat", _) => return self.error(start, "priority dstnat is for the hook prerouting"),
            ("srcnat", _) => return self.error(start, "priority srcnat is for the hook postrouting"),
            (word, _) => {
                let names = ["raw", "mangle", "dstnat", "filter", "security", "srcnat"];
                return self.error_with(
                    start,
                    format!("{} is no priority", quoted(word)),
                    meant(word, names),
                );
            }
        };
        if named.is_some() {
            self.next();
        }
        let sign = match self.peek() {
            Token::Minus => Some(-1),
            Token::Plus if named.is_some() => Some(1),
            _ => None,
        };
        if sign.is_some() {
            self.next();
        }
        let mut number = 0;
        if sign.is_some() || named.is_none() {
            let (token, span) = self.tokens.peek().clone();
            if token != Token::Number {
                return self.unexpected("a priority, such as \"filter\" or 0");
            }
            let value = names::decimal(self.text(&span)).filter(|&value| value <= 1_000_000);
            let Some(value) = value.and_then(|value| i32::try_from(value).ok()) else {
                return self.error(span, "a priority is a decimal number from -1000000 to 1000000");
            };
            self.next();
            number = value * sign.unwrap_or(1);
            end = span.end;
        }
        let priority = named.unwrap_or(0) + number;
        // NF_IP_PRI_CONNTRACK: there is no translation before connections are known.
        if kind == Kind::Nat && priority <= -200 {
            return self.error(start.start..end, "the priority of a nat chain is above -200");
        }
        // Whether a chain there comes ahead of it or behind depends on what was loaded before.
        if priority == -200 && matches!(hook, Hook::Prerouting | Hook::Output) {
            let message = "priority -200 is that of connection tracking itself: write -201 or -199";
            return self.error(start.start..end, message);
        }
        Ok((priority, end))
    }
}
