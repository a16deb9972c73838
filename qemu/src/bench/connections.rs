//! New connections, one after another, many in flight.

use super::agent;
use crate::error::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket, sockopt};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The server's ports, so that a client's ports last.
const PORTS: std::ops::Range<u16> = 7000..7016;
/// Connections that are being opened at a time.
const IN_FLIGHT: usize = 64;
/// Open files: every connection is one.
const FILES: u64 = 65_536;
/// How long to wait for events, in milliseconds.
const WAIT: u8 = 10;

/// What became of the connections.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Opened {
    /// Opened, and closed again.
    pub opened: u64,
    /// Refused, or without an answer.
    pub failed: u64,
    /// In how many seconds.
    pub seconds: f64,
}

/// What the server saw.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Accepted {
    /// Connections.
    pub accepted: u64,
}

fn epoll() -> Result<Epoll> {
    // With fewer files there are fewer connections, which shows in the result.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES);
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(|| "no epoll".to_owned())
}

/// Opens connections and closes them, as many as the time allows.
///
/// # Errors
/// There are no sockets.
pub fn open(to: Ipv4Addr, millis: u64) -> Result<Opened> {
    let epoll = epoll()?;
    let length = Duration::from_millis(millis);
    let began = Instant::now();
    let mut slots: Vec<Option<OwnedFd>> = (0..IN_FLIGHT).map(|_| None).collect();
    let mut ports = PORTS.cycle();
    let mut result = Opened::default();
    let mut events = [EpollEvent::empty(); IN_FLIGHT];
    while began.elapsed() < length {
        for (index, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let port = ports.next().unwrap_or(PORTS.start);
            *slot = begin(&epoll, SocketAddrV4::new(to, port), index as u64);
            result.failed += u64::from(slot.is_none());
        }
        let count = epoll.wait(&mut events, EpollTimeout::from(WAIT)).unwrap_or(0);
        for event in events.iter().take(count) {
            // Dropping closes it.
            let Some(done) = slots.get_mut(event.data() as usize).and_then(Option::take) else { continue };
            match getsockopt(&done, sockopt::SocketError) {
                Ok(0) => result.opened += 1,
                _ => result.failed += 1,
            }
        }
    }
    result.seconds = began.elapsed().as_secs_f64();
    Ok(result)
}

/// Begins to open a connection.
fn begin(epoll: &Epoll, to: SocketAddrV4, index: u64) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).ok()?;
    match connect(socket.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(_) => return None,
    }
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLOUT, index)).ok()?;
    Some(socket)
}

/// Takes connections, each until its other end closes it.
///
/// # Errors
/// The ports cannot be had.
pub fn sink(millis: u64) -> Result<Accepted> {
    let epoll = epoll()?;
    let mut listeners = Vec::new();
    for (index, port) in PORTS.enumerate() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let listener = listener.context(|| format!("no TCP port {port}"))?;
        listener.set_nonblocking(true).context(|| "no socket that does not wait".to_owned())?;
        epoll
            .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))
            .context(|| "no epoll".to_owned())?;
        listeners.push(listener);
    }
    agent::ready()?;
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut result = Accepted::default();
    let mut events = [EpollEvent::empty(); 256];
    let end = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < end {
        let count = epoll.wait(&mut events, EpollTimeout::from(WAIT)).unwrap_or(0);
        for event in events.iter().take(count) {
            match listeners.get(event.data() as usize) {
                Some(listener) => {
                    while let Ok((stream, _)) = listener.accept() {
                        result.accepted += 1;
                        let id = listeners.len() as u64 + result.accepted;
                        let is_watched = stream.set_nonblocking(true).is_ok()
                            && epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id)).is_ok();
                        if is_watched {
                            streams.insert(id, stream);
                        }
                    }
                }
                None => close_at_end(&mut streams, event.data()),
            }
        }
    }
    Ok(result)
}

/// Closes a connection of which the other end has.
fn close_at_end(streams: &mut HashMap<u64, TcpStream>, id: u64) {
    let has_more = streams.get_mut(&id).map(|stream| stream.read(&mut [0; 256]));
    let is_open = match has_more {
        Some(Ok(octets)) => octets > 0,
        Some(Err(cause)) => cause.kind() == std::io::ErrorKind::WouldBlock,
        None => false,
    };
    if !is_open {
        streams.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_to_nobody_fail_and_end_in_time() {
        let result = open(Ipv4Addr::new(127, 0, 0, 99), 30).unwrap();
        assert!(result.opened == 0 && result.failed > 0 && result.seconds >= 0.03, "{result:?}");
    }
}
