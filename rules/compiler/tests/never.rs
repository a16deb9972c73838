//! Matches that no packet passes: by themselves, after others of their rule, or where their chain is.

mod common;

use common::*;
use rules_compiler::compile_text;

const AFTER: &str = "this can never be true after the earlier matches of the rule";

#[test]
fn what_excludes_each_other_in_a_rule() {
    for (rule, column) in [
        ("ct state new ct state established accept", 14),
        ("ct state { new, related } ct state invalid,established accept", 27),
        ("tcp flags syn tcp flags ! syn accept", 15),
        ("tcp flags & (syn|ack) == syn tcp flags & (syn|ack) == ack accept", 30),
        ("meta mark & 1 == 1 meta mark & 1 == 0 accept", 20),
        ("meta mark & 3 == 1 meta mark & 1 != 1 accept", 20),
        ("meta mark 5 meta mark & 1 == 0 accept", 13),
        ("meta mark & 1 == 0 meta mark { 5, 7 } accept", 20),
        ("ct direction reply ct state new accept", 20),
        ("ct state invalid ct status dnat accept", 18),
        ("ct mark 5 ct state invalid,untracked accept", 11),
        ("tcp dport 22 meta l4proto . th dport { tcp . 23, udp . 22 } accept", 38),
    ] {
        let told = lines(&refused(&forward(rule)));
        let lookup =
            "this can never be true: by itself, by its hook, or after the earlier matches of the rule";
        let wanted = if rule.contains(" . ") { lookup } else { AFTER };
        assert_eq!(told, [format!("rules.nft:4:{column}: {wanted}")], "{rule}");
    }
    // Bits that may be there together, and marks that the rule itself sets.
    for rule in [
        "tcp flags syn tcp flags ack accept",
        "meta mark & 1 == 1 meta mark & 2 == 0 accept",
        "meta mark & 1 == 1 meta mark set 4 meta mark & 1 == 0 accept",
        "ct state new,established ct state established accept",
        "ip saddr . ip daddr { 10.0.1.5 . 10.0.1.6 } accept",
        "ip saddr 10.0.1.5 ip saddr . tcp dport { 10.0.1.5 . 22, 10.0.1.6 . 23 } accept",
    ] {
        assert!(compile_text(PLAN, &forward(rule)).is_ok(), "{rule}");
    }
}

#[test]
fn what_no_packet_has() {
    refuses(&[
        (
            "ip saddr . ip saddr { 10.0.1.5 . 10.0.1.6 } accept",
            &[
                "4:21: this can never be true: by itself, by its hook, or after the earlier matches of the rule",
            ],
        ),
        ("ip length < 20 accept", &["4:1: this can never be true: a packet has 20 to 65535 octets"]),
        (
            "ip ttl 0 accept",
            &["4:1: this can never be true here: what would go on with a time to live of 0 is not forwarded"],
        ),
    ]);
    let nat = |body: &str| {
        format!(
            "# weir: allow open\ntable ip t {{\nchain c {{ type nat hook prerouting priority dstnat;\n{body}\n}}\n}}\n"
        )
    };
    let told =
        "this can never be true here: chains of type nat see the first packet of a connection, which is new";
    for body in ["ct state established dnat to 10.0.1.2", "ct direction reply dnat to 10.0.1.2"] {
        assert_eq!(lines(&refused(&nat(body))), [format!("rules.nft:4:1: {told}")], "{body}");
    }
    assert!(compile_text(PLAN, &nat("ct state new dnat to 10.0.1.2")).is_ok());
    let output = "# weir: allow open\ntable ip t {\nchain c { type filter hook output priority 0;\niifname != \"lab\" drop\n}\n}\n";
    assert_eq!(
        lines(&refused(output)),
        ["rules.nft:4:1: iifname != is always true here: own packets come in by no interface; leave it out"]
    );
}
