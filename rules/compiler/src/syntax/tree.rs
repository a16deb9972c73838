//! The tree of a `rules.nft`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use rules::Hook;
use rules::object::{Level, Limit, Quota};
use rules::table::{Change, Kind};

use super::keys::{Datatype, Key};
use crate::prove::Claim;

pub(crate) type Span = Range<usize>;

#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    pub tables: Vec<Table>,
    pub assertions: Vec<Asserted>,
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
    pub chains: Vec<Chain>,
    pub sets: Vec<NamedSet>,
    pub maps: Vec<NamedMap>,
    /// The places of chains by their names.
    pub chain_index: HashMap<String, usize>,
    /// Of sets and maps.
    pub set_names: HashSet<String>,
    /// Named counters, limits and quotas.
    pub objects: Vec<Object>,
}

impl Table {
    /// Its family and name.
    pub fn shown(&self) -> String {
        let family = match self.family {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
        };
        format!("{family} {}", self.name)
    }
}

/// `never ...` and `always ...`, as they are written.
#[derive(Debug)]
pub(crate) struct Asserted {
    pub span: Span,
    pub claim: Claim,
    pub is_after_nat: bool,
    pub matches: Vec<Statement>,
}

/// What a rule names to share it with others.
#[derive(Debug)]
pub(crate) struct Object {
    pub name: String,
    pub span: Span,
    /// The block of a table that it stands in.
    pub block: usize,
    pub what: Shared,
}

/// What rules may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    Counter,
    Limit(Limit),
    Quota(Quota),
}

impl Shared {
    /// Its word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Limit(_) => "limit",
            Self::Quota(_) => "quota",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Chain {
    pub name: String,
    pub span: Span,
    /// The block of a table that has it first.
    pub block: usize,
    pub base: Option<BaseSpec>,
    /// A hook was said, though perhaps none that there is.
    pub names_hook: bool,
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
    /// The block of a table that it stands in.
    pub block: usize,
    /// The types of what its elements join; none when that was not said.
    pub types: Vec<Datatype>,
    pub flags: SetFlags,
    pub merges: bool,
    pub elements: Vec<Value>,
    /// Some elements could not be read.
    pub lacks_elements: bool,
    pub size: Option<u32>,
    /// In milliseconds.
    pub timeout: Option<u64>,
    /// Where `counter` was said: elements count.
    pub counter: Option<Span>,
    /// Where `gc-interval` was said.
    pub swept: Option<Span>,
}

/// The flags of a set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetFlags {
    pub is_interval: bool,
    pub is_constant: bool,
    pub is_dynamic: bool,
    pub has_timeout: bool,
}

#[derive(Debug)]
pub(crate) struct NamedMap {
    pub name: String,
    pub span: Span,
    /// The types of what its keys join; none when that was not said.
    pub types: Vec<Datatype>,
    pub is_interval: bool,
    pub size: Option<u32>,
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
    Marks(Rc<Vec<MapItem<Value>>>),
}

