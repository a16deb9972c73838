//! Which rules of a chain a packet may meet: a decision tree over what most rules look at.
//!
//! A chain of many rules has a few trees, each over some of its rules. A leaf lists the rules of
//! which one may hold, in order; they are then walked as rules are. So a tree never decides
//! anything: it leaves out what cannot hold.

use crate::candidate::Candidate;
use crate::table::Field;
use crate::walk::read;

/// What trees look at, by the number that a node has for it.
pub const DIMENSIONS: [Field; 7] = [
    Field::Source,
    Field::Destination,
    Field::Protocol,
    Field::SourcePort,
    Field::DestinationPort,
    Field::InputPort,
    Field::OutputPort,
];

/// The value of a field that a packet has not: behind all others.
pub const ABSENT: u32 = u32::MAX;

/// The most trees of a chain.
pub const TREES_MAX: usize = 3;

/// The deepest tree; what is deeper lets nothing pass.
pub const DEPTH_MAX: usize = 64;

/// The bits of a node's second word below its dimension.
const INDEX_BITS: u32 = 29;
const LEAF: u32 = 7;

/// A node: what a number is compared with; and the dimension above the place of the node for greater
/// numbers. The node for the others stands behind it. A leaf has the place of its list, and how many
/// rules that has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(pub u32, pub u32);

impl Node {
    /// Where numbers of a dimension up to `last` go on behind it, and greater ones at `greater`.
    #[must_use]
    pub const fn inner(dimension: usize, last: u32, greater: u32) -> Self {
        Self(last, (dimension as u32) << INDEX_BITS | greater)
    }

    /// So many rules from a place in the list on.
    #[must_use]
    pub const fn leaf(start: u32, count: u32) -> Self {
        Self(start, LEAF << INDEX_BITS | count)
    }
}

/// The trees of a chain.
#[derive(Debug, Clone, Copy)]
pub struct Trees {
    /// Where each begins.
    pub roots: &'static [u32],
    /// The nodes of all.
    pub nodes: &'static [Node],
    /// The lists of all leaves: rules by their places in the chain.
    pub lists: &'static [u16],
}

impl Trees {
    /// The rules that this packet may meet, a list of each tree.
    pub(crate) fn find(&self, candidate: &Candidate) -> [&'static [u16]; TREES_MAX] {
        let values = DIMENSIONS.map(|field| read(field, candidate).unwrap_or(ABSENT));
        let mut lists: [&'static [u16]; TREES_MAX] = [&[]; TREES_MAX];
        for (list, &root) in lists.iter_mut().zip(self.roots) {
            *list = self.descend(root, &values);
        }
        lists
    }

    fn descend(&self, root: u32, values: &[u32; 7]) -> &'static [u16] {
        let mut at = root;
        for _ in 0..DEPTH_MAX {
            let Some(&Node(word, second)) = self.nodes.get(at as usize) else {
                break;
            };
            let index = second & ((1 << INDEX_BITS) - 1);
            at = match values.get((second >> INDEX_BITS) as usize) {
                None => return self.list(word, index),
                Some(&value) if value <= word => at + 1,
                Some(_) => index,
            };
        }
        &[]
    }

    fn list(&self, start: u32, count: u32) -> &'static [u16] {
        let end = start.saturating_add(count) as usize;
        self.lists.get(start as usize..end).unwrap_or_default()
    }
}
