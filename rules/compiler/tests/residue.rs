//! What remains of the policy for a session, on the sites that others measure and judge by.

mod common;

use common::*;
use rules::{Candidate, CounterId, Hook, Residue, State};
use rules_compiler::compile_text;

const CONFORM_PLAN: &str = r#"
[uplink]
mac = "52:54:00:00:00:f0"
address = "192.0.2.2/24"
gateway = "192.0.2.1"

[[client]]
name = "c1"
mac = "52:54:00:00:00:f1"
address = "10.0.1.1/24"

[[client]]
name = "c2"
mac = "52:54:00:00:00:f2"
address = "10.0.2.1/24"
"#;

const CONFORM: &str = r#"table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.0.1.2:80
    ip daddr 192.0.2.2 udp dport 8080 dnat to 10.0.1.2:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    # a client that came through the port forward appears as the external address
    iifname { "c1", "c2" } oifname { "c1", "c2" } ct status dnat snat to 192.0.2.2
    oifname "uplink" masquerade
  }
}
table ip filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    ct status dnat accept
    iifname { "c1", "c2" } oifname "uplink" tcp dport 25 reject with icmp type admin-prohibited
    iifname { "c1", "c2" } oifname "uplink" tcp dport 26 reject with tcp reset
    iifname { "c1", "c2" } oifname "uplink" udp dport 27 drop
    iifname "c1" ip saddr 10.0.1.0/24 oifname "uplink" accept
    iifname "c2" ip saddr 10.0.2.0/24 oifname "uplink" accept
    iifname "c1" ip saddr 10.0.1.0/24 oifname "c2" meta l4proto { tcp, udp } th dport 7000 accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state invalid drop
    ct state established,related accept
    icmp type echo-request accept
  }
}
"#;

const BENCH_PLAN: &str = r#"
[uplink]
mac = "52:54:00:fb:00:02"
address = "192.0.2.2/24"
gateway = "192.0.2.1"

[[client]]
name = "client"
mac = "52:54:00:fb:00:01"
address = "10.0.1.1/24"
"#;

const BENCH: &str = r#"# The same policy as a Linux firewall VM.
table inet fw {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related counter accept
    ct state invalid counter drop
    iifname "client" ip saddr != 10.0.1.0/24 counter drop
    iifname "client" ip daddr 10.0.0.0/8 counter drop
    iifname "client" ip daddr 169.254.0.0/16 drop
    iifname "client" tcp dport 25 reject with tcp reset
    iifname "client" udp dport { 137, 138, 1900 } drop
    iifname "client" ip daddr 203.0.113.7 tcp dport 443 drop
    iifname "client" icmp type echo-request accept
    iifname "client" oifname "uplink" tcp dport 1-65535 accept
    iifname "client" oifname "uplink" meta l4proto udp accept
  }
}
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "uplink" masquerade
  }
}
"#;

#[test]
fn sessions_without_ports_are_looked_at_where_rules_ask_for_them() {
    let association = Candidate { protocol: 132, has_ports: false, tcp_flags: 0, ..established() };
    assert_eq!(residue("sctp dport 22 drop\naccept", &association), Residue::PER_PACKET);
    assert_eq!(
        residue("meta l4proto { sctp, tcp } th dport 22 drop\naccept", &association),
        Residue::PER_PACKET
    );
    assert_eq!(residue("sctp dport 22 drop\naccept", &established()), Residue::ACCEPT);
    assert_eq!(residue("tcp dport 22 drop\nmeta l4proto sctp accept", &association), Residue::ACCEPT);
}

fn established() -> Candidate {
    Candidate { state: State::Established, ..segment() }
}

fn residue(rules: &str, candidate: &Candidate) -> Residue {
    site(&forward(rules)).policy.residue(Hook::Forward, candidate)
}

