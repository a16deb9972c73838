//! The file, its tables, chains and sets.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::lexer::{Spanned, Token, Tokens, directive};
use super::tree::{BaseSpec, Chain, Family, Ruleset, Span, Table, Value};
use super::words::{REASONS, RESERVED};
use crate::diagnostics::{Diagnostics, meant, quoted};
use crate::source::Source;

/// The error has been told.
#[derive(Debug)]
pub(super) struct Told;

pub(super) type Parsed<T> = Result<T, Told>;

/// What a rule, a chain, a set or a define counts for, next to its values.
pub(super) const DECLARATION: usize = 5;

/// The most values and statements that a file may have.
const NODES_MAX: usize = 400_000;

/// The most tables of a file.
const TABLES_MAX: usize = 256;

/// The most variables within each other.
const DEFINES_MAX: usize = 32;

/// Reads the file; everything wrong with its form is told.
pub(crate) fn parse(source: &Source, diagnostics: &mut Diagnostics) -> Ruleset {
    let before = diagnostics.errors();
    let mut parser = Parser {
        source,
        diagnostics,
        tokens: Tokens::new(&source.text, source.root()),
        scopes: vec![HashMap::new()],
        depth: 0,
        braces: 0,
        nodes: 0,
        bases: 0,
        block: 0,
        counts_elements: false,
        may_be_empty: false,
        chain_said: ChainSaid::default(),
        ruleset: Ruleset::default(),
    };
    parser.file();
    parser.named_maps();
    parser.directives();
    let mut ruleset = parser.ruleset;
    ruleset.is_whole = source.is_whole && diagnostics.errors() == before;
    ruleset
}

/// What a variable stands for, and how many others stand within it.
struct Defined {
    value: Rc<Value>,
    depth: usize,
}

pub(super) struct Parser<'s, 'd> {
    source: &'s Source,
    pub diagnostics: &'d mut Diagnostics,
    pub tokens: Tokens<'s>,
    scopes: Vec<HashMap<&'s str, Defined>>,
    /// How many variables stand within each other in the value that is read.
    depth: usize,
    /// Braces opened since the statement began.
    pub braces: usize,
    nodes: usize,
    pub bases: usize,
    /// The blocks of tables so far: nft loads them one after the other.
    pub block: usize,
    /// The set that is read has counters in its elements.
    pub counts_elements: bool,
    /// The next set is that of a define, which may have no elements.
    pub may_be_empty: bool,
    chain_said: ChainSaid,
    pub ruleset: Ruleset,
}

/// What a block of a chain has said.
#[derive(Debug, Default)]
struct ChainSaid {
    has_policy: bool,
    has_comment: bool,
    /// An earlier block of its table has the chain, and no hook for it.
    is_plain: bool,
}

