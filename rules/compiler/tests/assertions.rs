//! `# weir: never` and `# weir: always`: what holds is silent, what does not is told with a packet.

mod common;

use common::*;
use rules_compiler::compile_text;

/// A policy of an office, with an assertion ahead of it.
fn office(assertion: &str) -> String {
    format!(
        "{assertion}
table inet f {{
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname uplink ct status dnat accept
    iifname work oifname lab tcp dport 22 accept
    iifname {{ work, lab }} oifname uplink jump outbound
    iifname vif1 oifname uplink limit rate 5/second accept
  }}
  chain outbound {{
    tcp dport 25 reject with tcp reset
    ip daddr {{ 203.0.113.0/24, 198.51.100.9 }} drop
    accept
  }}
  chain input {{
    type filter hook input priority 0; policy drop;
    iifname work tcp dport {{ 22, 80 }} accept
    icmp type echo-request accept
  }}
}}
table ip n {{
  chain pre {{ type nat hook prerouting priority dstnat
    iifname uplink ip daddr 192.0.2.2 tcp dport 8022 dnat to 10.0.1.5:22
  }}
  chain post {{ type nat hook postrouting priority srcnat
    oifname uplink masquerade
  }}
}}
"
    )
}

fn told(rules: &str) -> Vec<String> {
    match compile_text(PLAN, rules) {
        Ok(compiled) => lines(compiled.warnings()),
        Err(diagnostics) => lines(&diagnostics),
    }
}

#[test]
fn what_holds_is_silent() {
    for assertion in [
        "# weir: never iifname lab oifname work",
        "# weir: never iifname lab ip daddr 10.0.1.2-10.0.1.254 tcp dport 22",
        "# weir: never iifname { work, lab } oifname uplink tcp dport 25",
        "# weir: never iifname \"vif*\" ip daddr { 10.0.1.0/24, 10.0.2.0/24 } udp dport 53",
        "# weir: never iifname uplink tcp dport != { 8022 }",
        "# weir: never iifname uplink udp dport 1-65535",
        "# weir: never iifname lab ip daddr . tcp dport { 203.0.113.7 . 1-65535, 198.51.100.9 . 80 }",
        "# weir: never after nat oifname work tcp dport != 22",
        "# weir: never after nat oifname uplink ip saddr 10.0.0.0/8 iifname { work, lab, vif1 }",
        "# weir: never after nat iifname uplink ip daddr != 10.0.1.5",
        "# weir: always iifname work oifname uplink tcp dport 443 ip daddr 8.8.8.8 accept",
        "# weir: always iifname { work, lab } oifname uplink tcp dport 25 drop",
        "# weir: always iifname uplink icmp type echo-request ip daddr 192.0.2.2 accept",
        "# weir: always iifname uplink ip daddr 192.0.2.2 tcp dport 8022 accept",
        "# weir: never oifname vif1",
        "  # weir: never iifname vif2 tcp dport 1-65535",
    ] {
        assert_eq!(told(&office(assertion)), [""; 0], "{assertion}");
    }
}

#[test]
fn what_does_not_hold_is_told_with_a_packet_and_its_way() {
    for (assertion, expected) in [
        (
            "# weir: never iifname work ip daddr 10.0.2.0/24 tcp dport 22",
            "1:9: this packet is accepted: iif work ip 10.0.1.2 > 10.0.2.2 tcp 40000 > 22 syn; its way: rules.nft:7, out by lab",
        ),
        (
            "# weir: never ip daddr 10.0.1.1 tcp dport 80",
            "1:9: this packet reaches the appliance: iif work ip 10.0.1.2 > 10.0.1.1 tcp 40000 > 80 syn; its way: rules.nft:18, to the appliance",
        ),
        (
            "# weir: never iifname uplink tcp dport 8022",
            "1:9: this packet is accepted: iif uplink ip 1.1.1.1 > 192.0.2.2 tcp 40000 > 8022 syn; its way: rules.nft:24, rules.nft:6, out by work",
        ),
        (
            "# weir: never after nat oifname work tcp dport 22",
            "1:9: this packet is accepted: iif uplink ip 1.1.1.1 > 192.0.2.2 tcp 40000 > 8022 syn; its way: rules.nft:24, rules.nft:6, out by work",
        ),
        (
            "# weir: always iifname work oifname uplink tcp dport 20-30 accept",
            "1:9: this packet is dropped: iif work ip 10.0.1.2 > 1.1.1.1 tcp 40000 > 25 syn; its way: rules.nft:8, rules.nft:12",
        ),
        (
            "# weir: always iifname work ip daddr 203.0.112.0/22 udp dport 53 accept",
            "1:9: this packet is dropped: iif work ip 10.0.1.2 > 203.0.113.0 udp 40000 > 53; its way: rules.nft:8, rules.nft:13",
        ),
        (
            "# weir: always iifname vif1 oifname uplink accept",
            "1:9: this packet is dropped, as limits, sets and mappings may have it: iif vif1 ip 10.137.0.10 > 1.1.1.1 tcp 40000 > 40000 syn; its way: rules.nft:4",
        ),
        (
            "# weir: never iifname vif1 oifname uplink",
            "1:9: this packet is accepted, as limits, sets and mappings may have it: iif vif1 ip 10.137.0.10 > 1.1.1.1 tcp 40000 > 40000 syn; its way: rules.nft:9, rules.nft:27, out by uplink",
        ),
        (
            "# weir: always iifname lab ip daddr 10.0.1.5 accept",
            "1:9: this packet is dropped: iif lab ip 10.0.2.2 > 10.0.1.5 tcp 40000 > 40000 syn; its way: rules.nft:4",
        ),
    ] {
        assert_eq!(told(&office(assertion)), [format!("rules.nft:{expected}")], "{assertion}");
    }
}

