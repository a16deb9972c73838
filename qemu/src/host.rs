//! A simulated client VM: an IPv4 host at the other end of a link.
//!
//! A thread of its own answers ARP and pings all the time; what the host shall do besides is handed in as a job
//! ([`Host::run`]). What it can do is in [`crate::probe`].

use crate::flow::Flow;
use crate::link::{Link, Waker, Way};
use crate::refusal::IcmpError;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The longest a host sleeps without looking at its timers.
const NAP: Duration = Duration::from_millis(50);

/// Sent packets and refusals that are remembered, the latest ones.
const MEMORY: usize = 1024;

/// Who a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// For thread names and tables.
    pub name: String,
    /// The MAC of its interface.
    pub mac: EthernetAddress,
    /// Its addresses; the first is the one it speaks from.
    pub addresses: Vec<Ipv4Cidr>,
    /// The next hop for everything else.
    pub gateway: Option<Ipv4Addr>,
}

impl Identity {
    /// The address it speaks from.
    pub fn address(&self) -> Ipv4Addr {
        self.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, Ipv4Cidr::address)
    }
}

/// What an observer of the link remembers.
#[derive(Debug, Default)]
struct Seen {
    sent: VecDeque<Flow>,
    refusals: VecDeque<IcmpError>,
}

/// The network stack of a host, for jobs that run in its thread; or to be polled by hand.
pub struct Stack {
    /// Who it is.
    pub identity: Identity,
    /// The smoltcp interface.
    pub interface: Interface,
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    /// The wire.
    pub link: Link,
    seen: Arc<Mutex<Seen>>,
    epoch: std::time::Instant,
    next_port: u16,
}

impl Stack {
    /// A host that is connected to `link`.
    pub fn new(identity: Identity, mut link: Link) -> Self {
        let chance = RandomState::new();
        let mut config = Config::new(identity.mac.into());
        config.random_seed = chance.hash_one("seed");
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for address in &identity.addresses {
                // smoltcp is built for a fixed number of addresses; a host here has one or two.
                let _ = addresses.push((*address).into());
            }
        });
        if let Some(gateway) = identity.gateway {
            // The table of routes is empty: there is room for one.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let seen = Arc::new(Mutex::new(Seen::default()));
        let remembers = Arc::clone(&seen);
        link.observe(Box::new(move |way, frame| remember(&remembers, way, frame)));
        // The dynamic ports of RFC 6335; a random start keeps runs apart.
        let next_port = 49152 + u16::try_from(chance.hash_one("port") % 8192).unwrap_or(0);
        Self {
            identity,
            interface,
            sockets: SocketSet::new(vec![]),
            link,
            seen,
            epoch: std::time::Instant::now(),
            next_port,
        }
    }

    /// The host's own time.
    pub fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// A port that this host has not used lately.
    pub fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == u16::MAX { 49152 } else { port + 1 };
        port
    }

    /// Handles what has come and what is due, then waits at most `nap` for more.
    pub fn poll(&mut self, nap: Duration) {
        let now = self.now();
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let due = self.interface.poll_delay(now, &self.sockets).map_or(nap, Into::into);
        if self.link.is_closed() {
            // Nothing wakes it any more: without this a caller would spin.
            thread::sleep(due.min(nap));
        } else {
            self.link.wait(due.min(nap));
        }
    }

    /// Polls until `step` has a result, the time is up, or the link is gone.
    pub fn until<T>(&mut self, timeout: Duration, mut step: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let now = self.now();
            self.interface.poll(now, &mut self.link, &mut self.sockets);
            if let Some(result) = step(self) {
                return Some(result);
            }
            if self.link.is_closed() {
                return None;
            }
            let left = deadline.checked_duration_since(std::time::Instant::now())?;
            self.poll(left.min(NAP));
        }
    }

    /// The latest ICMP error about a packet that this host sent from `port` (or with that identifier) to `destination`.
    pub fn refusal(&self, destination: Ipv4Addr, port: u16) -> Option<IcmpError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.refusals
            .iter()
            .rev()
            .find(|error| error.destination == destination && error.source_port() == port)
            .copied()
    }

    /// The first remembered packet that this host sent from `port` to `destination`.
    pub fn sent(&self, destination: Ipv4Addr, port: u16) -> Option<Flow> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sent.iter().find(|flow| flow.destination == destination && flow.source_port == port).copied()
    }
}

