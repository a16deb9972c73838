//! The appliance: what happens to a packet between two ports.
//!
//! [`datapath`] is the place to begin: a packet walks through it from top to bottom. The other
//! modules answer its questions: where does it go ([`route`]), who is next ([`neighbor`]), what do
//! we say ourselves ([`icmp`]), and how did it end ([`counters`]). Time, chance and devices come in
//! as arguments, so the same code runs in the image, in tests and in benchmarks.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod assign;
mod candidate;
mod config;
pub mod contract;
pub mod counters;
pub mod datapath;
mod effects;
pub mod fragment;
mod hash;
pub mod icmp;
pub mod identification;
pub mod neighbor;
pub mod port;
pub mod route;
mod segment;
pub mod services;
pub mod syn;

pub use config::held_frames;
pub use counters::Dropped;
pub use datapath::Datapath;
