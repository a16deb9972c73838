//! Statements that change what packets carry or what sets hold: marks, `add @set { ... }`, `meter`; and `fib`.

use rules::table::Change;

use super::keys::Key;
use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::tree::{Connections, Fib, Mark, Operator, Span, Update, Value, ValueWhat, Way, What};

impl Parser<'_, '_> {
    /// `meta mark set ...`, from `set` on.
    pub fn mark(&mut self, key: &'static Key, key_span: Span) -> Parsed<What> {
        if !is_mark(key) {
            return self.unbuilt(key_span, &format!("{} set", key.name));
        }
        self.next();
        let (mut from, mut value) = (None, None);
        if self.begins_key() {
            let (source, span) = self.key()?;
            let more = self.more_keys()?;
            if self.peek_word() == "map" {
                let map = Some(self.mark_map(source, span, more)?);
                return Ok(What::Mark(Box::new(Mark { key, from, value, map, bits: Vec::new() })));
            }
            if !is_mark(source) || !more.is_empty() {
                return self.error(
                    span,
                    "a mark is made from a number, from meta mark, from ct mark, or looked up in a map",
                );
            }
            from = Some(source);
        } else {
            value = Some(self.primary(0)?);
        }
        let bits = self.bit_operations()?;
        Ok(What::Mark(Box::new(Mark { key, from, value, map: None, bits })))
    }

    /// `tcp option maxseg size set N|rt mtu`
    pub fn segment(&mut self) -> Parsed<What> {
        let (_, first) = self.next();
        let here = self.here();
        self.next();
        let option = self.peek_word();
        if option != "maxseg" {
            return self.unbuilt(first.start..here.end, "tcp option");
        }
        self.next();
        if !self.takes_word("size") {
            return self.unexpected("\"size\"");
        }
        let here = self.here();
        if !self.takes_word("set") {
            let message =
                "a match on the maximum segment size is not in this version's subset; it can be set";
            return self.error(here, message);
        }
        if !self.takes_word("rt") {
            return self.primary(0).map(|value| What::Segment(Some(value)));
        }
        if self.takes_word("mtu") { Ok(What::Segment(None)) } else { self.unexpected("\"mtu\"") }
    }

    /// `add|update|delete @set { key [timeout T] [limit ...] }`
    pub fn update(&mut self) -> Parsed<What> {
        let (_, first) = self.next();
        let how = match self.text(&first) {
            "add" => Change::Add,
            "update" => Change::Update,
            _ => Change::Delete,
        };
        let name = self.here();
        if !self.takes(Token::SetName) {
            return self.unexpected("the name of a set, such as \"@seen\"");
        }
        let of = Update {
            how,
            name,
            is_meter: false,
            size: None,
            keys: Vec::new(),
            timeout: 0,
            limit: None,
            count: None,
            counter: None,
        };
        self.element(of)
    }

    /// `meter NAME [size N] { key [timeout T] limit ... }`
    pub fn meter(&mut self) -> Parsed<What> {
        self.next();
        let (_, name) = self.name("meter")?;
        let size = if self.takes_word("size") { Some(self.size()?) } else { None };
        let of = Update {
            how: Change::Add,
            name,
            is_meter: true,
            size,
            keys: Vec::new(),
            timeout: 0,
            limit: None,
            count: None,
            counter: None,
        };
        self.element(of)
    }

    /// `{ key [timeout T] [limit ...] }`
    fn element(&mut self, mut of: Update) -> Parsed<What> {
        if !self.takes(Token::Open) {
            return self.unexpected("\"{\"");
        }
        self.braces += 1;
        if !self.begins_key() {
            return self.unexpected("a key, such as \"ip saddr\"");
        }
        of.keys.push(self.key()?);
        let here = self.here();
        if matches!(self.peek(), Token::And | Token::Or | Token::Xor) {
            return self.error(here, "a mask on a key is not in this version's subset");
        }
        of.keys.extend(self.more_keys()?);
        if self.takes_word("timeout") {
            of.timeout = self.duration()?;
        }
        loop {
            let here = self.here();
            match self.peek_word() {
                "limit" if of.limit.is_none() => {
                    self.next();
                    of.limit = Some((self.rate()?, here));
                }
                "limit" => return self.error(here, "an element has one limit at most"),
                "ct" if of.count.is_none() => {
                    self.next();
                    of.count = Some(self.connections()?);
                }
                "counter" if of.counter.is_none() => {
                    self.element_counter()?;
                    of.counter = Some((here, of.limit.is_none()));
                }
                word @ ("counter" | "quota" | "ct" | "last") => {
                    return self.error(here, format!("{word} of elements is not in this version's subset"));
                }
                _ => break,
            }
        }
        if !self.takes(Token::Close) {
            return self.unexpected("\"}\"");
        }
        self.braces -= 1;
        // A time that is named begins anew with each packet of a meter.
        if of.is_meter && of.timeout > 0 {
            of.how = Change::Update;
        }
        Ok(What::Update(Box::new(of)))
    }

    /// `count [over] N`
    pub fn connections(&mut self) -> Parsed<Connections> {
        let here = self.here();
        if !self.takes_word("count") {
            return self.unexpected("\"count\"");
        }
        let is_over = self.takes_word("over");
        let number = self.here();
        let limit = self.whole_number()?;
        match u32::try_from(limit) {
            Ok(limit) => Ok(Connections { limit, is_over, span: here }),
            Err(_) => self.error(number, "so many connections there never are"),
        }
    }

    /// `fib saddr|daddr [. iif] type|oif|oifname ...`
    pub fn fib(&mut self) -> Parsed<What> {
        let (_, first) = self.next();
        let mut is_source = None;
        let mut of_input = None;
        loop {
            let here = self.here();
            match self.peek_word() {
                "saddr" if is_source.is_none() => is_source = Some(true),
                "daddr" if is_source.is_none() => is_source = Some(false),
                "iif" => of_input = Some(here),
                // Marks choose no routes here.
                "mark" => {}
                word @ "oif" => {
                    return self.error(here, format!("fib by {word} is not in this version's subset"));
                }
                _ => return self.unexpected("\"saddr\", \"daddr\" or \"iif\""),
            }
            self.next();
            if !self.takes(Token::Dot) {
                break;
            }
        }
        let Some(is_source) = is_source else {
            return self.unexpected("\"saddr\" or \"daddr\" in what fib looks at");
        };
        let end = self.here();
        let wanted = match self.peek_word() {
            "type" => Way::Type,
            "oif" => Way::Interface,
            "oifname" => Way::Name,
            _ => return self.unexpected("\"type\", \"oif\" or \"oifname\""),
        };
        self.next();
        let key_span = first.start..end.end;
        let fib = |operator, value| Box::new(Fib { is_source, of_input, wanted, key_span, operator, value });
        if self.takes_word("vmap") {
            let none = Value { span: end, what: ValueWhat::Set(Vec::new()) };
            return Ok(What::FibVerdicts(fib(Operator::Implicit, none), self.verdicts()?));
        }
        let operator = self.operator();
        let value = self.right_hand_side()?;
        Ok(What::Fib(fib(operator, value)))
    }
}

/// Whether it is `meta mark` or `ct mark`.
fn is_mark(key: &Key) -> bool {
    matches!(key.name, "meta mark" | "ct mark")
}
