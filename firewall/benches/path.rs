//! What a packet costs on its whole path, over links in memory: `cargo bench -p firewall`.
//!
//! Datagrams of sessions that are there, picked at random among few and many flows, both ways. Only
//! the appliance's own turns are timed. Under `valgrind --tool=callgrind --toggle-collect='*::turn'`
//! the same run gives instructions.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use firewall::Datapath;
use firewall::datapath::BATCH;
use netback::wire::{Settings, Wire};
use netback::{Link, Offload};

const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
[[client]]
name = "work"
address = "10.0.0.1/8"
"#;

const RULES: &str = r#"
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "uplink" masquerade
  }
}
table ip filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "work" oifname "uplink" accept
  }
}
"#;

const SERVER: [u8; 4] = [198, 51, 100, 9];
const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 1, 1]];

/// The appliance, its wires, and the time.
struct World {
    datapath: Datapath<Wire>,
    wires: [Wire; 2],
    now: smoltcp::time::Instant,
}

impl World {
    fn new() -> Self {
        let site = match rules_compiler::compile_text(PLAN, RULES) {
            Ok(compiled) => compiled.leak(),
            Err(diagnostics) => panic!("{}", diagnostics.render(false)),
        };
        let wires = [0, 1].map(|port| {
            let mac = smoltcp::wire::EthernetAddress([2, 0, 0, 0, 0, port]);
            Wire::new(Settings { mac, ..Settings::default() })
        });
        let now = smoltcp::time::Instant::from_secs(1000);
        let datapath = Datapath::new(site, wires.to_vec(), [1, 2, 3, 4]);
        let mut world = Self { datapath, wires, now };
        world.meet(0, [192, 0, 2, 1], [192, 0, 2, 2]);
        world.meet(1, [10, 0, 1, 7], [10, 0, 0, 1]);
        world.wires.iter().for_each(|wire| wire.set(|settings| settings.discards = true));
        world
    }

    /// A neighbour asks for the appliance, and is known from then on.
    fn meet(&mut self, port: usize, host: [u8; 4], own: [u8; 4]) {
        let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1];
        request.extend([&STATIONS[port][..], &host, &[0; 6], &own].concat());
        self.inject(port, [255; 6], [8, 6], &request);
        while self.datapath.turn(self.now) {}
    }

    fn inject(&mut self, port: usize, to: [u8; 6], kind: [u8; 2], octets: &[u8]) {
        let frame = [&to[..], &STATIONS[port], &kind, octets].concat();
        assert!(self.wires[port].inject(&frame, Offload::default()));
    }

    fn datagram(&mut self, port: usize, octets: &[u8]) {
        let to = self.wires[port].mac().0;
        self.inject(port, to, [8, 0], octets);
    }
}

fn datagram(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(from.0, to.0, 64).udp(from.1, to.1);
    let mut octets = Vec::new();
    builder.write(&mut octets, &[7; 36]).expect("a vector takes all");
    octets
}

/// A client's datagram to the server; each flow has a port of its own.
fn outward(flow: u32) -> Vec<u8> {
    datagram(([10, 0, 1, 7], 1024 + flow as u16), (SERVER, 53))
}

/// Turns with `rounds` batches of random flows; nanoseconds a packet.
fn measure(flows: u32, rounds: u32) -> f64 {
    let mut world = World::new();
    let mut inward = Vec::new();
    for flow in 0..flows {
        world.datagram(1, &outward(flow));
        world.datapath.turn(world.now);
    }
    for flow in 0..flows {
        // Every port is free when its flow comes: it is kept.
        let reply = datagram((SERVER, 53), ([192, 0, 2, 2], 1024 + flow as u16));
        world.datagram(0, &reply);
        world.datapath.turn(world.now);
        inward.push(reply);
    }
    assert_eq!(world.datapath.occupancy().sessions, flows, "as many as there are flows");
    let outward: Vec<_> = (0..flows).map(outward).collect();
    let mut random = 1_u64;
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        for _ in 0..BATCH {
            for (port, packets) in [&inward, &outward].into_iter().enumerate() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let flow = (random >> 33) as usize % packets.len();
                world.datagram(port, &packets[flow]);
            }
        }
        let start = Instant::now();
        world.datapath.turn(world.now);
        spent += start.elapsed();
    }
    let forwarded: u64 = world.datapath.ports().iter().map(|port| port.counters.forwarded).sum();
    assert_eq!(forwarded, 2 * u64::from(flows) + 2 * BATCH as u64 * u64::from(rounds), "all of them");
    spent.as_nanos() as f64 / f64::from(rounds) / (2 * BATCH) as f64
}

fn main() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4000);
    let host = Ipv4Addr::from(SERVER);
    println!("datagrams of 64 octets to and from {host}, best of five runs of {rounds} rounds");
    for flows in [1, 1000, 60_000] {
        let best = (0..5).map(|_| measure(flows, rounds)).fold(f64::INFINITY, f64::min);
        println!("{flows:>7} flows: {best:6.1} ns a packet");
    }
}
