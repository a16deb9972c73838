//! Chains, verdicts, counters and translation, as netfilter has them.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::{Candidate, Hook, Reject, RuleId, SourceNat, State, Verdict};

fn line(site: &rules::site::Site, id: RuleId) -> u32 {
    site.policy.location(id).line
}

fn dropped_at(site: &rules::site::Site, candidate: &Candidate) -> u32 {
    match verdict(site, candidate) {
        Verdict::Drop(id) | Verdict::Reject(id, _) => line(site, id),
        Verdict::Accept => panic!("it passes"),
    }
}

#[test]
fn a_drop_names_its_rule_and_a_policy_its_declaration() {
    let site = site(&forward("tcp dport 22 drop\ntcp dport 443 accept"));
    assert_eq!(dropped_at(site, &Candidate { destination_port: 22, ..segment() }), 4);
    assert_eq!(dropped_at(site, &datagram()), 3);
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
}

#[test]
fn without_a_policy_a_chain_accepts() {
    let site = site("table ip f { chain c { type filter hook forward priority 0; tcp dport 22 drop; }; }\n");
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
}

#[test]
fn rejects_as_nft_compiles_them() {
    let cases = [
        ("reject", Reject::Icmp(3)),
        ("reject with icmp type host-unreachable", Reject::Icmp(1)),
        ("reject with icmp admin-prohibited", Reject::Icmp(13)),
        ("reject with icmpx type no-route", Reject::Icmp(0)),
        ("reject with icmpx port-unreachable", Reject::Icmp(3)),
        ("reject with icmpx admin-prohibited", Reject::Icmp(13)),
        ("reject with tcp reset", Reject::TcpReset),
        ("tcp dport 443 reject with tcp reset", Reject::TcpReset),
    ];
    for (rule, how) in cases {
        let site = site(&forward(rule));
        let Verdict::Reject(id, given) = verdict(site, &segment()) else { panic!("{rule}: no reject") };
        assert_eq!((given, line(site, id)), (how, 4), "{rule}");
    }
}

#[test]
fn a_reset_is_for_tcp_and_its_counter_too() {
    let site = site(&forward("counter reject with tcp reset"));
    let (decision, counts, _) = evaluate(site, Hook::Forward, &datagram());
    assert_eq!(decision.verdict, Verdict::Drop(RuleId(1)));
    assert_eq!(counts, Counts::default());
    assert_eq!(evaluate(site, Hook::Forward, &segment()).1, Counts(vec![(0, 60)]));
}

#[test]
fn counters_count_where_they_stand() {
    let site =
        site(&forward("counter packets 5 bytes 7 tcp dport 80 counter accept\ntcp dport 443 counter accept"));
    let (_, counts, _) = evaluate(site, Hook::Forward, &segment());
    assert_eq!(counts, Counts(vec![(0, 60), (2, 60)]));
    let lines: Vec<u32> = site.policy.counters().map(|location| location.line).collect();
    assert_eq!(lines, [4, 4, 5]);
}

#[test]
fn jump_comes_back_goto_does_not_and_return_ends() {
    let rules = "
table inet f {
  chain side {
    tcp dport 80 return
    tcp dport 81 accept
    counter
  }
  chain end { counter
  }
  chain c {
    type filter hook forward priority filter; policy drop
    jump side
    tcp dport 80 accept
    tcp dport 82 goto end
    tcp dport 83 continue
    tcp dport 82-83 accept
    tcp dport 84 return
    tcp dport 84-85 accept
  }
}
";
    let site = site(rules);
    let passes =
        |destination_port| verdict(site, &Candidate { destination_port, ..segment() }) == Verdict::Accept;
    assert_eq!([80, 81, 82, 83, 84, 85, 86].map(passes), [true, true, false, true, false, true, false]);
    assert_eq!(evaluate(site, Hook::Forward, &segment()).1, Counts(vec![(0, 60)]));
}

#[test]
fn goto_from_a_called_chain_returns_to_the_caller() {
    let rules = "
table inet f {
  chain inner { tcp dport 1 accept
  }
  chain outer { goto inner
  }
  chain c {
    type filter hook forward priority filter; policy drop
    jump outer
    tcp dport 443 accept
  }
}
";
    assert_eq!(verdict(site(rules), &segment()), Verdict::Accept);
}

#[test]
fn accept_ends_its_chain_and_drop_the_packet() {
    let rules = "
table inet a {
  chain late { type filter hook forward priority filter + 10; policy drop
    tcp dport 443 counter accept
  }
  chain early { type filter hook forward priority mangle; policy accept
    counter accept
  }
  chain middle { type filter hook forward priority -5
    tcp dport 22 counter drop
  }
}
";
    let site = site(rules);
    let (decision, counts, _) = evaluate(site, Hook::Forward, &segment());
    assert_eq!((decision.verdict, counts), (Verdict::Accept, Counts(vec![(1, 60), (0, 60)])));
    let ssh = Candidate { destination_port: 22, ..segment() };
    assert_eq!(evaluate(site, Hook::Forward, &ssh).1, Counts(vec![(1, 60), (2, 60)]));
    assert_eq!(dropped_at(site, &ssh), 10);
}

#[test]
fn of_equal_priority_the_later_chain_runs_first_as_in_the_kernel() {
    let rules = "
table ip a { chain x { type filter hook forward priority 0; counter drop
  }
}
table inet b { chain y { type filter hook forward priority 0; counter
  }
}
";
    assert_eq!(evaluate(site(rules), Hook::Forward, &segment()).1, Counts(vec![(1, 60), (0, 60)]));
}

