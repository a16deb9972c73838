//! Weir, tested from the outside.
//!
//! A [`World`] is the appliance between links in memory, with a clock that is moved by hand and
//! neighbours that answer ARP. [`packet`] builds what they send, [`View`] reads what arrives, and
//! the [`judge`] looks at every frame that leaves, whether a test asks for it or not.
#![forbid(unsafe_code)]

pub mod chance;
pub mod client_vm;
pub mod connection;
pub mod image;
pub mod judge;
pub mod model;
pub mod netns;
pub mod packet;
pub mod plugged;
pub mod site;
pub mod talk;
pub mod taps;
pub mod tcp_model;
pub mod view;
pub mod watched;
pub mod world;

pub use chance::Chance;
pub use connection::Connection;
pub use packet::{At, echo, echo_reply, icmp, icmp_error, tcp, udp};
pub use view::{Seen, View};
pub use world::World;

/// TCP control bits (RFC 9293 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}
