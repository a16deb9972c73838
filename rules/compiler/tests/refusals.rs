//! What is refused in rules.nft: each with its line, its column and its words.

mod common;

use common::*;
use rules_compiler::compile_text;

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
            &[
                "4:1: th needs a match on protocols with ports before it, such as meta l4proto { tcp, udp }; those without have other things there",
            ],
        ),
        (
            "meta l4proto { icmp, tcp } th dport 53 accept",
            &[
                "4:28: th needs a match on protocols with ports before it, such as meta l4proto { tcp, udp }; those without have other things there",
            ],
        ),
        (
            "tcp dport 22 accept }",
            &[
                r#"4:21: expected the end of the line or ";", found "}""#,
                r#"6:1: expected "table" or "define", found "}""#,
            ],
        ),
        ("tcp dport 22-23 -5 accept", &[r#"4:17: expected a match or a statement, found "-""#]),
        (
            "tcp dport {{{{{{{{{{ 1 }}}}}}}}}} accept",
            &["4:12: braces within braces: write the elements side by side"],
        ),
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
        (
            "ip frag-off 1 accept",
            &[
                r#"4:1: "ip frag-off" has no place here: a datagram in fragments is judged once, by its first fragment"#,
            ],
        ),
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
            &[
                "4:20: a set behind a mask has single values, and the mask leading bits, such as 255.255.255.0",
            ],
        ),
    ]);
}

#[test]
fn statements() {
    refuses(&[
        (r#"log group 70000 accept"#, &["4:11: a log group is 0 to 65535"]),
        (r#"log group 1 level info accept"#, &["4:5: log: a level and a group exclude each other"]),
        (r#"log flags all group 1 accept"#, &["4:15: log: flags and a group exclude each other"]),
        (r#"log level audit group 1 accept"#, &[r#"4:17: expected a match or a statement, found "group""#]),
        (r#"log group 1 level audit accept"#, &["4:13: log level audit stands alone"]),
        (r#"log level audit prefix "a" accept"#, &["4:5: log level audit has no prefix"]),
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
            &["4:7: a meter needs a limit or a counter, such as \"limit rate over 10/second\""],
        ),
        ("redirect to :80", &["4:1: redirect has its place in nat chains at prerouting"]),
        (
            "ip dscp set cs1",
            &[
                r#"4:1: "ip dscp set" has no place here: headers keep their DSCP; mark packets where they come from, or behind the firewall"#,
            ],
        ),
        (
            "meta mark set tcp dport",
            &["4:15: a mark is made from a number, from meta mark, from ct mark, or looked up in a map"],
        ),
        (
            "fib daddr . iif oif exists accept",
            &[
                "4:1: of the ways by iif that fib finds, \"fib saddr . iif oif\" alone is in this version's subset",
            ],
        ),
        ("fib daddr type lcal accept", &[r#"4:16: "lcal" is not an address type; did you mean "local"?"#]),
        (
            "notrack",
            &["4:1: notrack has its place at prerouting before connections are known, such as priority raw"],
        ),
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
