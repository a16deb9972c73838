//! Frames from all ports, one after the other, through the whole path.
//!
//! Nothing may panic, and what leaves is judged as in the tests: checksums, lengths, addresses that
//! must not be seen outside.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use netback::{Checksum, Offload};
use rules::site::Site;
use tests::{World, site};

/// A site with small tables, so that they fill up and a world is made quickly.
fn small() -> &'static Site {
    static SITE: OnceLock<&'static Site> = OnceLock::new();
    SITE.get_or_init(|| site::site(&format!("{}\n[nat]\nsessions = 32\n", site::PLAN), site::RULES))
}

/// Addresses that make packets get further than random ones.
const ADDRESSES: [[u8; 4]; 8] = [
    [10, 0, 1, 7],
    [10, 0, 2, 9],
    [192, 0, 2, 2],
    [192, 0, 2, 1],
    [198, 51, 100, 9],
    [10, 0, 1, 1],
    [10, 0, 1, 2],
    [203, 0, 113, 5],
];

/// Turns octets into a packet whose header holds together, as far as `how` says.
fn mend(packet: &mut [u8], how: u8) {
    if packet.len() < 20 {
        return;
    }
    let words = if how & 1 == 0 { 5 } else { 5 + packet[0] % 11 };
    packet[0] = 0x40 | words;
    let length = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    if how & 2 == 0 {
        packet[6..8].fill(0);
    }
    packet[9] = [1, 6, 17, packet[9]][usize::from(how >> 2 & 3)];
    let (from, to) = (packet[15], packet[19]);
    packet[12..16].copy_from_slice(&ADDRESSES[usize::from(from % 8)]);
    packet[16..20].copy_from_slice(&ADDRESSES[usize::from(to % 8)]);
    packet[10..12].fill(0);
    let header = packet.len().min(usize::from(words) * 4);
    let sum = packet[..header]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = sum.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fuzz_target!(|data: &[u8]| {
    let mut world = World::with(small(), |_, _| {});
    // What comes in wrong leaves wrong (RFC 1624): transport checksums are not judged.
    world.judges.iter_mut().for_each(|judge| judge.transport = false);
    let mut rest = data;
    // Each step: what to do, how, how long, and that many octets.
    while let [what, how, length, tail @ ..] = rest {
        let (octets, next) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = next;
        let port = ["uplink", "work", "lab"][usize::from(what % 3)];
        let index = world.port(port);
        match what / 3 % 4 {
            0 => world.inject(port, octets, Offload::default()),
            1 => world.pass_seconds(u64::from(*how) * 3),
            kind => {
                let mut packet = octets.to_vec();
                mend(&mut packet, *how);
                let frame = world.frame_for(index, &packet);
                let partial = Checksum::Partial { start: 34, offset: if how & 4 == 0 { 6 } else { 16 } };
                let checksum = if kind == 3 && frame.len() >= 52 { partial } else { Checksum::Unverified };
                world.inject(port, &frame, Offload { checksum });
            }
        }
        world.settle();
        world.forget();
    }
});
