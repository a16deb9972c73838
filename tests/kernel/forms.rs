//! Each form of a match and of a statement, with a counter behind it: what counts in Weir counts in the kernel.

/// What the table of the forms holds beside its chains.
const TABLE: &str = "  set hosts {
    type ipv4_addr
    elements = { 10.0.1.2, 10.0.2.5, 198.51.100.9, 192.0.2.2 }
  }
  set networks {
    type ipv4_addr
    flags interval
    auto-merge
    elements = { 10.0.1.0/29, 198.51.100.0/24, 198.51.100.9, 203.0.113.5-203.0.113.9 }
  }
  set services {
    type inet_service
    flags interval
    elements = { 22, 80-90, 5000-5001 }
  }
  set interfaces {
    type ifname
    elements = { work, uplink }
  }
  set protocols {
    typeof ip protocol
    elements = { tcp, icmp }
  }
  set stations {
    type ether_addr
    flags interval
    elements = { 02:00:0a:00:01:02, 02:00:0a:00:02:02-02:00:0a:00:02:05 }
  }
  set pairs {
    type ipv4_addr . inet_service
    elements = { 10.0.1.2 . 80, 10.0.2.5 . 5000, 198.51.100.9 . 443 }
  }
  set spans {
    typeof ip saddr . tcp dport
    flags interval
    elements = { 10.0.1.0/24 . 1-1023, 10.0.2.2-10.0.2.5 . 5000-5001 }
  }
  counter every {
  }
  counter some {
    packets 0 bytes 0
  }
  limit few {
    rate 3/day burst 9 packets
  }
  limit little {
    rate 1 kbytes/week burst 900 bytes
  }
  quota early {
    until 2 kbytes
  }
  quota late {
    over 3000 bytes
  }
  chain side {
    comment \"weir: allow unreachable\"
    counter
  }
  chain marked {
    comment \"weir: allow unreachable\"
    counter meta mark set 0x21
  }
";

