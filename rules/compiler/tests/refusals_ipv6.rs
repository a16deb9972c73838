//! Families and protocols that do not go together, and what only IPv6 packets have: checked as nft does it.

mod common;

use common::*;
use rules_compiler::compile_text;

/// A file with this set beside a chain with this body.
fn with_set(set: &str, body: &str) -> String {
    forward(body).replacen("{\n", &format!("{{\n{set}\n"), 1)
}

#[test]
fn sets_of_ipv6_are_checked_as_others_are() {
    let look = "ip6 saddr @s accept\naccept";
    let join = "ip6 saddr . tcp dport @s accept\naccept";
    for (set, body, told) in [
        (
            "set s { type ipv6_addr; elements = { fe80::/10 } }",
            look,
            r#"2:5: a set with ranges or prefixes needs "flags interval""#,
        ),
        (
            "set s { type ipv6_addr; flags interval; elements = { fe80::/10, fe80::1 } }",
            look,
            "2:5: elements of this set repeat or overlap, and it has no auto-merge",
        ),
        (
            "set s { type ipv6_addr; auto-merge; elements = { ::1 } }",
            look,
            r#"2:5: auto-merge is for sets with "flags interval""#,
        ),
        (
            "set s { type ipv6_addr; size 1; elements = { ::1, ::2 } }",
            look,
            "2:5: the set has 2 elements, and its size is 1",
        ),
        (
            "set s { type ipv6_addr . inet_service; elements = { fe80::1 . 22-30 } }",
            join,
            r#"2:5: a set with ranges or prefixes needs "flags interval""#,
        ),
        (
            "set s { type ipv6_addr; timeout 5s; flags constant; }",
            look,
            "2:5: a constant set does not change",
        ),
        (
            "set s { type ipv6_addr; flags constant; elements = { ::1 } }",
            "add @s { ip6 saddr }\naccept",
            r#"5:5: set "s" does not change: it needs "flags dynamic""#,
        ),
        (
            "set s { type ipv6_addr; flags dynamic; size 100; }",
            "add @s { ip6 saddr timeout 5s }\naccept",
            r#"5:5: a timeout needs "flags timeout" in set "s""#,
        ),
    ] {
        assert_eq!(lines(&refused(&with_set(set, body))), [format!("rules.nft:{told}")], "{set}");
    }
    for (set, body) in [
        ("set s { type ipv6_addr; flags interval; elements = { fe80::/10, ::1-::5, 2001:db8::1 } }", look),
        ("set s { type ipv6_addr; flags interval; auto-merge; elements = { fe80::/10, fe80::1 } }", look),
        (
            "set s { type ipv6_addr; flags dynamic,timeout; size 100; }",
            "add @s { ip6 saddr timeout 5s }\naccept",
        ),
        ("", "ip6 saddr vmap { ::1 : accept, ::2 : drop }\naccept"),
        ("", "ip6 daddr & ::ffff:ffff:ffff:ffff == ::1234:5678:9abc:def0 accept\naccept"),
    ] {
        assert!(compile_text(PLAN, &with_set(set, body)).is_ok(), "{set} {body}");
    }
}

#[test]
fn comparisons_with_ipv6() {
    refuses(&[
        ("ip6 saddr { ::1-::0 } accept", &["4:13: the range ends before it begins"]),
        (r"ip6 saddr ! ::1 accept", &[r#"4:13: "!" is for bits; write != for not equal"#]),
        ("ip6 hoplimit < 5-6 accept", &["4:16: an order is that of one value, not of a set or a range"]),
        (
            "ip6 saddr & ::ff == { ::1 } accept",
            &["4:21: behind a mask, one value is compared, not a set or a range"],
        ),
        ("ip6 saddr 10.0.1.2 accept", &[r#"4:11: "10.0.1.2" is an address, not an IPv6 address"#]),
        (
            "ip6 saddr vmap { fe80::/10 : accept, fe80::1 : drop }",
            &["4:38: an earlier element of this map has this key, or a part of it"],
        ),
    ]);
}

#[test]
fn protocols_that_conflict() {
    refuses(&[
        (
            "ip6 nexthdr tcp udp dport 5 accept",
            &[r#"4:17: "udp dport" conflicts with the protocol matched before"#],
        ),
        (
            "icmpv6 type echo-request tcp dport 5 accept",
            &[r#"4:26: "tcp dport" conflicts with the protocol matched before"#],
        ),
        (
            "meta l4proto { tcp, udp } udp dport 5 accept",
            &[
                r#"4:27: "udp dport" behind a set of protocols: nft takes them for a conflict; leave the set out"#,
            ],
        ),
        (
            "ip protocol { tcp, udp } meta l4proto tcp tcp flags syn accept",
            &[
                r#"4:43: "tcp flags" behind a set of protocols: nft takes them for a conflict; leave the set out"#,
            ],
        ),
        (
            "ip6 nexthdr { udp, tcp } udp dport 5 accept",
            &[
                r#"4:26: "udp dport" behind a set of protocols: nft takes them for a conflict; leave the set out"#,
            ],
        ),
        (
            "udp dport 5 tcp option maxseg size set 1200",
            &[r#"4:13: "tcp option" conflicts with the protocol matched before"#],
        ),
    ]);
    for fine in [
        "meta l4proto { tcp, udp } th dport 53 accept",
        "meta l4proto { 6-17 } udp dport 53 accept",
        "ip protocol @p tcp dport 53 accept",
    ] {
        let set = "set p { type inet_proto; elements = { tcp, udp } }";
        let set = if fine.contains("@p") { set } else { "" };
        assert!(compile_text(PLAN, &with_set(set, fine)).is_ok(), "{fine}");
    }
}

#[test]
fn families_that_conflict() {
    refuses(&[
        ("meta nfproto ipv4 ip6 saddr ::1 accept", &[r#"4:19: "ip6 saddr" looks at IPv6, and this is IPv4"#]),
        (
            "icmp type echo-request ip6 saddr ::1 accept",
            &[r#"4:24: "ip6 saddr" looks at IPv6, and this is IPv4"#],
        ),
        (
            "meta nfproto { ipv4, ipv6 } ip saddr 10.0.1.2 accept",
            &[
                r#"4:29: "ip saddr" behind a set of families: nft takes them for a conflict; leave the set out"#,
            ],
        ),
        (
            "ip saddr 10.0.1.2 meta nfproto ipv6 accept",
            &["4:19: this can never be true after the earlier matches of the rule"],
        ),
        (
            "meta protocol arp accept",
            &["4:1: this can never be true: tables of family inet hold IPv4 and IPv6"],
        ),
    ]);
    let nat = |body: &str| {
        format!(
            "# weir: allow open\ntable inet t {{\nchain c {{ type nat hook prerouting priority dstnat;\n{body}\n}}\n}}\n"
        )
    };
    for (body, told) in [
        ("ip6 saddr ::1 dnat ip to 10.0.1.2", "4:15: an IPv4 address has no place in a rule for IPv6"),
        ("meta nfproto ipv6 dnat ip to 10.0.1.2", "4:19: an IPv4 address has no place in a rule for IPv6"),
        (
            "meta protocol ip dnat to 10.0.1.2",
            r#"4:18: in a table of family inet, write "ip to" for an IPv4 address"#,
        ),
    ] {
        assert_eq!(lines(&refused(&nat(body))), [format!("rules.nft:{told}")], "{body}");
    }
    for body in ["meta nfproto ipv4 dnat to 10.0.1.2", "icmp type echo-request dnat to 10.0.1.2"] {
        assert!(compile_text(PLAN, &nat(body)).is_ok(), "{body}");
    }
}
