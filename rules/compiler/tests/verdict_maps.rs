//! `vmap`: one verdict for each key.

mod common;

use common::*;
use rules::{Candidate, Hook, Verdict};

/// The verdict of a body for a segment to this port; `None` when the chain's policy drops it.
fn accepts(body: &str, candidate: &Candidate) -> bool {
    verdict(site(&forward(body)), candidate) == Verdict::Accept
}

fn to(port: u16) -> Candidate {
    Candidate { destination_port: port, ..segment() }
}

fn told(body: &str) -> Vec<String> {
    lines(&refused(&forward(body)))
}

#[test]
fn each_key_has_its_verdict() {
    let body = "ip saddr 10.0.1.2 tcp dport vmap { 22 : accept, 80-90 : drop, 443 : continue }\ntcp dport { 80, 443, 444 } accept";
    for (port, passes) in [(22, true), (80, false), (90, false), (91, false), (443, true), (444, true)] {
        assert_eq!(accepts(body, &to(port)), passes, "{port}");
    }
    let stranger = Candidate { source: [10, 0, 1, 9].into(), ..to(22) };
    assert!(!accepts(body, &stranger));
    assert!(!accepts("tcp dport vmap { 22 : accept }", &Candidate { destination_port: 22, ..datagram() }));
}

#[test]
fn the_rest_is_what_no_other_key_names() {
    let body = "tcp dport vmap { * : accept, 22 : drop, 23 : continue }";
    for (port, passes) in [(22, false), (23, false), (24, true)] {
        assert_eq!(accepts(body, &to(port)), passes, "{port}");
    }
    assert!(!accepts(body, &datagram()));
    let clients = "iifname vmap { \"vif*\" : drop, * : accept }";
    assert!(accepts(clients, &segment()));
    assert!(!accepts(clients, &Candidate { input: Some(VIF1), ..segment() }));
}

#[test]
fn keys_of_connections_and_families() {
    let states = "ct state vmap { established : accept, related : accept, invalid : drop }";
    assert!(!accepts(states, &segment()));
    assert!(accepts(states, &Candidate { state: rules::State::Related, ..segment() }));
    let rules = "table inet f {\nchain four { accept\n}\nchain six { drop\n}\nchain c {\ntype filter hook forward priority 0; policy drop;\nmeta nfproto vmap { ipv4 : jump four, ipv6 : jump six }\n}\n}\n";
    assert_eq!(verdict(site(rules), &segment()), Verdict::Accept);
}

/// A packet that comes back from a chain goes on behind the rule, whatever else the map has.
#[test]
fn a_jump_comes_back_behind_the_map() {
    let rules = "table inet f {
  chain ssh { ip saddr 10.0.1.2 return; accept
  }
  chain web { ip saddr 10.0.1.2 counter accept
  }
  chain c { type filter hook forward priority 0; policy drop
    counter tcp dport vmap { 22 : jump ssh, 443 : goto web, * : accept }
    counter drop
  }
}
";
    let site = site(rules);
    let of = |candidate: &Candidate| {
        let (decision, counts, _) = evaluate(site, Hook::Forward, candidate);
        (decision.verdict == Verdict::Accept, counts.0.iter().map(|&(id, _)| id).collect::<Vec<_>>())
    };
    let lab = Candidate { source: [10, 0, 2, 2].into(), ..segment() };
    assert_eq!(of(&to(22)), (false, vec![1, 2]));
    assert_eq!(of(&Candidate { destination_port: 22, ..lab.clone() }), (true, vec![1]));
    assert_eq!(of(&to(443)), (true, vec![1, 0]));
    // Nobody comes back from a goto.
    assert_eq!(of(&lab), (false, vec![1]));
    assert_eq!(of(&to(25)), (true, vec![1]));
}

#[test]
fn a_drop_names_the_line_of_its_element() {
    let body = "tcp dport vmap {\n22 : accept,\n443 : drop,\n}";
    let site = site(&forward(body));
    let Verdict::Drop(id) = verdict(site, &segment()) else { panic!("it passes") };
    assert_eq!(site.policy.location(id).line, 6);
}

