//! Named maps, and the rules that look into them.

use std::rc::Rc;

use super::keys::{Datatype, are_alike, type_names};
use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::tree::{Elements, Form, MapItem, Mapping, NamedMap, Place, SetFlags, Target, Value, What};
use crate::diagnostics::{meant, quoted};

/// What a map leads to, in the words of its rule.
trait Item: Sized {
    const NOUN: &'static str;

    /// The elements of a named map, if they are of this kind.
    fn of(elements: &Elements) -> Option<&Rc<Vec<MapItem<Self>>>>;
}

impl Item for What {
    const NOUN: &'static str = "verdicts";

    fn of(elements: &Elements) -> Option<&Rc<Vec<MapItem<Self>>>> {
        if let Elements::Verdicts(items) = elements { Some(items) } else { None }
    }
}

impl Item for Value {
    const NOUN: &'static str = "marks";

    fn of(elements: &Elements) -> Option<&Rc<Vec<MapItem<Self>>>> {
        if let Elements::Marks(items) = elements { Some(items) } else { None }
    }
}

impl Item for Place {
    const NOUN: &'static str = "addresses";

    fn of(elements: &Elements) -> Option<&Rc<Vec<MapItem<Self>>>> {
        if let Elements::Places(_, items) = elements { Some(items) } else { None }
    }
}

/// More elements of a map that no rule has looked into.
fn add<T>(items: &mut Rc<Vec<T>>, more: Vec<T>) {
    if let Some(items) = Rc::get_mut(items) {
        items.extend(more);
    }
}

impl Parser<'_, '_> {
    pub(super) fn named_map(&mut self, table: usize) -> Parsed<()> {
        let (name, span) = self.declared("map", table)?;
        let (types, elements) = (Vec::new(), Elements::Untyped);
        let mut map = NamedMap {
            name,
            span: span.clone(),
            types,
            is_interval: false,
            size: None,
            elements,
            is_used: false,
        };
        let before = self.diagnostics.errors();
        let result = self.block(|parser| parser.map_item(&mut map));
        if map.types.is_empty() && self.diagnostics.errors() == before {
            let _ = self.error::<()>(span, "the map has no type, such as \"type inet_service : verdict\"");
        }
        if let Some(table) = self.ruleset.tables.get_mut(table) {
            table.maps.push(map);
        }
        result
    }

    fn map_item(&mut self, map: &mut NamedMap) -> Parsed<()> {
        let span = self.here();
        match self.peek_word() {
            "type" => {
                self.next();
                map.types = self.set_types()?;
                if !self.takes(Token::Colon) {
                    return self.unexpected("\":\" and what the map leads to");
                }
                map.elements = self.map_type()?;
            }
            "typeof" => {
                self.next();
                map.types = self.types_of()?;
                if !self.takes(Token::Colon) {
                    return self.unexpected("\":\" and what the map leads to");
                }
                map.elements = self.map_type_of()?;
            }
            "flags" => {
                self.next();
                let mut flags = SetFlags::default();
                self.set_flags(&mut flags)?;
                if flags.is_dynamic || flags.has_timeout {
                    return self.error(span, "maps that packets change are not in this version's subset");
                }
                map.is_interval = flags.is_interval;
            }
            "size" => {
                self.next();
                map.size = Some(self.size()?);
            }
            "policy" => {
                self.next();
                if !self.takes_word("performance") && !self.takes_word("memory") {
                    return self.unexpected("\"performance\" or \"memory\"");
                }
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
                match &mut map.elements {
                    Elements::Untyped => return self.error(span, "say the type of the map first"),
                    Elements::Verdicts(items) => add(items, self.verdicts()?),
                    Elements::Places(_, items) => add(items, self.places()?),
                    Elements::Marks(items) => add(items, self.marks()?),
                }
                return self.end_of_elements();
            }
            word @ ("timeout" | "gc-interval" | "counter") => {
                return self.unbuilt(span, word);
            }
            _ => return self.unexpected("\"type\", \"flags\", \"elements\" or \"comment\""),
        }
        self.end_of_statement()
    }

