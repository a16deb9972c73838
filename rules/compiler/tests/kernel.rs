//! What Weir accepts, nft loads into the kernel too: each form of translations and maps, in a namespace of its own.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::PLAN;
use rules_compiler::compile_text;

/// Bodies of a nat chain at prerouting.
const DESTINATIONS: &[&str] = &[
    "dnat to 10.0.1.2",
    "dnat to 10.0.1.2 random,persistent",
    "tcp dport 80 dnat to 10.0.1.2:8080",
    "tcp dport 80 dnat to 10.0.1.2:ssh persistent",
    "tcp dport 80-90 dnat ip to 10.0.1.2:8080-8090",
    "meta l4proto { tcp, udp } dnat to 10.0.1.2-10.0.1.5:8080-8090",
    "dnat to 10.0.1.2-10.0.1.5",
    "dnat ip interval to 10.0.1.2-10.0.1.5",
    "ip daddr 192.0.2.2/31 dnat ip prefix to 10.0.1.4/31",
    "dnat prefix to ip daddr map { 192.0.2.2 : 10.0.2.9, 192.0.2.3 : 172.16.0.5 }",
    "dnat ip prefix to ip daddr map { 192.0.2.2/31 : 10.0.1.4/31, 192.0.2.4/30 : 10.0.1.8/30 }",
    "counter dnat to tcp dport map { 80 : 10.0.1.2, 443-444 : 10.0.1.3, * : 10.0.1.4 }",
    "dnat to tcp dport map { * : 10.0.1.9 . 9, 80 : 10.0.1.2 . 8080, }",
    "dnat ip addr . port to udp dport map { 53 : 10.0.1.2 . 5353, 54 : 10.0.1.3 . domain }",
    "dnat to tcp dport map { 80 : 10.0.1.2 . 8080-8081, 81 : 10.0.1.3 . 81-82 }",
    "dnat ip interval to tcp dport map { 80 : 10.0.1.2-10.0.1.3, 81 : 10.0.1.4-10.0.1.5 }",
    "meta l4proto tcp dnat to ip saddr map { 198.51.100.1 : 10.0.1.2 . 80 }",
    "dnat to iifname map { \"uplink\" : 10.0.1.2, * : 10.0.1.3 }",
    "dnat to tcp dport map @places",
    "dnat to tcp dport map @ports",
    "dnat ip prefix to ip daddr map @blocks",
    "tcp dport 80 dnat to :8080",
    "tcp dport 80-90 dnat to :8080-8090 persistent",
    "redirect",
    "iifname work udp dport 53 redirect to :53",
    "counter tcp dport 1-99 redirect to :100-199",
    "dnat to ip daddr . tcp dport map { 192.0.2.2 . 80 : 10.0.1.2 . 8080, 192.0.2.3 . 443 : 10.0.1.3 . 8443 }",
    "dnat ip addr . port to ip daddr . tcp dport map @forwards",
];

/// Bodies of a nat chain at postrouting.
const SOURCES: &[&str] = &[
    "masquerade",
    "masquerade random",
    "masquerade fully-random, persistent",
    "tcp dport 1-65535 masquerade to :1024",
    "meta l4proto { tcp, udp } masquerade to :1024-2048 random,persistent",
    "snat to 192.0.2.3",
    "snat ip to 192.0.2.2-192.0.2.3 persistent",
    "udp dport 53 snat to 192.0.2.3:4000",
    "tcp dport 443 snat to 192.0.2.2-192.0.2.3:4000-4999 fully-random",
    "snat ip prefix to ip saddr map { 10.0.1.2/31 : 192.0.2.2/31 }",
    "ip saddr 10.0.1.2/31 snat prefix to 192.0.2.2/31",
    "snat to ip saddr map { 10.0.1.0/24 : 192.0.2.2, 10.0.2.0/24 : 192.0.2.3 }",
    "snat ip interval to ip saddr map { 10.0.1.0/24 : 192.0.2.2-192.0.2.3 }",
];

/// Bodies of a filter chain at forward.
const VERDICTS: &[&str] = &[
    "ct count over 5 drop",
    "tcp dport 22 ct state new ct count 5 accept",
    "meter busy size 100 { ip saddr . tcp dport ct count over 20 } drop",
    "limit rate 5/second counter tcp dport vmap { 22 : accept, 80 : drop }",
    "meta mark set 1 meta mark vmap { 1 : accept, 2 : drop }",
    "log group 2 prefix \"a\" snaplen 64 accept",
    "log level audit accept",
    "fib saddr . mark . iif oif exists accept",
    "ip6 daddr & ::ffff:ffff:ffff:ffff == ::1 accept",
    "tcp dport vmap { 22 : accept, 80-90 : drop, 443 : jump side, 444 : goto side }",
    "ip saddr 10.0.1.0/24 counter tcp dport vmap { * : accept, 22 : continue, 23 : return, }",
    "iifname vmap { \"vif*\" : drop, work : accept, * : continue }",
    "ct state vmap { established : accept, related : accept, invalid : drop }",
    "meta l4proto vmap { tcp : accept, udp : jump side }",
    "meta nfproto vmap { ipv4 : jump side, ipv6 : drop }",
    "icmp type vmap { echo-request : accept, 3 : drop }",
    "ip saddr vmap { 10.0.1.0/24 : accept, 10.0.2.1-10.0.2.9 : drop }",
    "tcp dport vmap @verdicts\nudp dport vmap @verdicts",
    "iifname vmap @clients",
    "iifname . oifname vmap { work . uplink : accept, uplink . work : drop, * : continue }",
    "ip saddr . tcp dport vmap @pairs",
];

