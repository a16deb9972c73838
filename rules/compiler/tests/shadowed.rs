//! Rules that an earlier one takes wholly, and dnats that overlap in part.

mod common;

use common::*;
use rules_compiler::compile_text;

fn told(rules: &str) -> Vec<String> {
    match compile_text(PLAN, rules) {
        Ok(compiled) => lines(compiled.warnings()),
        Err(diagnostics) => lines(&diagnostics),
    }
}

/// The second rule, in line 5, is taken by the first, in line 4.
fn is_taken(first: &str, second: &str) {
    let message = "rules.nft:5:1: no packet comes to this rule: the one of line 4 takes them all; if that is meant, say so: comment \"weir: allow shadowed\"";
    assert_eq!(told(&forward(&format!("{first}\n{second}"))), [message], "{first} / {second}");
    let allowed = format!("{first}\n{second} comment \"weir: allow shadowed\"");
    assert_eq!(told(&forward(&allowed)), [""; 0], "{allowed}");
}

fn is_fine(first: &str, second: &str) {
    assert_eq!(told(&forward(&format!("{first}\n{second}"))), [""; 0], "{first} / {second}");
}

#[test]
fn a_rule_that_an_earlier_one_takes_wholly() {
    for (first, second) in [
        ("tcp dport 22 accept", "tcp dport 22 drop"),
        ("tcp dport 22 drop", "tcp dport 22 counter drop"),
        ("tcp dport 20-30 drop", "tcp dport { 22, 25-27 } accept"),
        ("tcp dport { 20-24, 80 } drop", "ip saddr 10.0.1.2 tcp dport 22 accept"),
        ("ip saddr 10.0.0.0/8 drop", "ip saddr 10.0.1.0/24 tcp dport 22 accept"),
        ("ip saddr != 10.0.1.2 drop", "ip saddr 10.0.1.3 accept"),
        ("ip saddr 10.0.1.3-10.0.2.200 drop", "ip saddr 10.0.1.128/25 accept"),
        ("meta l4proto tcp return", "tcp dport 22 accept"),
        ("meta l4proto { tcp, udp } th dport 53 accept", "udp dport 53 drop"),
        ("iifname \"vif*\" accept", "iifname vif2 tcp dport 22 drop"),
        ("iifname != work drop", "iifname lab accept"),
        ("ct state established,related accept", "ct state established tcp dport 22 drop"),
        ("ct status dnat accept", "ct status dnat ip saddr 10.0.1.2 drop"),
        ("tcp flags syn / syn,ack drop", "tcp flags == syn accept"),
        ("tcp flags & (fin|syn) == 0 drop", "tcp flags == ack tcp dport 80 accept"),
        ("ip ttl < 5 drop", "ip ttl 1 accept"),
        ("meta nfproto ipv4 tcp dport 22 accept", "ip saddr 10.0.1.2 tcp dport 22 drop"),
        ("meta nfproto ipv4 accept", "ip saddr 10.0.1.2 drop"),
        // All interfaces there are.
        ("iifname { uplink, work, lab, \"vif*\" } accept", "tcp dport 22 drop"),
        ("oifname { uplink, work, lab, vif1, vif2 } iifname work accept", "iifname work drop"),
    ] {
        is_taken(first, second);
    }
}

#[test]
fn a_rule_that_has_packets_left() {
    for (first, second) in [
        ("tcp dport 22 accept", "udp dport 22 drop"),
        ("tcp dport 22 counter", "tcp dport 22 drop"),
        ("tcp dport 22 drop", "tcp dport 22-23 accept"),
        ("tcp dport { 20, 22 } drop", "tcp dport 20-22 accept"),
        ("tcp dport 22 drop", "meta l4proto tcp accept"),
        ("tcp dport 22 drop", "ip saddr 10.0.1.2 accept"),
        ("ip saddr 10.0.1.0/24 drop", "ip saddr 10.0.0.0/8 accept"),
        ("ip saddr 10.0.1.0/24 tcp dport 22 drop", "ip saddr 10.0.1.5 accept"),
        ("ct state established accept", "ct state established,related accept"),
        ("tcp flags syn / syn,ack drop", "tcp flags syn accept"),
        // IPv6 is left, which the table is for too.
        ("ip protocol tcp accept", "meta l4proto tcp drop"),
        ("meta nfproto ipv4 accept", "drop"),
        ("meta nfproto ipv4 tcp dport 22 accept", "tcp dport 22 drop"),
        // The counter of the second counts what the first leaves.
        ("tcp dport 22 accept", "counter tcp dport 22 drop"),
        ("iifname { uplink, work, lab } accept", "tcp dport 22 drop"),
        // No packet uses lo, and a match on it is never an error.
        ("iifname { uplink, work, lab, vif1, vif2 } accept", "iifname lo accept"),
        ("iifname != work accept", "iifname lo drop"),
    ] {
        is_fine(first, second);
    }
}