    /// `verdict`, or `[interval] ipv4_addr [. inet_service]`
    fn map_type(&mut self) -> Parsed<Elements> {
        if self.takes_word("verdict") {
            return Ok(Elements::Verdicts(Rc::default()));
        }
        if self.takes_word("mark") {
            return Ok(Elements::Marks(Rc::default()));
        }
        let is_run = self.takes_word("interval");
        let span = self.here();
        let word = self.peek_word();
        if word != "ipv4_addr" {
            let label = meant(word, ["verdict", "ipv4_addr", "interval", "mark"]);
            let message = format!("{} is not what a map of this version leads to", quoted(word));
            return self.error_with(span, message, label);
        }
        self.next();
        let has_port = self.takes(Token::Dot);
        if has_port && !self.takes_word("inet_service") {
            return self.unexpected("\"inet_service\"");
        }
        Ok(Elements::Places(Form { is_run, has_port }, Rc::default()))
    }

    /// The same by keys: `verdict`, or `[interval] ip daddr [. tcp dport]`
    fn map_type_of(&mut self) -> Parsed<Elements> {
        if self.takes_word("verdict") {
            return Ok(Elements::Verdicts(Rc::default()));
        }
        let is_run = self.takes_word("interval");
        let span = self.here();
        match self.types_of()?.as_slice() {
            [Datatype::Mark] if !is_run => Ok(Elements::Marks(Rc::default())),
            [Datatype::Address] => Ok(Elements::Places(Form { is_run, has_port: false }, Rc::default())),
            [Datatype::Address, Datatype::Port] => {
                Ok(Elements::Places(Form { is_run, has_port: true }, Rc::default()))
            }
            _ => self.error(
                span,
                "a map of this version leads to verdicts, marks, addresses, or addresses and ports",
            ),
        }
    }

    /// Gives rules the elements of the maps that they name.
    pub(super) fn named_maps(&mut self) {
        let mut tables = std::mem::take(&mut self.ruleset.tables);
        for table in &mut tables {
            let rules = table.chains.iter_mut().flat_map(|chain| &mut chain.rules);
            for statement in rules.flat_map(|rule| &mut rule.statements) {
                // What is wrong is told; the elements stay away then.
                let _ = match &mut statement.what {
                    What::Verdicts(map) => self.look_into(map, &mut table.maps),
                    What::Mark(mark) => match &mut mark.map {
                        Some(map) => self.look_into(map, &mut table.maps),
                        None => Ok(()),
                    },
                    What::Translate(of) => match &mut of.to {
                        Target::Map(map) => self.look_into(map, &mut table.maps),
                        Target::Value(_) | Target::Ports(_) => Ok(()),
                    },
                    _ => Ok(()),
                };
            }
        }
        self.ruleset.tables = tables;
    }

    fn look_into<T: Item>(&mut self, map: &mut Mapping<T>, maps: &mut [NamedMap]) -> Parsed<()> {
        let Some(span) = map.name.clone() else { return Ok(()) };
        let name = self.text(&span).trim_start_matches('@');
        let Some(at) = maps.iter().position(|map| map.name == name) else {
            let label = meant(name, maps.iter().map(|map| map.name.as_str()));
            return self.error_with(span, format!("there is no map {} in this table", quoted(name)), label);
        };
        let Some(named) = maps.get_mut(at) else { return Ok(()) };
        named.is_used = true;
        let types: Vec<_> = std::iter::once(map.key)
            .chain(map.more.iter().map(|(key, _)| *key))
            .map(|key| key.datatype)
            .collect();
        if !are_alike(&named.types, &types) {
            let (held, wanted) = (type_names(&named.types), type_names(&types));
            return self.error(span, format!("map {} is of {held}, not {wanted}", quoted(name)));
        }
        let Some(items) = T::of(&named.elements) else {
            return self.error(span, format!("map {} does not lead to {}", quoted(name), T::NOUN));
        };
        let items = Rc::clone(items);
        self.nodes(items.len(), &span)?;
        map.items = items;
        Ok(())
    }
}
