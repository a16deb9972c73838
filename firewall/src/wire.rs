//! A wire in the place of the appliance: frames go from the first port to the second and back, as they came.
//!
//! The same links, the same buffers, and nothing that looks at a packet: what is left is what a firewall cannot go
//! below on this machine. `weir bench --wire` measures it. Not in any image that is built for use.

use netback::{ETHERNET_HEADER, Frame, Head, Link};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use crate::machine;

/// Frames taken from one port before the other has its turn: as many as the datapath takes.
const BATCH: usize = firewall::datapath::BATCH;
/// How often links are asked about what changes rarely.
const TICK: Duration = Duration::from_secs(1);
/// Where the length of an IPv4 header stands, and that of a TCP header behind it.
const IPV4_LENGTH: usize = ETHERNET_HEADER;
const TCP_LENGTH: usize = 12;

/// Forwards for ever.
pub fn run<L: Link>(mut links: impl AsMut<[L]>) -> ! {
    let mut ticked = Instant::ZERO;
    let mut head = Head::EMPTY;
    loop {
        let [one, other, ..] = links.as_mut() else { machine::unfit() };
        let now = machine::now();
        if now - ticked >= TICK {
            ticked = now;
            one.tick();
            other.tick();
        }
        one.begin(now);
        other.begin(now);
        let moved = pass(one, other, &mut head) + pass(other, one, &mut head);
        one.finish();
        other.finish();
        // Nobody obeys here, but what is unread keeps the processor awake.
        while machine::serial::read().is_some() {}
        if moved == 0 {
            // Both are asked.
            if one.sleep() & other.sleep() {
                machine::wait(Some(now + TICK));
            }
            one.wake();
            other.wake();
        }
    }
}

/// Moves what arrived at one port out by another; how many frames.
fn pass<L: Link>(from: &mut L, to: &mut L, head: &mut Head) -> usize {
    let mut moved = 0;
    for frame in core::iter::from_fn(|| from.receive()).take(BATCH) {
        moved += 1;
        // What a port does not take is lost, and counted there.
        if let Some(length) = begin(&frame, head) {
            let end = frame.length();
            let _ = to.transmit(head, Some((frame, length..end)));
        }
    }
    moved
}

/// Makes the head of a frame its own first octets: Ethernet's, and those that a segment's pieces repeat.
fn begin(frame: &impl Frame, head: &mut Head) -> Option<usize> {
    let octets = frame.octets();
    let (ethernet, _) = octets.split_first_chunk::<ETHERNET_HEADER>()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, kind @ ..] = *ethernet;
    head.begin(
        EthernetAddress([d0, d1, d2, d3, d4, d5]),
        EthernetAddress([s0, s1, s2, s3, s4, s5]),
        EthernetProtocol::from(u16::from_be_bytes(kind)),
    );
    let offload = frame.offload();
    let mut length = ETHERNET_HEADER;
    if offload.segments.is_some() {
        let transport = ETHERNET_HEADER + usize::from(octets.get(IPV4_LENGTH)? & 0xf) * 4;
        length = transport + usize::from(octets.get(transport + TCP_LENGTH)? >> 4) * 4;
        head.extend_from_slice(octets.get(ETHERNET_HEADER..length)?).ok()?;
    }
    head.offload = offload;
    Some(length)
}
