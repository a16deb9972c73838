//! Files that nobody would write: an end within a second, and no panic.

mod common;

use std::time::{Duration, Instant};

use common::*;
use rules_compiler::compile_text;

/// A small generator (xorshift); its seed is printed with what fails.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

const GOOD: &str = r#"#!/usr/sbin/nft -f
flush ruleset
define web = { 80, 443 }
table inet f {
  set blocked { type ipv4_addr; flags interval; auto-merge; elements = { 203.0.113.0/24, 198.51.100.1-198.51.100.3 }; }
  chain side { tcp flags & (fin|syn) == fin|syn drop
    iifname { "work", "vif*" } tcp dport $web counter accept comment "web"
  }
  chain c {
    type filter hook forward priority filter + 5; policy drop;
    ct state established,related counter accept
    ip daddr @blocked reject with icmp type host-unreachable
    meta l4proto { tcp, udp } th dport 53 jump side
    ip ttl < 5 ip length 20-60 ip dscp ef goto side
    counter tcp dport vmap { 22 : accept, 80-90 : jump side, * : continue }
    iifname vmap @ways
  }
  map ways { type ifname : verdict; elements = { "work" : accept, "lab" : goto side }; }
}
table ip nat {
  map places { type inet_service : interval ipv4_addr . inet_service; flags interval; elements = { 80 : 10.0.1.2 . 80-81 }; }
  chain pre { type nat hook prerouting priority dstnat; ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.0.1.2:80; }
  chain more { type nat hook prerouting priority dstnat + 1
    dnat ip addr . port to tcp dport map @places
    ip protocol icmp dnat ip prefix to ip daddr map { 192.0.2.2/31 : 10.0.1.4/31 }
  }
  chain post { type nat hook postrouting priority srcnat
    ip saddr 10.0.1.5 snat to 192.0.2.3 persistent
    meta l4proto tcp snat to 192.0.2.2-192.0.2.3:4000-5000 random
    oifname "uplink" masquerade
  }
}
"#;

const PIECES: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    ";",
    "\n",
    ",",
    ":",
    ".",
    "/",
    "-",
    "!",
    "|",
    "&",
    "==",
    "!=",
    "<",
    "\"",
    "#",
    "# weir:",
    "$web",
    "@blocked",
    "10.0.0.1",
    "99999999999",
    "0x",
    "fe80::1",
    "accept",
    "jump c",
    "jump side",
    "chain c {",
    "table ip f {",
    "define a = $a",
    "elements = {",
    "type filter hook forward priority 0;",
    "\\\n",
    "\u{fffd}",
    "é",
    "\t",
    "*",
    "1-",
    "ct state",
    "tcp flags",
    "reject with",
    "dnat to",
    "snat prefix to",
    "masquerade to :",
    "vmap {",
    "map @places",
    "type inet_service : verdict;",
    "22 : accept,",
    "include \"x\"\n",
    "log",
    "[",
    "]",
    "=",
    "'",
    "\"\"",
    "priority -",
    "policy drop;",
];

/// Compiles, and returns how long that took; rendering is part of it.
fn time(plan: &str, rules: &str) -> Duration {
    let start = Instant::now();
    match compile_text(plan, rules) {
        Ok(compiled) => drop((compiled.to_rust(), compiled.summary())),
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0);
            assert!(diagnostics.iter().count() <= 100);
            drop(diagnostics.render(true));
        }
    }
    start.elapsed()
}

fn mutated(text: &str, dice: &mut Dice) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(characters.len() + 1);
        let until = (at + dice.roll(12)).min(characters.len());
        match dice.roll(4) {
            0 => drop(characters.drain(at..until)),
            1 => drop(characters.splice(at..at, PIECES[dice.roll(PIECES.len())].chars())),
            2 => drop(characters.splice(at..until, PIECES[dice.roll(PIECES.len())].chars())),
            _ => {
                let piece: Vec<char> = characters[at..until].to_vec();
                let to = dice.roll(characters.len() + 1);
                characters.splice(to..to, piece);
            }
        }
    }
    characters.into_iter().collect()
}

#[test]
fn mutations_of_good_files_never_panic() {
    assert!(compile_text(PLAN, GOOD).is_ok(), "{}", refused(GOOD).render(false));
    for seed in 1..=3000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (plan, rules) = match seed % 3 {
            0 => (mutated(PLAN, &mut dice), GOOD.to_owned()),
            _ => (PLAN.to_owned(), mutated(GOOD, &mut dice)),
        };
        let result = std::panic::catch_unwind(|| time(&plan, &rules));
        assert!(result.is_ok_and(|time| time < Duration::from_secs(1)), "seed {seed}:\n{plan}\n{rules}");
    }
}

