//! What is refused in rules.nft: each with its line, its column and its words.

mod common;

use common::*;
use rules_compiler::compile_text;

/// Rules, from line 4 on in a chain at forward, and what is told about them.
fn refuses(cases: &[(&str, &[&str])]) {
    for (rules, told) in cases {
        let diagnostics = refused(&forward(rules));
        let told: Vec<String> = told.iter().map(|line| format!("rules.nft:{line}")).collect();
        assert_eq!(lines(&diagnostics), told, "{rules}");
    }
}

/// Whole files, and what is told about them.
fn refuses_files(cases: &[(&str, &[&str])]) {
    for (rules, told) in cases {
        let diagnostics = refused(rules);
        let told: Vec<String> = told.iter().map(|line| format!("rules.nft:{line}")).collect();
        assert_eq!(lines(&diagnostics), told, "{rules}");
    }
}

#[test]
fn interfaces() {
    refuses(&[
        (
            r#"iifname "wrok" tcp dport 22 accept"#,
            &[r#"4:9: client "wrok" is not declared in weir.toml; did you mean "work"?"#],
        ),
        (
            r#"iifname { "work", "labb" } accept"#,
            &[r#"4:19: client "labb" is not declared in weir.toml; did you mean "lab"?"#],
        ),
        (r#"iifname "zzz*" accept"#, &[r#"4:9: no interface of weir.toml is named like "zzz*""#]),
        (r#"iifname "*" accept"#, &["4:9: this wildcard is not in this version's subset"]),
        ("iifname 5 accept", &[r#"4:9: "5" is a number, not an interface name"#]),
        (r#"iifname < "work" accept"#, &["4:11: ifname has no order"]),
        (r#"iif "vif*" accept"#, &["4:5: this wildcard is not in this version's subset"]),
        (
            r#"iifname "work" iifname "lab" accept"#,
            &["4:16: this can never be true after the earlier matches of the rule"],
        ),
        (r#"iifname "work" tcp dport 22 %"#, &[r#"4:29: expected a match or a statement, found "%""#]),
    ]);
}

#[test]
fn addresses() {
    refuses(&[
        ("ip saddr 22 accept", &[r#"4:10: "22" is a number, not an IPv4 address"#]),
        ("ip saddr 10.0.0.01 accept", &[r#"4:10: "10.0.0.01" has a leading zero, which some read as octal"#]),
        ("ip saddr 10.0.0.256 accept", &[r#"4:10: "10.0.0.256" is no IPv4 address: each part is 0 to 255"#]),
        (
            "ip saddr example.org accept",
            &[r#"4:10: "example.org" is not an IPv4 address; host names are not looked up"#],
        ),
        ("ip saddr 10.0.0.0/33 accept", &["4:19: a prefix length is 0 to 32"]),
        ("ip saddr 10.0.0.9-10.0.0.1 accept", &["4:10: the range ends before it begins"]),
        ("ip saddr fe80::1 accept", &[r#"4:10: "fe80::1" is an IPv6 address, not an IPv4 address"#]),
        ("ip saddr 10.0.0.1, 10.0.0.2 accept", &["4:10: a list of values needs braces: { a, b }"]),
        ("ip saddr & 255.0.0.0 == 10.0.0.1 accept", &["4:1: this can never be true"]),
        (
            "ip saddr . tcp dport { 1.1.1.1 . 22, 1.1.1.2 } accept",
            &[r#"4:38: expected 2 values joined by ".": ipv4_addr . inet_service"#],
        ),
        (
            "ip saddr . tcp dport 1.1.1.1 . 22 accept",
            &["4:22: a concatenation is compared with a set: put braces around it"],
        ),
        (
            "ip daddr 10.0.0.0/8 ip daddr 11.0.0.1 accept",
            &["4:21: this can never be true after the earlier matches of the rule"],
        ),
    ]);
}

#[test]
fn ports_and_protocols() {
    refuses(&[
        ("tcp dport 10.0.0.1 accept", &[r#"4:11: "10.0.0.1" is an address, not a port"#]),
        ("tcp dport 70000 accept", &[r#"4:11: "70000" is not a port: 0 to 65535"#]),
        ("tcp dport 022 accept", &[r#"4:11: "022" has a leading zero, which nft reads as octal"#]),
        ("tcp dport htps accept", &[r#"4:11: "htps" is not a port; did you mean "https"?"#]),
        ("tcp dport < 0 accept", &["4:1: this can never be true"]),
        ("tcp dport > 65535 accept", &["4:1: this can never be true"]),
        ("tcp dport ! 22 accept", &[r#"4:13: "!" is for bits; write != for not equal"#]),
        ("tcp dport { } accept", &[r#"4:13: expected a value, found "}""#]),
        (
            "tcp dport { 22 : accept } accept",
            &[r#"4:16: a map has no place here: a set holds values without ":""#],
        ),
        ("tcp dport @ports accept", &[r#"4:11: there is no set "ports" in this table"#]),
        ("tcp dport $port accept", &[r#"4:11: "port" is not defined"#]),
        (
            "tcp dport 22 tcp dport 23 accept",
            &["4:14: this can never be true after the earlier matches of the rule"],
        ),
        (
            "udp dport 53 tcp dport 53 accept",
            &[r#"4:14: "tcp dport" conflicts with the protocol matched before"#],
        ),
        (
            "meta l4proto != tcp tcp dport 22 accept",
            &[r#"4:21: "tcp dport" conflicts with the protocol matched before"#],
        ),
        (
            "th dport 53 accept",
            &["4:1: th needs a match on tcp or udp before it, such as meta l4proto { tcp, udp }"],
        ),
        (
            "meta l4proto { icmp, tcp } th dport 53 accept",
            &["4:28: th needs a match on tcp or udp before it, such as meta l4proto { tcp, udp }"],
        ),
        (
            "tcp dport 22 accept }",
            &[
                r#"4:21: expected the end of the line or ";", found "}""#,
                r#"6:1: expected "table" or "define", found "}""#,
            ],
        ),
        ("tcp dport 22-23 -5 accept", &[r#"4:17: expected a match or a statement, found "-""#]),
        ("tcp dport {{{{{{{{{{ 1 }}}}}}}}}} accept", &["4:19: more than 8 braces within each other"]),
    ]);
}

#[test]
fn headers_and_connections() {
    refuses(&[
        ("tcp window 5 accept", &[r#"4:1: "tcp window" is not in this version's subset"#]),
        ("tcp flag syn accept", &[r#"4:5: "flag" is nothing to look at in "tcp"; did you mean "flags"?"#]),
        ("tcp flags bogus accept", &[r#"4:11: "bogus" is not a TCP flag"#]),
        ("tcp flags & syn accept", &[r#"4:17: expected "==" or "!=" after a mask, found "accept""#]),
        ("tcp flags & syn|ack == syn accept", &["4:16: put the mask in parentheses: & (a | b)"]),
        (
            "tcp flags & syn == ack accept",
            &["4:20: this can never be true: the value has bits outside the mask"],
        ),
        ("tcp flags < 5 accept", &["4:13: tcp_flag has no order"]),
        (
            "ct state != established,related drop",
            &["4:13: a packet has one state: this is always true; write != { a, b }"],
        ),
        (
            "ct state == established,related accept",
            &["4:13: a packet has one state: this can never be true; leave out =="],
        ),
        (
            "ct state establised accept",
            &[r#"4:10: "establised" is not a connection state; did you mean "established"?"#],
        ),
        ("ct state 2 accept", &["4:10: expected a connection state by name"]),
        (
            "ct status != dnat accept",
            &["4:14: this compares the whole status; write ct status dnat, or ct status ! dnat"],
        ),
        (
            "ct status { dnat, snat } accept",
            &["4:11: ct status in a set compares the whole status; write ct status dnat,snat"],
        ),
        ("ct status assured accept", &["4:11: ct status assured is not in this version's subset"]),
        ("ct direction orginal accept", &[r#"4:14: "orginal" is not a direction; did you mean "original"?"#]),
        ("ct mark one accept", &[r#"4:9: "one" is not a mark"#]),
        (
            "ct original saddr 10.0.0.1 accept",
            &[r#"4:1: say whether "ct original saddr" is of IPv4, such as "ct original ip saddr""#],
        ),
        (
            "ct reply proto-dst 80 accept",
            &[
                "4:1: ct reply proto-dst needs a match on tcp or udp before it, such as meta l4proto { tcp, udp }",
            ],
        ),
        ("ct zone 1 accept", &[r#"4:1: "ct zone" is not in this version's subset"#]),
        ("ip frag-off 1 accept", &[r#"4:1: "ip frag-off" is not in this version's subset"#]),
        ("ip version 6 accept", &["4:1: this can never be true"]),
        (
            "meta nfproto ipv6 ip saddr 10.0.0.1 accept",
            &[r#"4:19: "ip saddr" looks at IPv4, and this is IPv6"#],
        ),
        ("ip ttl 5 ip6 hoplimit 5 accept", &[r#"4:10: "ip6 hoplimit" looks at IPv6, and this is IPv4"#]),
        ("ip6 saddr fe80::/129 accept", &["4:18: a prefix length of IPv6 is 0 to 128"]),
        ("ip6 saddr 10.0.0.1 accept", &[r#"4:11: "10.0.0.1" is an address, not an IPv6 address"#]),
        (
            "icmpv6 type nd-neighbour-solicit accept",
            &[r#"4:13: "nd-neighbour-solicit" is not an ICMPv6 type; did you mean "nd-neighbor-solicit"?"#],
        ),
        (
            "icmp type echo-reqest accept",
            &[r#"4:11: "echo-reqest" is not an ICMP type; did you mean "echo-request"?"#],
        ),
        ("ip ttl 256 accept", &[r#"4:8: "256" is not a number: 0 to 255"#]),
        ("ip dscp 64 accept", &[r#"4:9: "64" is not a DSCP: 0 to 63"#]),
        (
            "meta length & 5 == { 1, 5 } accept",
            &["4:20: behind a mask, one value is compared, not a set or a range"],
        ),
    ]);
}

#[test]
fn statements() {
    refuses(&[
        (r#"log group 1 accept"#, &["4:5: log group: nobody listens for it in a firewall VM"]),
        ("log level wran accept", &[r#"4:11: "wran" is no log level; did you mean "warn"?"#]),
        ("limit rate 5/secnd accept", &[r#"4:13: "secnd" is no unit of time; did you mean "second"?"#]),
        ("limit rate 0/second accept", &["4:12: a rate of 0 lets nothing through"]),
        (
            "limit rate 5 kbyte/second accept",
            &[r#"4:14: "kbyte" is no unit of octets; did you mean "kbytes"?"#],
        ),
        (
            "limit rate 5 accept",
            &[r#"4:14: expected "/" and a unit of time, such as "/second", found "accept""#],
        ),
        ("quota 5 gbytes accept", &[r#"4:9: "gbytes" is no unit of octets; did you mean "bytes"?"#]),
        ("limit name \"a\" accept", &[r#"4:12: there is no limit "a" in this table"#]),
        ("add @s { ip saddr } accept", &[r#"4:5: there is no set "s" in this table"#]),
        (
            "meter m { ip saddr } accept",
            &["4:7: a meter needs a limit, such as \"limit rate over 10/second\""],
        ),
        (
            "meter m { ip saddr ct count over 5 } drop",
            &["4:20: ct of elements is not in this version's subset"],
        ),
        ("redirect to :80", &["4:1: redirect has its place in nat chains at prerouting"]),
        ("ip dscp set cs1", &[r#"4:1: "ip dscp set" is not in this version's subset"#]),
        ("meta mark set tcp dport", &["4:15: a mark is made from a number, from meta mark or from ct mark"]),
        (
            "fib daddr oif exists accept",
            &["4:1: of the ways that fib finds, \"fib saddr . iif oif\" alone is in this version's subset"],
        ),
        ("fib daddr type lcal accept", &[r#"4:16: "lcal" is not an address type; did you mean "local"?"#]),
        ("notrack", &[r#"4:1: "notrack" is not in this version's subset"#]),
        ("acept", &[r#"4:1: expected a match or a statement, found "acept"; did you mean "accept"?"#]),
        ("accept accept", &["4:8: nothing may follow a verdict in its rule"]),
        ("accept counter", &["4:8: nothing may follow a verdict in its rule"]),
        (r#"comment "x" accept"#, &[r#"4:13: expected the end of the line or ";", found "accept""#]),
        (
            r#"accept
drop"#,
            &["5:1: no packet comes to this rule: the one of line 4 takes them all"],
        ),
        ("jump nowhere", &[r#"4:6: there is no chain "nowhere" in this table"#]),
        (
            "jump c",
            &[
                r#"4:6: chain "c" belongs to a hook; no jump leads there"#,
                r#"4:6: chain "c" comes back to itself by this jump"#,
            ],
        ),
        ("reject with icmp type foo", &[r#"4:23: "foo" is no code that reject sends"#]),
        ("ip ttl 5 reject with icmpv6 no-route", &["4:29: ICMPv6 is no answer to IPv4; write icmp"]),
        (
            "reject with icmpv6 no-rote",
            &[r#"4:20: "no-rote" is no code that reject sends; did you mean "no-route"?"#],
        ),
        ("reject with tcp rst", &[r#"4:17: expected "reset", found "rst""#]),
        (
            "udp dport 5 reject with tcp reset",
            &["4:13: reject with tcp reset is for TCP alone, and the rule takes others too"],
        ),
        (
            "meta l4proto { tcp, udp } reject with tcp reset",
            &["4:27: reject with tcp reset is for TCP alone, and the rule takes others too"],
        ),
        ("masquerade", &["4:1: masquerade has its place in nat chains at postrouting"]),
        ("dnat ip to 10.0.1.2", &["4:1: dnat has its place in nat chains at prerouting"]),
        (r#"counter name "x" accept"#, &[r#"4:14: there is no counter "x" in this table"#]),
        ("accept; }", &[r#"6:1: expected "table" or "define", found "}""#]),
    ]);
}

#[test]
fn words_to_weir() {
    refuses(&[
        (
            r#"accept comment "weir: allow everything""#,
            &[r#"4:16: "allow everything" says nothing to Weir here"#],
        ),
        (
            r#"# weir: allow everything
accept"#,
            &[r#"4:1: unknown word to Weir: "allow everything""#],
        ),
        (
            r#"#weir:
accept"#,
            &[r#"4:1: a word to Weir is missing, such as "allow open""#],
        ),
        ("accept # weir: allow open", &["4:8: a word to Weir stands at the start of a line"]),
    ]);
}

#[test]
fn tables_chains_and_sets() {
    refuses_files(&[
        (
            "# weir: allow open\ntable ip t {\n chain c { type filter hook prerouting priority raw + 100; }\n chain d { type filter hook postrouting priority 0; fib saddr . iif oif missing drop\n }\n}\n",
            &[
                "3:49: priority -200 is that of connection tracking itself: write -201 or -199",
                "4:65: fib by iif has its place at prerouting, input and forward",
            ],
        ),
        (
            "# weir: allow open\ntable ip t {\n chain c { type filter hook input priority 0; meta nfproto ipv4 accept\n}\n}\n",
            &["3:47: meta nfproto is for tables of family inet: this one holds one family"],
        ),
        (
            r#"table ip x {
}
"#,
            &[
                "1:1: no chain is on forward: everything would pass; if that is meant, say so: # weir: allow open",
            ],
        ),
        (
            r#"tabel ip x {
}
"#,
            &[r#"1:1: expected "table" or "define", found "tabel"; did you mean "table"?"#],
        ),
        (
            r#"table bridge x {
}
"#,
            &["1:7: tables of family bridge are not in this version's subset"],
        ),
        (
            r#"table inet f {
  chain forward { type filter hook forwad priority 0; accept
  }
}
"#,
            &[r#"2:36: "forwad" is no hook; did you mean "forward"?"#],
        ),
        (
            r#"table inet f {
  chain forward { type filtre hook forward priority 0
  }
}
"#,
            &[r#"2:24: expected "filter" or "nat", found "filtre""#],
        ),
        (
            r#"table inet f {
  chain forward { type filter hook forward priority dstnat
  }
  chain b { type filter hook forward priority filtre
  }
  chain c { type nat hook prerouting priority -200
  }
  chain d { type nat hook input priority 0
  }
  chain e { type nat hook forward priority 0
  }
  chain f { type route hook output priority 0
  }
  chain g { type filter hook ingress priority 0
  }
  chain h { type filter hook forward priority filter-5
  }
  chain h { type filter hook forward priority 2000000
  }
}
"#,
            &[
                "2:53: priority dstnat is for the hook prerouting",
                r#"4:47: "filtre" is no priority; did you mean "filter"?"#,
                "6:47: the priority of a nat chain is above -200",
                "10:27: a nat chain has no hook forward",
                "12:18: chains of type route are not in this version's subset",
                r#"14:30: "ingress" is not in this version's subset"#,
                r#"16:47: "filter-5" is no priority; did you mean "filter"?"#,
                "18:47: a priority is a decimal number from -1000000 to 1000000",
            ],
        ),
        (
            r#"# weir: allow open
table inet f {
  chain accept { }
}
"#,
            &[r#"3:9: "accept" is a word of the language, not a name"#],
        ),
        (
            r#"# weir: allow open
table inet f {
  chain pre { type filter hook prerouting priority raw
    oifname "lab" drop
    ct state new drop
    reject
  }
  chain in { type filter hook input priority 0; oifname "lab" drop
  }
  chain out { type filter hook output priority 0; iifname "lab" drop
  }
  chain post { type filter hook postrouting priority 0; reject
  }
}
"#,
            &[
                "4:5: oifname can never be true here: no outgoing interface is chosen yet",
                "5:5: ct state before connections are known (priority -200) is not in this version's subset",
                "8:49: oifname can never be true here: no outgoing interface is chosen yet",
                "10:51: iifname can never be true here: own packets come in by no interface",
                "12:57: reject has its place in filter chains, and not at postrouting",
            ],
        ),
        (
            r#"# weir: allow open
table ip nat {
  chain pre { type nat hook prerouting priority dstnat
    masquerade
    tcp dport 5 dnat to 10.9.9.9:80
    tcp dport 6 dnat to 10.0.1.1:80
    tcp dport 6 dnat to 192.0.2.3:80
    dnat to 10.0.1.2:80
    tcp dport 7 dnat to 10.0.1.2:0
    dnat to 10.0.1.2-10.9.9.9
    tcp dport 8 dnat to 10.0.1.2:90-80
    tcp dport 9 dnat to 10.0.1.2:80-90 random
    dnat to :80
    dnat to 10.0.1.0/24
    dnat to tcp dport map { 1 : 1.1.1.1 }
    reject
  }
  chain post { type nat hook postrouting priority srcnat
    ip saddr 10.0.1.2 snat to 9.9.9.9
    snat to 192.0.2.3:1-5
    masquerade to :5
    ip saddr 10.0.1.2 masquerade random,
    snat ip6 to ::1
  }
  chain late { type filter hook postrouting priority 100
  }
}
"#,
            &[
                "4:5: masquerade has its place in nat chains at postrouting",
                "5:25: 10.9.9.9 is no host behind a client port",
                "6:25: 10.0.1.1 is no host behind a client port",
                "7:25: 192.0.2.3 is no host behind a client port",
                "8:22: a port needs a match on tcp or udp before it, such as tcp dport 80",
                "9:34: port 0 is no port to send to",
                "10:13: a dnat leads to at most 4096 addresses",
                "11:34: the range ends before it begins",
                "12:40: a port of a destination by chance is not in this version's subset",
                "13:14: a port needs a match on tcp or udp before it, such as tcp dport 80",
                "14:13: a prefix is no address to translate to; first-last spreads over addresses, prefix to keeps one to one",
                "15:33: 1.1.1.1 is no host behind a client port",
                "16:5: reject has its place in filter chains, and not at postrouting",
                "19:31: 9.9.9.9 is neither the uplink's address nor one of its extra addresses; add it to extra in [uplink] of weir.toml",
                "20:23: a port needs a match on tcp or udp before it, such as tcp dport 80",
                "21:20: a port needs a match on tcp or udp before it, such as tcp dport 80",
                r#"22:41: expected "random", "fully-random" or "persistent", found the end of the line"#,
                r#"23:10: "ip6" is not in this version's subset"#,
                "25:16: a filter chain at postrouting behind srcnat is not in this version's subset",
            ],
        ),
        (
            r#"# weir: allow open
table inet nat {
  chain pre { type nat hook prerouting priority dstnat
    tcp dport 5 dnat to 10.0.1.2:80
    ip daddr 192.0.2.2 dnat to 10.0.1.2
  }
}
"#,
            &[r#"4:17: in a table of family inet, write "ip to" for an IPv4 address"#],
        ),
        (
            r#"table inet f {
  chain a { jump b
  }
  chain b { tcp dport 1 jump c
  }
  chain c { goto a
  }
  chain m { type filter hook forward priority 0; jump a
  }
}
"#,
            &[r#"6:18: chain "a" comes back to itself by this jump"#],
        ),
        (
            r#"table inet f {
  chain m { type filter hook forward priority 0; policy accept; jump other
  }
  chain others { policy drop; accept
  }
  chain m { type filter hook forward priority 5
  }
}
"#,
            &[
                r#"2:70: there is no chain "other" in this table; did you mean "others"?"#,
                "4:9: a chain without a hook has no policy",
                "6:13: the chain has another type, hook or priority already",
            ],
        ),
        (
            r#"# weir: allow open
table inet f {
  set a { type ether_addr; }
  set b { type inet_servce; }
  set c { elements = { 1 }; }
  set d { type ipv4_addr; elements = { 10.0.0.0/8 }; }
  set e { type inet_service; flags interval; elements = { 1-5, 3-9 }; }
  set e { type inet_service; }
  set f { type inet_service; flags timeout, interval; }
  set g { type inet_service; size 0; }
  set h { type inet_service; elements = { 10.0.0.1 }; }
  set i { type inet_service . inet_prot; }
  set j { type inet_service; elements = { 1 timeout 5s }; }
  quota k { }
  counter l { packts 5 }
  flags dormant
  chian m { }
}
"#,
            &[
                "3:16: sets of type ether_addr are not in this version's subset",
                r#"4:16: "inet_servce" is no type of a set; did you mean "inet_service"?"#,
                r#"5:7: the set has no type, such as "type ipv4_addr""#,
                r#"6:7: a set with ranges or prefixes needs "flags interval""#,
                "7:7: elements of this set repeat or overlap, and it has no auto-merge",
                r#"8:7: there is a set "e" already"#,
                "9:7: a set with intervals that end or change is not in this version's subset",
                r#"10:7: set "g" is empty"#,
                "10:35: the size of a set is 1 to 1048576",
                r#"11:43: "10.0.0.1" is an address, not a port"#,
                r#"12:31: "inet_prot" is no type of a set; did you mean "inet_proto"?"#,
                r#"13:7: set "j" is empty"#,
                "13:45: timeout of single elements is not in this version's subset",
                "14:9: the quota has no octets",
                r#"15:15: expected "packets" or "comment", found "packts""#,
                r#"16:3: "flags" is not in this version's subset"#,
                r#"17:3: expected "chain" or "set", found "chian"; did you mean "chain"?"#,
            ],
        ),
        (
            r#"# weir: allow open
table inet f {
  set unused { type inet_service; elements = { 1 }; }
  set empty { type inet_service; }
  chain c { type filter hook input priority 0; tcp dport @empty accept
    ip saddr @empty accept
    tcp dport @emty accept
  }
}
"#,
            &[
                r#"4:7: set "empty" is empty"#,
                r#"6:14: set "empty" holds inet_service, not ipv4_addr"#,
                r#"7:15: there is no set "emty" in this table; did you mean "empty"?"#,
            ],
        ),
        (
            r#"include "other.nft"
add rule inet f c accept
flush tables
delete table inet x
define a = 1
define a = 2
define
undefine a
# weir: allow open
"#,
            &[
                "1:9: there is no directory to include files from",
                r#"2:1: "add" is not in this version's subset"#,
                r#"3:7: expected "ruleset" after "flush", found "tables""#,
                r#"4:19: there is no table "x" to delete here"#,
                r#"6:8: "a" is defined already"#,
                "7:7: expected a name to define, found the end of the line",
                r#"8:1: "undefine" is not in this version's subset"#,
            ],
        ),
        (
            r#"# weir: never iifname "work"
# weir: always iifname "work" accept
# Weir: never iifname "work"
# a comment that mentions weir: never mind
# weir: allow open
"#,
            &[
                r#"1:9: this packet is accepted: iif work ip 10.0.1.2 > 10.137.0.11 tcp 40000 > 40000 syn; it meets no rule, out by vif2"#,
                r#"3:9: this packet is accepted: iif work ip 10.0.1.2 > 10.137.0.11 tcp 40000 > 40000 syn; it meets no rule, out by vif2"#,
            ],
        ),
        (
            r#"table inet f {
  chain c {
    type filter hook forward priority 0
    tcp dport "22
    accept
  }
}
"#,
            &[r#"4:15: expected a value, found ""22""#],
        ),
        (
            r#"table inet f {
  chain c {
    type filter hook forward priority 0
    tcp dport { 22, 80
    udp dport 53 accept
  }
  chain d {
    foo
  }
}
"#,
            &["4:15: this brace is never closed", r#"8:5: expected a match or a statement, found "foo""#],
        ),
        (
            r#"table ip6 f {
  chain c { type filter hook forward priority 0; ip saddr 10.0.0.1 accept
   icmp type echo-request accept
   reject with icmp type host-unreachable
  }
}
"#,
            &[
                "1:1: no chain is on forward: everything would pass; if that is meant, say so: # weir: allow open",
                r#"2:50: "ip saddr" looks at IPv4, and this is IPv6"#,
                r#"3:4: "icmp type" looks at IPv4, and this is IPv6"#,
                "4:26: ICMP of IPv4 has no place in a table of family ip6",
            ],
        ),
        (
            r#"# weir: allow open
table ip f {
  chain c { type filter hook input priority 0; reject with icmpx type no-route
  }
}
"#,
            &["3:71: icmpx is for tables of family inet; write icmp"],
        ),
    ]);
}

#[test]
fn warnings_do_not_stop_the_build() {
    let cases = [
        (
            "ip saddr 10.0.1.5/24 accept",
            "rules.nft:4:10: host bits are set and do not count: this is 10.0.1.0/24",
        ),
        ("tcp dport { 22, 22 } accept", "rules.nft:4:11: elements of this set repeat or overlap"),
    ];
    for (rules, told) in cases {
        let compiled = compile_text(PLAN, &forward(rules)).expect("it compiles");
        assert_eq!(lines(compiled.warnings()), [told]);
        assert_eq!((compiled.warnings().errors(), compiled.warnings().warnings()), (0, 1));
    }
    let sets = "set unused { type inet_service; elements = { 1 }; }\nset empty { type inet_service; }";
    let rules = forward("tcp dport @empty accept").replace("chain c", &format!("{sets}\nchain c"));
    let compiled = compile_text(PLAN, &rules).expect("it compiles");
    let told = ["rules.nft:2:5: set \"unused\" is never used", "rules.nft:3:5: set \"empty\" is empty"];
    assert_eq!(lines(compiled.warnings()), told);
}

#[test]
fn a_shadowed_rule_may_be_allowed() {
    let rules = forward("accept\ndrop comment \"weir: allow shadowed\"");
    assert!(compile_text(PLAN, &rules).is_ok());
}

#[test]
fn what_nft_does_not_read_is_not_read() {
    let told = |rules: &str| lines(&refused(rules));
    assert_eq!(
        told("table ip x {\r\n}\r\n"),
        ["rules.nft:1:13: a carriage return (CR LF line end) has no place in rules.nft"]
    );
    assert_eq!(
        told("\u{feff}table ip x {\n}\n"),
        ["rules.nft:1:1: a byte order mark has no place in rules.nft"]
    );
    assert_eq!(told("table ip x {\n\0}\n"), ["rules.nft:2:1: a NUL has no place in rules.nft"]);
}

#[test]
fn more_than_fifteen_nested_jumps() {
    let chains = |count: usize| {
        let chain = |i| format!("chain c{i} {{ jump c{}\n}}\n", i + 1);
        let chains: String = (1..count).map(chain).collect();
        let last = format!("chain c{count} {{ accept\n}}\n");
        let base = "chain m { type filter hook forward priority 0; policy drop; jump c1\n}\n";
        format!("table inet f {{\n{base}{chains}{last}}}\n")
    };
    assert_eq!(
        lines(&refused(&chains(16))),
        ["rules.nft:32:18: more than 15 nested jumps, here to chain \"c16\""]
    );
    let site = site(&chains(15));
    assert_eq!(verdict(site, &segment()), rules::Verdict::Accept);
}

#[test]
fn chains_that_cost_too_much() {
    let chain = |i: usize| format!("chain c{i} {{ {}\n}}\n", format!("jump c{}; ", i + 1).repeat(10));
    let chains: String = (1..8).map(chain).collect();
    let rules = format!(
        "table inet f {{\nchain m {{ type filter hook forward priority 0; policy drop; jump c1\n}}\n{chains}chain c8 {{ accept\n}}\n}}\n"
    );
    assert_eq!(
        lines(&refused(&rules)),
        ["rules.nft:2:11: a packet may take more than 1000000 steps at this hook"]
    );
}

#[test]
fn what_names_many_values_needs_an_interval() {
    for (datatype, element) in
        [("ifname", "\"vif*\""), ("ipv4_addr", "10.0.1.7/32"), ("inet_service", "5-5"), ("ipv4_addr", "$two")]
    {
        let rules = format!(
            "# weir: allow open\ndefine two = {{ 10.0.1.1, 10.0.1.0/31 }}\ntable ip t {{\n  set s {{ type {datatype}; FLAGS elements = {{ {element} }}; }}\n}}\n"
        );
        assert_eq!(
            lines(&refused(&rules.replace("FLAGS ", ""))),
            ["rules.nft:4:7: a set with ranges or prefixes needs \"flags interval\""],
            "{element}"
        );
        let with = rules.replace("FLAGS", "flags interval; auto-merge;");
        assert!(compile_text(PLAN, &with).is_ok(), "{element}");
    }
}

/// What nft refuses to load of what remembers: Weir is not looser.
#[test]
fn what_nft_refuses_of_statements_that_remember() {
    refuses(&[
        (
            "limit rate 10/second burst 5 accept",
            &[r#"4:30: expected "packets" behind the burst, found "accept""#],
        ),
        ("limit rate 10/second burst 0 packets accept", &["4:28: a burst of packets is at least 1"]),
        ("limit rate until 10/second accept", &[r#"4:12: expected a number, found "until""#]),
        (
            "limit rate 4294967295 mbytes/second accept",
            &["4:12: the kernel cannot count so many octets in such a time"],
        ),
        ("quota 100 bytes used 500 bytes accept", &["4:17: more is used than the quota has"]),
        ("log level warning accept", &[r#"4:11: "warning" is no log level"#]),
        ("log flags tcp accept", &[r#"4:15: expected "sequence" or "options", found "accept""#]),
        ("log flags ip sequence accept", &[r#"4:14: expected "options", found "sequence""#]),
        (
            "fib saddr . iif oifname missing drop",
            &["4:1: oifname is a name, which neither exists nor is missing: write oif"],
        ),
        (
            "meta nfproto ipv6 reject with icmp host-unreachable",
            &["4:36: ICMP of IPv4 is no answer to IPv6; write icmpv6 or icmpx"],
        ),
        (
            "tcp flags syn / syn accept",
            &[r#"4:17: behind "/" stands a list, such as syn,ack; or write & (syn | ack) =="#],
        ),
        (
            "ip saddr . tcp dport { 10.0.1.0/24 . 5, 10.0.1.2 . 5 } accept",
            &["4:22: elements of this set overlap"],
        ),
        (
            "meter m { ip saddr limit rate 5/second } accept; meter m { ip saddr limit rate 5/second } drop",
            &[r#"4:56: there is a set or a meter "m" already"#],
        ),
        (
            "tcp dport vmap { { 22, 23 } : accept }",
            &["4:18: a key of a map is no set: write an element for each"],
        ),
    ]);
    let sets: &[(&str, &str)] = &[
        (
            "set s { type ipv4_addr; auto-merge; elements = { 10.0.1.2 }; }",
            "2:5: auto-merge is for sets with \"flags interval\"",
        ),
        (
            "set s { type ipv4_addr; size 1; elements = { 10.0.1.2, 10.0.1.3 }; }",
            "2:5: the set has 2 elements, and its size is 1",
        ),
        (
            "set s { type ipv4_addr; flags interval; flags constant; elements = { 10.0.1.0/24 }; }",
            "2:5: a set with ranges or prefixes needs \"flags interval\"",
        ),
        (
            "set s { type ipv4_addr; gc-interval 5s; elements = { 10.0.1.2 }; }",
            "2:25: gc-interval is for sets whose elements end: it needs a timeout",
        ),
        ("set s { typeof ct original saddr; }", "2:16: \"ct original saddr\" alone has no type"),
        (
            "set s { type ipv4_addr . inet_service; flags interval; auto-merge; elements = { 10.0.1.0/24 . 5, 10.0.1.2 . 5 }; }",
            "2:5: elements of this set repeat or overlap",
        ),
        (
            "set s { type ipv4_addr; timeout 30m1h; }",
            "2:33: a time is written like \"30s\", \"5m\", \"1h30m\" or \"2d\"",
        ),
        ("counter c", "2:10: expected \"{\", found the end of the line"),
        ("quota q { 100 bytes used 500 bytes }", "2:21: more is used than the quota has"),
        (
            "map m { type ipv4_addr : verdict; size 1; elements = { 10.0.1.2 : accept, 10.0.1.3 : drop }; }",
            "2:5: the map has 2 elements, and its size is 1",
        ),
    ];
    for (set, told) in sets {
        let rules = forward("accept").replacen("{\n", &format!("{{\n{set}\n"), 1);
        let all = lines(&refused(&rules));
        assert!(all.contains(&format!("rules.nft:{told}")), "{set}\n{all:#?}");
    }
}

/// nft reads the blocks of a table one after the other, and within one of them chains and objects first.
#[test]
fn what_stands_in_a_later_block_is_not_there_yet() {
    let base = "table inet t { chain c { type filter hook forward priority 0; policy drop;\n";
    let file = |body: &str, later: &str| format!("{base}{body}\n}}\n}}\ntable inet t {{\n{later}\n}}\n");
    for (body, later, told) in [
        (
            "jump d",
            "chain d { accept\n}",
            r#"2:6: chain "d" is in a later block, which nft has not read yet"#,
        ),
        (
            "tcp dport vmap { 22 : goto d }",
            "chain d { accept\n}",
            r#"2:28: chain "d" is in a later block, which nft has not read yet"#,
        ),
        (
            "counter name k",
            "counter k { }",
            r#"2:14: counter "k" is declared in a later block, which nft has not read yet"#,
        ),
        (
            "ip saddr @s accept",
            "set s { type ipv4_addr; elements = { 10.0.1.2 } }",
            r#"2:10: set "s" is declared in a later block, which nft has not read yet"#,
        ),
    ] {
        assert_eq!(lines(&refused(&file(body, later))), [format!("rules.nft:{told}")], "{body}");
        // In the same block, or in an earlier one, it is there.
        let together = format!("{base}{body}\n}}\n{later}\n}}\n");
        let before = format!("table inet t {{\n{later}\n}}\n{base}{body}\n}}\n}}\n");
        for fine in [together, before] {
            if let Err(told) = compile_text(common::PLAN, &fine) {
                panic!("{fine}\n{}", told.render(false));
            }
        }
    }
}

#[test]
fn what_is_said_twice_or_in_words_of_the_language() {
    refuses_files(&[
        (
            "table inet t {\n chain c { type filter hook forward priority 0; policy drop; policy accept; comment \"x\"; comment \"y\"\n}\n}\n",
            &["2:62: the chain has a policy already", "2:98: the chain has a comment already"],
        ),
        (
            "# weir: allow open\ntable inet t { chain c { comment \"weir: allow unreachable\"; counter\n}\n}\ntable inet t { chain c { type filter hook forward priority 0\n}\n}\n",
            &["5:26: an earlier block has this chain without a hook, and the kernel adds none"],
        ),
        (
            "define x = 5\ndefine tcp = 5\ntable inet t {\n define x = 6\n chain hour { type filter hook forward priority 0\n}\n}\n",
            &[
                r#"2:8: "tcp" is a word of the language, not a name"#,
                r#"4:9: "x" is defined already"#,
                r#"5:8: "hour" is a word of the language, not a name"#,
            ],
        ),
    ]);
}

#[test]
fn what_the_kernel_reads_of_other_protocols_and_words() {
    refuses(&[
        (
            "meta l4proto . th dport != { tcp . 22, udp . 53 } accept",
            &["4:28: th needs tcp or udp in each element, or a match on them before it"],
        ),
        (
            "meta l4proto . th dport { sctp . 22 } accept",
            &["4:25: th needs tcp or udp in each element, or a match on them before it"],
        ),
        (
            "meta l4proto . th dport vmap { tcp . 22 : drop, * : accept }",
            &["4:49: * stands for other protocols than tcp and udp too, whose ports are not known"],
        ),
        (
            "ct status . tcp dport { dnat . 22 } accept",
            &["4:1: ct status in a concatenation compares the whole status: write it apart"],
        ),
        ("fib saddr . iif oif 1 accept", &[r#"4:21: expected "exists" or "missing""#]),
    ]);
    assert!(compile_text(common::PLAN, &forward("meta mark 0 meta mark set 2 meta mark 2 drop")).is_ok());
}

#[test]
fn defines_that_explode_end_at_once() {
    let mut defines = "define a0 = { 1, 2 }\n".to_owned();
    for level in 1..20 {
        defines += &format!("define a{level} = {{ {} }}\n", vec![format!("$a{}", level - 1); 10].join(", "));
    }
    let set = "set s { type inet_service; elements = $a19\n}\n";
    let rules = defines + &forward("tcp dport @s accept").replacen("{\n", &format!("{{\n{set}"), 1);
    let told = lines(&refused(&rules));
    assert!(told[0].contains("have more than 1048576 elements"), "{told:?}");
}

#[test]
fn no_host_has_the_address_of_its_network() {
    let rules = |to: &str| {
        format!(
            "# weir: allow open\ntable ip t {{ chain c {{ type nat hook prerouting priority dstnat\ntcp dport 1 dnat to {to}\n}}\n}}\n"
        )
    };
    for (to, wrong) in
        [("10.0.1.255", "10.0.1.255"), ("10.0.1.250-10.0.1.255", "10.0.1.255"), ("10.0.2.0", "10.0.2.0")]
    {
        let told = lines(&refused(&rules(to)));
        assert_eq!(told, [format!("rules.nft:3:21: {wrong} is no host behind a client port")], "{to}");
    }
}