impl<'s> Parser<'s, '_> {
    pub fn peek(&mut self) -> Token {
        self.tokens.peek().0
    }

    pub fn here(&mut self) -> Span {
        self.tokens.peek().1.clone()
    }

    pub fn next(&mut self) -> Spanned {
        self.tokens.next()
    }

    pub fn text(&self, span: &Span) -> &'s str {
        self.source.text.get(span.clone()).unwrap_or("")
    }

    /// The word that comes next, or nothing.
    pub fn peek_word(&mut self) -> &'s str {
        let (token, span) = self.tokens.peek().clone();
        if token == Token::Word { self.text(&span) } else { "" }
    }

    pub fn takes(&mut self, token: Token) -> bool {
        let found = self.peek() == token;
        if found {
            self.next();
        }
        found
    }

    pub fn takes_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == word;
        if found {
            self.next();
        }
        found
    }

    pub fn error<T>(&mut self, span: Span, message: impl Into<String>) -> Parsed<T> {
        self.diagnostics.error(self.source, span, message);
        Err(Told)
    }

    /// An error behind a statement that was read to its end: what follows is not to be skipped.
    fn tell(&mut self, span: Span, message: &str) -> Parsed<()> {
        self.diagnostics.error(self.source, span, message);
        Ok(())
    }

    pub fn error_with<T>(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: Option<String>,
    ) -> Parsed<T> {
        match label {
            Some(label) => self.diagnostics.error_with(self.source, span, message, label),
            None => self.diagnostics.error(self.source, span, message),
        }
        Err(Told)
    }

    pub fn unbuilt<T>(&mut self, span: Span, what: &str) -> Parsed<T> {
        if let Some((_, reason)) = REASONS.iter().find(|(known, _)| *known == what) {
            return self.error(span, format!("{} has no place here: {reason}", quoted(what)));
        }
        self.error(span, format!("{} is not in this version's subset", quoted(what)))
    }

    /// The next token is not what the language wants here.
    pub fn unexpected<T>(&mut self, wanted: &str) -> Parsed<T> {
        let (token, span) = self.tokens.peek().clone();
        let found = match token {
            Token::Newline => "the end of the line".to_owned(),
            Token::End => "the end of the file".to_owned(),
            _ => quoted(self.text(&span)).to_string(),
        };
        self.error(span, format!("expected {wanted}, found {found}"))
    }

    /// Counts what is kept; a file with too much of it is refused.
    pub fn node(&mut self, span: &Span) -> Parsed<()> {
        self.nodes(1, span)
    }

    /// Counts something that takes as much room as so many values.
    pub fn nodes(&mut self, count: usize, span: &Span) -> Parsed<()> {
        let before = self.nodes;
        self.nodes += count;
        if self.nodes < NODES_MAX {
            return Ok(());
        }
        if before < NODES_MAX {
            let message = format!("the file holds too much: more than {NODES_MAX} values and statements");
            return self.error(span.clone(), message);
        }
        Err(Told)
    }

    fn is_over(&self) -> bool {
        self.diagnostics.is_full() || self.nodes >= NODES_MAX
    }

    pub fn skip_newlines(&mut self) {
        while self.takes(Token::Newline) {}
    }

    fn skip_separators(&mut self) {
        while matches!(self.peek(), Token::Newline | Token::Semicolon) {
            self.next();
        }
    }

    /// The end of a statement: a line's end or `;`.
    pub fn end_of_statement(&mut self) -> Parsed<()> {
        match self.peek() {
            Token::Newline | Token::Semicolon => {
                self.next();
                Ok(())
            }
            Token::End if self.scopes.len() == 1 => Ok(()),
            _ => self.unexpected("the end of the line or \";\""),
        }
    }

    /// Goes on behind an error.
    fn recover(&mut self) {
        let mut depth = std::mem::take(&mut self.braces);
        loop {
            match self.peek() {
                Token::End => return,
                Token::Newline | Token::Semicolon if depth == 0 => return,
                Token::Close if depth == 0 => return,
                Token::Close => depth -= 1,
                Token::Open => depth += 1,
                _ => {}
            }
            self.next();
        }
    }

    fn file(&mut self) {
        loop {
            self.skip_separators();
            if self.peek() == Token::End || self.is_over() {
                return;
            }
            self.braces = 0;
            if self.command().is_err() {
                self.recover();
                // A stray brace must not stop the reading.
                self.takes(Token::Close);
            }
        }
    }

    fn command(&mut self) -> Parsed<()> {
        let span = self.here();
        match self.peek_word() {
            "table" => self.table(),
            "define" => self.define(),
            "flush" => {
                self.next();
                if self.takes_word("table") {
                    return self.flush_table();
                }
                if !self.takes_word("ruleset") {
                    return self.unexpected("\"ruleset\" or \"table\" after \"flush\"");
                }
                self.end_of_statement()
            }
            "delete" | "destroy" => self.delete_table(),
            "include" => self.include(),
            word @ ("undefine" | "redefine" | "add" | "create" | "insert" | "replace" | "list" | "reset"
            | "rename" | "monitor" | "describe" | "export" | "import" | "chain" | "rule" | "set"
            | "map" | "element") => self.unbuilt(span, word),
            word => {
                let label = meant(word, ["table", "define", "flush"]);
                let message = match self.peek() {
                    Token::Word => format!("expected \"table\" or \"define\", found {}", quoted(word)),
                    _ => return self.unexpected("\"table\" or \"define\""),
                };
                self.error_with(span, message, label)
            }
        }
    }

    /// A name of a table, chain or set.
    pub fn name(&mut self, what: &str) -> Parsed<(String, Span)> {
        let span = self.here();
        let word = self.peek_word();
        if word.is_empty() || word.ends_with('*') {
            return self.unexpected(&format!("a name for the {what}"));
        }
        if RESERVED.contains(&word) {
            return self.error(span, format!("{} is a word of the language, not a name", quoted(word)));
        }
        if word.len() > 127 {
            return self.error(span, "a name has at most 127 characters");
        }
        self.next();
        Ok((word.to_owned(), span))
    }

    fn family(&mut self) -> Parsed<Family> {
        let span = self.here();
        let family = match self.peek_word() {
            "ip" => Family::Ip,
            "ip6" => Family::Ip6,
            "inet" => Family::Inet,
            word @ ("arp" | "bridge" | "netdev") => {
                return self.error(span, format!("tables of family {word} are not in this version's subset"));
            }
            _ => return Ok(Family::Ip),
        };
        self.next();
        Ok(family)
    }

    fn table(&mut self) -> Parsed<()> {
        self.next();
        let family = self.family()?;
        let (name, span) = self.name("table")?;
        let index = match self.ruleset.tables.iter().position(|t| t.family == family && t.name == name) {
            Some(index) => index,
            None => {
                if self.ruleset.tables.len() == TABLES_MAX {
                    return self.error(span, format!("a file has at most {TABLES_MAX} tables"));
                }
                self.ruleset.tables.push(Table {
                    family,
                    name,
                    chains: Vec::new(),
                    sets: Vec::new(),
                    maps: Vec::new(),
                    chain_index: HashMap::new(),
                    set_names: HashSet::new(),
                    objects: Vec::new(),
                });
                self.ruleset.tables.len() - 1
            }
        };
        if self.peek() != Token::Open {
            return self.end_of_statement();
        }
        self.block += 1;
        self.block(|parser| parser.table_item(index))
    }

    /// `include "file"`: goes on in the files that it stands for, and then here.
    fn include(&mut self) -> Parsed<()> {
        self.next();
        let name = self.here();
        if !self.takes(Token::Quoted) {
            return self.unexpected("the name of a file in quotes");
        }
        self.end_of_statement()?;
        let source = self.source;
        for file in source.included(name.start).iter().rev() {
            self.tokens.enter(file.clone());
        }
        Ok(())
    }

    /// `delete table ...`: the head of the idiom that makes a file loadable again.
    fn delete_table(&mut self) -> Parsed<()> {
        let (_, start) = self.next();
        let forgives = self.text(&start) == "destroy";
        if !self.takes_word("table") {
            return self.unexpected("\"table\"");
        }
        let family = self.family()?;
        let (name, span) = self.name("table")?;
        match self.ruleset.tables.iter().position(|t| t.family == family && t.name == name) {
            Some(index) => {
                self.ruleset.tables.remove(index);
            }
            None if forgives => {}
            None => return self.error(span, format!("there is no table {} to delete here", quoted(&name))),
        }
        self.end_of_statement()
    }

    /// `flush table ...`: ahead of its rules, there is nothing to take from it.
    fn flush_table(&mut self) -> Parsed<()> {
        let family = self.family()?;
        let (name, span) = self.name("table")?;
        match self.ruleset.tables.iter().find(|t| t.family == family && t.name == name) {
            Some(table) if table.chains.iter().all(|chain| chain.rules.is_empty()) => self.end_of_statement(),
            Some(_) => self.error(span, "the table has rules already: flush it ahead of them"),
            None => self.error(span, format!("there is no table {} to flush here", quoted(&name))),
        }
    }

    /// `{ item; item; }`, with a scope of its own.
    pub fn block(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        let (_, open) = self.next();
        self.scopes.push(HashMap::new());
        loop {
            self.skip_separators();
            match self.peek() {
                Token::Close => break,
                Token::End => {
                    self.scopes.pop();
                    return self.error(open, "this brace is never closed");
                }
                _ if self.is_over() => break,
                _ => {}
            }
            self.braces = 0;
            if item(self).is_err() {
                self.recover();
            }
        }
        self.scopes.pop();
        self.next();
        if self.is_over() { Ok(()) } else { self.end_of_statement() }
    }

    fn table_item(&mut self, table: usize) -> Parsed<()> {
        let span = self.here();
        match self.peek_word() {
            "chain" => self.chain(table),
            "set" => self.set(table),
            "map" => self.named_map(table),
            "include" => self.include(),
            "define" => self.define(),
            "comment" => {
                self.next();
                self.comment(&[])?;
                self.end_of_statement()
            }
            "counter" | "limit" | "quota" => self.object(table),
            word @ ("flags" | "ct" | "flowtable" | "secmark" | "synproxy" | "undefine" | "redefine"
            | "elements") => self.unbuilt(span, word),
            word => {
                let label = meant(word, ["chain", "set", "map", "define", "comment"]);
                let message = match self.peek() {
                    Token::Word => format!("expected \"chain\" or \"set\", found {}", quoted(word)),
                    _ => return self.unexpected("\"chain\" or \"set\""),
                };
                self.error_with(span, message, label)
            }
        }
    }

    /// The text of a comment; those for Weir must be among the allowed ones. True when it is one of them.
    pub fn comment(&mut self, allowed: &[&str]) -> Parsed<bool> {
        let (token, span) = self.tokens.peek().clone();
        if token != Token::Quoted && token != Token::Word {
            return self.unexpected("a comment in quotes");
        }
        self.next();
        let text = self.text(&span).trim_matches('"').trim();
        if text.len() > 128 {
            return self.error(span, "a comment has at most 128 octets");
        }
        let Some(word) = text.strip_prefix("weir:").map(str::trim) else { return Ok(false) };
        if allowed.contains(&word) {
            return Ok(true);
        }
        self.error(span, format!("{} says nothing to Weir here", quoted(word)))
    }

    fn define(&mut self) -> Parsed<()> {
        self.next();
        let span = self.here();
        let name = self.peek_word();
        if name.is_empty() {
            return self.unexpected("a name to define");
        }
        if RESERVED.contains(&name) {
            return self.error(span, format!("{} is a word of the language, not a name", quoted(name)));
        }
        self.nodes(DECLARATION, &span)?;
        self.next();
        if !self.takes(Token::Assign) {
            return self.unexpected("\"=\"");
        }
        self.depth = 0;
        self.may_be_empty = true;
        let value = self.right_hand_side();
        self.may_be_empty = false;
        let value = Rc::new(value?);
        let depth = self.depth;
        if depth > DEFINES_MAX {
            return self.error(span, format!("more than {DEFINES_MAX} defines within each other"));
        }
        let value = Defined { value, depth };
        // What is defined around is not defined again within.
        let taken = self.scopes.iter().any(|scope| scope.contains_key(name));
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, value);
        }
        if taken {
            return self.error(span, format!("{} is defined already", quoted(name)));
        }
        self.end_of_statement()
    }

    /// What a variable stands for.
    pub fn variable(&mut self, span: &Span) -> Parsed<Rc<Value>> {
        let name = self.text(span).trim_start_matches('$');
        if let Some(defined) = self.scopes.iter().rev().find_map(|scope| scope.get(name)) {
            self.depth = self.depth.max(defined.depth + 1);
            return Ok(Rc::clone(&defined.value));
        }
        let label = meant(name, self.scopes.iter().flat_map(|scope| scope.keys().copied()));
        self.error_with(span.clone(), format!("{} is not defined", quoted(name)), label)
    }

    fn chain(&mut self, table: usize) -> Parsed<()> {
        self.next();
        let (name, span) = self.name("chain")?;
        self.nodes(DECLARATION, &span)?;
        let Some(of) = self.ruleset.tables.get_mut(table) else {
            return Err(Told);
        };
        let new = of.chains.len();
        let chain = *of.chain_index.entry(name.clone()).or_insert(new);
        self.chain_said = ChainSaid::default();
        if let Some(earlier) = of.chains.get(chain) {
            self.chain_said.is_plain = earlier.base.is_none() && earlier.block < self.block;
        }
        if chain == new {
            of.chains.push(Chain {
                name,
                span,
                block: self.block,
                base: None,
                names_hook: false,
                policy: None,
                allows_unreachable: false,
                rules: Vec::new(),
            });
        }
        if self.peek() != Token::Open {
            return self.unexpected("\"{\"");
        }
        self.block(|parser| parser.chain_item(table, chain))
    }

    fn chain_item(&mut self, table: usize, chain: usize) -> Parsed<()> {
        match self.peek_word() {
            "type" => {
                if let Some(chain) = self.chain_at(table, chain) {
                    chain.names_hook = true;
                }
                let base = self.base()?;
                self.end_of_statement()?;
                self.set_base(table, chain, base)
            }
            "policy" => {
                let (accepts, span) = self.policy()?;
                self.end_of_statement()?;
                if std::mem::replace(&mut self.chain_said.has_policy, true) {
                    return self.tell(span, "the chain has a policy already");
                }
                match self.chain_at(table, chain) {
                    Some(chain) => chain.policy = Some(accepts),
                    None => return self.error(span, "no chain to have a policy"),
                }
                Ok(())
            }
            "define" => self.define(),
            "comment" => {
                self.next();
                let here = self.here();
                let allows = self.comment(&["allow unreachable"])?;
                if std::mem::replace(&mut self.chain_said.has_comment, true) {
                    return self.error(here, "the chain has a comment already");
                }
                if let Some(chain) = self.chain_at(table, chain) {
                    chain.allows_unreachable |= allows;
                }
                self.end_of_statement()
            }
            "include" => self.include(),
            word @ ("flags" | "undefine" | "redefine" | "devices") => {
                let span = self.here();
                self.unbuilt(span, word)
            }
            _ => {
                let rule = self.rule()?;
                self.end_of_statement()?;
                if let Some(chain) = self.chain_at(table, chain) {
                    chain.rules.push(rule);
                }
                Ok(())
            }
        }
    }

    fn chain_at(&mut self, table: usize, chain: usize) -> Option<&mut Chain> {
        self.ruleset.tables.get_mut(table).and_then(|table| table.chains.get_mut(chain))
    }

    fn set_base(&mut self, table: usize, chain: usize, base: BaseSpec) -> Parsed<()> {
        let span = base.span.clone();
        if self.chain_said.is_plain {
            return self
                .tell(span, "an earlier block has this chain without a hook, and the kernel adds none");
        }
        let Some(chain) = self.chain_at(table, chain) else { return Err(Told) };
        match &chain.base {
            None => chain.base = Some(base),
            Some(old) if (old.kind, old.hook, old.priority) == (base.kind, base.hook, base.priority) => {}
            Some(_) => return self.error(span, "the chain has another type, hook or priority already"),
        }
        Ok(())
    }

    /// What comments say to Weir.
    fn directives(&mut self) {
        for span in std::mem::take(&mut self.tokens.comments) {
            let text = self.text(&span);
            let Some(after) = directive(text) else { continue };
            let line = self.source.line_range(self.source.line_of(span.start));
            let begins_line = self.text(&(line.start..span.start)).trim().is_empty();
            let mut words = after.split_whitespace();
            let result = match (words.next(), words.next(), words.next()) {
                _ if !begins_line => self.error(span, "a word to Weir stands at the start of a line"),
                (Some("allow"), Some("open"), None) => {
                    self.ruleset.allows_open = true;
                    Ok(())
                }
                (Some("never" | "always"), _, _) => self.assertion(&span, after),
                (None, _, _) if !text.contains(':') => {
                    self.error(span, "a word to Weir has a colon: write \"# weir: ...\"")
                }
                (None, _, _) => self.error(span, "a word to Weir is missing, such as \"allow open\""),
                _ => self.error(span, format!("unknown word to Weir: {}", quoted(after.trim()))),
            };
            debug_assert!(result.is_ok() || self.diagnostics.errors() > 0);
        }
    }
}