/// Bodies of a filter chain at forward in a table of family inet.
const FORMS: &[&str] = &[
    "ip saddr . tcp dport { 10.0.1.2 . 22, 10.0.1.3 . 80-90, 10.0.2.0/24 . ssh } accept",
    "ip saddr . ip daddr . meta l4proto . th dport { 10.0.1.2 . 1.1.1.1 . tcp . 53 } accept",
    "ip daddr . tcp dport != @services drop\nip daddr . tcp dport { 1.1.1.1 . 53 } accept",
    "iifname . ip saddr { work . 10.0.1.2, \"vif1\" . 10.137.0.10 } accept",
    "ip saddr @typed accept\nip saddr . udp dport @typed_pairs accept",
    "icmpv6 type { nd-neighbor-solicit, nd-router-advert, echo-request } accept",
    "ip6 saddr fe80::/10 udp dport 546 accept\nip6 saddr @six drop\nip6 nexthdr tcp ip6 hoplimit 255 drop",
    "ip6 daddr { ::1, 2001:db8::-2001:db8::ff } counter drop\nmeta l4proto ipv6-icmp accept",
    "meta mark 1 accept\nmark { 2, 4-8 } drop\nmeta mark & 0xff == 0x10 accept\nct mark and 0xf0 != 0 drop",
    "meta mark | 0x3 == 0x7 drop\nmeta mark ^ 5 == 6 drop\nip saddr & 255.255.0.255 == 10.0.0.1 drop",
    "meta mark set 7\nmeta mark set ct mark\nct mark set meta mark and 0xff or 0x10\nct mark set ct mark xor 1",
    "ct direction original accept\nct direction reply ct original ip saddr 10.0.1.2 accept",
    "ct original ip daddr { 1.1.1.1, 1.1.1.2 } drop\ntcp dport 80 ct reply proto-src 8080 drop",
    "meta pkttype host accept\npkttype { broadcast, multicast } drop",
    "fib daddr type local accept\nfib daddr . iif type != { local, broadcast, multicast } drop",
    "fib saddr . iif oif missing drop\nfib saddr . iif oif exists accept",
    "log\nct state new log level debug flags all drop\nlog prefix \"in: \" level info accept",
    "limit rate 10/second accept\nlimit rate over 1 mbytes/second burst 5 kbytes drop\nlimit rate 3/minute burst 7 packets accept",
    "limit name \"l\" accept\nquota name \"q\" drop\ncounter name \"c\"\ncounter name c drop",
    "quota over 10 mbytes drop\nquota until 5 kbytes used 1 kbytes accept",
    "add @seen { ip saddr limit rate 10/second } accept\nip saddr @seen drop",
    "update @recent { ip saddr . tcp dport timeout 30s } accept\nip saddr . tcp dport @recent drop\ndelete @recent { ip saddr . tcp dport }",
    "tcp flags & (syn|ack) == syn meter m size 1000 { ip saddr timeout 10s limit rate over 5/second burst 3 packets } drop",
    "reject with icmpv6 type admin-prohibited",
    "tcp dport 22 continue\ntcp dport 23 accept",
    "tcp flags syn / syn,rst tcp option maxseg size set rt mtu\ntcp option maxseg size set 1360",
];