impl Elements {
    /// The keys, where they are said.
    pub fn keys(&self) -> Vec<Option<&Value>> {
        fn of<T>(items: &[MapItem<T>]) -> Vec<Option<&Value>> {
            items.iter().map(|item| item.key.as_ref()).collect()
        }
        match self {
            Self::Untyped => Vec::new(),
            Self::Verdicts(items) => of(items),
            Self::Places(_, items) => of(items),
            Self::Marks(items) => of(items),
        }
    }
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
    /// The block of a table that it stands in.
    pub block: usize,
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
    Concatenation(Box<Concatenation>),
    Fib(Box<Fib>),
    Counter,
    /// The name of a counter, limit or quota.
    Named(&'static str, Span),
    Limit(Limit),
    Quota(Quota),
    Log(Log),
    Mark(Box<Mark>),
    Update(Box<Update>),
    Connections(Connections),
    /// `notrack`
    Untrack,
    /// `tcp option maxseg size set`: to a value, or without one to `rt mtu`.
    Segment(Option<Value>),
    Accept,
    Drop,
    Return,
    Continue,
    Jump(String, Span),
    Goto(String, Span),
    Reject(RejectWith),
    Masquerade {
        ports: Option<Value>,
        random: Option<Span>,
    },
    Redirect {
        ports: Option<Value>,
        random: Option<Span>,
    },
    Translate(Box<Translation>),
    Verdicts(Box<Mapping<What>>),
    /// `fib ... vmap { ... }`
    FibVerdicts(Box<Fib>, Vec<MapItem<Self>>),
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
            Self::FibVerdicts(_, items) => items.iter().map(|item| &item.to).collect(),
            what => vec![what],
        }
    }

    /// Whether nothing may follow it in its rule.
    pub fn is_last(&self) -> bool {
        !matches!(
            self,
            Self::Match(_)
                | Self::Concatenation(_)
                | Self::Fib(_)
                | Self::Counter
                | Self::Named(..)
                | Self::Limit(_)
                | Self::Quota(_)
                | Self::Log(_)
                | Self::Mark(_)
                | Self::Update(_)
                | Self::Connections(_)
                | Self::Segment(_)
                | Self::Untrack
        )
    }

    /// How many elements are looked at: those of its map, or one.
    pub fn width(&self) -> usize {
        match self {
            Self::Verdicts(map) => map.items.len(),
            Self::FibVerdicts(_, items) => items.len(),
            Self::Mark(mark) => mark.map.as_ref().map_or(1, |map| map.items.len() + 1),
            Self::Translate(translation) => match &translation.to {
                Target::Map(map) => map.items.len(),
                Target::Value(_) | Target::Ports(_) => 1,
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
    /// A port alone: each address stays.
    Ports(Value),
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
    /// What is done with it before it is looked up.
    pub bits: Vec<(BitOperator, Value)>,
    /// What else is joined to the key.
    pub more: Vec<(&'static Key, Span)>,
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
    /// The name of an ICMPv6 code.
    Icmpv6(Span),
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
    /// The same for numbers: `key & a | b ^ c ...`
    pub bits: Vec<(BitOperator, Value)>,
    pub operator: Operator,
    pub value: Value,
    /// `key value / of`
    pub of: Option<Value>,
}

/// A comparison of some numbers, one after the other.
#[derive(Debug)]
pub(crate) struct Concatenation {
    pub keys: Vec<(&'static Key, Span)>,
    pub operator: Operator,
    pub value: Value,
}

/// What `fib` finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The type of an address.
    Type,
    /// The interface towards it.
    Interface,
    /// The same by name.
    Name,
}

/// `fib saddr|daddr [. iif] type|oif|oifname ...`
#[derive(Debug, Clone)]
pub(crate) struct Fib {
    /// Of the source; else of the destination.
    pub is_source: bool,
    /// Where `iif` was said.
    pub of_input: Option<Span>,
    pub wanted: Way,
    pub key_span: Span,
    pub operator: Operator,
    pub value: Value,
}

/// `log`
#[derive(Debug)]
pub(crate) struct Log {
    pub prefix: String,
    pub level: Level,
    /// Where `flags` was said.
    pub flags: Option<Span>,
    /// Where a group was said: who would listen for the line.
    pub group: Option<Span>,
}

/// `meta mark set` and `ct mark set`.
#[derive(Debug)]
pub(crate) struct Mark {
    /// What is set.
    pub key: &'static Key,
    /// The mark that it is made from, if it is made from one.
    pub from: Option<&'static Key>,
    /// The value, when it is made from none.
    pub value: Option<Value>,
    /// What it is looked up in, when it is.
    pub map: Option<Mapping<Value>>,
    pub bits: Vec<(BitOperator, Value)>,
}

/// `add|update|delete @set { ... }` and `meter`
#[derive(Debug)]
pub(crate) struct Update {
    pub how: Change,
    /// The name of the set; of a meter, which has a set of its own, the name alone.
    pub name: Span,
    pub is_meter: bool,
    /// The size of a meter.
    pub size: Option<u32>,
    pub keys: Vec<(&'static Key, Span)>,
    /// In milliseconds; 0 when none was said.
    pub timeout: u64,
    pub limit: Option<(Limit, Span)>,
    pub count: Option<Connections>,
    /// Where `counter` was said, and whether that was ahead of the limit.
    pub counter: Option<(Span, bool)>,
}

/// `ct count [over] N`
#[derive(Debug)]
pub(crate) struct Connections {
    pub limit: u32,
    pub is_over: bool,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitOperator {
    And,
    Or,
    Xor,
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
    /// `a . b`
    Concatenation(Vec<Value>),
    /// An IPv6 or Ethernet address.
    Colons,
    /// An IPv6 address, which is what the span holds, and a prefix length.
    Prefix6(u8),
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
