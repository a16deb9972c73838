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
    /// The places of chains and sets by their names.
    pub chain_index: HashMap<String, usize>,
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
    Masquerade,
    Snat { names_family: bool, to: Value },
    Dnat { names_family: bool, to: Value, port: Option<Value> },
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