fn remember(seen: &Mutex<Seen>, way: Way, frame: &[u8]) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match way {
        Way::Sent => push(&mut seen.sent, Flow::parse(frame)),
        Way::Received => push(&mut seen.refusals, IcmpError::parse(frame)),
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: Option<T>) {
    let Some(item) = item else { return };
    if queue.len() == MEMORY {
        queue.pop_front();
    }
    queue.push_back(item);
}

type Job = Box<dyn FnOnce(&mut Stack) + Send>;

/// A host that lives in a thread of its own until it is dropped.
pub struct Host {
    identity: Identity,
    jobs: Option<Sender<Job>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Starts a host on a link.
    pub fn start(identity: Identity, link: Link) -> Self {
        let waker = link.waker();
        let (jobs, queue) = mpsc::channel();
        let stack_identity = identity.clone();
        let thread = thread::spawn(move || live(Stack::new(stack_identity, link), &queue));
        Self { identity, jobs: Some(jobs), waker, thread: Some(thread) }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Runs a job with the host's stack and waits for its result. Jobs of one host run one after another; while a job
    /// runs, it is the one who polls.
    ///
    /// # Panics
    /// When the job panicked.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Stack) -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let job: Job = Box::new(move |stack| {
            // The receiver waits below.
            let _ = sender.send(job(stack));
        });
        if let Some(jobs) = &self.jobs {
            // A thread that ended shows in `recv`.
            let _ = jobs.send(job);
        }
        self.waker.wake();
        result.recv().expect("the job ran to its end")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in there was shown already, and reported by `run`.
            let _ = thread.join();
        }
    }
}

fn live(mut stack: Stack, jobs: &Receiver<Job>) {
    loop {
        match jobs.try_recv() {
            Ok(job) => job(&mut stack),
            Err(mpsc::TryRecvError::Empty) => stack.poll(NAP),
            Err(mpsc::TryRecvError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Failure;
    use std::net::SocketAddrV4;

    const SOON: Duration = Duration::from_secs(5);

    /// Two hosts of one network, back to back.
    fn pair() -> (Host, Host) {
        let (one, two) = Link::pair().unwrap();
        let identity = |last: u8| Identity {
            name: format!("host {last}"),
            mac: EthernetAddress([2, 0, 0, 0, 0, last]),
            addresses: vec![Ipv4Cidr::new(Ipv4Addr::new(10, 0, 1, last), 24)],
            gateway: None,
        };
        (Host::start(identity(1), one), Host::start(identity(2), two))
    }

    #[test]
    fn hosts_ping_each_other_both_ways() {
        let (one, two) = pair();
        for (host, target) in [(&one, &two), (&two, &one)] {
            let probe = host.ping(target.identity().address(), SOON);
            assert!(probe.outcome.is_ok(), "{:?}", probe.outcome);
            let opened = probe.opened.unwrap();
            assert_eq!(opened.source, host.identity().address());
        }
    }

    #[test]
    fn a_closed_tcp_port_resets_and_a_closed_udp_port_refuses() {
        let (one, two) = pair();
        let server = SocketAddrV4::new(two.identity().address(), 25);
        assert_eq!(one.connect(server, SOON).outcome, Err(Failure::Reset));
        let Err(Failure::Refused(error)) = one.exchange(server, b"hello", SOON).outcome else {
            panic!("no refusal")
        };
        assert_eq!((error.kind, error.code, error.is_administrative()), (3, 3, false));
    }

    #[test]
    fn nobody_there_is_a_timeout_without_a_packet() {
        let (one, _two) = pair();
        let probe = one.ping(Ipv4Addr::new(10, 0, 1, 9), Duration::from_millis(100));
        assert_eq!((probe.opened, probe.outcome), (None, Err(Failure::Timeout)));
    }

    #[test]
    fn a_host_whose_link_is_gone_does_not_hang() {
        let (one, two) = pair();
        drop(two);
        let began = std::time::Instant::now();
        let probe = one.ping(Ipv4Addr::new(10, 0, 1, 2), SOON);
        assert!(began.elapsed() < SOON);
        assert_eq!(probe.outcome, Err(Failure::Timeout));
    }
}