#[test]
fn tables_and_chains_add_up() {
    let rules = "
table inet f { chain c { type filter hook forward priority 0; tcp dport 22 drop
  }
}
table inet f { chain c { policy drop; tcp dport 443 accept
  }
}
";
    let site = site(rules);
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    assert_eq!(dropped_at(site, &Candidate { destination_port: 22, ..segment() }), 2);
    assert_eq!(dropped_at(site, &datagram()), 2);
}

#[test]
fn the_reload_idiom_has_no_effect() {
    let rules = "table inet f\ndelete table inet f\ndestroy table ip g\n".to_owned() + &forward("accept");
    assert_eq!(verdict(site(&rules), &segment()), Verdict::Accept);
}

const MASQUERADE: SourceNat = SourceNat::Masquerade { ports: None, random: false };

const NAT: &str = "
table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.0.1.2:80
    ip daddr 192.0.2.3 dnat ip to 172.16.9.9
    udp dport 53 counter
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept
    oifname uplink ip saddr 10.0.2.0/24 snat to 192.0.2.3
    oifname uplink masquerade
  }
}
table inet late {
  chain after { type filter hook prerouting priority dstnat + 1
    ct status dnat ip daddr 10.0.1.2 tcp dport 80 counter
  }
  chain forward { type filter hook forward priority filter; policy drop
    ct status dnat accept
  }
}
";

fn from_outside() -> Candidate {
    Candidate {
        input: Some(UPLINK),
        output: None,
        source: Ipv4Addr::new(198, 51, 100, 7),
        destination: Ipv4Addr::new(192, 0, 2, 2),
        destination_port: 8080,
        ..segment()
    }
}

#[test]
fn dnat_changes_the_destination_for_the_chains_that_follow() {
    let (decision, counts, after) = evaluate(site(NAT), Hook::Prerouting, &from_outside());
    assert_eq!(decision.verdict, Verdict::Accept);
    assert_eq!(decision.dnat, Some((Ipv4Addr::new(10, 0, 1, 2), Some(80))));
    assert_eq!(
        (after.destination, after.destination_port, after.dnat),
        (Ipv4Addr::new(10, 0, 1, 2), 80, true)
    );
    assert_eq!(counts, Counts(vec![(1, 60)]));
    assert_eq!(verdict(site(NAT), &after), Verdict::Accept);
}

#[test]
fn dnat_without_a_port_keeps_it() {
    let candidate = Candidate { destination: Ipv4Addr::new(192, 0, 2, 3), ..from_outside() };
    let (decision, _, after) = evaluate(site(NAT), Hook::Prerouting, &candidate);
    assert_eq!(decision.dnat, Some((Ipv4Addr::new(172, 16, 9, 9), None)));
    assert_eq!(after.destination_port, 8080);
}

#[test]
fn nat_chains_see_the_first_packet_only() {
    let site = site(NAT);
    let established = Candidate { state: State::Established, ..from_outside() };
    let (decision, counts, after) = evaluate(site, Hook::Prerouting, &established);
    assert_eq!((decision.dnat, counts, after), (None, Counts::default(), established));
    let mut counts = Counts::default();
    let mut query = Candidate { output: None, ..datagram() };
    assert_eq!(site.policy.evaluate_later(Hook::Prerouting, &mut query, &mut counts), Verdict::Accept);
    assert_eq!(counts, Counts::default());
    site.policy.evaluate(Hook::Prerouting, &mut query.clone(), &mut counts);
    assert_eq!(counts, Counts(vec![(0, 60)]));
}

#[test]
fn the_first_translation_of_the_source_counts() {
    let site = site(NAT);
    let (decision, _, after) = evaluate(site, Hook::Postrouting, &segment());
    assert_eq!((decision.snat, after.snat), (Some(MASQUERADE), true));
    let lab = Candidate { source: Ipv4Addr::new(10, 0, 2, 9), ..segment() };
    let shown = Ipv4Addr::new(192, 0, 2, 3);
    let (decision, _, after) = evaluate(site, Hook::Postrouting, &lab);
    assert_eq!(decision.snat, Some(SourceNat::To { first: shown, last: shown, ports: None, random: false }));
    assert_eq!(after.source, Ipv4Addr::new(192, 0, 2, 3));
    let inside = Candidate { output: Some(LAB), ..segment() };
    assert_eq!(evaluate(site, Hook::Postrouting, &inside).0.snat, None);
}

#[test]
fn an_accept_in_a_nat_chain_leaves_the_next_one_its_say() {
    let rules = "# weir: allow open
table ip nat {
  chain first { type nat hook postrouting priority srcnat - 5; accept
  }
  chain second { type nat hook postrouting priority srcnat; masquerade
  }
  chain third { type nat hook postrouting priority srcnat + 5; counter
  }
}
";
    let (decision, counts, _) = evaluate(site(rules), Hook::Postrouting, &segment());
    assert_eq!((decision.snat, counts), (Some(MASQUERADE), Counts::default()));
}

#[test]
fn tables_of_family_ip6_hold_no_packet() {
    let rules = forward("accept")
        + "table ip6 x { chain c { type filter hook forward priority -10; policy drop; tcp dport 1 drop\n}\n}\n";
    let compiled = rules_compiler::compile_text(PLAN, &rules).expect("it compiles");
    let summary = compiled.summary();
    assert!(summary.ends_with("; 1 rules are for IPv6, of which this version forwards nothing"), "{summary}");
    assert_eq!(verdict(compiled.leak(), &segment()), Verdict::Accept);
}

#[test]
fn an_open_site_says_so() {
    let site = site("# weir: allow open\n");
    assert!(site.policy.is_empty());
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
}