#[test]
fn what_is_wrong_in_a_verdict_map() {
    let cases = [
        (
            "tcp dport vmap { 22 : accept, 22-23 : drop }",
            "4:31: an earlier element of this map has this key, or a part of it",
        ),
        ("tcp dport vmap { 22 : reject }", r#"4:23: expected a verdict, found "reject""#),
        ("tcp dport vmap { 22 : accept } counter", "4:32: nothing may follow a verdict in its rule"),
        ("tcp dport vmap { 22 : jump none }", r#"4:28: there is no chain "none" in this table"#),
        ("tcp dport vmap { 22 }", r#"4:21: expected ":", found "}""#),
        ("tcp dport vmap { }", r#"4:18: expected a value, found "}""#),
        (
            "tcp dport vmap { ssh : accept, sssh : drop }",
            r#"4:32: "sssh" is not a port; did you mean "ssh"?"#,
        ),
        ("tcp dport != vmap { 22 : accept }", r#"4:19: expected a match or a statement, found "{""#),
        (
            "ip saddr vmap { 10.0.1.0/24 : accept, 10.0.1.7 : drop }",
            "4:39: an earlier element of this map has this key, or a part of it",
        ),
        (
            "tcp dport 22-23 accept\ntcp dport vmap { 22 : drop, 24 : accept }",
            "5:18: no packet comes to this rule: the one of line 4 takes them all; if that is meant, say so: comment \"weir: allow shadowed\"",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(told(body), [format!("rules.nft:{expected}")], "{body}");
    }
}

#[test]
fn chains_behind_a_map_are_part_of_the_graph() {
    let rules = "table inet f {\n  chain a { tcp dport vmap { 22 : jump b }\n  }\n  chain b { goto a\n  }\n  chain m { type filter hook forward priority 0; jump a\n  }\n}\n";
    assert_eq!(lines(&refused(rules)), [r#"rules.nft:4:18: chain "a" comes back to itself by this jump"#]);
    // Of many elements few are tried.
    let ports: Vec<String> = (1..=1000).map(|port| format!("{port} : accept")).collect();
    let compiled =
        rules_compiler::compile_text(PLAN, &forward(&format!("tcp dport vmap {{ {} }}", ports.join(", "))));
    let summary = compiled.map(|compiled| compiled.summary()).unwrap_or_default();
    assert!(summary.ends_with("at most 24 steps a hook"), "{summary}");
}

#[test]
fn a_key_behind_a_mask_is_looked_up_as_it_is_then() {
    let from = |last: [u8; 2]| Candidate { source: [10, 0, last[0], last[1]].into(), ..segment() };
    let accepts =
        |rule: &str, candidate: &Candidate| verdict(site(&forward(rule)), candidate) == Verdict::Accept;
    let map = "ip saddr & 255.255.255.0 vmap { 10.0.1.0 : accept, 10.0.2.0 : drop }";
    assert!(accepts(map, &from([1, 7])) && !accepts(map, &from([2, 7])) && !accepts(map, &from([3, 7])));
    let others = "ip saddr and 255.255.255.0 vmap { 10.0.1.0 : drop, 10.0.2.0 : drop, * : accept }";
    assert!(
        accepts(others, &from([3, 7])) && !accepts(others, &from([2, 7])) && !accepts(others, &from([1, 0]))
    );
    let marks = "meta mark set 0x21\nmeta mark & 0xf vmap { 1 : accept, 2 : drop }";
    assert!(accepts(marks, &segment()));
    let set = "ip saddr & 255.255.255.0 { 10.0.1.0, 10.0.9.0 } accept";
    assert!(accepts(set, &from([1, 255])) && accepts(set, &from([9, 0])) && !accepts(set, &from([2, 0])));
    let not = "ip saddr & 255.255.255.0 != { 10.0.1.0, 10.0.9.0 } accept";
    assert!(accepts(not, &from([2, 0])) && !accepts(not, &from([1, 255])));
    let named = forward("ip saddr & 255.255.0.0 @s accept").replacen(
        "{\n",
        "{\nset s { type ipv4_addr; elements = { 10.0.0.0, 10.9.0.0 }; }\n",
        1,
    );
    assert_eq!(verdict(site(&named), &from([200, 1])), Verdict::Accept);
    let wrong = "a set behind a mask has single values, and the mask leading bits, such as 255.255.255.0";
    refuses(&[
        ("ip saddr & 0.0.0.255 { 0.0.0.1, 0.0.0.2 } accept", &[&format!("4:22: {wrong}")]),
        ("ip saddr & 255.255.255.0 { 10.0.1.1 } accept", &[&format!("4:26: {wrong}")]),
        ("ip saddr & 255.255.255.0 vmap { 10.0.1.1 : accept }", &["4:33: this can never be true"]),
    ]);
}