#[test]
fn a_set_that_is_empty_today_is_no_error() {
    let rules = forward("tcp dport 1-65535 accept\ntcp dport @later drop")
        .replace("chain c", "set later { type inet_service; }\nchain c");
    assert_eq!(told(&rules), ["rules.nft:2:5: set \"later\" is empty"]);
}

#[test]
fn other_chains_take_nothing() {
    let rules = forward("jump side\ntcp dport 22 drop")
        .replace("chain c", "chain side { tcp dport 22 accept\n}\nchain c");
    assert_eq!(told(&rules), [""; 0]);
}

fn dnats(first: &str, second: &str) -> Vec<String> {
    let rules = format!(
        "# weir: allow open\ntable ip n {{\nchain p {{ type nat hook prerouting priority dstnat\n{first}\n{second}\n}}\n}}\n"
    );
    told(&rules)
}

#[test]
fn two_dnats_that_overlap_in_part() {
    let message = "rules.nft:5:1: this dnat and the one of line 4 overlap in part: some packets are for both";
    for (first, second) in [
        ("tcp dport 80-90 dnat to 10.0.1.2", "tcp dport 85-95 dnat to 10.0.1.3"),
        ("ip daddr 192.0.2.2 tcp dport 80-90 dnat to 10.0.1.2", "tcp dport 85 dnat to 10.0.1.3"),
        (
            "iifname uplink ip daddr 192.0.2.2 dnat to 10.0.1.2",
            "ip daddr 192.0.2.2 tcp dport 80 dnat to 10.0.1.3:80",
        ),
    ] {
        assert_eq!(dnats(first, second), [message], "{first} / {second}");
    }
    for (first, second) in [
        // The narrower first, then the rest.
        ("tcp dport 80 dnat to 10.0.1.2:8080", "tcp dport 80-90 dnat to 10.0.1.3"),
        ("ip daddr 192.0.2.3 tcp dport 80 dnat to 10.0.1.2:8080", "ip daddr 192.0.2.3 dnat to 10.0.1.3"),
        // Apart, or to the same place.
        ("tcp dport 80 dnat to 10.0.1.2", "tcp dport 81 dnat to 10.0.1.3"),
        ("tcp dport 80 dnat to 10.0.1.2", "udp dport 80 dnat to 10.0.1.3"),
        (
            "ip daddr 192.0.2.2 tcp dport 80-90 dnat to 10.0.1.2",
            "ip daddr 192.0.2.3 tcp dport 85-95 dnat to 10.0.1.3",
        ),
        ("tcp dport 80-90 dnat to 10.0.1.2", "tcp dport 85-95 dnat to 10.0.1.2"),
    ] {
        assert_eq!(dnats(first, second), [""; 0], "{first} / {second}");
    }
}

/// Ten thousand rules with prefixes, sets and ports are compared, not given up.
#[test]
fn the_last_of_ten_thousand_rules_is_found() {
    let rule = |i: usize| match i % 3 {
        0 => format!("ip saddr 10.{}.{}.0/24 tcp dport 443 accept\n", i / 250, i % 250),
        1 => format!("ip daddr {{ 20.{0}.{1}.1, 20.{0}.{1}.7 }} udp dport 53 accept\n", i / 250, i % 250),
        _ => format!("oifname work ip saddr 30.{}.{}.1-30.{0}.{1}.9 drop\n", i / 250, i % 250),
    };
    let mut rules: String = (0..10_000).map(rule).collect();
    rules += "ip saddr 10.0.6.77 tcp dport 443 drop\nip saddr 10.0.7.77 tcp dport 443 drop\n";
    let told = told(&forward(&rules));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("rules.nft:10004:1: no packet comes to this rule: the one of line 10 takes"));
}

