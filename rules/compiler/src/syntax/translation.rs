//! `masquerade`, `snat` and `dnat`, and the maps that they look into.

use std::rc::Rc;

use super::keys::Key;
use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{BitOperator, MapItem, Mapping, Place, Span, Target, Translation, Value, ValueWhat, What};

impl Parser<'_, '_> {
    /// `masquerade [to :ports] [flags]`
    pub fn masquerade(&mut self) -> Parsed<What> {
        self.next();
        let mut ports = None;
        if self.takes_word("to") {
            if !self.takes(Token::Colon) {
                return self.unexpected("\":\" and the ports to take");
            }
            ports = Some(self.range(0)?);
        }
        let random = self.nat_flags()?;
        Ok(What::Masquerade { ports, random })
    }

    /// `redirect [to :ports] [flags]`
    pub fn redirect(&mut self) -> Parsed<What> {
        self.next();
        let mut ports = None;
        if self.takes_word("to") {
            // nft takes it with and without.
            self.takes(Token::Colon);
            ports = Some(self.range(0)?);
        }
        let random = self.nat_flags()?;
        Ok(What::Redirect { ports, random })
    }

    /// `snat|dnat [ip [addr . port]] [prefix|interval] to target [flags]`
    pub fn translation(&mut self) -> Parsed<What> {
        let (_, statement) = self.next();
        let is_snat = self.text(&statement) == "snat";
        let span = self.here();
        if self.peek_word() == "ip6" {
            return self.unbuilt(span, "ip6");
        }
        let names_family = self.takes_word("ip");
        let is_prefix = self.takes_word("prefix");
        let wants_port = names_family && !is_prefix && self.addr_port()?;
        let wants_run = !is_prefix && !wants_port && self.takes_word("interval");
        if !self.takes_word("to") {
            let statement = self.text(&statement);
            return self.unexpected(&format!("\"to\" after \"{statement}\""));
        }
        let to = self.target()?;
        let random = self.nat_flags()?;
        let translation = Translation { is_snat, names_family, is_prefix, wants_port, wants_run, to, random };
        Ok(What::Translate(Box::new(translation)))
    }

    /// `addr . port`
    fn addr_port(&mut self) -> Parsed<bool> {
        if !self.takes_word("addr") {
            return Ok(false);
        }
        if self.takes(Token::Dot) && self.takes_word("port") {
            return Ok(true);
        }
        self.unexpected("\". port\" after \"addr\"")
    }

    fn target(&mut self) -> Parsed<Target> {
        if self.takes(Token::Colon) {
            return self.range(0).map(Target::Ports);
        }
        if self.begins_key() {
            return self.map().map(Target::Map);
        }
        let to = self.range(0)?;
        let ports = if self.takes(Token::Colon) { Some(self.range(0)?) } else { None };
        Ok(Target::Value(Place { to, ports }))
    }

    /// `random,persistent` and the like; where chance was asked for.
    fn nat_flags(&mut self) -> Parsed<Option<Span>> {
        let mut random = None;
        while let word @ ("random" | "fully-random" | "persistent") = self.peek_word() {
            let (_, span) = self.next();
            if word != "persistent" {
                random = random.or(Some(span));
            }
            if !self.takes(Token::Comma) {
                return Ok(random);
            }
            if !matches!(self.peek_word(), "random" | "fully-random" | "persistent") {
                return self.unexpected("\"random\", \"fully-random\" or \"persistent\"");
            }
        }
        if self.peek() == Token::Comma {
            return self.unexpected("the end of the rule");
        }
        Ok(random)
    }

    /// `key map { ... }`
    fn map(&mut self) -> Parsed<Mapping<Place>> {
        let (key, key_span) = self.key()?;
        let more = self.more_keys()?;
        if !self.takes_word("map") {
            return self.unexpected("\"map\"");
        }
        if let Some(name) = self.map_name() {
            return Ok(Mapping {
                key,
                key_span,
                bits: Vec::new(),
                more,
                name: Some(name),
                items: Rc::default(),
            });
        }
        let items = Rc::new(self.places()?);
        Ok(Mapping { key, key_span, bits: Vec::new(), more, name: None, items })
    }

