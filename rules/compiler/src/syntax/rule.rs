//! Rules: matches and statements.

use rules::table::KEY_MAX;

use super::keys::{BARE, Datatype, GROUPS, KEYS, Key, UNBUILT};
use super::lexer::Token;
use super::parser::{DECLARATION, Parsed, Parser};
use super::tree::{
    BitOperator, Concatenation, Match, Operator, RejectWith, Rule, Span, Statement, Value, ValueWhat, What,
};
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
    "udplite checksum",
    "sctp checksum",
    "sctp vtag",
    "sctp chunk",
    "dccp type",
    "dccp option",
    "udp checksum",
    "icmp checksum",
    "icmp id",
    "icmp sequence",
    "icmp gateway",
    "icmp mtu",
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
    "ct expiration",
    "ct helper",
    "ct label",
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
    "redirect",
    "log",
    "limit",
    "quota",
    "notrack",
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
            let statement = self.statement_at()?;
            end = statement.span.end;
            statements.push(statement);
        }
        Ok(Rule { span: start..end, block: self.block, statements, allows_shadowed })
    }

    /// A statement with where it stands.
    pub fn statement_at(&mut self) -> Parsed<Statement> {
        let first = self.here();
        self.node(&first)?;
        let what = self.statement()?;
        // Tokens know where they begin; the statement ends where the next one has not begun.
        let end = self.end_before_next(first.end);
        Ok(Statement { span: first.start..end, what })
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
            "notrack" => Some(What::Untrack),
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
            "redirect" => self.redirect(),
            "snat" | "dnat" => self.translation(),
            "limit" => self.limit(),
            "quota" => self.quota(),
            "log" => self.log(),
            "add" | "update" | "delete" => self.update(),
            "meter" => self.meter(),
            "fib" => self.fib(),
            "ct" if self.is_followed_by(&span, "count") => {
                self.next();
                self.connections().map(What::Connections)
            }
            "tcp" if self.is_followed_by(&span, "option") => self.segment(),
            "comment" => self.error(span, "a comment stands at the end of its rule"),
            _ if self.begins_key() => self.comparison(),
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

    fn reject(&mut self) -> Parsed<RejectWith> {
        self.next();
        if !self.takes_word("with") {
            return Ok(RejectWith::Default);
        }
        let kind = self.peek_word();
        match kind {
            "tcp" => {
                self.next();
                if !self.takes_word("reset") {
                    return self.unexpected("\"reset\"");
                }
                return Ok(RejectWith::TcpReset);
            }
            "icmp" | "icmpx" | "icmpv6" => {
                self.next();
            }
            _ => return self.unexpected("\"icmp\", \"icmpx\" or \"tcp reset\""),
        }
        self.takes_word("type");
        let code = self.here();
        if !matches!(self.peek(), Token::Word | Token::Number) {
            return self.unexpected("the name of a code, such as \"port-unreachable\"");
        }
        self.next();
        Ok(match kind {
            "icmp" => RejectWith::Icmp(code),
            "icmpv6" => RejectWith::Icmpv6(code),
            _ => RejectWith::Icmpx(code),
        })
    }

    /// Whether a word stands behind this one.
    fn is_followed_by(&self, span: &Span, word: &str) -> bool {
        let rest = self.text(&(span.end..span.end + word.len() + 8));
        rest.trim_start().strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_whitespace))
    }

    /// Whether what comes next is the left-hand side of a match.
    pub fn begins_key(&mut self) -> bool {
        let word = self.peek_word();
        GROUPS.contains(&word) || BARE.contains(&word) || KEYS.iter().any(|key| key.name == word)
    }

    /// The left-hand side.
    pub fn key(&mut self) -> Parsed<(&'static Key, Span)> {
        let (_, first) = self.next();
        let group = self.text(&first);
        if !GROUPS.contains(&group) {
            let name = if BARE.contains(&group) { format!("meta {group}") } else { group.to_owned() };
            return match KEYS.iter().find(|key| key.name == name) {
                Some(key) => Ok((key, first)),
                None => self.unbuilt(first, group),
            };
        }
        let mut name = group.to_owned();
        // `ct original ip saddr`
        if group == "ct" && matches!(self.peek_word(), "original" | "reply") {
            name = format!("{name} {}", self.peek_word());
            self.next();
            if matches!(self.peek_word(), "ip" | "ip6") {
                name = format!("{name} {}", self.peek_word());
                self.next();
            }
        }
        let second = self.here();
        let word = self.peek_word();
        if word.is_empty() {
            return self.unexpected(&format!("what to look at after \"{name}\""));
        }
        let span = first.start..second.end;
        let prefix = format!("{name} ");
        let name = format!("{prefix}{word}");
        let bare = if group == "meta" { word } else { "" };
        if let Some(key) = KEYS.iter().find(|key| key.name == name || (!bare.is_empty() && key.name == bare))
        {
            self.next();
            return Ok((key, span));
        }
        if UNBUILT_KEYS.contains(&name.as_str()) || prefix != format!("{group} ") {
            return self.unbuilt(span, &name);
        }
        let known = KEYS.iter().filter_map(|key| key.name.strip_prefix(&prefix));
        let label = meant(word, known);
        self.error_with(second, format!("{} is nothing to look at in \"{group}\"", quoted(word)), label)
    }

    /// `. key . key`, behind a key.
    pub fn more_keys(&mut self) -> Parsed<Vec<(&'static Key, Span)>> {
        let mut more = Vec::new();
        while self.takes(Token::Dot) {
            if !self.begins_key() {
                return self.unexpected("another key behind \".\"");
            }
            more.push(self.key()?);
        }
        match more.get(KEY_MAX - 1) {
            Some((_, span)) => {
                self.error(span.clone(), format!("a concatenation joins at most {KEY_MAX} keys"))
            }
            None => Ok(more),
        }
    }

    fn comparison(&mut self) -> Parsed<What> {
        let (key, key_span) = self.key()?;
        if self.peek_word() == "set" {
            return self.mark(key, key_span);
        }
        let more = self.more_keys()?;
        if self.peek_word() == "vmap" {
            return self.verdict_map(key, key_span, Vec::new(), more);
        }
        if !more.is_empty() {
            let keys = std::iter::once((key, key_span)).chain(more).collect();
            let operator = self.operator();
            let value = self.right_hand_side()?;
            return Ok(What::Concatenation(Box::new(Concatenation { keys, operator, value })));
        }
        let mut mask = None;
        let mut bits = Vec::new();
        if self.peek() == Token::And && key.datatype.is_bits() {
            self.next();
            mask = Some(self.primary(0)?);
            let here = self.here();
            if self.peek() == Token::Or {
                return self.error(here, "put the mask in parentheses: & (a | b)");
            }
        } else if key.datatype.is_ordered() || key.datatype == Datatype::Address6 {
            bits = self.bit_operations()?;
        }
        if !bits.is_empty() && self.peek_word() == "vmap" {
            return self.verdict_map(key, key_span, bits, more);
        }
        let here = self.here();
        if let word @ ("vmap" | "map" | "set" | "and" | "or" | "xor" | "lshift" | "rshift") = self.peek_word()
        {
            return self.unbuilt(here, word);
        }
        if matches!(self.peek(), Token::And | Token::Or | Token::Xor) {
            return self.error(here, format!("{} has no bits to mask", key.datatype.name()));
        }
        let operator = self.operator();
        let is_masked = mask.is_some() || !bits.is_empty();
        let is_set = operator == Operator::Implicit && matches!(self.peek(), Token::Open | Token::SetName);
        if is_masked && !is_set && !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return self.unexpected("\"==\" or \"!=\" after a mask");
        }
        let value = self.right_hand_side()?;
        let of = if self.takes(Token::Slash) { Some(self.right_hand_side()?) } else { None };
        if let Some(of) = of.as_ref().filter(|of| !matches!(of.what, ValueWhat::List(_))) {
            return self.error(
                of.span.clone(),
                "behind \"/\" stands a list, such as syn,ack; or write & (syn | ack) ==",
            );
        }
        Ok(What::Match(Box::new(Match { key, key_span, mask, bits, operator, value, of })))
    }

    /// `& a | b ^ c`, from left to right.
    pub fn bit_operations(&mut self) -> Parsed<Vec<(BitOperator, Value)>> {
        let mut operations = Vec::new();
        loop {
            let operator = match (self.peek(), self.peek_word()) {
                (Token::And, _) | (_, "and") => BitOperator::And,
                (Token::Or, _) | (_, "or") => BitOperator::Or,
                (Token::Xor, _) | (_, "xor") => BitOperator::Xor,
                _ => return Ok(operations),
            };
            let (_, span) = self.next();
            self.node(&span)?;
            operations.push((operator, self.primary(0)?));
        }
    }

    pub fn operator(&mut self) -> Operator {
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
