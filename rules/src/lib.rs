//! The policy of a site as static data: what a packet meets, hook by hook.
//!
//! A packet appears here as a [`Candidate`], a few numbers; no octet of it is read. The
//! tables are written by `rules-compiler` from `weir.toml` and `rules.nft`; whoever forwards the packet acts on
//! the [`Decision`]. Evaluation allocates nothing and ends after a number of steps that the
//! compiler has bounded.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod candidate;
pub mod code;
mod count;
mod dynamic;
pub mod forward;
pub mod hosts;
pub mod memory;
pub mod object;
pub mod opening;
pub mod policy;
pub mod residue;
pub mod site;
pub mod table;
pub mod translation;
pub mod tree;
mod walk;
mod walkers;

pub use candidate::{Candidate, Connection, Direction, Endpoints, Hook, State, Stations};
pub use count::Counts;
pub use forward::Forward;
pub use memory::Memory;
pub use policy::{Decision, Met, Point, Policy, Reject, Tally, Verdict};
pub use residue::Residue;
pub use table::{CounterId, Location, RuleId, Stage};
pub use translation::SourceNat;
