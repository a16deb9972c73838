//! What hosts at the ends of wires say to each other: datagrams that come back, and files over TCP.
//!
//! These are jobs for hosts, which do one after another: a host serves or asks, not both at once.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use qemu::host::{Host, Stack};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::IpEndpoint;

/// Lets a host do something beside the test; returns when it has begun, and so before it hears anything else.
pub fn meanwhile<'scope, T: Send + 'static>(
    scope: &'scope Scope<'scope, '_>,
    host: &'scope Host,
    job: impl FnOnce(&mut Stack) -> T + Send + 'static,
) -> ScopedJoinHandle<'scope, T> {
    let (begin, begun) = mpsc::channel();
    let working = scope.spawn(move || {
        host.run(move |stack| {
            // The test waits below.
            let _ = begin.send(());
            job(stack)
        })
    });
    // Fails when the job has failed, which shows when it is joined.
    let _ = begun.recv();
    working
}

/// Sends every datagram to `port` back, until so many different ones have come; who sent them.
///
/// # Panics
/// If they do not come in time.
pub fn echo_datagrams(
    stack: &mut Stack,
    port: u16,
    different: usize,
    timeout: Duration,
) -> Vec<SocketAddrV4> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 1 << 17]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a port that is not zero");
    let handle = stack.sockets.add(socket);
    let (mut seen, mut sources) = (BTreeSet::new(), Vec::new());
    let done = stack.until(timeout, |stack| {
        let socket = stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        while socket.can_send()
            && let Ok((octets, from)) = socket.recv()
        {
            let octets = octets.to_vec();
            // From the address that was asked.
            socket.send_slice(&octets, from).expect("as large as what came");
            if seen.insert(octets) {
                sources.push(endpoint(from.endpoint));
            }
        }
        (sources.len() >= different && socket.send_queue() == 0).then_some(())
    });
    stack.sockets.remove(handle);
    assert!(done.is_some(), "of {different} datagrams to port {port}, these came: {sources:?}");
    sources
}

/// Sends a datagram from `port` until one comes back.
///
/// # Panics
/// If none does in time.
pub fn knock(stack: &mut Stack, port: u16, server: SocketAddrV4, timeout: Duration) {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 256]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a port that is not zero");
    let handle = stack.sockets.add(socket);
    let mut sent = None;
    let done = stack.until(timeout, |stack| {
        let socket = stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        if sent.is_none_or(|at: Instant| at.elapsed() > Duration::from_millis(100)) {
            sent = Some(Instant::now());
            socket.send_slice(b"knock", server).expect("there is room");
        }
        socket.recv().ok().map(drop)
    });
    stack.sockets.remove(handle);
    assert!(done.is_some(), "no answer from {server}");
}

/// Takes one connection to `port`, reads until its other end has sent `expected` octets, and sends `reply`; what
/// came, and from where.
///
/// # Panics
/// If the connection does not come, or does not end, in time.
pub fn serve_file(
    stack: &mut Stack,
    port: u16,
    expected: usize,
    reply: &[u8],
    timeout: Duration,
) -> (Vec<u8>, SocketAddrV4) {
    let mut socket = stream();
    socket.listen(port).expect("a port that is not zero");
    let handle = stack.sockets.add(socket);
    let mut talk = Talk::new(handle, reply, expected);
    let mut peer = None;
    let done = stack.until(timeout, |stack| {
        peer = peer.or(stack.sockets.get::<tcp::Socket<'_>>(handle).remote_endpoint());
        talk.step(stack, false)
    });
    finish(stack, handle, timeout);
    assert!(done.is_some(), "{talk:?} as the server on port {port}, peer {peer:?}");
    (talk.received, endpoint(peer.expect("a connection has a peer")))
}

/// Connects to a server, sends `request`, and reads until the server has sent `expected` octets.
///
/// # Panics
/// If that does not end in time.
pub fn fetch_file(
    stack: &mut Stack,
    server: SocketAddrV4,
    request: &[u8],
    expected: usize,
    timeout: Duration,
) -> Vec<u8> {
    let local = stack.port();
    let mut socket = stream();
    let from = (stack.identity.address(), local);
    socket.connect(stack.interface.context(), server, from).expect("two ends of a connection");
    let handle = stack.sockets.add(socket);
    let mut talk = Talk::new(handle, request, expected);
    let done = stack.until(timeout, |stack| talk.step(stack, true));
    finish(stack, handle, timeout);
    assert!(done.is_some(), "{talk:?} as a client of {server}");
    talk.received
}

fn stream() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 16]);
    tcp::Socket::new(buffer(), buffer())
}

/// One end of a connection at work.
struct Talk<'a> {
    handle: SocketHandle,
    to_send: &'a [u8],
    received: Vec<u8>,
    expected: usize,
}

impl std::fmt::Debug for Talk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (left, received) = (self.to_send.len(), self.received.len());
        write!(f, "{left} octets not sent, {received} of {} received", self.expected)
    }
}

impl<'a> Talk<'a> {
    fn new(handle: SocketHandle, to_send: &'a [u8], expected: usize) -> Self {
        Self { handle, to_send, received: Vec::new(), expected }
    }

    /// Moves octets; done when all have gone and come. The client speaks first, the server last.
    fn step(&mut self, stack: &mut Stack, speaks_first: bool) -> Option<()> {
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        while socket.can_recv() {
            let taken = socket.recv(|octets| (octets.len(), octets.to_vec())).expect("there is something");
            self.received.extend_from_slice(&taken);
        }
        let has_all = self.received.len() >= self.expected;
        if socket.can_send() && (speaks_first || has_all) {
            let sent = socket.send_slice(self.to_send).expect("it can send");
            self.to_send = &self.to_send[sent..];
        }
        (has_all && self.to_send.is_empty() && socket.send_queue() == 0).then_some(())
    }
}

/// Closes a connection and waits until the other end has heard of it.
fn finish(stack: &mut Stack, handle: SocketHandle, timeout: Duration) {
    stack.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
    // A connection that does not end well has had its octets acknowledged all the same.
    let _ = stack.until(timeout.min(Duration::from_secs(2)), |stack| {
        let state = stack.sockets.get::<tcp::Socket<'_>>(handle).state();
        matches!(state, tcp::State::Closed | tcp::State::TimeWait).then_some(())
    });
    stack.sockets.remove(handle);
}

fn endpoint(from: IpEndpoint) -> SocketAddrV4 {
    let smoltcp::wire::IpAddress::Ipv4(address) = from.addr;
    SocketAddrV4::new(Ipv4Addr::from(address.octets()), from.port)
}