    /// `key map { key : mark, ... }`, from the word on.
    pub fn mark_map(
        &mut self,
        key: &'static Key,
        key_span: Span,
        more: Vec<(&'static Key, Span)>,
    ) -> Parsed<Mapping<Value>> {
        self.next();
        let name = self.map_name();
        let items = if name.is_some() { Rc::default() } else { Rc::new(self.marks()?) };
        Ok(Mapping { key, key_span, bits: Vec::new(), more, name, items })
    }

    /// `{ key : mark, ... }`
    pub fn marks(&mut self) -> Parsed<Vec<MapItem<Value>>> {
        self.pairs(|parser| {
            let mark = parser.primary(0)?;
            let end = mark.span.end;
            Ok((mark, end))
        })
    }

    /// `key vmap { ... }`, from the word on.
    pub fn verdict_map(
        &mut self,
        key: &'static Key,
        key_span: Span,
        bits: Vec<(BitOperator, Value)>,
        more: Vec<(&'static Key, Span)>,
    ) -> Parsed<What> {
        self.next();
        let name = self.map_name();
        let items = if name.is_some() { Rc::default() } else { Rc::new(self.verdicts()?) };
        let mapping = Mapping { key, key_span, bits, more, name, items };
        Ok(What::Verdicts(Box::new(mapping)))
    }

    /// `@name`
    fn map_name(&mut self) -> Option<Span> {
        let span = self.here();
        self.takes(Token::SetName).then_some(span)
    }

    /// `{ key : place, ... }`
    pub fn places(&mut self) -> Parsed<Vec<MapItem<Place>>> {
        self.pairs(|parser| {
            let to = parser.translated()?;
            let ports = if parser.takes(Token::Dot) { Some(parser.range(0)?) } else { None };
            let end = ports.as_ref().unwrap_or(&to).span.end;
            Ok((Place { to, ports }, end))
        })
    }

    /// `{ key : verdict, ... }`
    pub fn verdicts(&mut self) -> Parsed<Vec<MapItem<What>>> {
        self.pairs(|parser| {
            let here = parser.here();
            if !matches!(parser.peek_word(), "accept" | "drop" | "return" | "continue" | "jump" | "goto") {
                return parser.unexpected("a verdict");
            }
            let what = parser.statement()?;
            let end = what.chain().map_or(here.end, |(_, chain)| chain.end);
            Ok((what, end))
        })
    }

    /// What a map leads to: an address or a block of them; a dot begins its port.
    fn translated(&mut self) -> Parsed<Value> {
        let first = self.primary(0)?;
        if self.peek() == Token::Dot {
            return Ok(first);
        }
        self.range_from(first, 0)
    }

    /// `{ key : ..., ... }`; what reads the right side says where it ends.
    fn pairs<T>(
        &mut self,
        mut right: impl FnMut(&mut Self) -> Parsed<(T, usize)>,
    ) -> Parsed<Vec<MapItem<T>>> {
        let open = self.here();
        if !self.takes(Token::Open) {
            return self.unexpected("\"{\"");
        }
        self.braces += 1;
        let mut items = Vec::new();
        loop {
            self.skip_newlines();
            if self.peek() == Token::Close && !items.is_empty() {
                break;
            }
            let start = self.here().start;
            self.nodes(DECLARATION, &open)?;
            let key = if self.takes(Token::Star) { None } else { Some(self.joined(1)?) };
            if let Some(set) = key.as_ref().filter(|key| matches!(key.resolved().what, ValueWhat::Set(_))) {
                return self.error(set.span.clone(), "a key of a map is no set: write an element for each");
            }
            self.element_options()?;
            if !self.takes(Token::Colon) {
                return self.unexpected("\":\"");
            }
            let (to, end) = right(self)?;
            items.push(MapItem { span: start..end, key, to });
            self.skip_newlines();
            match self.peek() {
                Token::Comma => {
                    self.next();
                }
                Token::Close => break,
                _ => return self.unexpected("\",\" or \"}\""),
            }
        }
        self.next();
        self.braces -= 1;
        Ok(items)
    }
}
