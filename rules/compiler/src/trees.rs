//! Decision trees over long chains: they leave out the rules that cannot hold.
//!
//! A rule is a box: for everything that trees look at the ranges in which it may hold, or more. A tree
//! halves the space until few boxes reach into a part of it, or until its share of the table is used up:
//! then a leaf has more rules, and a packet meets them one by one as it would without a tree.

use std::collections::HashMap;

use rules::table::{Action, Field};
use rules::tree::{ABSENT, DEPTH_MAX, DIMENSIONS, Node, TREES_MAX};

use crate::program::{Match, Rule, Step, Test};

/// Chains below this many rules are walked from rule to rule.
const CHAIN_MIN: usize = 12;
/// Leaves with no more rules than this are not divided.
const LEAF: usize = 6;
/// Places in lists that each rule may take in all leaves together.
const SHARE: usize = 6;
/// Of a set of more ranges a tree knows the first and the last number only.
const RANGES_MAX: usize = 64;
/// A rule is narrow in an address if it holds for no more of them than a /12 has.
const NARROW: u64 = 1 << 20;

const COUNT: usize = DIMENSIONS.len();
const ALL: (u32, u32) = (0, u32::MAX);

/// Ranges, sorted and apart.
type Ranges = Vec<(u32, u32)>;

/// The trees of a chain, and the most steps that they leave a packet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forest {
    pub roots: Vec<u32>,
    pub nodes: Vec<Node>,
    pub lists: Vec<u16>,
    pub steps: u64,
}

/// Where a rule may hold.
struct Bounds {
    ranges: [Ranges; COUNT],
    /// Whether it holds everywhere there, and nothing behind it is met.
    is_final: bool,
    steps: u64,
}

impl Bounds {
    fn of(rule: &Rule) -> Self {
        let mut ranges = [(); COUNT].map(|()| vec![ALL]);
        let mut is_exact = true;
        let premises = rule.steps.iter().take_while(|step| matches!(step, Step::Match(_) | Step::Lookup(_)));
        for step in premises.clone() {
            let Step::Match(of) = step else {
                is_exact = false;
                continue;
            };
            let dimension = DIMENSIONS.iter().position(|&field| field == of.field);
            match dimension.zip(held(of)) {
                Some((dimension, (held, is_all))) => {
                    ranges[dimension] = both(&ranges[dimension], &held);
                    is_exact &= is_all;
                }
                None => is_exact = false,
            }
        }
        let is_verdict = match rule.steps.get(premises.count()) {
            Some(Step::Do(action)) => !matches!(action, Action::Jump(_)),
            _ => false,
        };
        Self { ranges, is_final: is_exact && is_verdict, steps: rule.steps.len() as u64 + 1 }
    }

    fn is_nowhere(&self) -> bool {
        self.ranges.iter().any(Vec::is_empty)
    }

    fn reaches(&self, region: &Region) -> bool {
        self.ranges
            .iter()
            .zip(region)
            .all(|(ranges, part)| ranges.iter().any(|range| clipped(*range, *part).is_some()))
    }

    fn covers(&self, region: &Region) -> bool {
        let is_within =
            |ranges: &Ranges, part: &(u32, u32)| ranges.iter().any(|r| r.0 <= part.0 && part.1 <= r.1);
        self.ranges.iter().zip(region).all(|(ranges, part)| is_within(ranges, part))
    }

    /// Which tree it goes to: those narrow in the source, of the others those narrow in the destination.
    fn tree(&self) -> usize {
        let is_wide = |ranges: &Ranges| {
            ranges.iter().map(|range| u64::from(range.1 - range.0) + 1).sum::<u64>() > NARROW
        };
        self.ranges.iter().take(TREES_MAX - 1).position(|ranges| !is_wide(ranges)).unwrap_or(TREES_MAX - 1)
    }
}

/// Part of the space: a range of each number.
type Region = [(u32, u32); COUNT];

