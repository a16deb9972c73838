//! What nft or the kernel does not load is not taken here either: each with its line, its column and its words.

mod common;

use common::*;
use rules_compiler::compile_text;

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

/// What nft's parser or the kernel stumbles over.
#[test]
fn what_nft_refuses_of_values() {
    refuses(&[
        (
            "ip saddr { { 10.0.1.2 } } accept",
            &["4:12: braces within braces: write the elements side by side"],
        ),
        (
            "ip saddr . \n tcp dport 5 accept",
            &["4:12: expected another key behind \".\", found the end of the line"],
        ),
        (
            "ip saddr . tcp dport { 10.0.1.2 . \n 5 } accept",
            &["4:35: expected a value, found the end of the line"],
        ),
        (
            "limit rate 1/week burst 40000 packets accept",
            &["4:12: the kernel cannot count so many packets at once at such a rate"],
        ),
    ]);
    refuses_files(&[
        (
            "table inet t {\nchain all { type filter hook forward priority 0; policy drop;\n}\n}\n",
            &["2:7: \"all\" is a word of the language, not a name"],
        ),
        (
            "define x = 22\ntable inet t {\nset s { type inet_service; elements = $x; }\nchain c { type filter hook forward priority 0; policy drop;\ntcp dport @s accept\n}\n}\n",
            &["3:39: the elements of a set stand in braces"],
        ),
        (
            "table inet t {\nchain c { type filter hook forward priority 2000000; policy accept;\n}\n}\n",
            &["2:45: a priority is a decimal number from -1000000 to 1000000"],
        ),
        (
            "table inet t {\nchain c { type route hook forward priority 0; policy accept;\n}\n}\n",
            &["2:16: a chain of type route is at output"],
        ),
    ]);
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
            &["4:28: ports need tcp or udp in each element, or a match on them before"],
        ),
        (
            "meta l4proto . th dport { icmp . 22 } accept",
            &["4:25: ports need tcp or udp in each element, or a match on them before"],
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
