//! What the first packet of a session costs under access lists of growing length.
//!
//! ```text
//! cargo bench -p firewall --bench lists                      nanoseconds a packet
//! cargo bench -p firewall --bench lists -- --instructions    instructions a packet, by valgrind
//! cargo bench -p firewall --bench lists -- --kernel          the kernel's nftables, as root
//! ```
//! Lists have the shape that ClassBench gives them: hosts and networks on both sides, most rules with
//! a protocol and a port. Each packet is one that some rule of the list is about, from a source port
//! of its own; the whole path is counted, from the frame that comes in to the one that leaves.
//!
//! The kernel forwards datagrams between two namespaces; its figures hold what the sender's system
//! calls cost, which the line without rules shows. As a set a list is one map of prefixes and ports to
//! verdicts, without the rules that overlap others: those the kernel does not take.

mod kernel;

use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use firewall::Datapath;
use netback::wire::{Settings, Wire};
use netback::{Link, Offload};
use rules_compiler::{Compiled, compile_text};

const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
[[client]]
name = "work"
address = "10.0.0.1/8"
[nat]
sessions = 262144
"#;

const LENGTHS: [u32; 4] = [10, 100, 1000, 10_000];
const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 1, 1]];
/// Where one neighbour stands, whose MAC all hosts of the client have.
const HOST: [u8; 4] = [10, 0, 1, 7];

/// A generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (((z >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    /// A prefix below `base`, which has so many bits; its address and length.
    fn prefix(&mut self, base: u32, bits: u32) -> (u32, u32) {
        let length = self.of(&[32, 32, 32, 32, 30, 28, 24, 24, 22, 20, 16]).max(bits);
        let address = base | self.below(u32::MAX >> bits);
        (address & u32::MAX << (32 - length), length)
    }
}

/// What a rule is about: its prefixes, its protocol, and its destination ports.
struct Entry {
    source: (u32, u32),
    destination: (u32, u32),
    protocol: &'static str,
    ports: (u16, u16),
}

impl Entry {
    fn new(random: &mut Random) -> Self {
        let source = random.prefix(10 << 24, 8);
        let network = random.of(&[0x6000_0000, 0x6100_0000, 0xc600_0000, 0x2d00_0000]);
        let destination = random.prefix(network, 8);
        let protocol = random.of(&["tcp", "tcp", "tcp", "udp"]);
        let ports = match random.below(10) {
            0 => (1024, 65_535),
            1 => (0, 65_535),
            2 => {
                let first = random.below(60_000) as u16;
                (first, first + 1 + random.below(500) as u16)
            }
            3..6 => [random.below(65_536) as u16; 2].into(),
            _ => [random.of(&[22, 25, 53, 80, 123, 143, 443, 993, 8080]); 2].into(),
        };
        Self { source, destination, protocol, ports }
    }

    fn text(&self, verdict: &str) -> String {
        let (source, destination, protocol) = (shown(self.source), shown(self.destination), self.protocol);
        let ports = match self.ports {
            (0, 65_535) => format!("meta l4proto {protocol}"),
            (first, last) if first == last => format!("{protocol} dport {first}"),
            (first, last) => format!("{protocol} dport {first}-{last}"),
        };
        format!(
            "ip saddr {source} ip daddr {destination} {ports} {verdict} comment \"weir: allow shadowed\"\n"
        )
    }

    /// Source, destination and its port of a packet that it is about.
    fn endpoints(&self, random: &mut Random) -> (Ipv4Addr, Ipv4Addr, u16) {
        let [source, destination] = [self.source, self.destination].map(|(address, length)| {
            let rest = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(address | random.below(rest.saturating_add(1).max(1)) & rest)
        });
        (source, destination, self.ports.0.max(1))
    }

    /// A packet that it is about; a session begins with it if rules accept it.
    fn packet(&self, random: &mut Random, from: u16) -> Vec<u8> {
        let (source, destination, port) = self.endpoints(random);
        let builder = PacketBuilder::ipv4(source.octets(), destination.octets(), 64);
        let mut octets = Vec::new();
        let written = match self.protocol {
            "udp" => builder.udp(from, port).write(&mut octets, &[7; 36]),
            _ => builder.tcp(from, port, 1, 8192).syn().write(&mut octets, &[]),
        };
        written.expect("a vector takes all");
        octets
    }
}

/// A prefix as rules have it.
fn shown((address, length): (u32, u32)) -> String {
    format!("{}/{length}", Ipv4Addr::from_bits(address))
}

fn list(length: u32) -> (Vec<Entry>, String) {
    let mut random = Random(5);
    let entries: Vec<_> = (0..length).map(|_| Entry::new(&mut random)).collect();
    let mut rules = String::from(
        "table ip f {\n chain forward {\n  type filter hook forward priority filter; policy drop;\n  ct state established,related accept\n",
    );
    for entry in &entries {
        rules += &entry.text(random.of(&["accept", "accept", "accept", "drop"]));
    }
    rules += " }\n}\ntable ip n { chain s { type nat hook postrouting priority srcnat;\n  oifname \"uplink\" masquerade\n }\n}\n";
    (entries, rules)
}