/// The last rule of a chain, which earlier ones take together, or do not.
#[test]
fn rules_that_several_earlier_ones_take_together() {
    let taken = |rules: &str, lines: &str| {
        let last = 3 + rules.lines().count();
        let message = format!(
            "rules.nft:{last}:1: no packet comes to this rule: those of {lines} take them all; if that is meant, say so: comment \"weir: allow shadowed\""
        );
        assert_eq!(told(&forward(rules)), [message], "{rules}");
        let allowed = format!("{rules} comment \"weir: allow shadowed\"");
        assert_eq!(told(&forward(&allowed)), [""; 0], "{allowed}");
    };
    taken("tcp dport 1-30 accept\ntcp dport 31-50 drop\ntcp dport 20-40 accept", "line 4, line 5");
    taken(
        "ip saddr 10.0.1.0/25 accept\nip saddr 10.0.1.128/25 drop\nip saddr 10.0.1.0/24 tcp dport 22 accept",
        "line 4, line 5",
    );
    // The declared interfaces are a closed world, and a packet has one state.
    taken(
        "iifname { work, lab } accept\niifname uplink drop\niifname \"vif*\" drop\ntcp dport 22 accept",
        "line 4, line 5, line 6",
    );
    taken(
        "tcp dport 80 ip saddr 10.0.0.0/8 accept\ntcp dport 80 ip saddr != 10.0.0.0/8 drop\nip ttl 64 tcp dport 80 accept",
        "line 4, line 5",
    );
    taken(
        "meta l4proto tcp accept\nmeta l4proto udp drop\nmeta l4proto { tcp, udp } th dport 53 accept",
        "line 4, line 5",
    );
    for fine in [
        "tcp dport 1-30 accept\ntcp dport 32-50 drop\ntcp dport 20-40 accept",
        "tcp dport 0-100 accept\ntcp dport 101-65535 drop\nip saddr 10.0.1.2 accept",
        "iifname { work, lab } accept\niifname uplink drop\ntcp dport 22 accept",
        "ct state established,related accept\nct state invalid drop\nct state new accept",
        "limit rate 5/second accept\ntcp dport 80 drop\ntcp dport 80-81 accept",
        "meta mark 1 accept\nmeta mark != 1 drop\ntcp dport 80 accept",
    ] {
        assert_eq!(told(&forward(fine)), [""; 0], "{fine}");
    }
}

#[test]
fn rules_that_no_caller_leaves_a_packet() {
    let rules = |main: &str, side: &str| {
        forward(main).replacen("chain c", &format!("chain side {{\n{side}\n}}\nchain c"), 1)
    };
    let never = "this can never be true: no caller of the chain leaves it such a packet; if that is meant, say so: comment \"weir: allow shadowed\"";
    let is_never = |main: &str, side: &str| {
        assert_eq!(told(&rules(main, side)), [format!("rules.nft:3:1: {never}")], "{main} / {side}");
        let allowed = format!("{side} comment \"weir: allow shadowed\"");
        assert_eq!(told(&rules(main, &allowed)), [""; 0], "{main} / {allowed}");
    };
    is_never("iifname work jump side", "iifname lab accept");
    is_never("tcp dport 22 jump side", "udp dport 22 accept");
    is_never("ip saddr 10.0.1.0/24 goto side\nip saddr 10.0.2.0/24 jump side", "ip saddr 10.137.0.10 accept");
    is_never("tcp dport vmap { 22 : jump side, 23 : accept }", "tcp dport 23 accept");
    for (main, side) in [
        ("iifname work jump side\niifname lab jump side", "iifname lab accept"),
        ("iifname . tcp dport { work . 22 } jump side", "iifname lab accept"),
        ("limit rate 5/second jump side", "iifname lab accept"),
        ("iifname work jump side", "iifname lo accept"),
        ("meta mark 1 jump side", "meta mark 2 accept"),
    ] {
        assert_eq!(told(&rules(main, side)), [""; 0], "{main} / {side}");
    }
}

#[test]
fn rules_for_sources_that_nobody_believes() {
    let never = "no packet comes to this rule: its sources are not behind the ports that it is about";
    for rule in [
        "iifname work ip saddr 10.0.2.5 drop",
        "ip saddr 10.0.1.1 accept",
        "iifname uplink ip saddr 172.16.0.0/12 drop",
        "ip saddr 127.0.0.1 drop",
    ] {
        assert_eq!(told(&forward(rule)), [format!("rules.nft:4:1: {never}")], "{rule}");
    }
    for rule in [
        "ip saddr 10.0.2.5 drop",
        "iifname work ip saddr 172.20.0.1 drop",
        "iifname { lab, work } ip saddr 10.0.1.5 drop",
    ] {
        assert_eq!(told(&forward(rule)), [""; 0], "{rule}");
    }
}

