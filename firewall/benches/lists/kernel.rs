//! The same lists in the kernel's nftables, for comparison.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, ExitCode};
use std::time::Instant;

use super::{Entry, LENGTHS, Random, shown};

/// Two namespaces: who sends, and who forwards.
const SENDER: &str = "weir-lists-a";
const ROUTER: &str = "weir-lists-r";
const PACKETS: u32 = 20_000;

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Rules,
    Set,
}

/// The entries of a list, all of UDP, and their verdicts; for a set without those that overlap others.
fn entries(length: u32, shape: Shape) -> Vec<(Entry, &'static str)> {
    let mut random = Random(5);
    let mut entries: Vec<(Entry, &str)> = Vec::new();
    while entries.len() < length as usize {
        let mut entry = Entry::new(&mut random);
        entry.protocol = "udp";
        let verdict = random.of(&["accept", "accept", "accept", "drop"]);
        if shape == Shape::Rules || entries.iter().all(|(other, _)| !overlaps(&entry, other)) {
            entries.push((entry, verdict));
        }
    }
    entries
}

fn overlaps(one: &Entry, other: &Entry) -> bool {
    let meet = |a: (u32, u32), b: (u32, u32)| (a.0 ^ b.0) & (u32::MAX << (32 - a.1.min(b.1))) == 0;
    meet(one.source, other.source)
        && meet(one.destination, other.destination)
        && one.ports.0 <= other.ports.1
        && other.ports.0 <= one.ports.1
}

fn ruleset(entries: &[(Entry, &str)], shape: Shape) -> String {
    let head = "table ip f {\n chain forward {\n  type filter hook forward priority filter; policy drop;\n  ct state established,related accept\n";
    let tail = " }\n}\ntable ip n { chain s { type nat hook postrouting priority srcnat;\n  oifname \"uplink\" masquerade\n }\n}\n";
    let body = match shape {
        _ if entries.is_empty() => "  accept\n".to_owned(),
        Shape::Rules => entries.iter().map(|(entry, verdict)| entry.text(verdict)).collect(),
        Shape::Set => {
            let element = |(entry, verdict): &(Entry, &str)| {
                let (first, last) = entry.ports;
                format!("{} . {} . {first}-{last} : {verdict}", shown(entry.source), shown(entry.destination))
            };
            let elements: Vec<_> = entries.iter().map(element).collect();
            format!("  ip saddr . ip daddr . udp dport vmap {{ {} }}\n", elements.join(",\n"))
        }
    };
    format!("flush ruleset\n{head}{body}{tail}")
}

fn run(command: &str, input: &str) -> Result<String, String> {
    use std::io::Write;
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| format!("sh: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|error| format!("{command}: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| format!("{command}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The namespaces, and what goes with them.
struct Ground;

impl Ground {
    fn new() -> Result<Self, String> {
        let ground = Self;
        for command in [
            format!("ip netns add {SENDER} && ip netns add {ROUTER}"),
            format!("ip link add a0 netns {SENDER} type veth peer name work netns {ROUTER}"),
            format!("ip link add sink netns {SENDER} type veth peer name uplink netns {ROUTER}"),
            format!("ip -n {SENDER} addr add 172.31.0.2/24 dev a0"),
            format!("ip -n {ROUTER} addr add 172.31.0.1/24 dev work"),
            format!("ip -n {ROUTER} addr add 192.0.2.2/24 dev uplink"),
            format!("ip -n {SENDER} link set a0 up && ip -n {SENDER} link set sink up"),
            format!("ip -n {ROUTER} link set work up && ip -n {ROUTER} link set uplink up"),
            format!("ip -n {ROUTER} route add default via 192.0.2.1"),
            format!("ip -n {ROUTER} neigh add 192.0.2.1 lladdr 02:00:00:00:01:00 dev uplink"),
            format!("ip -n {ROUTER} route add 10.0.0.0/8 dev work"),
            format!("ip -n {SENDER} link set lo up && ip -n {SENDER} route add local 10.0.0.0/8 dev lo"),
            format!("ip -n {SENDER} route add default via 172.31.0.1"),
            format!("ip netns exec {ROUTER} sysctl -qw net.ipv4.ip_forward=1"),
        ] {
            run(&command, "")?;
        }
        Ok(ground)
    }

    /// Nanoseconds of the sender's and the kernel's time for a first packet.
    fn measure(&self, length: u32, shape: Shape) -> Result<f64, String> {
        let entries = entries(length, shape);
        run(&format!("ip netns exec {ROUTER} nft -f -"), &ruleset(&entries, shape))?;
        let own = std::env::current_exe().map_err(|error| format!("no path to this bench: {error}"))?;
        let mut best = f64::INFINITY;
        for round in 0..3 {
            let is_set = u8::from(shape == Shape::Set);
            let command =
                format!("ip netns exec {SENDER} '{}' --send {length} {is_set} {round}", own.display());
            let told = run(&command, "")?;
            best = best.min(told.trim().parse().map_err(|_| format!("{command}: {told}"))?);
        }
        Ok(best)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for namespace in [SENDER, ROUTER] {
            let _ = run(&format!("ip netns del {namespace}"), "");
        }
    }
}

/// Sends first packets that the list is about, in the sender's namespace: `LENGTH IS_SET ROUND`.
pub fn send(arguments: &[String]) -> ExitCode {
    let numbers: Vec<u32> = arguments.iter().filter_map(|number| number.parse().ok()).collect();
    let [length, is_set, round] = numbers[..] else {
        return ExitCode::FAILURE;
    };
    let shape = if is_set == 1 { Shape::Set } else { Shape::Rules };
    // Without rules, packets that some rule would be about.
    let entries = entries(length.max(10), shape);
    let mut random = Random(u64::from(round) + 1);
    let mut sent = 0;
    let start = Instant::now();
    for number in 0..PACKETS {
        let (entry, _) = &entries[random.below(entries.len() as u32) as usize];
        let (source, destination, port): (Ipv4Addr, Ipv4Addr, u16) = entry.endpoints(&mut random);
        let from = 1024 + (number % 60_000) as u16;
        if let Ok(socket) = UdpSocket::bind((source, from)) {
            sent += u32::from(socket.send_to(&[7; 36], (destination, port)).is_ok());
        }
    }
    if sent < PACKETS / 2 {
        eprintln!("{sent} of {PACKETS} packets were sent");
        return ExitCode::FAILURE;
    }
    println!("{}", start.elapsed().as_nanos() as f64 / f64::from(PACKETS));
    ExitCode::SUCCESS
}

pub fn table() -> ExitCode {
    let print = || -> Result<(), String> {
        let ground = Ground::new()?;
        println!("{:>8}{:>16}{:>16}", "rules", "as rules ns", "as a set ns");
        println!("{:>8}{:>16.0}", 0, ground.measure(0, Shape::Rules)?);
        for length in LENGTHS {
            let [rules, set] = [Shape::Rules, Shape::Set].map(|shape| ground.measure(length, shape));
            println!("{length:>8}{:>16.0}{:>16.0}", rules?, set?);
        }
        Ok(())
    };
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\nthis part needs root, iproute2 and nftables");
            ExitCode::FAILURE
        }
    }
}