#[test]
fn heaps_of_pieces_never_panic() {
    for seed in 1..=1000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let pieces: Vec<&str> = (0..dice.roll(200)).map(|_| PIECES[dice.roll(PIECES.len())]).collect();
        let rules = pieces.join(if seed % 2 == 0 { " " } else { "" });
        let result = std::panic::catch_unwind(|| (time(PLAN, &rules), time(&rules, GOOD)));
        assert!(result.is_ok(), "seed {seed}:\n{rules}");
    }
}

/// The limit for the large files: what takes longer hangs. Builds without optimisation are slow, and machines busy.
const LARGE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 120 } else { 10 });

#[test]
fn megabytes_of_garbage_end() {
    let size = 4 << 20;
    for piece in [
        "{",
        "}",
        "(",
        "\n",
        "a ",
        "accept\n",
        "table a {",
        "$x ",
        "\"",
        "#\n",
        "# weir: x\n",
        "1,",
        "define a = 1\n",
    ] {
        let rules = piece.repeat(size / piece.len() - 1);
        assert!(time(PLAN, &rules) < LARGE, "{piece:?}");
        let inside = forward(&piece.repeat((size - 200) / piece.len()));
        assert!(time(PLAN, &inside) < LARGE, "{piece:?} in a chain");
        let plan = piece.repeat((1 << 20) / piece.len() - 1);
        assert!(time(&plan, GOOD) < LARGE, "{piece:?} as plan");
    }
}

#[test]
fn large_files_of_sense_end() {
    let many = |count: usize, one: &dyn Fn(usize) -> String| -> String { (0..count).map(one).collect() };
    let chains = many(60_000, &|i| format!("chain c{i} {{ tcp dport 1 jump c{}\n}}\n", i + 1));
    let deep = format!("table inet f {{\n{chains}}}\n");
    let unknown = forward(&many(60_000, &|i| format!("jump nobody{i}\n")));
    let names = forward(&many(60_000, &|i| format!("iifname wrok{i} accept\n")));
    let set = many(300_000, &|i| format!("{},", i * 2));
    let set = format!("set s {{ type ipv4_addr; elements = {{ {} }}; }}", set.replace(',', ".0.0.1,"));
    let wrong_elements = forward("accept").replace("chain c", &format!("{set}\nchain c"));
    let defines = many(30, &|i| format!("define d{} = {{ $d{i}, $d{i} }}\n", i + 1));
    let exploding = format!("define d0 = 1\n{defines}") + &forward("tcp dport $d30 accept");
    let nested =
        format!("define d0 = 1\n{}", many(100_000, &|i| format!("define d{} = {{ $d{i} }}\n", i + 1)));
    let elements = many(60_000, &|i| format!("{}.{}.0.1,", i / 250 % 220 + 1, i % 250));
    let shared = format!("set s {{ type ipv4_addr; elements = {{ {elements} }}; }}\nchain c");
    let uses = forward(&"ip saddr @s ip saddr @s drop\n".repeat(20_000)).replace("chain c", &shared);
    let hosts = many(60_000, &|i| format!("\"10.0.1.{}\",", i % 256));
    let plan =
        PLAN.replace("address = \"10.0.1.1/24\"", &format!("address = \"10.0.1.1/24\"\nhosts = [{hosts}]"));
    let routes = many(15_000, &|_| "[[route]]\nto = \"9.0.0.0/8\"\nvia = \"10.0.1.9\"\n".to_owned());
    let files = [deep, unknown, names, wrong_elements, exploding, nested, uses];
    for rules in files {
        assert!(time(PLAN, &rules) < LARGE, "{}", &rules[..200]);
    }
    assert!(time(&plan, GOOD) < LARGE);
    assert!(time(&(PLAN.to_owned() + &routes), GOOD) < LARGE);
}

#[test]
fn ten_thousand_rules_compile() {
    let rule = |i: usize| {
        format!("ip saddr 10.{}.{}.0/24 tcp dport {} counter accept\n", i / 250, i % 250, i % 60_000 + 1)
    };
    let rules: String = (0..10_000).map(rule).collect();
    let start = Instant::now();
    let compiled = compile_text(PLAN, &forward(&rules)).unwrap_or_else(|d| panic!("{}", d.render(false)));
    assert!(start.elapsed() < LARGE);
    assert!(
        compiled.summary().starts_with("10000 rules in 1 chains, 10000 counters"),
        "{}",
        compiled.summary()
    );
    let site = compiled.leak();
    let last = rules::Candidate { source: [10, 39, 249, 9].into(), destination_port: 10_000, ..segment() };
    assert_eq!(evaluate(site, rules::Hook::Forward, &last).1, Counts(vec![(9999, 60)]));
}
