//! Named maps, and the rules that look into them.

use std::rc::Rc;

use super::keys::Datatype;
use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::tree::{Elements, Form, MapItem, Mapping, NamedMap, Place, Target, What};
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
        let (key, elements) = (None, Elements::Untyped);
        let mut map =
            NamedMap { name, span: span.clone(), key, is_interval: false, elements, is_used: false };
        let before = self.diagnostics.errors();
        let result = self.block(|parser| parser.map_item(&mut map));
        if map.key.is_none() && self.diagnostics.errors() == before {
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
                map.key = Some(self.set_type()?);
                if !self.takes(Token::Colon) {
                    return self.unexpected("\":\" and what the map leads to");
                }
                map.elements = self.map_type()?;
            }
            "flags" => {
                self.next();
                map.is_interval |= self.set_flags()?;
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
                }
            }
            word @ ("typeof" | "size" | "timeout" | "gc-interval" | "policy" | "counter") => {
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
        let is_run = self.takes_word("interval");
        let span = self.here();
        let word = self.peek_word();
        if word != "ipv4_addr" {
            let label = meant(word, ["verdict", "ipv4_addr", "interval"]);
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

    /// Gives rules the elements of the maps that they name.
    pub(super) fn named_maps(&mut self) {
        let mut tables = std::mem::take(&mut self.ruleset.tables);
        for table in &mut tables {
            let rules = table.chains.iter_mut().flat_map(|chain| &mut chain.rules);
            for statement in rules.flat_map(|rule| &mut rule.statements) {
                // What is wrong is told; the elements stay away then.
                let _ = match &mut statement.what {
                    What::Verdicts(map) => self.look_into(map, &mut table.maps),
                    What::Translate(of) => match &mut of.to {
                        Target::Map(map) => self.look_into(map, &mut table.maps),
                        Target::Value(_) => Ok(()),
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
        let key = named.key.map_or("nothing", Datatype::name);
        if named.key != Some(map.key.datatype) {
            let message = format!("map {} is of {key}, not {}", quoted(name), map.key.datatype.name());
            return self.error(span, message);
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
