//! Frames from all ports, one after the other, through the whole path.
//!
//! Nothing may panic, and what leaves is judged as in the tests: checksums, lengths, addresses that
//! must not be seen outside.
#![no_main]

use std::num::NonZeroU16;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use netback::{Checksum, Offload, Segments};
use rules::site::Site;
use tests::{World, judge, site};

/// Sites with small tables, so that they fill up and a world is made quickly.
fn small(which: u8) -> &'static Site {
    static SITES: OnceLock<[&'static Site; 3]> = OnceLock::new();
    let sites = SITES.get_or_init(|| {
        let open = "filtering = \"endpoint-independent\"\npickup = true\nport_rest = 0\nsyn_answer = \"port-unreachable\"";
        let narrow =
            "external_ports = \"1024-1031\"\ninbound_refresh = true\nfiltering = \"address-dependent\"";
        [site::PLAN.to_owned(), cut_uplink(open), site::plan_with(&nat(narrow))]
            .map(|plan| if plan.contains("[nat]") { plan } else { format!("{plan}\n{}", nat("")) })
            .map(|plan| site::site(&plan, site::RULES))
    });
    sites[usize::from(which % 3)]
}

fn nat(lines: &str) -> String {
    format!("[nat]\nsessions = 32\n{lines}\n")
}

/// Packets of 1500 octets are cut for this uplink.
fn cut_uplink(lines: &str) -> String {
    site::plan_with(&nat(lines)).replace("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1\"\nmtu = 68")
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
    choose_addresses(packet);
    // What an ICMP error quotes has a header of its own.
    let header = usize::from(words) * 4;
    if how & 16 != 0
        && packet[9] == 1
        && let Some(quote) = packet.get_mut(header + 8..)
        && quote.len() >= 28
    {
        packet_of_error(quote, how);
    }
    judge::mend_header(packet);
    judge::mend_transport(packet);
}

fn packet_of_error(quote: &mut [u8], how: u8) {
    quote[0] = 0x45;
    quote[6] &= 0x40;
    quote[7] = 0;
    quote[9] = [1, 6, 17, quote[9]][usize::from(how >> 5 & 3)];
    choose_addresses(quote);
    judge::mend_header(quote);
}

fn choose_addresses(packet: &mut [u8]) {
    for end in [15, 19] {
        let address = ADDRESSES[usize::from(packet[end] % 8)];
        packet[end - 3..=end].copy_from_slice(&address);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, data)) = data.split_first() else { return };
    let mut world = World::with(small(which), |_, _| {});
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
                let segments = NonZeroU16::new(u16::from(*how) << 3).filter(|_| how & 2 != 0);
                let segments = segments.map(|size| Segments { size, is_ecn: how & 1 != 0 });
                world.inject(port, &frame, Offload { checksum, segments });
            }
        }
        world.settle();
        world.forget();
    }
});
