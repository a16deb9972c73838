//! What a simulated client does: ping, resolve, connect, fetch.

use crate::dns;
use crate::flow::Flow;
use crate::host::{Host, Stack};
use crate::refusal::IcmpError;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// The largest page that is fetched.
const PAGE_MAX: usize = 64 << 20;

/// How long a query waits for its answer before it is sent again (and how often, as long as time is left).
const RESEND: Duration = Duration::from_millis(800);

/// Why a probe has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// An ICMP error came back.
    Refused(IcmpError),
    /// The connection was reset while it was set up.
    Reset,
    /// The connection ended early, after this many octets.
    Cut(usize),
    /// Nothing came in time.
    Timeout,
    /// Something came, but not what was asked for.
    Unexpected(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "{error}"),
            Self::Reset => f.write_str("TCP reset"),
            Self::Cut(octets) => write!(f, "the connection ended after {octets} octets"),
            Self::Timeout => f.write_str("no answer"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

/// A probe's result, and the packet that opened its conversation, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe<T> {
    /// The first packet on the wire; `None` when not even that got out (no answer to ARP).
    pub opened: Option<Flow>,
    /// What came of it.
    pub outcome: Result<T, Failure>,
}

impl Host {
    /// Sends echo requests until one is answered or refused; the round-trip time.
    pub fn ping(&self, target: Ipv4Addr, timeout: Duration) -> Probe<Duration> {
        self.run(move |stack| stack.ping(target, timeout))
    }

    /// Asks a DNS server for the addresses of a name.
    pub fn resolve(&self, server: SocketAddrV4, name: &str, timeout: Duration) -> Probe<Vec<Ipv4Addr>> {
        let name = name.to_owned();
        self.run(move |stack| stack.resolve(server, &name, timeout))
    }

    /// Opens a TCP connection and closes it again; the time it took to open.
    pub fn connect(&self, server: SocketAddrV4, timeout: Duration) -> Probe<Duration> {
        self.run(move |stack| stack.connect(server, timeout))
    }

    /// Fetches a page over HTTP/1.0; its body.
    pub fn fetch(&self, server: SocketAddrV4, path: &str, timeout: Duration) -> Probe<Vec<u8>> {
        let path = path.to_owned();
        self.run(move |stack| stack.fetch(server, &path, timeout))
    }

    /// Sends a datagram until one comes back from there or an ICMP error does; its payload.
    pub fn exchange(&self, server: SocketAddrV4, payload: &[u8], timeout: Duration) -> Probe<Vec<u8>> {
        let payload = payload.to_owned();
        self.run(move |stack| stack.exchange(server, &payload, timeout))
    }
}