#[test]
fn established_sessions_of_the_conform_site_pass_at_once() {
    let compiled = compile_text(CONFORM_PLAN, CONFORM).unwrap_or_else(|d| panic!("{}", d.render(false)));
    assert_eq!(lines(compiled.warnings()), [""; 0]);
    let policy = &compiled.leak().policy;
    let all = Hook::ALL.map(|hook| policy.residue(hook, &established()));
    assert_eq!(all, [Residue::ACCEPT; 5]);
    assert_eq!(
        policy.residue(Hook::Forward, &segment()),
        Residue::ACCEPT,
        "c1 to the world, before the reply"
    );
    let refused = Candidate { destination_port: 25, ..segment() };
    assert_eq!(policy.residue(Hook::Forward, &refused), Residue::PER_PACKET);
}

#[test]
fn established_sessions_of_the_bench_site_leave_one_counter() {
    let compiled = compile_text(BENCH_PLAN, BENCH).unwrap_or_else(|d| panic!("{}", d.render(false)));
    // Anti-spoofing has seen to it before the rules.
    let spoofed =
        "rules.nft:7:5: no packet comes to this rule: its sources are not behind the ports that it is about";
    assert_eq!(lines(compiled.warnings()), [spoofed]);
    let policy = &compiled.leak().policy;
    let residue = policy.residue(Hook::Forward, &established());
    assert_eq!(residue.counters().collect::<Vec<_>>(), [CounterId(0)]);
    assert_eq!(policy.counters().next().map(|at| at.to_string()).as_deref(), Some("rules.nft:5"));
    assert_eq!(residue.then(policy.residue(Hook::Postrouting, &established())), residue);
}

#[test]
fn what_looks_at_single_packets_is_evaluated_for_each() {
    for rule in [
        "ip ttl < 5 drop",
        "tcp flags & (fin|syn) == fin|syn drop",
        "meta length > 1000 counter",
        "ip dscp ef accept",
        "ip id 0 drop",
        "ip ecn ce drop",
    ] {
        let rules = format!("{rule}\nct state established accept");
        assert_eq!(residue(&rules, &established()), Residue::PER_PACKET, "{rule}");
    }
}

#[test]
fn what_cannot_matter_to_the_session_is_not() {
    let accept = "ct state established accept";
    for rule in [
        "ip ttl < 5 tcp dport 22 drop",
        "iifname lab ip ttl < 5 drop",
        "ip ttl < 5",
        "udp dport 4 ip length 50 drop",
    ] {
        assert_eq!(residue(&format!("{rule}\n{accept}"), &established()), Residue::ACCEPT, "{rule}");
    }
    let datagram = Candidate { state: State::Established, ..datagram() };
    assert_eq!(residue(&format!("tcp flags syn drop\n{accept}"), &datagram), Residue::ACCEPT);
}

#[test]
fn without_a_rule_for_established_a_session_meets_the_chain_each_time() {
    assert_eq!(residue("tcp dport 22 accept", &established()), Residue::PER_PACKET);
    assert_eq!(residue("ip length < 100 accept", &established()), Residue::PER_PACKET);
}

#[test]
fn two_counters_fit_and_a_third_does_not() {
    let two = residue("counter\ncounter accept", &established());
    assert_eq!(two.counters().collect::<Vec<_>>(), [CounterId(0), CounterId(1)]);
    assert_eq!(residue("counter\ncounter\ncounter accept", &established()), Residue::PER_PACKET);
}

#[test]
fn a_residue_says_the_same_as_evaluation() {
    // Whatever the residue adds up to, the walk with the packet at hand finds as well.
    let rules = "counter\niifname work jump a\ncounter drop";
    let chains = "table inet f { chain a { ct state established counter accept\n}\n}\n".to_owned();
    let site = site(&(chains + &forward(rules)));
    let residue = site.policy.residue(Hook::Forward, &established());
    let (_, counts, _) = evaluate(site, Hook::Forward, &established());
    let counted: Vec<u16> = counts.0.iter().map(|&(counter, _)| counter).collect();
    assert_eq!(residue.counters().map(|counter| counter.0).collect::<Vec<_>>(), counted);
    assert_eq!(counted.len(), 2);
}
