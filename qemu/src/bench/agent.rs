//! The traffic generators: this program again, in another namespace. Each says one line of JSON at its end; those
//! that others have to wait for say [`READY`] before.

use super::{connections, datagrams, echo};
use crate::error::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::io::Write;
use std::net::Ipv4Addr;

/// The name of the subcommand.
pub const COMMAND: &str = "bench-agent";

/// What a server says when it listens.
pub const READY: &str = "ready";

/// Options of `bench-agent`.
#[derive(Debug, Clone, Args)]
pub struct Agent {
    /// Which generator.
    #[command(subcommand)]
    pub role: Role,
}

/// The generators.
#[derive(Debug, Clone, Subcommand)]
pub enum Role {
    /// Sends echo requests until one is answered, which it says at once
    FirstEcho {
        /// The server
        to: Ipv4Addr,
        /// Time between two requests
        interval_ms: u64,
        /// When to give up
        millis: u64,
    },
    /// Measures the round trips of echo requests
    Echo {
        /// The server
        to: Ipv4Addr,
        /// Time between two requests
        interval_ms: u64,
        /// For how long
        millis: u64,
    },
    /// Sends datagrams at a pace
    DatagramSource {
        /// The server
        to: Ipv4Addr,
        /// Its port
        port: u16,
        /// Datagrams a second
        rate: u32,
        /// For how long
        millis: u64,
    },
    /// Counts datagrams
    DatagramSink {
        /// The port
        port: u16,
        /// For how long at most
        millis: u64,
    },
    /// Opens connections and closes them
    ConnectionSource {
        /// The server
        to: Ipv4Addr,
        /// For how long
        millis: u64,
    },
    /// Takes connections until their other end closes them
    ConnectionSink {
        /// For how long
        millis: u64,
    },
}

/// Does what the role says.
///
/// # Errors
/// A socket cannot be had, or fails.
pub fn run(agent: &Agent) -> Result<()> {
    match agent.role {
        Role::FirstEcho { to, interval_ms, millis } => say(&echo::first(to, interval_ms, millis)?),
        Role::Echo { to, interval_ms, millis } => say(&echo::trips(to, interval_ms, millis)?),
        Role::DatagramSource { to, port, rate, millis } => say(&datagrams::send(to, port, rate, millis)?),
        Role::DatagramSink { port, millis } => say(&datagrams::sink(port, millis)?),
        Role::ConnectionSource { to, millis } => say(&connections::open(to, millis)?),
        Role::ConnectionSink { millis } => say(&connections::sink(millis)?),
    }
}

fn say(result: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(result).context(|| "cannot write JSON".to_owned())?;
    line(&text)
}

/// Says that a server listens.
pub fn ready() -> Result<()> {
    line(READY)
}

fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context(|| "nobody listens".to_owned())
}