impl Stack {
    /// See [`Host::ping`].
    pub fn ping(&mut self, target: Ipv4Addr, timeout: Duration) -> Probe<Duration> {
        let ident = self.port();
        let address = self.identity.address();
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 2048]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        let bound = socket.bind(icmp::Endpoint::Ident(ident));
        let handle = self.sockets.add(socket);
        let (mut sequence, mut sent_at) = (0_u16, None);
        let outcome = self.until(timeout, |stack| {
            if let Some(error) = stack.refusal(target, ident) {
                return Some(Err(Failure::Refused(error)));
            }
            let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
            if bound.is_err() {
                return Some(Err(Failure::Unexpected("no identifier is free".into())));
            }
            while let Ok((octets, from)) = socket.recv() {
                if from == target.into() && answered(octets) == Some(sequence) {
                    return Some(Ok(sent_at.map_or(Duration::ZERO, |at: Instant| at.elapsed())));
                }
            }
            if sent_at.is_none_or(|at| at.elapsed() >= RESEND) {
                sequence = sequence.wrapping_add(1);
                sent_at = Some(Instant::now());
                request(socket, (address, ident), sequence, target);
            }
            None
        });
        self.finish(handle, target, ident, outcome)
    }

    /// See [`Host::resolve`].
    pub fn resolve(&mut self, server: SocketAddrV4, name: &str, timeout: Duration) -> Probe<Vec<Ipv4Addr>> {
        let id = self.port();
        let Some(query) = dns::query(id, name) else {
            return Probe {
                opened: None,
                outcome: Err(Failure::Unexpected(format!("{name} is no host name"))),
            };
        };
        let Probe { opened, outcome } = self.exchange(server, &query, timeout);
        let outcome = outcome.and_then(|reply| {
            dns::answers(id, &reply).ok_or_else(|| Failure::Unexpected(format!("no address for {name}")))
        });
        Probe { opened, outcome }
    }

    /// See [`Host::exchange`].
    pub fn exchange(&mut self, server: SocketAddrV4, payload: &[u8], timeout: Duration) -> Probe<Vec<u8>> {
        let port = self.port();
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 1 << 16]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let bound = socket.bind(port);
        let handle = self.sockets.add(socket);
        let mut sent_at = None;
        let outcome = self.until(timeout, |stack| {
            if let Some(error) = stack.refusal(*server.ip(), port) {
                return Some(Err(Failure::Refused(error)));
            }
            let socket = stack.sockets.get_mut::<udp::Socket<'_>>(handle);
            while let Ok((octets, meta)) = socket.recv() {
                if meta.endpoint == server.into() {
                    return Some(Ok(octets.to_vec()));
                }
            }
            if sent_at.is_none_or(|at: Instant| at.elapsed() >= RESEND) {
                sent_at = Some(Instant::now());
                if bound.is_err() || socket.send_slice(payload, server).is_err() {
                    return Some(Err(Failure::Unexpected("the datagram does not fit".into())));
                }
            }
            None
        });
        self.finish(handle, *server.ip(), port, outcome)
    }

    /// See [`Host::connect`].
    pub fn connect(&mut self, server: SocketAddrV4, timeout: Duration) -> Probe<Duration> {
        let began = Instant::now();
        let (handle, port) = self.open(server);
        let outcome = self.until(timeout, |stack| {
            stack.opening(handle, server, port).map(|opened| opened.map(|()| began.elapsed()))
        });
        self.close(handle);
        self.finish(handle, *server.ip(), port, outcome)
    }

    /// See [`Host::fetch`].
    pub fn fetch(&mut self, server: SocketAddrV4, path: &str, timeout: Duration) -> Probe<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let (handle, port) = self.open(server);
        let opened = self.until(timeout, |stack| stack.opening(handle, server, port));
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = match opened {
            Some(Ok(())) => self.request(handle, server, path, left),
            Some(Err(failure)) => Some(Err(failure)),
            None => None,
        };
        self.close(handle);
        self.finish(handle, *server.ip(), port, outcome)
    }

    fn open(&mut self, server: SocketAddrV4) -> (SocketHandle, u16) {
        let port = self.port();
        let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 16]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // A port of our own and a server's address are always ends of a connection; else it stays closed and shows so.
        let _ = socket.connect(self.interface.context(), server, (self.identity.address(), port));
        (self.sockets.add(socket), port)
    }

    /// Whether a connection that is being set up is there, or will not be.
    fn opening(
        &mut self,
        handle: SocketHandle,
        server: SocketAddrV4,
        port: u16,
    ) -> Option<Result<(), Failure>> {
        if let Some(error) = self.refusal(*server.ip(), port) {
            return Some(Err(Failure::Refused(error)));
        }
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived => None,
            tcp::State::Closed => Some(Err(Failure::Reset)),
            _ => Some(Ok(())),
        }
    }

    fn request(
        &mut self,
        handle: SocketHandle,
        server: SocketAddrV4,
        path: &str,
        timeout: Duration,
    ) -> Option<Result<Vec<u8>, Failure>> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        let mut reply = Vec::new();
        let mut asked = false;
        self.until(timeout, |stack| {
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
            if !asked && socket.can_send() {
                asked = socket.send_slice(request.as_bytes()).is_ok_and(|sent| sent == request.len());
            }
            while socket.can_recv() && reply.len() < PAGE_MAX {
                // What can be received, can.
                let _ = socket.recv(|octets| {
                    reply.extend_from_slice(octets);
                    (octets.len(), ())
                });
            }
            let is_over = !socket.may_recv() || reply.len() >= PAGE_MAX;
            is_over.then(|| body(&reply))
        })
    }

    /// Ends a connection in order, and waits a little for the other side to do the same.
    fn close(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        let is_over = |stack: &mut Self| {
            let state = stack.sockets.get_mut::<tcp::Socket<'_>>(handle).state();
            matches!(state, tcp::State::Closed | tcp::State::TimeWait | tcp::State::FinWait2).then_some(())
        };
        // A side that does not answer is reset below, when its socket goes.
        if self.until(Duration::from_millis(200), is_over).is_none() {
            self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
            self.poll(Duration::ZERO);
        }
    }

    fn finish<T>(
        &mut self,
        handle: SocketHandle,
        destination: Ipv4Addr,
        port: u16,
        outcome: Option<Result<T, Failure>>,
    ) -> Probe<T> {
        self.sockets.remove(handle);
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        Probe { opened: self.sent(destination, port), outcome }
    }
}

/// Queues an echo request. Its data names the sender: identifiers may be translated, and two hosts' pings still differ.
fn request(socket: &mut icmp::Socket<'_>, (address, ident): (Ipv4Addr, u16), seq_no: u16, target: Ipv4Addr) {
    let data = format!("a ping from {address}, identifier {ident}");
    let repr = Icmpv4Repr::EchoRequest { ident, seq_no, data: data.as_bytes() };
    // One request waits at most: there is room.
    if let Ok(octets) = socket.send(repr.buffer_len(), target.into()) {
        repr.emit(&mut Icmpv4Packet::new_unchecked(octets), &ChecksumCapabilities::default());
    }
}

/// The sequence number that an echo reply answers.
fn answered(octets: &[u8]) -> Option<u16> {
    let packet = Icmpv4Packet::new_checked(octets).ok()?;
    match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()? {
        Icmpv4Repr::EchoReply { seq_no, .. } => Some(seq_no),
        _ => None,
    }
}

/// The body of an HTTP reply that has ended: it has to be a 200, and as long as it says.
fn body(reply: &[u8]) -> Result<Vec<u8>, Failure> {
    let end = reply.windows(4).position(|octets| octets == b"\r\n\r\n").ok_or(Failure::Cut(reply.len()))?;
    let (head, body) = reply.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::Unexpected(format!("the server said {status:?}")));
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match length.and_then(|(_, value)| value.trim().parse::<usize>().ok()) {
        Some(length) if length != body.len() => Err(Failure::Cut(body.len())),
        _ => Ok(body.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_page_is_its_body() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\npage"), Ok(b"page".to_vec()));
    }

    #[test]
    fn a_cut_or_refused_page_is_none() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\npage"), Err(Failure::Cut(4)));
        assert_eq!(body(b"HTTP/1.0 200 OK\r\n"), Err(Failure::Cut(17)));
        assert!(matches!(body(b"HTTP/1.0 404 Not Found\r\n\r\n"), Err(Failure::Unexpected(_))));
    }
}
