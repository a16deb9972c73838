//! Rules: matches and statements.

use super::keys::{GROUPS, KEYS, Key, UNBUILT};
use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{Match, Operator, RejectWith, Rule, Span, Statement, What};
use crate::diagnostics::{meant, quoted};

/// Second words of nft's keys that are not built.
const UNBUILT_KEYS: &[&str] = &[
    "ip frag-off",
    "ip hdrlength",
    "ip checksum",
    "ip option",
    "tcp sequence",
    "tcp ackseq",
    "tcp doff",
    "tcp reserved",
    "tcp window",
    "tcp checksum",
    "tcp urgptr",
    "tcp option",
    "udp length",
    "udp checksum",
    "icmp checksum",
    "icmp id",
    "icmp sequence",
    "icmp gateway",
    "icmp mtu",
    "meta mark",
    "meta pkttype",
    "meta priority",
    "meta nftrace",
    "meta skuid",
    "meta skgid",
    "meta time",
    "meta day",
    "meta hour",
    "meta random",
    "meta rtclassid",
    "meta iiftype",
    "meta oiftype",
    "meta iifgroup",
    "meta oifgroup",
    "meta cpu",
    "meta cgroup",
    "meta ipsec",
    "meta iifkind",
    "meta oifkind",
    "meta sdif",
    "meta sdifname",
    "meta ibrname",
    "meta obrname",
    "ct direction",
    "ct mark",
    "ct original",
    "ct reply",
    "ct expiration",
    "ct helper",
    "ct label",
    "ct count",
    "ct bytes",
    "ct packets",
    "ct avgpkt",
    "ct zone",
    "ct id",
    "ct saddr",
    "ct daddr",
    "ct l3proto",
    "ct protocol",
    "ct proto-src",
    "ct proto-dst",
    "ct event",
    "ct timeout",
    "ct expectation",
];

/// Statements, for what was perhaps meant.
const STATEMENTS: &[&str] = &[
    "accept",
    "drop",
    "reject",
    "return",
    "jump",
    "goto",
    "continue",
    "counter",
    "masquerade",
    "snat",
    "dnat",
];

impl Parser<'_, '_> {
    /// One rule, up to the end of its line.
    pub fn rule(&mut self) -> Parsed<Rule> {
        let start = self.here().start;
        let here = self.here();
        self.nodes(DECLARATION, &here)?;
        let mut statements = Vec::new();
        let mut end = start;
        let mut allows_shadowed = false;
        loop {
            let ends = matches!(self.peek(), Token::Newline | Token::Semicolon | Token::Close | Token::End);
            if ends && !statements.is_empty() {
                break;
            }
            if self.peek_word() == "comment" && !statements.is_empty() {
                self.next();
                allows_shadowed = self.comment(&["allow shadowed"])?;
                break;
            }
            let first = self.here();
            self.node(&first)?;
            let what = self.statement()?;
            // Tokens know where they begin; the statement ends where the next one has not begun.
            end = self.end_before_next(first.end);
            statements.push(Statement { span: first.start..end, what });
        }
        Ok(Rule { span: start..end, statements, allows_shadowed })
    }

    fn end_before_next(&mut self, least: usize) -> usize {
        let next = self.here().start;
        let text = self.text(&(least..next));
        // A comment may stand between.
        let text = text.split(['#', '\n']).next().unwrap_or("");
        least + text.trim_end_matches([' ', '\t', '\\']).len()
    }

    pub fn statement(&mut self) -> Parsed<What> {
        let word = self.peek_word();
        let span = self.here();
        let simple = match word {
            "accept" => Some(What::Accept),
            "drop" => Some(What::Drop),
            "return" => Some(What::Return),
            "continue" => Some(What::Continue),
            _ => None,
        };
        if let Some(what) = simple {
            self.next();
            return Ok(what);
        }
        match word {
            "jump" => {
                self.next();
                self.name("chain").map(|(name, span)| What::Jump(name, span))
            }
            "goto" => {
                self.next();
                self.name("chain").map(|(name, span)| What::Goto(name, span))
            }
            "counter" => self.counter(),
            "reject" => self.reject().map(What::Reject),
            "masquerade" => self.masquerade(),
            "snat" | "dnat" => self.translation(),
            "comment" => self.error(span, "a comment stands at the end of its rule"),
            _ if GROUPS.contains(&word) || KEYS.iter().any(|key| key.name == word) => self.comparison(),
            _ if UNBUILT.contains(&word) => self.unbuilt(span, word),
            "" => self.unexpected("a match or a statement"),
            _ => {
                let known =
                    STATEMENTS.iter().chain(GROUPS).copied().chain(["iifname", "oifname", "iif", "oif"]);
                let label = meant(word, known);
                self.error_with(
                    span,
                    format!("expected a match or a statement, found {}", quoted(word)),
                    label,
                )
            }
        }
    }

