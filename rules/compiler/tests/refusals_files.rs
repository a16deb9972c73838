//! What is refused of tables, chains, sets and what else a file declares: each with its line, its column and its words.

mod common;

use common::*;

#[test]
fn a_table_is_flushed_ahead_of_its_rules() {
    let body = "chain c { type filter hook forward priority 0; policy drop;\naccept\n}";
    refuses_files(&[
        (
            &format!("table inet t {{\n{body}\n}}\nflush table inet t\n"),
            &["6:18: the table has rules already: flush it ahead of them"],
        ),
        ("# weir: allow open\nflush table ip t\n", &["2:16: there is no table \"t\" to flush here"]),
    ]);
    site(&format!("table inet t\nflush table inet t\ntable inet t {{\n{body}\n}}\n"));
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
            &[r#"2:24: expected "filter", "nat" or "route", found "filtre""#],
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
  chain f { type route hook input priority 0
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
                "12:18: a chain of type route is at output",
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
                "5:5: this can never be true here: before connections are known (priority -200) a packet is invalid, or untracked behind notrack",
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
    oifname uplink jump later
  }
  chain later {
    ip saddr . tcp dport { 10.0.1.2 . 5 } drop
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
                "25:16: a filter chain at postrouting behind srcnat would see translated sources, which are chosen only after all rules: line 29 asks for saddr; put it ahead of srcnat (a priority below 100), and match ip saddr as it is before translation",
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
  set a { type ct_status; }
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
                "3:16: sets of type ct_status are not in this version's subset",
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
                r#"3:7: expected "ruleset" or "table" after "flush", found "tables""#,
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