/// Matches on what packets are. Each is asked at every hook where it has a meaning.
const MATCHES: &[&str] = &[
    "iifname work",
    "iifname \"w*\"",
    "iifname { work, uplink }",
    "iifname != \"lab\"",
    "iifname @interfaces",
    "iif work",
    "iif { lab, uplink }",
    "iifname lo",
    "oifname uplink",
    "oifname != { work, lab }",
    "oifname \"up*\"",
    "oif lab",
    "oif != uplink",
    "iifname . oifname { work . uplink, uplink . lab, work . lab }",
    "ip saddr 10.0.1.2",
    "ip saddr 10.0.1.0/29",
    "ip saddr != 10.0.1.2-10.0.1.5",
    "ip daddr { 10.0.1.2, 198.51.100.0/24, 10.0.2.2-10.0.2.4 }",
    "ip daddr @hosts",
    "ip saddr @networks",
    "ip daddr != @networks",
    "ip saddr < 10.0.2.0",
    "ip daddr >= 198.51.100.10",
    "ip saddr & 255.255.0.255 == 10.0.0.2",
    "ip daddr & 0.0.0.1 != 0.0.0.0",
    "ip protocol tcp",
    "ip protocol != { tcp, udp }",
    "ip protocol @protocols",
    "ip ttl 64",
    "ip ttl < 10",
    "ip ttl { 1, 2, 60-63 }",
    "ip ttl | 1 == 63",
    "ip dscp ef",
    "ip dscp != { cs0, cs1 }",
    "ip dscp 10-30",
    "ip ecn ce",
    "ip ecn != not-ect",
    "ip length 36",
    "ip length > 100",
    "ip id 1000-30000",
    "ip id ^ 0xff == 0x12cb",
    "ip version 4",
    "meta nfproto ipv4",
    "meta nfproto ipv6",
    "meta protocol ip",
    "meta l4proto tcp",
    "meta l4proto { icmp, udp }",
    "meta l4proto != udp",
    "meta length < 41",
    "meta length & 0x3c == 0x24",
    "meta pkttype host",
    "meta pkttype != { broadcast, multicast }",
    "meta mark 0",
    "meta mark != 0",
    "tcp dport 80",
    "tcp dport ssh",
    "tcp sport != 1-1023",
    "tcp dport @services",
    "tcp dport & 1 != 0",
    "tcp sport >= 5000",
    "udp dport { 53, 5000-5001 }",
    "udp sport != { 53, 22 }",
    "udp dport @services",
    "udp sport < 1024",
    "meta l4proto { tcp, udp } th dport 53",
    "meta l4proto { tcp, udp } th sport != { 80, 5000-6000 }",
    "sctp dport { 22, 80, 5000 }",
    "sctp sport != 1-1023",
    "meta l4proto { tcp, sctp } th dport 80",
    "ip saddr . meta l4proto . th dport { 10.0.1.2 . sctp . 80, 10.0.2.5 . tcp . 80, 198.51.100.9 . sctp . 5000 }",
    "udplite dport 53",
    "dccp sport 53",
    "tcp flags syn",
    "tcp flags == syn",
    "tcp flags != syn",
    "tcp flags & (syn | ack) == syn",
    "tcp flags & (fin | rst) != 0",
    "tcp flags syn / syn,ack",
    "tcp flags ! fin,rst",
    "tcp flags { syn, syn | ack }",
    "tcp flags fin,rst",
    "icmp type echo-request",
    "icmp type { echo-reply, destination-unreachable }",
    "icmp type != echo-request",
    "icmp code 0",
    "icmp code != { 1, 3 }",
    "icmp type time-exceeded",
    "ct state new",
    "ct state established,related",
    "ct state != new",
    "ct state { invalid, new }",
    "ct state invalid",
    "ct state untracked",
    "ct status dnat",
    "ct status ! dnat",
    "ct status snat",
    "ct status dnat,snat",
    "ct direction original",
    "ct direction reply",
    "ct direction != reply",
    "ct mark 0",
    "ct original ip daddr 192.0.2.2",
    "ct original ip saddr { 10.0.1.0/24, 198.51.100.9 }",
    "ct reply ip saddr 10.0.1.2-10.0.2.5",
    "ct reply ip daddr 192.0.2.2",
    "meta l4proto tcp ct original proto-dst 80",
    "meta l4proto { tcp, udp } ct original proto-src 5000",
    "meta l4proto udp ct reply proto-src 53",
    "meta l4proto tcp ct reply proto-dst != 5000",
    "fib daddr type local",
    "fib daddr type != local",
    "fib daddr type { unicast, broadcast }",
    "fib saddr type unicast",
    "fib daddr . iif type local",
    "fib daddr . iif type unicast",
    "fib saddr . iif oif exists",
    "fib saddr . iif oif missing",
    "fib saddr . mark . iif oif exists",
    "fib daddr . mark type local",
    "fib daddr oif work",
    "fib daddr oif != uplink",
    "fib daddr oifname { work, lab }",
    "fib daddr oif missing",
    "fib saddr oif exists",
    "ether type ip",
    "ether saddr 02:00:0a:00:01:02",
    "ether saddr != 02:00:0a:00:01:02",
    "ether saddr { 02:00:0a:00:01:02, 02:00:c0:00:02:01, 02:00:0a:00:02:05 }",
    "ether saddr 02:00:0a:00:01:00-02:00:0a:00:01:ff",
    "ether saddr 02:00:0a:00:02:00/40",
    "ether saddr & 00:00:00:00:00:01 == 00:00:00:00:00:01",
    "ether saddr > 02:00:0a:00:02:00",
    "ether saddr @stations",
    "ether saddr != @stations",
    "ether daddr 02:ff:00:00:00:01",
    "ether daddr != { 02:ff:00:00:00:01, 02:ff:00:00:00:02 }",
    "ether saddr . ip saddr { 02:00:0a:00:01:02 . 10.0.1.2, 02:00:c0:00:02:01 . 198.51.100.0/24 }",
    "iifname . ether saddr != { work . 02:00:0a:00:01:02, lab . 02:00:0a:00:02:05 }",
    "ip saddr . tcp dport { 10.0.1.2 . 80, 10.0.2.5 . 5000, 198.51.100.9 . 22 }",
    "ip saddr . udp dport @pairs",
    "ip saddr . tcp dport @spans",
    "ip daddr . tcp dport != @pairs",
    "ip saddr . ip daddr . meta l4proto { 10.0.1.2 . 198.51.100.9 . tcp, 10.0.2.5 . 203.0.113.5 . udp }",
    "meta l4proto . th dport { tcp . 80, udp . 53, udp . 5000 }",
    "ip6 saddr fe80::/10",
    "ip6 nexthdr tcp",
];

