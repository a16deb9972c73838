//! Named sets.

use super::keys::Datatype;
use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{NamedSet, Span};
use crate::diagnostics::{meant, quoted};

impl Parser<'_, '_> {
    pub(super) fn set(&mut self, table: usize) -> Parsed<()> {
        let (name, span) = self.declared("set", table)?;
        let mut set = NamedSet {
            name,
            span: span.clone(),
            datatype: None,
            is_interval: false,
            merges: false,
            elements: Vec::new(),
        };
        let before = self.diagnostics.errors();
        let result = self.block(|parser| parser.set_item(&mut set));
        if set.datatype.is_none() && self.diagnostics.errors() == before {
            let _ = self.error::<()>(span, "the set has no type, such as \"type ipv4_addr\"");
        }
        if let Some(table) = self.ruleset.tables.get_mut(table) {
            table.sets.push(set);
        }
        result
    }

    /// The name of a set or map, up to its brace; those of a table share their names.
    pub fn declared(&mut self, what: &str, table: usize) -> Parsed<(String, Span)> {
        self.next();
        let (name, span) = self.name(what)?;
        self.nodes(DECLARATION, &span)?;
        let of = self.ruleset.tables.get_mut(table);
        if !of.is_some_and(|table| table.set_names.insert(name.clone())) {
            return self.error(span, format!("there is a set {} already", quoted(&name)));
        }
        match self.peek() {
            Token::Open => Ok((name, span)),
            _ => self.unexpected("\"{\""),
        }
    }

    fn set_item(&mut self, set: &mut NamedSet) -> Parsed<()> {
        let span = self.here();
        let word = self.peek_word();
        match word {
            "type" => {
                self.next();
                set.datatype = Some(self.set_type()?);
            }
            "flags" => {
                self.next();
                set.is_interval |= self.set_flags()?;
            }
            "auto-merge" => {
                self.next();
                set.merges = true;
            }
            "comment" => {
                self.next();
                self.comment(&[])?;
            }
            "elements" => {
                self.next();
                if !self.takes(Token::Assign) {
                    return self.unexpected("\"=\"");
                }
                if !matches!(self.peek(), Token::Open | Token::Variable) {
                    return self.unexpected("\"{\"");
                }
                let elements = self.right_hand_side()?;
                set.elements.push(elements);
            }
            "typeof" | "size" | "timeout" | "gc-interval" | "policy" | "counter" | "limit" | "quota" => {
                return self.unbuilt(span, word);
            }
            _ => return self.unexpected("\"type\", \"flags\", \"auto-merge\", \"elements\" or \"comment\""),
        }
        self.end_of_statement()
    }

    pub fn set_type(&mut self) -> Parsed<Datatype> {
        let span = self.here();
        let word = self.peek_word();
        if word.is_empty() {
            return self.unexpected("a type, such as \"ipv4_addr\"");
        }
        let Some(datatype) = Datatype::of_set(word) else {
            let known = ["ipv4_addr", "inet_service", "inet_proto", "ifname", "icmp_type"];
            let message = match word {
                "ipv6_addr" | "ether_addr" | "mark" | "ether_type" | "iface_index" | "icmpv6_type"
                | "pkt_type" => {
                    format!("sets of type {word} are not in this version's subset")
                }
                _ => format!("{} is no type of a set", quoted(word)),
            };
            return self.error_with(span, message, meant(word, known));
        };
        self.next();
        let dot = self.here();
        if self.peek() == Token::Dot {
            return self.error(dot, "concatenations are not in this version's subset");
        }
        Ok(datatype)
    }

    /// Whether one of them is `interval`.
    pub fn set_flags(&mut self) -> Parsed<bool> {
        let mut is_interval = false;
        loop {
            let span = self.here();
            match self.peek_word() {
                "interval" => is_interval = true,
                "constant" => {}
                word @ ("timeout" | "dynamic") => {
                    return self
                        .error(span, format!("sets with flag {word} are not in this version's subset"));
                }
                _ => return self.unexpected("\"interval\" or \"constant\""),
            }
            self.next();
            if !self.takes(Token::Comma) {
                return Ok(is_interval);
            }
        }
    }
}