#[test]
fn rules_at_input_for_destinations_that_are_not_the_appliance() {
    let never = "no packet comes to this rule: its destinations are no addresses of the appliance";
    let input = |rule: &str| {
        let chain =
            format!("{{\nchain i {{ type filter hook input priority filter; policy drop\n{rule}\n}}\n");
        told(&forward("accept").replacen("{\n", &chain, 1))
    };
    for rule in [
        "ip daddr 203.0.113.5 accept",
        "iifname work ip daddr 10.0.1.2 tcp dport 22 accept",
        "ip daddr { 10.0.1.2, 10.0.2.16/28, 8.8.8.8 } counter",
        "ip daddr != { 0.0.0.0-10.255.255.255, 127.0.0.0/8, 192.0.2.0/24, 192.0.3.0-255.255.255.255 } accept",
    ] {
        assert_eq!(input(rule), [format!("rules.nft:3:1: {never}")], "{rule}");
    }
    for rule in [
        "ip daddr { 8.8.8.8, 10.0.1.1 } accept",
        "ip daddr 10.0.2.0/24 accept",
        "ip daddr { 192.0.2.3, 10.0.1.255 } accept",
        "ip daddr 10.137.0.1 accept",
        "ip daddr 192.0.2.255 drop",
        "ip daddr 10.0.1.0 drop",
        "ip daddr 255.255.255.255 drop",
        "ip daddr 224.0.0.251 drop",
        "ip daddr 127.0.0.1 drop",
        "ip daddr != 10.0.1.1 drop",
        "iifname lo ip daddr 203.0.113.5 accept",
    ] {
        assert_eq!(input(rule), [""; 0], "{rule}");
    }
    // A chain that forward calls too is for other destinations.
    assert_eq!(told(&forward("ip daddr 203.0.113.5 accept")), [""; 0]);
}

#[test]
fn a_jump_to_a_chain_that_ends_all_is_the_last_of_its_chain() {
    let table = |body: &str, chains: &str| forward(body).replacen("{\n", &format!("{{\n{chains}\n"), 1);
    let told = "no packet comes to this rule: the chain that the one of line 5 jumps to ends all; if that is meant, say so: comment \"weir: allow shadowed\"";
    for chains in [
        "chain x { accept; }",
        "chain x { tcp dport 22 drop; counter log reject; }",
        "chain x { jump y; }; chain y { drop; }",
    ] {
        assert_eq!(
            lines(&refused(&table("jump x\ntcp dport 5 accept", chains))),
            [format!("rules.nft:6:1: {told}")],
            "{chains}"
        );
    }
    for chains in [
        "chain x { tcp dport 22 return; accept; }",
        "chain x { ip saddr 10.0.1.2 accept; }",
        "chain x { udp dport 7 goto y; accept; }; chain y { counter; }",
        "chain x { meta nfproto ipv4 accept; }",
    ] {
        site(&table("jump x\ntcp dport 5 accept", chains));
    }
    site(&table("jump x\ntcp dport 5 accept comment \"weir: allow shadowed\"", "chain x { accept; }"));
}

#[test]
fn a_concatenation_takes_the_packets_of_its_elements() {
    let told = |line: u32, by: u32| {
        vec![format!(
            "rules.nft:{line}:1: no packet comes to this rule: the one of line {by} takes them all; if that is meant, say so: comment \"weir: allow shadowed\""
        )]
    };
    let one = "ip saddr . tcp dport { 10.0.1.2 . 5, 10.0.1.0/24 . 22-23 } drop\nip saddr 10.0.1.2 tcp dport 5 accept";
    assert_eq!(lines(&refused(&forward(one))), told(5, 4));
    let both = "ip saddr . tcp dport { 10.0.1.2 . 5, 10.0.1.3 . 5 } drop\nip saddr 10.0.1.2-10.0.1.3 tcp dport 5 accept";
    assert_eq!(lines(&refused(&forward(both))).len(), 1);
    site(&forward(
        "ip saddr . tcp dport { 10.0.1.2 . 5, 10.0.1.3 . 6 } drop\nip saddr 10.0.1.2-10.0.1.3 tcp dport 5 accept",
    ));
    site(&forward("ip saddr . tcp dport != { 10.0.1.2 . 5 } drop\nip saddr 10.0.1.2 tcp dport 5 accept"));
    // Both directions are all packets that have a connection.
    let directions = "ct state new,established ct direction original accept\nct state new,established ct direction reply drop\nct state established tcp dport 5 drop";
    assert_eq!(lines(&refused(&forward(directions))).len(), 1);
    site(&forward("ct direction original accept\nct direction reply accept\ntcp dport 5 drop"));
}