    fn counter(&mut self) -> Parsed<What> {
        self.next();
        let span = self.here();
        match self.peek_word() {
            "packets" => {}
            "name" => return self.error(span, "named counters are not in this version's subset"),
            _ if self.peek() == Token::Quoted => {
                return self.error(span, "named counters are not in this version's subset");
            }
            _ => return Ok(What::Counter),
        }
        for word in ["packets", "bytes"] {
            if !self.takes_word(word) {
                return self.unexpected(&format!("\"{word}\""));
            }
            if !self.takes(Token::Number) {
                return self.unexpected("a number");
            }
        }
        Ok(What::Counter)
    }

    fn reject(&mut self) -> Parsed<RejectWith> {
        self.next();
        if !self.takes_word("with") {
            return Ok(RejectWith::Default);
        }
        let span = self.here();
        let kind = self.peek_word();
        match kind {
            "tcp" => {
                self.next();
                if !self.takes_word("reset") {
                    return self.unexpected("\"reset\"");
                }
                return Ok(RejectWith::TcpReset);
            }
            "icmp" | "icmpx" => {
                self.next();
            }
            "icmpv6" => return self.unbuilt(span, "icmpv6"),
            _ => return self.unexpected("\"icmp\", \"icmpx\" or \"tcp reset\""),
        }
        self.takes_word("type");
        let code = self.here();
        if self.peek() != Token::Word {
            return self.unexpected("the name of a code, such as \"port-unreachable\"");
        }
        self.next();
        Ok(if kind == "icmp" { RejectWith::Icmp(code) } else { RejectWith::Icmpx(code) })
    }

    /// The left-hand side.
    pub fn key(&mut self) -> Parsed<(&'static Key, Span)> {
        let (_, first) = self.next();
        let group = self.text(&first);
        if !GROUPS.contains(&group) {
            return match KEYS.iter().find(|key| key.name == group) {
                Some(key) => Ok((key, first)),
                None => self.unbuilt(first, group),
            };
        }
        let second = self.here();
        let word = self.peek_word();
        if word.is_empty() {
            return self.unexpected(&format!("what to look at after \"{group}\""));
        }
        let span = first.start..second.end;
        let name = format!("{group} {word}");
        let bare = if group == "meta" { word } else { "" };
        if let Some(key) = KEYS.iter().find(|key| key.name == name || (!bare.is_empty() && key.name == bare))
        {
            self.next();
            return Ok((key, span));
        }
        if UNBUILT_KEYS.contains(&name.as_str()) {
            return self.unbuilt(span, &name);
        }
        let prefix = format!("{group} ");
        let known = KEYS.iter().filter_map(|key| key.name.strip_prefix(&prefix));
        let label = meant(word, known);
        self.error_with(second, format!("{} is nothing to look at in \"{group}\"", quoted(word)), label)
    }

    fn comparison(&mut self) -> Parsed<What> {
        let (key, key_span) = self.key()?;
        let here = self.here();
        let mut mask = None;
        match self.peek() {
            Token::And if key.datatype.is_bits() => {
                self.next();
                mask = Some(self.primary(0)?);
                let here = self.here();
                if self.peek() == Token::Or {
                    return self.error(here, "put the mask in parentheses: & (a | b)");
                }
            }
            Token::And | Token::Or | Token::Xor => {
                return self
                    .error(here, format!("a mask on \"{}\" is not in this version's subset", key.name));
            }
            Token::Dot => return self.error(here, "concatenations are not in this version's subset"),
            _ => {}
        }
        let here = self.here();
        if mask.is_none() && self.peek_word() == "vmap" {
            return self.verdict_map(key, key_span);
        }
        if let word @ ("vmap" | "map" | "set" | "and" | "or" | "xor" | "lshift" | "rshift") = self.peek_word()
        {
            return self.unbuilt(here, word);
        }
        let operator = self.operator();
        if mask.is_some() && !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return self.unexpected("\"==\" or \"!=\" after a mask");
        }
        let value = self.right_hand_side()?;
        let of = if self.takes(Token::Slash) { Some(self.right_hand_side()?) } else { None };
        Ok(What::Match(Box::new(Match { key, key_span, mask, operator, value, of })))
    }

    fn operator(&mut self) -> Operator {
        let operator = match self.peek() {
            Token::Equal => Operator::Equal,
            Token::NotEqual => Operator::NotEqual,
            Token::Less => Operator::Less,
            Token::Greater => Operator::Greater,
            Token::AtMost => Operator::AtMost,
            Token::AtLeast => Operator::AtLeast,
            Token::Not => Operator::Not,
            _ => match self.peek_word() {
                "eq" => Operator::Equal,
                "ne" => Operator::NotEqual,
                "lt" => Operator::Less,
                "gt" => Operator::Greater,
                "le" => Operator::AtMost,
                "ge" => Operator::AtLeast,
                _ => return Operator::Implicit,
            },
        };
        self.next();
        operator
    }
}
