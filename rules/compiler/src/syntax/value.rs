//! Right-hand sides.

use super::lexer::Token;
use super::parser::{Parsed, Parser};
use super::tree::{Value, ValueWhat};
use super::words::RESERVED;
use crate::names;

/// Braces and parentheses within each other; sets of sets are no use.
const NESTING_MAX: usize = 8;

impl Parser<'_, '_> {
    /// A value, a list `a, b`, bits `a | b`, a concatenation `a . b`, or a set.
    pub fn right_hand_side(&mut self) -> Parsed<Value> {
        let first = self.joined(0)?;
        if self.peek() != Token::Comma {
            return Ok(first);
        }
        let start = first.span.start;
        let mut end = first.span.end;
        let mut items = vec![first];
        while self.takes(Token::Comma) {
            self.skip_newlines();
            let item = self.bits(0)?;
            end = item.span.end;
            items.push(item);
        }
        Ok(Value { span: start..end, what: ValueWhat::List(items) })
    }

    /// `a . b`
    pub fn joined(&mut self, depth: usize) -> Parsed<Value> {
        let first = self.bits(depth)?;
        if self.peek() != Token::Dot {
            return Ok(first);
        }
        let start = first.span.start;
        let mut end = first.span.end;
        let mut parts = vec![first];
        while self.takes(Token::Dot) {
            let part = self.range(depth)?;
            end = part.span.end;
            parts.push(part);
        }
        Ok(Value { span: start..end, what: ValueWhat::Concatenation(parts) })
    }

    /// `a | b`
    pub fn bits(&mut self, depth: usize) -> Parsed<Value> {
        let first = self.range(depth)?;
        if self.peek() != Token::Or {
            return Ok(first);
        }
        let start = first.span.start;
        let mut end = first.span.end;
        let mut items = vec![first];
        while self.takes(Token::Or) {
            let item = self.range(depth)?;
            end = item.span.end;
            items.push(item);
        }
        Ok(Value { span: start..end, what: ValueWhat::Or(items) })
    }

    /// `a`, `a-b` or `a/n`
    pub fn range(&mut self, depth: usize) -> Parsed<Value> {
        let first = self.primary(depth)?;
        self.range_from(first, depth)
    }

    /// What begins with this value.
    pub fn range_from(&mut self, first: Value, depth: usize) -> Parsed<Value> {
        let (token, span) = (self.peek(), self.here());
        match token {
            Token::Minus => {
                self.next();
                let last = self.primary(depth)?;
                let span = first.span.start..last.span.end;
                Ok(Value { span, what: ValueWhat::Range(Box::new((first, last))) })
            }
            Token::Slash if matches!(first.resolved().what, ValueWhat::Address) => {
                self.next();
                let length = self.here();
                if self.peek() != Token::Number {
                    return self.unexpected("a prefix length");
                }
                let number = names::decimal(self.text(&length)).and_then(|n| u8::try_from(n).ok());
                let Some(number) = number.filter(|&number| number <= 32) else {
                    return self.error(length, "a prefix length is 0 to 32");
                };
                self.next();
                let span = first.span.start..length.end;
                Ok(Value { span, what: ValueWhat::Prefix(Box::new(first), number) })
            }
            Token::Slash if matches!(first.resolved().what, ValueWhat::Colons) => {
                self.next();
                let length = self.here();
                let number = names::decimal(self.text(&length)).and_then(|number| u8::try_from(number).ok());
                let is_number = self.peek() == Token::Number;
                let Some(number) = number.filter(|&number| is_number && number <= 128) else {
                    return self.error(length, "a prefix length of IPv6 is 0 to 128");
                };
                self.next();
                Ok(Value { span: first.resolved().span.clone(), what: ValueWhat::Prefix6(number) })
            }
            Token::Xor => self.error(span, "the operator ^ has no place in a value"),
            _ => Ok(first),
        }
    }

    pub fn primary(&mut self, depth: usize) -> Parsed<Value> {
        let span = self.here();
        self.node(&span)?;
        let what = match self.peek() {
            Token::Word => ValueWhat::Word,
            Token::Quoted => ValueWhat::Quoted,
            Token::Number => ValueWhat::Number,
            Token::Address => ValueWhat::Address,
            Token::SetName => ValueWhat::Named,
            Token::Variable => ValueWhat::Variable(self.variable(&span)?),
            Token::Open | Token::OpenParen if depth >= NESTING_MAX => {
                return self.error(span, format!("more than {NESTING_MAX} braces within each other"));
            }
            Token::Open => return self.set_literal(depth),
            Token::OpenParen => {
                self.next();
                let inner = self.bits(depth + 1)?;
                let end = self.here();
                if !self.takes(Token::CloseParen) {
                    return self.unexpected("\")\"");
                }
                return Ok(Value { span: span.start..end.end, what: inner.what });
            }
            Token::Colons => ValueWhat::Colons,
            Token::Star => return self.error(span, "the wildcard alone is not in this version's subset"),
            Token::Minus => return self.error(span, "negative numbers have no meaning here"),
            _ => return self.unexpected("a value"),
        };
        self.next();
        Ok(Value { span, what })
    }

    /// What may follow an element of a set.
    pub fn element_options(&mut self) -> Parsed<()> {
        let here = self.here();
        match self.peek_word() {
            "comment" => {
                self.next();
                self.comment(&[]).map(|_| ())
            }
            "counter" if self.counts_elements => self.element_counter(),
            word @ ("timeout" | "expires" | "counter" | "limit" | "quota") => {
                self.error(here, format!("{word} of single elements is not in this version's subset"))
            }
            _ => Ok(()),
        }
    }

    /// `counter [packets N bytes N]` of an element.
    pub fn element_counter(&mut self) -> Parsed<()> {
        self.next();
        if self.peek_word() == "packets" { self.counted() } else { Ok(()) }
    }

    fn set_literal(&mut self, depth: usize) -> Parsed<Value> {
        let (_, open) = self.next();
        let may_be_empty = std::mem::take(&mut self.may_be_empty);
        let close = self.here();
        if may_be_empty && self.takes(Token::Close) {
            return Ok(Value { span: open.start..close.end, what: ValueWhat::Set(Vec::new()) });
        }
        self.braces += 1;
        let mut items = Vec::new();
        loop {
            self.skip_newlines();
            if self.peek() == Token::Close && !items.is_empty() {
                break;
            }
            let here = self.here();
            if self.peek() == Token::Open {
                return self.error(here, "braces within braces: write the elements side by side");
            }
            items.push(self.joined(depth + 1)?);
            self.element_options()?;
            let ends_line = self.peek() == Token::Newline;
            self.skip_newlines();
            let here = self.here();
            if ends_line && RESERVED.contains(&self.peek_word()) {
                // The next statement begins here, not another element: what follows is read as such.
                self.braces -= 1;
                return self.error(open, "this brace is never closed");
            }
            match self.peek() {
                Token::Comma => {
                    self.next();
                }
                Token::Close => break,
                Token::Colon => {
                    return self.error(here, "a map has no place here: a set holds values without \":\"");
                }
                _ => return self.unexpected("\",\" or \"}\""),
            }
        }
        let (_, close) = self.next();
        self.braces -= 1;
        Ok(Value { span: open.start..close.end, what: ValueWhat::Set(items) })
    }
}
