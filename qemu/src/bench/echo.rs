//! Echo requests (RFC 792), over the kernel's ICMP sockets: it fills in identifier and checksum.

use crate::error::{Context, Error, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// An echo request with 56 octets of data, as `ping` sends it.
const REQUEST: usize = 64;

/// Type of a request and of a reply.
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// The octets of the sequence number.
const SEQUENCE: std::ops::Range<usize> = 6..8;

/// That there was an answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Answered {
    /// Requests sent until then.
    pub requests: u64,
}

/// Round trips.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Trips {
    /// Requests sent.
    pub sent: usize,
    /// Round trip times in microseconds, ascending.
    pub micros: Vec<f64>,
}

impl Trips {
    /// The time that this share of all trips did not exceed.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.micros.len().checked_sub(1)?;
        self.micros.get((last as f64 * share).round() as usize).copied()
    }
}

struct Pinger {
    socket: UdpSocket,
    to: SocketAddrV4,
    sent_at: Vec<Instant>,
}

impl Pinger {
    fn new(to: Ipv4Addr) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, SockProtocol::Icmp);
        let socket = UdpSocket::from(socket.context(|| "no socket for echo requests".to_owned())?);
        Ok(Self { socket, to: SocketAddrV4::new(to, 0), sent_at: Vec::new() })
    }

    fn send(&mut self) {
        let mut request = [0; REQUEST];
        request[0] = ECHO;
        request[SEQUENCE].copy_from_slice(&(self.sent_at.len() as u16).to_be_bytes());
        self.sent_at.push(Instant::now());
        // While there is no route yet this fails, and the next request is another chance.
        let _ = self.socket.send_to(&request, self.to);
    }

    /// Waits for a reply until then; when its request was sent.
    fn reply(&self, until: Instant) -> Result<Option<Instant>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).context(|| "no timeout".to_owned())?;
            let mut reply = [0; REQUEST];
            // Errors are those of requests that found no route, and timeouts.
            let Ok(length) = self.socket.recv(&mut reply) else { continue };
            if length >= SEQUENCE.end && reply[0] == ECHO_REPLY {
                let sequence = u16::from_be_bytes([reply[SEQUENCE.start], reply[SEQUENCE.start + 1]]);
                return Ok(self.sent_at.get(usize::from(sequence)).copied());
            }
        }
    }
}

/// Sends requests until one is answered.
///
/// # Errors
/// None is in time.
pub fn first(to: Ipv4Addr, interval_ms: u64, millis: u64) -> Result<Answered> {
    let mut pinger = Pinger::new(to)?;
    let end = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < end {
        pinger.send();
        if pinger.reply(Instant::now() + Duration::from_millis(interval_ms))?.is_some() {
            return Ok(Answered { requests: pinger.sent_at.len() as u64 });
        }
    }
    Err(Error::new(format!("no echo reply from {to} within {millis} ms")))
}

/// Measures for some time.
///
/// # Errors
/// There is no socket.
pub fn trips(to: Ipv4Addr, interval_ms: u64, millis: u64) -> Result<Trips> {
    let mut pinger = Pinger::new(to)?;
    let mut trips = Trips::default();
    let end = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < end && pinger.sent_at.len() < usize::from(u16::MAX) {
        pinger.send();
        let next = Instant::now() + Duration::from_millis(interval_ms);
        while let Some(sent_at) = pinger.reply(next)? {
            trips.micros.push(sent_at.elapsed().as_secs_f64() * 1e6);
        }
    }
    trips.sent = pinger.sent_at.len();
    trips.micros.sort_by(f64::total_cmp);
    Ok(trips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_and_of_none() {
        let trips = Trips { sent: 3, micros: vec![1.0, 2.0, 9.0] };
        assert_eq!(
            (trips.quantile(0.0), trips.quantile(0.5), trips.quantile(1.0)),
            (Some(1.0), Some(2.0), Some(9.0))
        );
        assert_eq!(Trips::default().quantile(0.5), None);
    }
}
