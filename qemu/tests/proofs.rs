//! Proofs against the walk itself: of policies by chance, an assertion about one packet holds exactly when that
//! packet, sent the way of `weir check --packet`, ends as the assertion says.

use qemu::image::Site;
use qemu::trace;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
extra = ["192.0.2.3"]
[[client]]
name = "work"
address = "10.0.1.1/24"
[[client]]
name = "lab"
address = "10.0.2.1/24"
[[route]]
to = "172.16.0.0/12"
via = "10.0.1.254"
"#;

/// Policies in CI; WEIR_PROOFS says another number.
const POLICIES: u32 = 150;

/// Packets of each policy.
const PACKETS: usize = 30;

/// Numbers by chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const MATCHES: &[&str] = &[
    "iifname work",
    "iifname != uplink",
    "iifname { lab, uplink }",
    "ip saddr 10.0.1.0/25",
    "ip saddr != { 10.0.1.5, 10.0.2.0-10.0.2.99 }",
    "ip daddr 10.0.0.0/8",
    "ip daddr { 192.0.2.2, 198.51.100.0/24, 10.0.2.7 }",
    "tcp dport { 22, 80-90 }",
    "tcp dport != 80",
    "udp dport 53",
    "meta l4proto { tcp, icmp }",
    "tcp flags & (syn|ack) == syn",
    "icmp type echo-request",
    "ip ttl < 64",
    "meta length 60-100",
    "ip dscp cs1",
    "ip saddr & 0.0.0.1 == 0.0.0.1",
    "iifname . tcp dport { work . 22, lab . 80-99 }",
    "ip daddr . ip saddr != { 10.0.2.7 . 10.0.1.5 }",
    "ct state new",
    "ct status dnat",
    "meta mark 1",
    "ct direction original",
    "ct original ip daddr 192.0.2.2",
    "fib daddr type local",
    "ether saddr 02:00:00:00:00:09",
    "ether saddr != { 02:00:00:00:00:09, 02:00:00:00:00:0b }",
    "ether saddr & 00:00:00:00:00:01 == 00:00:00:00:00:00",
    "ether daddr 52:54:00:00:00:01",
];

const OUTPUTS: &[&str] =
    &["oifname uplink", "oifname { work, lab }", "iifname . oifname { work . lab, lab . uplink }"];

const ENDS: &[&str] =
    &["accept", "drop", "return", "jump side", "goto side", "meta mark set 1", "reject", "accept", "drop"];

const PACKET_ENDS: &[&str] = &[
    "tcp 4000 > 22 syn",
    "tcp 4000 > 80 syn",
    "tcp 4000 > 443 syn",
    "udp 4000 > 53",
    "icmp 8",
    "proto 47",
    "udp 4000 > 9 tos 32",
];

/// A policy by chance.
fn policy(chance: &mut Chance) -> String {
    let mut rules = |count: usize, hook: &str, ends: &[&str]| {
        let mut text = String::new();
        for _ in 0..chance.below(count) {
            for _ in 0..chance.below(3) {
                let matches = if hook == "forward" && chance.below(4) == 0 { OUTPUTS } else { MATCHES };
                let _ = write!(text, "{} ", chance.one(matches));
            }
            let _ = writeln!(text, "{} comment \"weir: allow shadowed\"", chance.one(ends));
        }
        text
    };
    let inside: Vec<_> =
        ENDS.iter().copied().filter(|end| !end.contains("side") && *end != "reject").collect();
    let early: Vec<_> = ENDS.iter().copied().filter(|end| *end != "reject").collect();
    let (pre, forward, input, side) = (
        rules(3, "prerouting", &inside),
        rules(9, "forward", ENDS),
        rules(4, "input", &early),
        rules(5, "side", &inside),
    );
    let dnat = match chance.below(3) {
        0 => "iifname uplink tcp dport 80 dnat ip to 10.0.1.5:8080\n",
        1 => "ip daddr 192.0.2.3 dnat ip to 10.0.2.7\n",
        _ => "",
    };
    let accepts = if chance.below(2) == 0 { "drop" } else { "accept" };
    format!(
        "table inet t {{
chain side {{ comment \"weir: allow unreachable\"
{side}}}
chain pre {{ type filter hook prerouting priority mangle
{pre}}}
chain translating {{ type nat hook prerouting priority dstnat
{dnat}}}
chain through {{ type filter hook forward priority 0; policy {accepts}
{forward}}}
chain inp {{ type filter hook input priority 0
{input}}}
}}
"
    )
}

