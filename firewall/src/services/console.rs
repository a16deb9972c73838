//! The serial console: one command a line, answered at once.
//!
//! `stats` answers with one line of JSON, so that tools read the appliance's own figures and never
//! guess them. Input is a stranger's: lines have a limit, and what is not known is said so.

use core::fmt::{self, Write};

use netback::Link;

use smoltcp::wire::EthernetAddress;

use crate::counters::RuleCounter;
use crate::datapath::Datapath;

/// The longest command line, in octets; a longer one is no command.
pub const LINE_MAX: usize = 64;

/// A command of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// One line of JSON with all figures.
    Stats,
    /// What there is to say.
    Help,
    /// Ends the virtual machine.
    PowerOff,
    /// Starts it again.
    Reboot,
    /// A line that is no command.
    Unknown,
}

/// What `help` and an unknown command print.
pub const HELP: &str = "commands: stats, help, poweroff, reboot";

/// Puts octets together to lines.
#[derive(Default)]
pub struct Console {
    line: heapless::Vec<u8, LINE_MAX>,
    is_too_long: bool,
}

impl Console {
    /// Takes one octet; the command, once its line is complete.
    pub fn push(&mut self, octet: u8) -> Option<Command> {
        if octet != b'\n' && octet != b'\r' {
            self.is_too_long |= self.line.push(octet).is_err();
            return None;
        }
        let line = core::mem::take(&mut self.line);
        if core::mem::take(&mut self.is_too_long) {
            return Some(Command::Unknown);
        }
        match line.trim_ascii() {
            b"" => None,
            b"stats" => Some(Command::Stats),
            b"help" => Some(Command::Help),
            b"poweroff" => Some(Command::PowerOff),
            b"reboot" => Some(Command::Reboot),
            _ => Some(Command::Unknown),
        }
    }
}

/// Figures that only the machine knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineFigures {
    /// Milliseconds since the start of the clock.
    pub uptime_ms: u64,
    /// Memory that the machine has, in octets.
    pub memory_total: u64,
    /// Of the heap, in octets: nothing of it is used after boot.
    pub heap_free: u64,
    /// Allocations after boot: 0, unless a device that misbehaved was started again.
    pub late_allocations: u64,
    /// Interrupts taken since boot: how often it was woken.
    pub interrupts: u64,
}

/// Writes the line that `stats` answers with.
///
/// # Errors
/// What `out` says.
pub fn write_stats<L: Link>(
    out: &mut impl Write,
    datapath: &Datapath<L>,
    machine: &MachineFigures,
) -> fmt::Result {
    let occupancy = datapath.occupancy();
    let free = datapath.ports().first().map_or(0, |port| port.link.statistics().free_buffers);
    write!(
        out,
        r#"{{"uptime_ms":{},"ready":true,"memory":{{"total":{},"heap_free":{},"late_allocations":{}}},"interrupts":{},"sessions":{},"mappings":{},"evicted":{},"neighbors":{},"buffers_free":{},"ports":["#,
        machine.uptime_ms,
        machine.memory_total,
        machine.heap_free,
        machine.late_allocations,
        machine.interrupts,
        occupancy.sessions,
        occupancy.mappings,
        occupancy.evicted,
        occupancy.neighbors,
        free,
    )?;
    for (index, port) in datapath.ports().iter().enumerate() {
        separate(out, index)?;
        let (link, counters) = (port.link.statistics(), &port.counters);
        write!(
            out,
            r#"{{"name":"{}","mac":"{}","up":{},"mtu":{},"rx_frames":{},"rx_octets":{},"tx_frames":{},"tx_octets":{},"forwarded":{},"answered":{},"backlog":{},"link":{{"rx_runts":{},"rx_bad_offload":{},"rx_no_buffer":{},"tx_full":{},"tx_late":{},"tx_down":{},"device_errors":{},"restarts":{}}},"drops":{{"#,
            port.name,
            Mac(port.mac()),
            port.link.is_up(),
            port.link.mtu(),
            link.rx_frames,
            link.rx_octets,
            link.tx_frames,
            link.tx_octets,
            counters.forwarded,
            counters.answered,
            link.backlog,
            link.rx_runts,
            link.rx_bad_offload,
            link.rx_no_buffer,
            link.tx_full,
            link.tx_late,
            link.tx_down,
            link.device_errors,
            link.restarts,
        )?;
        for (position, (reason, count)) in counters.drops().enumerate() {
            separate(out, position)?;
            write!(out, r#""{}":{count}"#, reason.name())?;
        }
        out.write_str("}}")?;
    }
    out.write_str("],")?;
    write_places(out, "rules", datapath.rule_counters())?;
    out.write_char(',')?;
    write_places(out, "refusals", datapath.refusals())?;
    out.write_str("}\n")
}

/// Counters with the places of their rules.
fn write_places(
    out: &mut impl Write,
    name: &str,
    places: impl Iterator<Item = (rules::Location, RuleCounter)>,
) -> fmt::Result {
    write!(out, r#""{name}":["#)?;
    for (position, (at, counter)) in places.enumerate() {
        separate(out, position)?;
        write!(out, r#"{{"at":"{at}","packets":{},"octets":{}}}"#, counter.packets, counter.octets)?;
    }
    out.write_char(']')
}

/// A hardware address with colons, as everybody but smoltcp writes it.
pub struct Mac(pub EthernetAddress);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn separate(out: &mut impl Write, position: usize) -> fmt::Result {
    if position > 0 { out.write_char(',') } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &[u8]) -> alloc::vec::Vec<Command> {
        let mut console = Console::default();
        text.iter().filter_map(|&octet| console.push(octet)).collect()
    }

    #[test]
    fn lines_end_with_either_or_both_ends() {
        assert_eq!(
            commands(b"stats\nhelp\r\n poweroff \r"),
            [Command::Stats, Command::Help, Command::PowerOff]
        );
    }

    #[test]
    fn a_line_without_end_is_bounded_and_no_command() {
        for filling in [b'x', b' '] {
            let mut text = b"poweroff".to_vec();
            text.extend_from_slice(&[filling; 10_000]);
            text.extend_from_slice(b"x\nstats\n");
            assert_eq!(commands(&text), [Command::Unknown, Command::Stats]);
        }
    }
}