#[test]
fn what_cannot_be_read_or_means_nobody_is_an_error() {
    for (assertion, expected) in [
        ("# weir: never", "1:9: say which packets are meant"),
        ("# weir: always iifname work", r#"1:28: "always" ends with "accept" or "drop""#),
        ("# weir: always iifname work accept tcp", "1:36: nothing may follow the verdict of an assertion"),
        (
            "# weir: never iifname wrok",
            r#"1:23: client "wrok" is not declared in weir.toml; did you mean "work"?"#,
        ),
        ("# weir: never iifname work accept", r#"1:28: expected a match, found "accept""#),
        (
            "# weir: never ct state new",
            "1:15: an assertion is about first packets, not about marks, states or connections",
        ),
        ("# weir: never tcp dport @s", "1:25: an assertion stands in no table, and sees no named set"),
        ("# weir: never ip6 saddr ::1", "1:15: no IPv4 packet is meant by this"),
        ("# weir: never after lunch oifname work", r#"1:21: expected "nat" after "after", found "lunch""#),
        ("# weir: never iifname work ip saddr 9.9.9.9", "1:9: no packet is meant by this assertion"),
        ("# weir: never iifname uplink ip daddr 10.0.1.5", "1:9: no packet is meant by this assertion"),
        (
            "# weir: never iifname work tcp vmap { 1 : drop }",
            r#"1:32: "vmap" is nothing to look at in "tcp""#,
        ),
        ("# weir: never iifname vmap { work : drop }", "1:15: an assertion is made of matches"),
    ] {
        assert_eq!(told(&office(assertion)), [format!("rules.nft:{expected}")], "{assertion}");
    }
}

#[test]
fn a_planted_hole_is_found_among_many_rules() {
    let mut body = String::new();
    for index in 0..3000u32 {
        let (a, b) = (index / 250, index % 250);
        body += &format!(
            "ip saddr 10.0.1.{} ip daddr 100.{a}.{b}.0/24 tcp dport {} accept\n",
            index % 200 + 2,
            1000 + index
        );
    }
    let hole = "ip saddr 10.0.1.77 tcp dport 22 accept\n";
    let assertion = "# weir: never iifname work oifname uplink tcp dport 1-999\n";
    let rules = |hole: &str| format!("{assertion}{}", forward(&format!("{body}{hole}")));
    assert_eq!(told(&rules("")), [""; 0]);
    let found = told(&rules(hole));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("iif work ip 10.0.1.77 > 1.1.1.1 tcp 40000 > 22 syn"), "{found:?}");
}

#[test]
fn rules_that_cross_each_other_are_no_obstacle() {
    let mut number = 1u32;
    let mut below = |end: u32| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 8) % end
    };
    // Half of them hold for some senders to anywhere, half for some receivers from anybody.
    let mut body = String::new();
    for index in 0..3000 {
        let host = below(240) + 2;
        let network = format!("{}.{}.0.0/16", 11 + below(180), below(256));
        body += &match index % 4 {
            0 => format!("ip saddr 10.0.1.{host} limit rate over 9/second drop\n"),
            1 => format!("ip daddr {network} tcp dport 20-{} drop\n", 30 + below(900)),
            2 => format!("ip saddr 10.0.1.{host} ip daddr {network} tcp dport {{ 80, 443 }} accept\n"),
            _ => format!("ip daddr {network} tcp sport {}-60000 drop\n", below(50_000)),
        };
    }
    let body = body.replace('\n', " comment \"weir: allow shadowed\"\n");
    let rules = |hole: &str| {
        let end = "tcp dport 25 drop\niifname work accept\n";
        let assertion = "# weir: never iifname work oifname uplink tcp dport 25\n";
        format!("{assertion}{}", forward(&format!("{body}{hole}{end}")))
    };
    assert_eq!(told(&rules("")), [""; 0]);
    let found = told(&rules("ip saddr 10.0.1.251 ip daddr 198.51.100.0/30 tcp dport 1-90 accept\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    let expected = "this packet is accepted: iif work ip 10.0.1.251 > 198.51.100.0 tcp 40000 > 25 syn";
    assert!(found[0].contains(expected), "{found:?}");
}

#[test]
fn a_hairpinned_packet_is_followed_to_whoever_has_the_mapping() {
    let rules =
        office("# weir: never iifname lab oifname work").replace("iifname uplink ct status", "ct status");
    let expected = "rules.nft:1:9: this packet is accepted, as limits, sets and mappings may have it: iif lab ip 10.0.2.2 > 192.0.2.2 tcp 40000 > 40000 syn; its way: rules.nft:6, out by work";
    assert_eq!(told(&rules), [expected]);
}

#[test]
fn mappings_of_others_let_strangers_in_where_filtering_allows_it() {
    let rules = office("# weir: never iifname uplink udp dport 1-65535");
    let plan = format!("{PLAN}\n[nat]\nfiltering = \"endpoint-independent\"\n");
    let all = lines(&compile_text(&plan, &rules).expect_err("a mapping is open to all"));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].contains("this packet is accepted, as limits, sets and mappings may have it: iif uplink ip 1.1.1.1 > 192.0.2.2 udp"), "{all:?}");
}

