//! Maps with a name: declared once, looked into by rules.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::{Candidate, Hook, SourceNat, Verdict};
use rules_compiler::compile_text;

/// A table with these maps, a chain at forward and one at prerouting.
fn table(maps: &str, forward: &str, prerouting: &str) -> String {
    format!(
        "table ip t {{
{maps}
  chain side {{ accept
  }}
  chain f {{ type filter hook forward priority 0; policy drop; jump side
{forward}
  }}
  chain p {{ type nat hook prerouting priority dstnat
{prerouting}
  }}
}}
"
    )
    .replace("jump side\n", "ip saddr 10.9.9.9 jump side\n")
}

fn told(maps: &str, forward: &str, prerouting: &str) -> Vec<String> {
    lines(&refused(&table(maps, forward, prerouting)))
}

fn to(port: u16) -> Candidate {
    Candidate { destination_port: port, ..segment() }
}

fn destination(site: &rules::site::Site, port: u16) -> Option<(Ipv4Addr, Option<u16>)> {
    let candidate = Candidate { input: Some(UPLINK), output: None, ..to(port) };
    evaluate(site, Hook::Prerouting, &candidate).0.dnat
}

#[test]
fn verdicts_by_name_serve_several_rules() {
    let maps = "  map m { type inet_service : verdict; flags interval; comment \"ports\"
    elements = { 22 : accept, 80-90 : drop, }
    elements = { 443 : jump side }
  }";
    let body = "iifname lab tcp dport vmap @m\niifname work tcp sport vmap @m";
    let site = site(&table(maps, body, ""));
    let lab = |port| Candidate { input: Some(LAB), ..to(port) };
    for (candidate, passes) in [
        (lab(22), true),
        (lab(85), false),
        (lab(443), true),
        (lab(444), false),
        (to(22), false),
        (Candidate { source_port: 22, ..segment() }, true),
    ] {
        assert_eq!(verdict(site, &candidate) == Verdict::Accept, passes, "{candidate:?}");
    }
}

#[test]
fn places_by_name() {
    let host = |last| Ipv4Addr::new(10, 0, 1, last);
    let with = |ty: &str, elements: &str, rule: &str| {
        site(&table(
            &format!("  map m {{ type {ty}; flags interval; elements = {{ {elements} }}; }}"),
            "",
            rule,
        ))
    };
    let plain =
        with("inet_service : ipv4_addr", "80 : 10.0.1.2, 90-99 : 10.0.1.3", "dnat to tcp dport map @m");
    assert_eq!(destination(plain, 80), Some((host(2), None)));
    assert_eq!(destination(plain, 95), Some((host(3), None)));
    assert_eq!(destination(plain, 100), None);
    let ports = with(
        "inet_service : ipv4_addr . inet_service",
        "80 : 10.0.1.2 . 8080, * : 10.0.1.3 . ssh",
        "dnat to tcp dport map @m",
    );
    assert_eq!(destination(ports, 80), Some((host(2), Some(8080))));
    assert_eq!(destination(ports, 81), Some((host(3), Some(22))));
    let blocks = with(
        "ipv4_addr : interval ipv4_addr",
        "198.51.100.0/29 : 10.0.1.16/29",
        "dnat ip prefix to ip daddr map @m",
    );
    assert_eq!(destination(blocks, 80), Some((host(16 + 7), None)));
    let out = "# weir: allow open\ntable ip t {\n  map m { type ifname : ipv4_addr; elements = { work : 192.0.2.3 }; }\n  chain p { type nat hook postrouting priority srcnat\nsnat to iifname map @m\n}\n}\n";
    let shown = Ipv4Addr::new(192, 0, 2, 3);
    let (decision, ..) = evaluate(site(out), Hook::Postrouting, &segment());
    assert_eq!(decision.snat, Some(SourceNat::To { first: shown, last: shown, ports: None, random: false }));
}