fn clipped(range: (u32, u32), part: (u32, u32)) -> Option<(u32, u32)> {
    let (first, last) = (range.0.max(part.0), range.1.min(part.1));
    (first <= last).then_some((first, last))
}

/// The numbers in both.
fn both(one: &Ranges, other: &Ranges) -> Ranges {
    one.iter().flat_map(|&a| other.iter().filter_map(move |&b| clipped(a, b))).collect()
}

/// The numbers for which a comparison holds, or more, and whether they are no more; nothing if they are
/// no few ranges.
fn held(of: &Match) -> Option<(Ranges, bool)> {
    let (ranges, is_exact) = match &of.test {
        Test::Equal(value) => (vec![(*value, *value)], true),
        Test::Range(first, last) => (vec![(*first, *last)], true),
        Test::In(ranges) if ranges.len() <= RANGES_MAX => (ranges.to_vec(), true),
        Test::In(ranges) if !of.negated => (vec![(ranges.first()?.0, ranges.last()?.1)], false),
        Test::In(_) => return None,
        Test::Masked { mask, value } => {
            let rest = !mask;
            if rest.wrapping_add(1) & rest != 0 || value & rest != 0 {
                return None;
            }
            (vec![(*value, value | rest)], true)
        }
    };
    // A packet without the number is where no comparison holds.
    let last = if matches!(of.field, Field::SourcePort | Field::DestinationPort) { 0xffff } else { ABSENT };
    let domain = vec![(0, last)];
    if !of.negated {
        return Some((both(&ranges, &domain), is_exact));
    }
    let mut others = Vec::new();
    let mut next = Some(0);
    for &(first, last) in &ranges {
        if let Some(from) = next.filter(|&from| from < first) {
            others.push((from, first - 1));
        }
        next = last.checked_add(1);
    }
    others.extend(next.map(|from| (from, u32::MAX)));
    Some((both(&others, &domain), is_exact))
}

/// A way to halve a part of the space.
#[derive(Clone, Copy)]
struct Cut {
    dimension: usize,
    last: u32,
    /// How many rules reach into the halves.
    counts: (usize, usize),
}

impl Cut {
    /// The larger half matters, and what is in both.
    fn cost(&self, rules: usize) -> usize {
        let (below, above) = self.counts;
        2 * below.max(above) + (below + above - rules)
    }
}

struct Planter<'a> {
    bounds: &'a [Bounds],
    forest: Forest,
    /// Lists that are there already.
    known: HashMap<Vec<u16>, u32>,
    /// The most steps of a leaf of the tree at hand.
    steps: u64,
}

impl Forest {
    /// The trees of a chain that is long enough, if they spare packets steps.
    pub fn plant(rules: &[Rule]) -> Option<Self> {
        if rules.len() < CHAIN_MIN || u16::try_from(rules.len()).is_err() {
            return None;
        }
        let bounds: Vec<_> = rules.iter().map(Bounds::of).collect();
        let mut planter =
            Planter { bounds: &bounds, forest: Self::default(), known: HashMap::new(), steps: 0 };
        for tree in 0..TREES_MAX {
            let of_tree = bounds.iter().zip(0u16..).filter(|(of, _)| of.tree() == tree && !of.is_nowhere());
            let of_tree: Vec<u16> = of_tree.map(|(_, number)| number).collect();
            if of_tree.is_empty() {
                continue;
            }
            let root = planter.forest.nodes.len() as u32;
            planter.forest.roots.push(root);
            planter.steps = 0;
            planter.grow([ALL; COUNT], of_tree.clone(), SHARE * of_tree.len(), 0);
            planter.forest.steps += planter.steps;
        }
        let linear: u64 = bounds.iter().map(|of| of.steps).sum();
        Some(planter.forest).filter(|forest| forest.steps < linear)
    }

    pub fn octets(&self) -> usize {
        size_of_val(&*self.roots) + size_of_val(&*self.nodes) + size_of_val(&*self.lists)
    }
}

