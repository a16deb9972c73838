//! Datagrams at a pace, and who counts them.

use super::agent;
use crate::error::{Context, Result};
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Octets of data.
const SIZE: usize = 64;
/// Flows, each with its own source port.
const FLOWS: usize = 16;
/// Datagrams that a flow sends one after another.
const TRAIN: u64 = 16;
/// Time between two bursts.
const TICK: Duration = Duration::from_micros(250);
/// What was not sent for so long is given up, so that a late sender sends no storm.
const BACKLOG: Duration = Duration::from_millis(4);
/// Octets of the sink's buffer: it is to lose nothing.
const BUFFER: usize = 64 << 20;
/// How long after the last datagram the sink ends.
const SILENCE: Duration = Duration::from_millis(400);

/// What was sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// In how many seconds.
    pub seconds: f64,
}

/// What arrived.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Received {
    /// Datagrams.
    pub datagrams: u64,
    /// Seconds between the first and the last.
    pub seconds: f64,
}

/// How many datagrams are due, and how many of those missed are given up.
fn due(elapsed: Duration, rate: u32, done: u64) -> (u64, u64) {
    let rate = f64::from(rate);
    let due = ((elapsed.as_secs_f64() * rate) as u64).saturating_sub(done);
    let most = (BACKLOG.as_secs_f64() * rate) as u64 + 1;
    (due.min(most), due.saturating_sub(most))
}

/// Sends `rate` datagrams a second.
///
/// # Errors
/// A socket cannot be had.
pub fn send(to: Ipv4Addr, port: u16, rate: u32, millis: u64) -> Result<Sent> {
    let flows: Vec<UdpSocket> = (0..FLOWS).map(|_| connected(to, port)).collect::<Result<_>>()?;
    // Sleeps are as long as they say. Without it the pace is coarser.
    let _ = set_timerslack(1);
    let length = Duration::from_millis(millis);
    let began = Instant::now();
    let (mut sent, mut done, mut flow) = (0, 0, 0);
    while began.elapsed() < length {
        let (mut now, given_up) = due(began.elapsed(), rate, done);
        done += now + given_up;
        while now > 0 {
            let train = now.min(TRAIN);
            let socket = &flows[flow % FLOWS];
            // A full queue refuses, which is a datagram that was not sent.
            sent += (0..train).filter(|_| socket.send(&[0x77; SIZE]).is_ok()).count() as u64;
            now -= train;
            flow += 1;
        }
        thread::sleep(TICK);
    }
    Ok(Sent { datagrams: sent, seconds: began.elapsed().as_secs_f64() })
}

fn connected(to: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let make = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((to, port))?;
        Ok::<_, std::io::Error>(socket)
    };
    make().context(|| format!("no socket to {to}"))
}

/// Counts what arrives, until nothing has for a while.
///
/// # Errors
/// The socket cannot be had.
pub fn sink(port: u16, millis: u64) -> Result<Received> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context(|| format!("no UDP port {port}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).context(|| "no large buffer".to_owned())?;
    socket.set_nonblocking(true).context(|| "no socket that does not wait".to_owned())?;
    agent::ready()?;
    let end = Instant::now() + Duration::from_millis(millis);
    let (mut count, mut first, mut last) = (0, None, Instant::now());
    let mut buffer = [0; 2048];
    while Instant::now() < end && !(first.is_some() && last.elapsed() > SILENCE) {
        let batch = (0..64).take_while(|_| socket.recv(&mut buffer).is_ok()).count();
        if batch > 0 {
            last = Instant::now();
            first.get_or_insert(last);
            count += batch as u64;
        }
        // In batches, so as to take little time from what is measured.
        if batch < 16 {
            thread::sleep(TICK);
        }
    }
    let seconds = first.map_or(0.0, |first| (last - first).as_secs_f64());
    Ok(Received { datagrams: count, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_sender_gives_up_what_is_old() {
        assert_eq!(due(Duration::from_millis(10), 1000, 8), (2, 0));
        assert_eq!(due(Duration::from_millis(10), 1000, 11), (0, 0));
        assert_eq!(due(Duration::from_millis(100), 1000, 0), (5, 95));
    }

    #[test]
    fn a_sender_ends_in_time_when_nobody_listens() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sent = send(Ipv4Addr::LOCALHOST, free, 1000, 50).unwrap();
        assert!(sent.seconds >= 0.05, "{sent:?}");
    }
}