#[test]
fn what_is_wrong_with_a_map_is_told_where_it_stands() {
    let by = "tcp dport vmap @m";
    let cases = [
        (
            "  map m { type inet_service : verdict; elements = { 22-23 : accept }; }",
            "2:53: a map with ranges or prefixes as keys needs \"flags interval\"",
        ),
        (
            "  map m { type inet_service : verdict; elements = { 22 : accept, 22 : drop }; }",
            "2:66: an earlier element of this map has this key, or a part of it",
        ),
        (
            "  map m { type inet_service : verdict; elements = { 22 : jump no }; }",
            r#"2:63: there is no chain "no" in this table"#,
        ),
        (
            "  map m { type inet_service : verdict; elements = { 22 : jump p }; }",
            r#"2:63: chain "p" belongs to a hook; no jump leads there"#,
        ),
        (
            "  map m { type inet_service : verdict; elements = { 10.0.0.1 : drop }; }",
            r#"2:53: "10.0.0.1" is an address, not a port"#,
        ),
        ("  map m { type ipv4_addr : verdict; }", r#"6:16: map "m" is of ipv4_addr, not inet_service"#),
        ("  map m { type inet_service : mark; }", r#"6:16: map "m" does not lead to verdicts"#),
        ("  map m { type inet_service : ipv4_addr; }", r#"6:16: map "m" does not lead to verdicts"#),
        (
            "  map m { type inet_service : ct_state; }",
            r#"2:31: "ct_state" is not what a map of this version leads to"#,
        ),
        (
            "  map m { elements = { 22 : drop }; type inet_service : verdict; }",
            "2:11: say the type of the map first",
        ),
        ("  map m { }", r#"2:7: the map has no type, such as "type inet_service : verdict""#),
        (
            "  map m { type inet_service : verdict; timeout 1s; }",
            r#"2:40: "timeout" is not in this version's subset"#,
        ),
        ("  set m { type inet_service; }", r#"6:16: there is no map "m" in this table"#),
        (
            "  set m { type inet_service; }\n  map m { type inet_service : verdict; }",
            r#"3:7: there is a set "m" already"#,
        ),
    ];
    for (maps, expected) in cases {
        let expected = format!("rules.nft:{expected}");
        // However often it is looked into.
        for rules in [by.to_owned(), format!("{by}\n{by}")] {
            let mut all = told(maps, &rules, "");
            all.retain(|line| {
                !["takes them all", "is never used", "is empty"].iter().any(|beside| line.contains(beside))
            });
            assert_eq!(all.first(), Some(&expected), "{maps}: {all:?}");
            assert!(all.iter().filter(|line| line.starts_with("rules.nft:2:")).count() <= 1, "{all:?}");
        }
    }
}

#[test]
fn the_type_of_a_map_says_how_its_places_are_written() {
    let cases = [
        ("ipv4_addr", "80 : 10.0.1.2 . 80", "the type of this map says nothing of a port"),
        ("ipv4_addr . inet_service", "80 : 10.0.1.2", "the type of this map says that there is a port"),
        (
            "ipv4_addr",
            "80 : 10.0.1.2-10.0.1.3",
            "ranges and prefixes want \"interval\" in the type of this map",
        ),
        (
            "interval ipv4_addr",
            "80 : 10.0.1.2",
            "the type of this map says that there is a range or a prefix",
        ),
    ];
    for (ty, element, expected) in cases {
        let maps = format!("  map m {{ type inet_service : {ty}; elements = {{ {element} }}; }}");
        let column = maps.find(element).map_or(0, |at| at + 1);
        assert_eq!(
            told(&maps, "", "dnat to tcp dport map @m"),
            [format!("rules.nft:2:{column}: {expected}")]
        );
    }
}

#[test]
fn maps_without_use_or_elements_are_worth_a_warning() {
    let maps = "  map m { type inet_service : verdict; }\n  map n { type inet_service : verdict; elements = { 1 : drop }; }";
    let compiled = compile_text(PLAN, &table(maps, "tcp dport vmap @m", "")).expect("it compiles");
    assert_eq!(
        lines(compiled.warnings()),
        [r#"rules.nft:2:7: map "m" is empty"#, r#"rules.nft:3:7: map "n" is never used"#]
    );
}

#[test]
fn many_rules_that_look_into_a_large_map_end_in_an_error() {
    let elements: String = (1..=40_000).map(|port| format!("{port} : drop, ")).collect();
    let maps = format!("  map m {{ type inet_service : verdict; elements = {{ {elements} }}; }}");
    let rules: String = (0..2000).map(|i| format!("ip id {i} tcp dport vmap @m\n")).collect();
    let all = told(&maps, &rules, "");
    assert!(all.iter().any(|line| line.contains("the file holds too much")), "{:?}", all.first());
    let twice = told(&maps, "iifname lab tcp dport vmap @m\niifname work tcp dport vmap @m", "");
    assert_eq!(
        twice,
        ["rules.nft:7:29: with the elements of this map, the file has more than 65536 rules and chains"]
    );
}