/// A chain ahead of the translation, one that translates, and one at forward.
fn way(assertion: &str, early: &str, dnat: &str, forward: &str) -> String {
    format!(
        "{assertion}
table inet t {{
  chain m {{ type filter hook prerouting priority mangle; policy accept;
{early}
  }}
  chain d {{ type nat hook prerouting priority dstnat; policy accept;
{dnat}
  }}
  chain f {{ type filter hook forward priority filter; policy drop;
{forward}
  }}
  chain i {{ type filter hook input priority 0; policy drop;
  }}
  chain s {{ type nat hook postrouting priority srcnat; oifname uplink masquerade
  }}
}}
"
    )
}

#[test]
fn a_packet_that_is_dropped_early_would_have_gone_where_dnat_leads() {
    let dnat = "iifname uplink tcp dport 80 dnat ip to 10.0.1.2";
    let rules = way(
        "# weir: always iifname uplink oifname work tcp dport 80 accept",
        "iifname uplink ip saddr 203.0.113.0/24 drop",
        dnat,
        "oifname work accept",
    );
    let told = told(&rules);
    assert_eq!(told.len(), 1, "{told:?}");
    let expected =
        "rules.nft:1:9: this packet is dropped: iif uplink ip 203.0.113.0 > 192.0.2.2 tcp 40000 > 80 syn";
    assert!(told[0].starts_with(expected), "{told:?}");
}

#[test]
fn a_translated_source_may_have_any_port() {
    let rules = way(
        "# weir: never after nat oifname uplink tcp sport 50000",
        "",
        "",
        "tcp sport 50000 drop\niifname work oifname uplink accept",
    );
    let told = told(&rules);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("this packet is accepted, as limits, sets and mappings may have it: iif work"),
        "{told:?}"
    );
}

#[test]
fn what_is_asked_at_both_ends_is_written_apart() {
    let told = told(&office("# weir: never oifname . ip daddr { work . 192.0.2.2 }"));
    assert_eq!(
        told,
        ["rules.nft:1:15: oifname is asked at the end of the way, the rest at its begin: write them apart"]
    );
    for (assertion, expected) in [
        ("# weir never tcp dport 22", "rules.nft:1:1: a word to Weir has a colon: write \"# weir: ...\""),
        ("#\u{a0}weir: nver tcp dport 22", "rules.nft:1:1: unknown word to Weir: \"nver tcp dport 22\""),
    ] {
        assert_eq!(self::told(&office(assertion)), [expected], "{assertion}");
    }
}

#[test]
fn strangers_reach_hosts_where_rules_keep_them_out_of_sessions() {
    let rules = |raw: &str| {
        format!(
            "# weir: never iifname uplink oifname work
table ip t {{
  chain r {{ type filter hook prerouting priority raw
    {raw}
  }}
  chain f {{ type filter hook forward priority 0; policy drop;
    iifname uplink udp dport 9 accept
  }}
}}
"
        )
    };
    let found = told(&rules("iifname uplink udp sport 53 notrack"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("this packet is accepted: iif uplink ip 1.1.1.1 > 10.0.1.2 udp 53 > 9"),
        "{found:?}"
    );
    assert_eq!(told(&rules("iifname uplink udp sport 53 udp dport 8 notrack")), [""; 0]);
    let none = told(&rules("meta mark set 5"));
    assert_eq!(none, ["rules.nft:1:9: no packet is meant by this assertion"]);
}