/// Statements that remember, or that change what is matched behind them.
///
/// `ct count` is not among them: the kernel of Linux 6.18 counts a connection again with each of its packets that come
/// within one tick of its clock (nf_conncount: `jiffies == last_gc`), later ones do not count established ones.
const STATEMENTS: &[&str] = &[
    "counter name every",
    "udp dport 53 counter name \"some\"",
    "limit rate 4/day counter",
    "limit rate 10/day burst 20 packets counter",
    "limit rate over 5/day burst 7 packets counter",
    "limit rate 2 kbytes/week counter",
    "limit rate over 1 kbytes/week burst 2 kbytes counter",
    "limit rate 600 bytes/week burst 1000 bytes counter",
    "limit name few counter",
    "tcp dport 80 limit name \"little\" counter",
    "quota 2 kbytes counter",
    "quota over 1500 bytes counter",
    "quota until 5000 bytes used 3000 bytes counter",
    "quota name early counter",
    "quota name \"late\" counter",
    "ip saddr 10.0.1.2 meta mark set 0x12",
    "meta mark 0x12 counter",
    "ip protocol udp meta mark set meta mark or 0x100",
    "meta mark & 0x100 == 0x100 counter",
    "meta mark { 0x12, 0x112 } counter",
    "tcp dport 80 ct mark set 7",
    "udp dport 53 ct mark set meta mark and 0xff or 0x10",
    "ct mark 7 counter",
    "ct mark and 0x10 != 0 counter",
    "meta mark set ct mark",
    "meta mark 7 counter",
    "log prefix \"seen: \" level debug counter",
    "log group 2 prefix \"seen: \" snaplen 64 counter",
    "limit rate 3/day tcp dport vmap { 80 : jump side, 443 : jump side }",
    "limit rate over 3/day counter ip saddr . meta l4proto vmap { 10.0.1.2 . tcp : jump side, 10.0.2.5 . udp : goto side }",
    "quota 2 kbytes counter udp dport vmap { 53 : jump side, 5000 : continue }",
    "ip daddr 198.51.100.9 meta mark set 0x20 meta l4proto vmap { tcp : jump side, * : continue }",
    "meta mark vmap { 0x20 : jump marked, 0x21 : jump side }",
    "meta mark 0x21 counter",
    "meta mark set ip saddr map { 10.0.1.2 : 0x31, 10.0.2.0/24 : 0x32, 198.51.100.9 : 0x33 } counter",
    "udp dport 53 meta mark set meta mark map { 0x31 : 0x32, 0x32 : 0x34 } counter meta l4proto vmap { udp : jump side }",
    "meta mark set ip daddr . meta l4proto map @tells counter",
    "meta mark 0x34 counter",
    "tcp dport 443 ct mark set ip daddr map { 198.51.100.9 : 8, * : 9 } counter",
    "ct mark { 8, 9 } counter",
    "iifname { work, lab } ip daddr { 10.0.1.0/24, 10.0.2.0/24 } udp dport 5000-5001 notrack counter",
    "ct state untracked counter",
    "fib daddr type vmap { local : jump side, unicast : continue, * : goto side }",
    "fib daddr oif vmap { work : jump side, lab : jump side }",
    "add @clients { ip saddr } tcp dport vmap { 80 : jump side }",
    "tcp dport 22 log counter",
    "tcp dport 443 continue",
    "tcp flags syn tcp option maxseg size set 1200 counter",
    "tcp flags & (syn | rst) == syn tcp option maxseg size set 1300 counter",
    "tcp dport 80 tcp option maxseg size set rt mtu counter",
    "add @clients { ip saddr }",
    "add @senders { ether saddr . ip daddr }",
    "ether saddr . ip daddr @senders counter",
    "ether saddr vmap { 02:00:0a:00:01:02 : jump side, 02:00:c0:00:02:01 : goto side }",
    "meta mark set ether saddr map { 02:00:0a:00:01:02 : 0x41, * : 0x42 } counter",
    "ip saddr @clients counter",
    "ip daddr @clients counter",
    "update @talks { ip saddr . tcp dport timeout 1h }",
    "ip daddr . tcp sport @talks counter",
    "ip ttl < 3 delete @clients { ip saddr }",
    "add @slow { ip saddr limit rate 5/day burst 6 packets } counter",
    "update @slower { ip daddr limit rate over 5/day burst 6 packets } counter",
    "meter many size 100 { ip saddr . udp dport limit rate over 2/day burst 1 packets } counter",
    "add @small { ip daddr } counter",
    "ip daddr @small counter",
];