/// A packet in words, and the same as matches.
fn packet(chance: &mut Chance) -> (String, String) {
    let (iif, source) = *[
        ("work", "10.0.1.5"),
        ("work", "10.0.1.200"),
        ("work", "172.16.5.5"),
        ("lab", "10.0.2.7"),
        ("lab", "10.0.2.100"),
        ("uplink", "198.51.100.9"),
    ]
    .get(chance.below(6))
    .expect("six");
    let to = if iif == "uplink" {
        chance.one(&["192.0.2.2", "192.0.2.3"])
    } else {
        chance.one(&["10.0.1.5", "10.0.2.7", "198.51.100.9", "8.8.8.8", "10.0.1.1", "172.16.5.9"])
    };
    let end = chance.one(PACKET_ENDS);
    let words: Vec<&str> = end.split_whitespace().collect();
    let matches = match words.as_slice() {
        ["tcp", from, _, to, _] => format!("tcp sport {from} tcp dport {to} tcp flags == syn"),
        ["udp", from, _, to, ..] => format!("udp sport {from} udp dport {to}"),
        ["icmp", ..] => "icmp type echo-request icmp code 0".to_owned(),
        _ => "ip protocol gre".to_owned(),
    };
    let dscp = if end.ends_with("tos 32") { "cs1" } else { "cs0" };
    let sender = chance.one(&["02:00:00:00:00:09", "02:00:00:00:00:0a"]);
    let text = format!("iif {iif} ip {source} > {to} {end} ether {sender} > 52:54:00:00:00:01");
    let matches = format!(
        "iifname {iif} ether saddr {sender} ether daddr 52:54:00:00:00:01 ip saddr {source} ip daddr {to} {matches} ip dscp {dscp} ip ecn not-ect ip ttl 64 meta length 60 ip id 1"
    );
    (text, matches)
}

/// A directory that is gone in the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Fails only when somebody else was faster.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Path, rules: &str) -> Option<Site> {
    fs::write(directory.join("rules.nft"), rules).expect("a file");
    Site::open(directory).ok()
}

#[test]
fn an_assertion_about_a_packet_holds_when_the_packet_ends_so() {
    let directory = Directory(std::env::temp_dir().join(format!("weir-proofs-{}", std::process::id())));
    fs::create_dir_all(&directory.0).expect("a directory");
    fs::write(directory.0.join("weir.toml"), PLAN).expect("a file");
    let count = std::env::var("WEIR_PROOFS").ok().and_then(|count| count.parse().ok()).unwrap_or(POLICIES);
    let (mut judged, mut refused, mut accepted) = (0, 0, 0);
    for seed in 0..count {
        let mut chance = Chance(u64::from(seed) + 1);
        let rules = policy(&mut chance);
        // What can never be true is refused, and chance does not know.
        let Some(site) = open(&directory.0, &rules) else {
            refused += 1;
            continue;
        };
        for _ in 0..PACKETS {
            let (words, matches) = packet(&mut chance);
            let ends: Vec<&str> = words.split_whitespace().collect();
            if ends.get(3) == ends.get(5) {
                // Nobody has a session with himself, whatever the rules say.
                continue;
            }
            let way = trace::way(&site, &words).expect("a packet");
            let end = way.lines().last().unwrap_or_default();
            let passes = end.starts_with("accepted");
            judged += 1;
            accepted += u32::from(passes);
            let holds =
                |assertion: &str| open(&directory.0, &format!("# weir: {assertion}\n{rules}")).is_some();
            let never = holds(&format!("never {matches}"));
            assert_eq!(never, !passes, "seed {seed}: never {matches}\n{words}\n{way}\n{rules}");
            // A mapping may lead a packet to an own address elsewhere: what is always so needs more than one packet.
            if !words.contains("> 192.0.2.") {
                let always = holds(&format!("always {matches} accept"));
                assert_eq!(always, passes, "seed {seed}: always {matches} accept\n{words}\n{way}\n{rules}");
            }
        }
    }
    println!("{judged} packets, {accepted} accepted; {refused} of {count} policies refused");
    assert!(refused < count / 2 && accepted > judged / 10 && accepted < judged * 9 / 10);
}
