//! The tree of a `rules.nft`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use rules::Hook;
use rules::table::Kind;

use super::keys::{Datatype, Key};

pub(crate) type Span = Range<usize>;

#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    pub tables: Vec<Table>,
    /// The file says `# weir: allow open`.
    pub allows_open: bool,
    /// Whether all of it could be read; if not, what is missing is no error of its own.
    pub is_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ip,
    Ip6,
    Inet,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub family: Family,
    pub name: String,
    pub span: Span,
    pub chains: Vec<Chain>,
    pub sets: Vec<NamedSet>,
    pub maps: Vec<NamedMap>,
    /// The places of chains by their names.
    pub chain_index: HashMap<String, usize>,
    /// Of sets and maps.
    pub set_names: HashSet<String>,
}

#[derive(Debug)]
pub(crate) struct Chain {
    pub name: String,
    pub span: Span,
    pub base: Option<BaseSpec>,
    /// Whether the policy accepts.
    pub policy: Option<bool>,
    /// The comment says `weir: allow unreachable`.
    pub allows_unreachable: bool,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(crate) struct BaseSpec {
    pub kind: Kind,
    pub hook: Hook,
    pub priority: i32,
    pub span: Span,
    /// When it was declared, among all base chains.
    pub order: usize,
}

#[derive(Debug)]
pub(crate) struct NamedSet {
    pub name: String,
    pub span: Span,
    pub datatype: Option<Datatype>,
    pub is_interval: bool,
    pub merges: bool,
    pub elements: Vec<Value>,
}

#[derive(Debug)]
pub(crate) struct NamedMap {
    pub name: String,
    pub span: Span,
    pub key: Option<Datatype>,
    pub is_interval: bool,
    pub elements: Elements,
    /// Whether a rule looks into it.
    pub is_used: bool,
}

/// What a named map leads to.
#[derive(Debug)]
pub(crate) enum Elements {
    /// Its type was not said yet.
    Untyped,
    Verdicts(Rc<Vec<MapItem<What>>>),
    Places(Form, Rc<Vec<MapItem<Place>>>),
}

/// How the places of a map are written, all in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// Ranges or prefixes.
    pub is_run: bool,
    /// With a port.
    pub has_port: bool,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub span: Span,
    pub statements: Vec<Statement>,
    /// The comment says `weir: allow shadowed`.
    pub allows_shadowed: bool,
}

#[derive(Debug)]
pub(crate) struct Statement {
    pub span: Span,
    pub what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Match(Box<Match>),
    Counter,
    Accept,
    Drop,
    Return,
    Continue,
    Jump(String, Span),
    Goto(String, Span),
    Reject(RejectWith),
    Masquerade { ports: Option<Value>, random: Option<Span> },
    Translate(Box<Translation>),
    Verdicts(Box<Mapping<What>>),
}

impl What {
    /// The chain that this leads to, and where it is named.
    pub fn chain(&self) -> Option<(&str, &Span)> {
        match self {
            Self::Jump(name, span) | Self::Goto(name, span) => Some((name, span)),
            _ => None,
        }
    }

    /// The verdicts within: those of a map, or the one that this is.
    pub fn verdicts(&self) -> Vec<&Self> {
        match self {
            Self::Verdicts(map) => map.items.iter().map(|item| &item.to).collect(),
            what => vec![what],
        }
    }

    /// How many elements are looked at: those of its map, or one.
    pub fn width(&self) -> usize {
        match self {
            Self::Verdicts(map) => map.items.len(),
            Self::Translate(translation) => match &translation.to {
                Target::Map(map) => map.items.len(),
                Target::Value(_) => 1,
            },
            _ => 1,
        }
    }
}

/// `snat` and `dnat`.
#[derive(Debug)]
pub(crate) struct Translation {
    pub is_snat: bool,
    /// `ip` was said.
    pub names_family: bool,
    /// `prefix` was said.
    pub is_prefix: bool,
    /// `addr . port` was said: the map leads to ports too.
    pub wants_port: bool,
    /// `interval` was said: the map leads to ranges.
    pub wants_run: bool,
    pub to: Target,
    /// Where `random` or `fully-random` was said.
    pub random: Option<Span>,
}

/// What follows `to`.
#[derive(Debug)]
pub(crate) enum Target {
    Value(Place),
    Map(Mapping<Place>),
}

/// Where a translation leads.
#[derive(Debug)]
pub(crate) struct Place {
    /// An address, a range of them or a prefix.
    pub to: Value,
    /// A port or a range of them.
    pub ports: Option<Value>,
}

/// `key map { a : b, ... }` and `key vmap { a : verdict, ... }`
#[derive(Debug)]
pub(crate) struct Mapping<T> {
    pub key: &'static Key,
    pub key_span: Span,
    /// Where the name of a map stands, `@name`; its elements are those of that map.
    pub name: Option<Span>,
    pub items: Rc<Vec<MapItem<T>>>,
}

/// `a : b`
#[derive(Debug)]
pub(crate) struct MapItem<T> {
    pub span: Span,
    /// None for `*`, which is every other value.
    pub key: Option<Value>,
    pub to: T,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RejectWith {
    Default,
    TcpReset,
    /// The name of an ICMP code.
    Icmp(Span),
    /// The name of a code that is meant for either family.
    Icmpx(Span),
}

/// A comparison.
#[derive(Debug)]
pub(crate) struct Match {
    pub key: &'static Key,
    pub key_span: Span,
    /// `key & mask ...`
    pub mask: Option<Value>,
    pub operator: Operator,
    pub value: Value,
    /// `key value / of`
    pub of: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// None was written.
    Implicit,
    Equal,
    NotEqual,
    Less,
    Greater,
    AtMost,
    AtLeast,
    /// `!`, for bits.
    Not,
}

#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub span: Span,
    pub what: ValueWhat,
}

#[derive(Debug, Clone)]
pub(crate) enum ValueWhat {
    /// A name; its text is that of the span.
    Word,
    /// A name in quotes, which are within the span.
    Quoted,
    Number,
    Address,
    Range(Box<(Value, Value)>),
    /// An address and a prefix length.
    Prefix(Box<Value>, u8),
    /// `{ a, b }`
    Set(Vec<Value>),
    /// `@name`
    Named,
    /// `a, b`
    List(Vec<Value>),
    /// `a | b`
    Or(Vec<Value>),
    /// `$name`
    Variable(Rc<Value>),
}

impl Value {
    /// The value behind the variables, if it is one.
    pub fn resolved(&self) -> &Self {
        let mut value = self;
        while let ValueWhat::Variable(inner) = &value.what {
            value = inner;
        }
        value
    }
}