fn compiled(rules: &str) -> Compiled {
    compile_text(PLAN, rules).unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false)))
}

/// The appliance, its wires, and the packets that go in.
struct World {
    datapath: Datapath<Wire>,
    wires: [Wire; 2],
    now: smoltcp::time::Instant,
    packets: Vec<Vec<u8>>,
}

impl World {
    fn new(length: u32, packets: u32) -> Self {
        let (entries, rules) = list(length);
        let wires = [0, 1].map(|port| {
            let mac = smoltcp::wire::EthernetAddress([2, 0, 0, 0, 0, port]);
            Wire::new(Settings { mac, ..Settings::default() })
        });
        let datapath = Datapath::new(compiled(&rules).leak(), wires.to_vec(), [1, 2, 3, 4]);
        let mut random = Random(9);
        let packets = (0..packets).map(|number| {
            let entry = &entries[random.below(length) as usize];
            entry.packet(&mut random, 1024 + (number % 60_000) as u16)
        });
        let packets = packets.collect();
        let mut world = Self { datapath, wires, now: smoltcp::time::Instant::from_secs(1000), packets };
        world.meet(0, [192, 0, 2, 1], [192, 0, 2, 2]);
        world.meet(1, HOST, [10, 0, 0, 1]);
        world.wires.iter().for_each(|wire| wire.set(|settings| settings.discards = true));
        world
    }

    /// A neighbour asks for the appliance, and is known from then on.
    fn meet(&mut self, port: usize, host: [u8; 4], own: [u8; 4]) {
        let request = [&[0, 1, 8, 0, 6, 4, 0, 1], &STATIONS[port][..], &host, &[0; 6], &own].concat();
        self.inject(port, [255; 6], [8, 6], &request);
        while self.datapath.turn(self.now) {}
    }

    fn inject(&mut self, port: usize, to: [u8; 6], kind: [u8; 2], octets: &[u8]) {
        let frame = [&to[..], &STATIONS[port], &kind, octets].concat();
        assert!(self.wires[port].inject(&frame, Offload::default()));
    }

    /// Lets all packets in, one a turn; how long the turns took, and how many packets passed.
    fn run(&mut self) -> (Duration, u64) {
        let mut spent = Duration::ZERO;
        let to = self.wires[1].mac().0;
        for octets in std::mem::take(&mut self.packets) {
            self.inject(1, to, [8, 0], &octets);
            let start = Instant::now();
            self.datapath.turn(self.now);
            spent += start.elapsed();
        }
        (spent, self.datapath.ports()[1].counters.forwarded)
    }
}

/// Packets of two runs: the difference is theirs alone.
const PACKETS: [u32; 2] = [2_000, 12_000];

fn nanoseconds(length: u32) -> f64 {
    let best = (0..3).map(|_| World::new(length, PACKETS[1]).run().0).min().unwrap_or_default();
    best.as_nanos() as f64 / f64::from(PACKETS[1])
}

fn instructions(length: u32) -> Result<f64, String> {
    let [few, many] = PACKETS.map(|packets| count(length, packets));
    Ok((many? - few?) as f64 / f64::from(PACKETS[1] - PACKETS[0]))
}

/// The instructions of turns in a run of so many packets, as callgrind counts them.
fn count(length: u32, packets: u32) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| format!("no path to this bench: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*Datapath*::turn"])
        .arg(own)
        .args(["--run", &length.to_string(), &packets.to_string()])
        .output();
    let output =
        output.map_err(|error| format!("valgrind counts instructions, and does not start: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected =
        told.lines().find_map(|line| line.split_once("Collected : ")).filter(|_| output.status.success());
    collected.and_then(|(_, number)| number.trim().parse().ok()).ok_or_else(|| format!("valgrind: {told}"))
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--run") {
        let numbers: Vec<u32> = arguments[at + 1..].iter().filter_map(|number| number.parse().ok()).collect();
        if let [length, packets] = numbers[..] {
            World::new(length, packets).run();
        }
        return ExitCode::SUCCESS;
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--send") {
        return kernel::send(&arguments[at + 1..]);
    }
    if arguments.iter().any(|argument| argument == "--kernel") {
        return kernel::table();
    }
    let counts = arguments.iter().any(|argument| argument == "--instructions");
    let unit = if counts { "instructions" } else { "ns" };
    println!("{:>8}{:>12}{:>16}{:>14}{:>16}", "rules", "compiled ms", "octets a rule", "most steps", unit);
    for length in LENGTHS {
        let start = Instant::now();
        let compiled = compiled(&list(length).1);
        let taken = start.elapsed().as_secs_f64() * 1000.0;
        let octets = compiled.octets() / length as usize;
        let summary = compiled.summary();
        let steps = summary.split("at most ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("?");
        let cost = match counts {
            true => instructions(length),
            false => Ok(nanoseconds(length)),
        };
        match cost {
            Ok(cost) => println!("{length:>8}{taken:>12.0}{octets:>16}{steps:>14}{cost:>16.0}"),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
