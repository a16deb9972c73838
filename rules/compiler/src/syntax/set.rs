//! Named sets.

use rules::table::KEY_MAX;

use super::keys::Datatype;
use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{NamedSet, SetFlags, Span};
use crate::diagnostics::{meant, quoted};
use crate::names;

/// The most elements that a set may be said to have.
const SIZE_MAX: u32 = 1 << 20;

impl Parser<'_, '_> {
    pub(super) fn set(&mut self, table: usize) -> Parsed<()> {
        let (name, span) = self.declared("set", table)?;
        let mut set = NamedSet {
            name,
            span: span.clone(),
            block: self.block,
            types: Vec::new(),
            flags: SetFlags::default(),
            merges: false,
            elements: Vec::new(),
            lacks_elements: false,
            size: None,
            timeout: None,
            counter: None,
            swept: None,
        };
        let before = self.diagnostics.errors();
        self.counts_elements = false;
        let result = self.block(|parser| parser.set_item(&mut set));
        self.counts_elements = false;
        if set.types.is_empty() && self.diagnostics.errors() == before {
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
                set.types = self.set_types()?;
            }
            "typeof" => {
                self.next();
                set.types = self.types_of()?;
            }
            "flags" => {
                self.next();
                self.set_flags(&mut set.flags)?;
            }
            "size" => {
                self.next();
                set.size = Some(self.size()?);
            }
            "timeout" => {
                self.next();
                set.timeout = Some(self.duration()?);
            }
            "gc-interval" => {
                // Elements end in time; when they are swept is nobody's business.
                self.next();
                set.swept = Some(span);
                self.duration()?;
            }
            "policy" => {
                self.next();
                if !self.takes_word("performance") && !self.takes_word("memory") {
                    return self.unexpected("\"performance\" or \"memory\"");
                }
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
                set.lacks_elements = true;
                let elements = self.right_hand_side()?;
                set.lacks_elements = false;
                set.elements.push(elements);
                return self.end_of_elements();
            }
            "counter" if set.counter.is_none() => {
                self.element_counter()?;
                set.counter = Some(span);
                self.counts_elements = true;
            }
            "counter" | "limit" | "quota" | "ct" => {
                return self.unbuilt(span, word);
            }
            _ => return self.unexpected("\"type\", \"flags\", \"auto-merge\", \"elements\" or \"comment\""),
        }
        self.end_of_statement()
    }

    /// Behind elements the set may end on the same line, as nft has it.
    pub fn end_of_elements(&mut self) -> Parsed<()> {
        if self.peek() == Token::Close { Ok(()) } else { self.end_of_statement() }
    }

    /// `a . b`, names of types.
    pub fn set_types(&mut self) -> Parsed<Vec<Datatype>> {
        let mut types = vec![self.set_type()?];
        while self.takes(Token::Dot) {
            let here = self.here();
            types.push(self.set_type()?);
            if types.len() > KEY_MAX {
                return self.error(here, format!("a concatenation joins at most {KEY_MAX} types"));
            }
        }
        Ok(types)
    }

    /// `a . b`, keys that have the types.
    pub fn types_of(&mut self) -> Parsed<Vec<Datatype>> {
        if !self.begins_key() {
            return self.unexpected("a key, such as \"ip saddr\"");
        }
        let (key, span) = self.key()?;
        let more = self.more_keys()?;
        let has_no_type = |name: &str| {
            name.starts_with("ct ")
                && (name.contains("proto-") || name.ends_with("addr") && !name.contains(" ip"))
        };
        let untyped = std::iter::once((key, &span)).chain(more.iter().map(|(key, span)| (*key, span)));
        if let Some((key, span)) = untyped.into_iter().find(|(key, _)| has_no_type(key.name)) {
            return self.error(span.clone(), format!("\"{}\" alone has no type", key.name));
        }
        Ok(std::iter::once(key.datatype).chain(more.iter().map(|(key, _)| key.datatype)).collect())
    }

    fn set_type(&mut self) -> Parsed<Datatype> {
        let span = self.here();
        let word = self.peek_word();
        if word.is_empty() {
            return self.unexpected("a type, such as \"ipv4_addr\"");
        }
        let Some(datatype) = Datatype::of_set(word) else {
            let known = ["ipv4_addr", "inet_service", "inet_proto", "ifname", "icmp_type"];
            let message = match word {
                "iface_index" | "ct_status" | "nf_proto" => {
                    format!("sets of type {word} are not in this version's subset")
                }
                _ => format!("{} is no type of a set", quoted(word)),
            };
            return self.error_with(span, message, meant(word, known));
        };
        self.next();
        Ok(datatype)
    }

    /// A second line of flags takes the place of the first, as nft has it.
    pub fn set_flags(&mut self, flags: &mut SetFlags) -> Parsed<()> {
        *flags = SetFlags::default();
        loop {
            match self.peek_word() {
                "interval" => flags.is_interval = true,
                "constant" => flags.is_constant = true,
                "timeout" => flags.has_timeout = true,
                "dynamic" => flags.is_dynamic = true,
                _ => return self.unexpected("\"interval\", \"constant\", \"timeout\" or \"dynamic\""),
            }
            self.next();
            if !self.takes(Token::Comma) {
                return Ok(());
            }
        }
    }

    /// The most elements of a set.
    pub fn size(&mut self) -> Parsed<u32> {
        let span = self.here();
        if self.peek() != Token::Number {
            return self.unexpected("a number of elements");
        }
        self.next();
        match names::decimal(self.text(&span)).filter(|size| (1..=SIZE_MAX).contains(size)) {
            Some(size) => Ok(size),
            None => self.error(span, format!("the size of a set is 1 to {SIZE_MAX}")),
        }
    }
}