impl Planter<'_> {
    /// Grows the part of a tree that is for a part of the space, whose leaves may have so many rules together.
    fn grow(&mut self, region: Region, mut rules: Vec<u16>, share: usize, depth: usize) {
        // Behind a rule that always ends the walk here nothing is met.
        if let Some(last) = rules.iter().position(|&rule| self.ends(rule, &region)) {
            rules.truncate(last + 1);
        }
        let cut = self.best(&region, &rules).filter(|cut| cut.counts.0 + cut.counts.1 <= share);
        let Some(cut) = cut.filter(|_| rules.len() > LEAF && depth + 2 < DEPTH_MAX) else {
            self.leaf(rules, depth);
            return;
        };
        let node = self.forest.nodes.len();
        self.forest.nodes.push(Node(0, 0));
        let (first, last) = region[cut.dimension];
        let halves = [(first, cut.last), (cut.last + 1, last)].map(|half| {
            let mut region = region;
            region[cut.dimension] = half;
            let reaching =
                rules.iter().copied().filter(|&rule| self.reaches(rule, &region)).collect::<Vec<_>>();
            (region, reaching)
        });
        let [below, above] = halves;
        let total = (below.1.len() + above.1.len()).max(1);
        let share_below = share * below.1.len() / total;
        self.grow(below.0, below.1, share_below, depth + 1);
        self.forest.nodes[node] = Node::inner(cut.dimension, cut.last, self.forest.nodes.len() as u32);
        self.grow(above.0, above.1, share - share_below, depth + 1);
    }

    fn leaf(&mut self, rules: Vec<u16>, depth: usize) {
        let steps: u64 = rules.iter().filter_map(|&rule| self.of(rule)).map(|of| of.steps).sum();
        self.steps = self.steps.max(steps + depth as u64);
        let (count, lists) = (rules.len() as u32, &mut self.forest.lists);
        let start = *self.known.entry(rules).or_insert_with_key(|rules| {
            lists.extend(rules);
            (lists.len() - rules.len()) as u32
        });
        self.forest.nodes.push(Node::leaf(start, count));
    }

    fn of(&self, rule: u16) -> Option<&Bounds> {
        self.bounds.get(usize::from(rule))
    }

    fn reaches(&self, rule: u16, region: &Region) -> bool {
        self.of(rule).is_some_and(|of| of.reaches(region))
    }

    fn ends(&self, rule: u16, region: &Region) -> bool {
        self.of(rule).is_some_and(|of| of.is_final && of.covers(region))
    }

    /// The best way to halve a part, if any leaves fewer rules in each half.
    fn best(&self, region: &Region, rules: &[u16]) -> Option<Cut> {
        let cuts = (0..COUNT).filter_map(|dimension| self.best_in(dimension, region[dimension], rules));
        cuts.min_by_key(|cut| cut.cost(rules.len()))
    }

    fn best_in(&self, dimension: usize, part: (u32, u32), rules: &[u16]) -> Option<Cut> {
        let extents = rules.iter().filter_map(|&rule| {
            let ranges = self.of(rule)?.ranges.get(dimension)?;
            let mut within = ranges.iter().filter_map(|&range| clipped(range, part));
            let first = within.next()?;
            Some((first.0, within.next_back().unwrap_or(first).1))
        });
        let (mut firsts, mut lasts): (Vec<_>, Vec<_>) = extents.unzip();
        firsts.sort_unstable();
        lasts.sort_unstable();
        let ends = firsts.iter().filter_map(|first| first.checked_sub(1)).chain(lasts.iter().copied());
        let cuts = ends.filter(|&last| part.0 <= last && last < part.1).map(|last| Cut {
            dimension,
            last,
            counts: (
                firsts.partition_point(|&first| first <= last),
                lasts.len() - lasts.partition_point(|&end| end <= last),
            ),
        });
        let cuts = cuts.filter(|cut| cut.counts.0.max(cut.counts.1) < rules.len());
        cuts.min_by_key(|cut| cut.cost(rules.len()))
    }
}
