//! Stateful IPv4 NAT.
//!
//! A [`Packet`] copies and checks the headers of what arrived. [`Nat`] knows the sessions: it
//! finds the one that a packet belongs to, or binds a new one to an external endpoint, and says
//! how the packet is to be translated. [`Packet::rewrite`] writes the translated headers.
//!
//! Whether a packet may pass is the policy's business, where it goes is the router's; this crate
//! knows neither. Time and chance come in as arguments, and nothing is allocated after
//! [`Nat::new`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod blocks;
pub mod checksum;
mod config;
mod contacts;
mod endpoint;
mod expendable;
mod fragment;
mod icmp;
mod index;
mod keyed;
mod large;
mod malformed;
mod mapping;
mod packet;
mod ports;
mod quota;
mod segment;
mod session;
mod table;
mod tcp;
mod timers;
mod translate;
mod window;

pub use config::{ClientQuota, Config, Filtering, Options, Reserved, Timeouts, UdpShort, WellKnownPorts};
pub use endpoint::{Direction, Endpoint, Tuple, protocol};
pub use fragment::Fragment;
pub use icmp::Embedded;
pub use malformed::Malformed;
pub use packet::{Checksum, HEAD_MAX, Packet};
pub use segment::{Segment, flags as tcp_flags};
pub use session::{Session, SessionId};
pub use table::{Admitted, Binding, Counts, Gone, Guess, Hit, Nat, Refusal, SourceNat, Unbound};
pub use tcp::Refused;
pub use translate::Translation;