/// Sets that packets change.
const CHANGING: &str = "  set clients {
    type ipv4_addr
    size 1000
    flags dynamic
  }
  set senders {
    type ether_addr . ipv4_addr
    size 1000
    flags dynamic
  }
  set talks {
    type ipv4_addr . inet_service
    size 1000
    flags dynamic,timeout
    timeout 2h
  }
  set slow {
    typeof ip saddr
    size 1000
    flags dynamic
  }
  set slower {
    type ipv4_addr
    size 1000
    flags dynamic
  }
  map tells {
    type ipv4_addr . inet_proto : mark
    elements = { 10.0.1.2 . tcp : 0x34, 198.51.100.9 . udp : 0x35, 10.0.2.5 . icmp : 0x34 }
  }
  set small {
    type ipv4_addr
    size 4
    flags dynamic
  }
";

/// A hook, a priority there, and what is between packets and the verdict of its chain.
const HOOKS: &[(&str, &str)] = &[
    ("prerouting", "raw"),
    ("prerouting", "mangle"),
    ("input", "filter"),
    ("forward", "filter"),
    ("postrouting", "mangle"),
    ("prerouting", "filter"),
    ("output", "filter"),
];

/// Translations, so that what chains see depends on where they are.
const TRANSLATIONS: &str = "table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr 192.0.2.2 tcp dport 80 dnat to 10.0.1.2
    ip daddr 192.0.2.2 tcp dport 443 dnat to 10.0.2.5:80
    ip daddr 192.0.2.2 udp dport 5000 dnat to 10.0.2.5
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname uplink ip saddr 10.0.0.0/8 masquerade
  }
}
";

/// A chain that lets nothing from outside reach the appliance that would be answered by Linux alone.
const SILENCE: &str = "  chain silence {
    type filter hook input priority 0;
    iifname uplink meta l4proto { tcp, udp } drop
  }
";

/// A policy that accepts everything, with these rules at a hook.
pub fn policy(lines: &[&str], (hook, priority): (&str, &str)) -> String {
    let rules: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    let forward = match hook {
        "forward" => "",
        _ => "  chain open {\n    type filter hook forward priority 0;\n  }\n",
    };
    // What Linux says to strangers outside, Weir does not: it must not get as far where its words are asked about too.
    let input = match hook {
        "output" | "postrouting" => SILENCE,
        _ => "",
    };
    format!(
        "table inet forms {{
{TABLE}{CHANGING}  chain forms {{
    type filter hook {hook} priority {priority};
{rules}  }}
{forward}{input}}}
{TRANSLATIONS}"
    )
}

/// The forms with a hook each, as they stand in its chain.
pub fn all() -> impl Iterator<Item = ((&'static str, &'static str), Vec<String>)> {
    HOOKS.iter().map(|hook| {
        // nft does not load a fib of the incoming interface there.
        let is_known = |line: &&&str| {
            // What Linux and Weir write of themselves is compared, not every field of it.
            let own = [". iif", "ip id", "ip dscp", "ip ecn", "ct status", "ct reply"];
            matches!(hook.0, "output" | "postrouting") && own.iter().any(|word| line.contains(word))
        };
        let matches = MATCHES.iter().filter(|line| !is_known(line)).map(|matched| {
            match matched.contains("ip6") || matched.contains("ipv6") {
                // It stands beside the others, and Weir does not count what there is not.
                true => format!("{matched} accept"),
                false => format!("{matched} counter"),
            }
        });
        (*hook, matches.chain(STATEMENTS.iter().map(|statement| (*statement).to_owned())).collect())
    })
}