const MAPS: &str = "
  map places { type inet_service : ipv4_addr; flags interval; elements = { 80 : 10.0.1.2, 90-99 : 10.0.1.3 }
  }
  map ports { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.1.2 . 80, * : 10.0.1.3 . 81 }
  }
  map blocks { type ipv4_addr : interval ipv4_addr; flags interval; elements = { 192.0.2.2/31 : 10.0.1.4/31 }
  }
  map verdicts { type inet_service : verdict; comment \"c\"; elements = { 22 : accept, 23 : jump side }
    elements = { 25 : drop }
  }
  map clients { type ifname : verdict; flags interval; elements = { \"vif*\" : accept, work : drop }
  }
  map pairs { type ipv4_addr . inet_service : verdict; flags interval; elements = { 10.0.1.2 . 22 : accept, 10.0.2.0/24 . 1-9 : drop }
  }
  map forwards { typeof ip daddr . tcp dport : ip daddr . tcp dport; elements = { 192.0.2.2 . 80 : 10.0.1.2 . 8080 }
  }
  set services { type ipv4_addr . inet_service; flags interval; elements = { 1.1.1.0/24 . 53, 8.8.8.8 . 1-1024 }
  }
  set typed { typeof ip saddr; size 10; policy memory; elements = { 10.0.1.9 comment \"nine\" }
  }
  set typed_pairs { typeof ip saddr . udp dport; flags constant; elements = { 10.0.1.9 . 53 }
  }
  set six { type ipv6_addr; flags interval; elements = { fe80::/10, 2001:db8::1 }
  }
  set seen { type ipv4_addr; size 100; flags dynamic
  }
  set recent { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; gc-interval 10s; size 1000
  }
  counter c { packets 0 bytes 0
  }
  limit l { rate 5/second burst 9 packets
  }
  quota q { over 10 mbytes }
  set names { type ifname; flags interval; elements = { \"vif*\", lab }
  }
";

/// A file for each body, with the family of its table.
fn files() -> Vec<String> {
    let file = |family: &str, of: &str, body: &str| {
        format!(
            "# weir: allow open\ntable {family} t {{{MAPS}  chain side {{ comment \"weir: allow unreachable\"; counter\n  }}\n  chain c {{ type {of}\n{body}\n  }}\n}}\n"
        )
    };
    let of = |kind: &'static str, bodies: &'static [&'static str]| {
        bodies.iter().map(move |body| file("ip", kind, body))
    };
    let nat = of("nat hook prerouting priority dstnat", DESTINATIONS);
    let nat = nat.chain(of("nat hook postrouting priority srcnat", SOURCES));
    let filter =
        VERDICTS.iter().map(|body| file("inet", "filter hook forward priority 0; policy drop;", body));
    let forms = FORMS.iter().map(|body| file("inet", "filter hook forward priority 0; policy drop;", body));
    let own = of("nat hook output priority -100", &["tcp dport 80 dnat to 10.0.1.2", "redirect"]);
    let input = of("nat hook input priority 100", &["snat to 192.0.2.3", "counter"]);
    nat.chain(filter).chain(forms).chain(own).chain(input).collect()
}

/// Says on the terminal that a test does not run, past the capture of the test harness. In CI every test runs.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {reason}");
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Loads a file into a network namespace that is gone at once; what nft says against it.
fn load(file: &str) -> std::io::Result<Option<String>> {
    let mut nft = Command::new("unshare");
    nft.args(["--user", "--map-root-user", "--net", "nft", "-f", "-"]);
    let mut child = nft.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads as far as it likes; its words tell.
        let _ = stdin.write_all(file.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn what_weir_accepts_nft_loads() {
    for file in files() {
        if let Err(told) = compile_text(PLAN, &file) {
            panic!("{file}\n{}", told.render(false));
        }
    }
    match load("table ip t {\n}\n") {
        Ok(None) => {}
        Ok(Some(said)) => return skip("what_weir_accepts_nft_loads", &said),
        Err(error) => return skip("what_weir_accepts_nft_loads", &format!("unshare: {error}")),
    }
    for file in files() {
        assert_eq!(load(&file).unwrap_or_else(|error| Some(error.to_string())), None, "{file}");
    }
}

/// Forms that nft refuses: Weir may be stricter, never looser.
#[test]
fn what_nft_refuses_weir_refuses() {
    let nat = |body: &str| {
        format!(
            "# weir: allow open\ntable ip t {{\n  chain c {{ type nat hook prerouting priority dstnat\n{body}\n  }}\n}}\n"
        )
    };
    let bodies = [
        "dnat to 10.0.1.2:80",
        "tcp dport 80 dnat to 10.0.1.2:90-80",
        "tcp dport 80 dnat ip to :80",
        "dnat to tcp dport map { 80 : 10.0.1.2 . 80, 443 : 10.0.1.3 }",
        "dnat to tcp dport map { 80 : 10.0.1.2-10.0.1.4, 81 : 10.0.1.2 }",
        "dnat prefix to ip daddr map { 192.0.2.2 : 10.0.2.9, 192.0.2.4/31 : 172.16.0.4/31 }",
        "dnat ip addr . port to tcp dport map { 80 : 10.0.1.2 }",
        "dnat addr . port to tcp dport map { 80 : 10.0.1.2 . 80 }",
        "dnat ip addr . port to 10.0.1.2:80",
        "dnat to ip saddr map { 198.51.100.1 : 10.0.1.2 . 80 }",
        "tcp dport vmap { 22 : accept, 22 : drop }",
        "tcp dport vmap { 22 : reject }",
        "tcp dport vmap { }",
        "tcp dport != vmap { 22 : accept }",
        "iifname vmap { \"vif1\" : accept, \"vif*\" : drop }",
        "ip saddr vmap { 10.0.1.0/24 : accept, 10.0.1.7 : drop }",
    ];
    for body in bodies {
        assert!(compile_text(PLAN, &nat(body)).is_err(), "{body}");
    }
    if let Some(reason) = load("table ip t {\n}\n").unwrap_or_else(|error| Some(error.to_string())) {
        return skip("what_nft_refuses_weir_refuses", &reason);
    }
    for body in bodies {
        assert!(load(&nat(body)).is_ok_and(|said| said.is_some()), "nft takes this: {body}");
    }
}
