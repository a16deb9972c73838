//! Every form of match: which packets it takes and which it leaves.

mod common;

use common::*;
use rules::{Candidate, State, Verdict};

/// Whether `rule`, which ends in accept, takes the packet.
fn takes(rule: &str, candidate: &Candidate) -> bool {
    let site = site(&forward(&format!("{rule} accept")));
    verdict(site, candidate) == Verdict::Accept
}

/// The rule takes the first packet and leaves the second.
fn tells(rule: &str, taken: &Candidate, left: &Candidate) {
    assert!(takes(rule, taken), "{rule} leaves {taken:?}");
    assert!(!takes(rule, left), "{rule} takes {left:?}");
}

fn port(destination_port: u16) -> Candidate {
    Candidate { destination_port, ..segment() }
}

fn from(source: [u8; 4]) -> Candidate {
    Candidate { source: source.into(), ..segment() }
}

fn to(destination: [u8; 4]) -> Candidate {
    Candidate { destination: destination.into(), ..segment() }
}

fn input(port: u8) -> Candidate {
    Candidate { input: Some(port), ..segment() }
}

fn output(port: u8) -> Candidate {
    Candidate { output: Some(port), ..segment() }
}

fn flags(tcp_flags: u8) -> Candidate {
    Candidate { tcp_flags, ..segment() }
}

fn state(state: State) -> Candidate {
    Candidate { state, ..segment() }
}

fn icmp(kind: u8, code: u8) -> Candidate {
    Candidate { icmp: Some((kind, code)), ..echo() }
}

#[test]
fn interfaces_by_name_set_wildcard_and_index() {
    tells(r#"iifname "work""#, &input(WORK), &input(LAB));
    tells(r#"iifname work"#, &input(WORK), &input(LAB));
    tells(r#"meta iifname "work""#, &input(WORK), &input(LAB));
    tells(r#"iifname != "work""#, &input(LAB), &input(WORK));
    tells(r#"iifname { "work", "lab" }"#, &input(LAB), &input(VIF1));
    tells(r#"iifname != { "work", "lab" }"#, &input(VIF1), &input(LAB));
    tells(r#"iifname "vif*""#, &input(VIF2), &input(WORK));
    tells(r#"iifname { "vif*", "lab" }"#, &input(LAB), &input(WORK));
    tells(r#"oifname "uplink""#, &output(UPLINK), &output(LAB));
    tells(r#"oifname != "uplink""#, &output(LAB), &output(UPLINK));
    tells("iif work", &input(WORK), &input(LAB));
    tells("oif uplink", &output(UPLINK), &output(LAB));
    tells("iif { work, lab }", &input(LAB), &input(VIF1));
}

#[test]
fn nothing_forwarded_comes_by_loopback() {
    for port in [UPLINK, WORK, LAB, VIF1, VIF2] {
        assert!(!takes("iif lo", &input(port)));
        assert!(!takes(r#"iifname "lo""#, &input(port)));
        assert!(takes(r#"iifname != "lo""#, &input(port)));
    }
}

#[test]
fn addresses_by_value_prefix_range_and_set() {
    tells("ip saddr 10.0.1.2", &segment(), &from([10, 0, 1, 3]));
    tells("ip saddr == 10.0.1.2", &segment(), &from([10, 0, 1, 3]));
    tells("ip saddr eq 10.0.1.2", &segment(), &from([10, 0, 1, 3]));
    tells("ip saddr != 10.0.1.2", &from([10, 0, 1, 3]), &segment());
    tells("ip saddr 10.0.1.0/24", &from([10, 0, 1, 255]), &from([10, 0, 2, 0]));
    tells("ip saddr != 10.0.1.0/24", &from([10, 0, 2, 0]), &segment());
    tells("ip saddr 0.0.0.0/0 ip daddr 198.51.100.7", &segment(), &to([198, 51, 100, 8]));
    tells("ip daddr 198.51.100.5-198.51.100.9", &segment(), &to([198, 51, 100, 10]));
    tells("ip daddr { 198.51.100.7, 203.0.113.0/24 }", &to([203, 0, 113, 9]), &to([203, 0, 114, 0]));
    tells("ip daddr != { 198.51.100.7, 203.0.113.0/24 }", &to([9, 9, 9, 9]), &segment());
    tells("ip daddr > 198.51.100.6", &segment(), &to([198, 51, 100, 6]));
    let everywhere = Candidate { destination: [255; 4].into(), ..segment() };
    tells("ip daddr 224.0.0.0/3", &everywhere, &segment());
}

#[test]
fn ports_imply_their_protocol() {
    tells("tcp dport 443", &segment(), &port(80));
    tells("tcp dport https", &segment(), &port(80));
    tells("tcp dport 0x1bb", &segment(), &port(80));
    tells("tcp sport 40000", &segment(), &Candidate { source_port: 4, ..segment() });
    tells("udp dport domain", &datagram(), &Candidate { protocol: 6, ..datagram() });
    tells("tcp dport 1-65535", &segment(), &port(0));
    tells("tcp dport != 22", &segment(), &port(22));
    assert!(!takes("tcp dport != 22", &datagram()));
    tells("tcp dport { 80, 443, 8000-8010 }", &port(8005), &port(8011));
    tells("tcp dport != { 80, 443 }", &port(81), &port(80));
    tells("tcp dport < 444", &segment(), &port(444));
    tells("tcp dport <= 443", &segment(), &port(444));
    tells("tcp dport > 442", &segment(), &port(442));
    tells("tcp dport >= 443", &segment(), &port(442));
    tells("meta l4proto { tcp, udp } th dport 53", &datagram(), &echo());
    tells("ip protocol tcp th dport 443", &segment(), &Candidate { protocol: 17, ..segment() });
    tells("meta l4proto tcp tcp dport 443", &segment(), &port(80));
}

#[test]
fn ports_of_protocols_whose_sessions_have_none() {
    let of = |protocol| Candidate { protocol, destination_port: 22, tcp_flags: 0, ..segment() };
    for (word, protocol) in [("sctp", 132), ("dccp", 33), ("udplite", 136)] {
        tells(&format!("{word} dport 22"), &of(protocol), &port(22));
        tells(
            &format!("{word} dport {{ 22, 80 }}"),
            &of(protocol),
            &Candidate { destination_port: 23, ..of(protocol) },
        );
        tells(&format!("{word} sport != 22"), &of(protocol), &Candidate { source_port: 22, ..of(protocol) });
        tells(&format!("{word} sport 40000"), &of(protocol), &Candidate { has_ports: false, ..of(protocol) });
        tells(
            &format!("meta l4proto {{ tcp, {word} }} th dport 22"),
            &of(protocol),
            &Candidate { destination_port: 22, ..datagram() },
        );
        tells(&format!("meta l4proto . th dport {{ {word} . 22, tcp . 80 }}"), &of(protocol), &port(22));
    }
}

#[test]
fn protocols() {
    tells("meta l4proto udp", &datagram(), &segment());
    tells("meta l4proto 17", &datagram(), &segment());
    tells("meta l4proto != { tcp, udp }", &echo(), &segment());
    tells("ip protocol icmp", &echo(), &segment());
    tells("ip protocol != gre", &echo(), &Candidate { protocol: 47, ..echo() });
    assert!(takes("meta nfproto ipv4", &segment()));
    assert!(!takes("meta nfproto ipv6", &segment()));
    assert!(takes("meta protocol ip", &segment()));
    assert!(!takes("meta protocol ip6 tcp dport 443", &segment()));
    assert!(takes("ip version 4", &segment()));
}

#[test]
fn header_fields() {
    tells("ip ttl < 64", &segment(), &Candidate { ttl: 64, ..segment() });
    tells("ip ttl { 62, 63 }", &segment(), &Candidate { ttl: 64, ..segment() });
    tells("ip dscp ef", &Candidate { tos: 0xb9, ..segment() }, &segment());
    tells("ip dscp != cs0", &Candidate { tos: 0x20, ..segment() }, &Candidate { tos: 3, ..segment() });
    tells("ip dscp { cs1, af11 }", &Candidate { tos: 0x28, ..segment() }, &segment());
    tells("ip ecn ce", &Candidate { tos: 3, ..segment() }, &Candidate { tos: 2, ..segment() });
    tells("ip length 20-60", &segment(), &Candidate { length: 61, ..segment() });
    tells("meta length > 59", &segment(), &Candidate { length: 59, ..segment() });
    tells("ip id 0x1234", &segment(), &Candidate { identification: 1, ..segment() });
}

#[test]
fn tcp_flags_as_nft_compiles_them() {
    let (syn, syn_ack, ack, fin_syn) = (flags(0x02), flags(0x12), flags(0x10), flags(0x03));
    tells("tcp flags syn", &syn_ack, &ack);
    tells("tcp flags == syn", &syn, &syn_ack);
    tells("tcp flags != syn", &syn_ack, &syn);
    tells("tcp flags syn,ack", &ack, &flags(0x01));
    tells("tcp flags syn | ack", &ack, &flags(0x01));
    tells("tcp flags == syn,ack", &syn_ack, &syn);
    tells("tcp flags ! syn", &ack, &syn_ack);
    tells("tcp flags & syn == 0", &ack, &syn);
    tells("tcp flags & syn != 0", &syn, &ack);
    tells("tcp flags & (fin|syn|rst|ack) == syn", &flags(0x0a), &syn_ack);
    tells("tcp flags & (fin | syn) == fin | syn", &fin_syn, &syn);
    tells("tcp flags & (fin|syn|rst|ack) != syn", &syn_ack, &syn);
    tells("tcp flags syn / fin,syn,rst,ack", &syn, &syn_ack);
    tells("tcp flags != syn / fin,syn,rst,ack", &syn_ack, &syn);
    tells("tcp flags { syn, syn | ack }", &syn_ack, &fin_syn);
    assert!(!takes("tcp flags & syn == 0", &datagram()));
}

#[test]
fn icmp_types_and_codes() {
    tells("icmp type echo-request", &echo(), &icmp(0, 0));
    tells("icmp type 8", &echo(), &segment());
    tells("icmp type { echo-request, echo-reply }", &icmp(0, 0), &icmp(13, 0));
    tells("icmp type != echo-request", &icmp(0, 0), &echo());
    assert!(!takes("icmp type != echo-request", &segment()));
    tells("icmp type destination-unreachable icmp code port-unreachable", &icmp(3, 3), &icmp(3, 1));
}

#[test]
fn connection_state_and_status() {
    tells("ct state new", &segment(), &state(State::Established));
    tells("ct state established,related", &state(State::Related), &segment());
    tells("ct state established | related", &state(State::Related), &segment());
    tells("ct state { established, related }", &state(State::Established), &segment());
    tells("ct state != { established, related }", &segment(), &state(State::Related));
    tells("ct state ! established,related", &segment(), &state(State::Related));
    tells("ct state != new", &state(State::Invalid), &segment());
    tells("ct state == untracked", &state(State::Untracked), &segment());
    tells("ct state & (new|related) != 0", &segment(), &state(State::Established));
    let (dnat, snat) = (Candidate { dnat: true, ..segment() }, Candidate { snat: true, ..segment() });
    tells("ct status dnat", &dnat, &snat);
    tells("ct status dnat,snat", &snat, &segment());
    tells("ct status ! dnat", &snat, &dnat);
    tells("ct status & dnat == 0", &snat, &dnat);
    tells("ct status & (dnat|snat) != 0", &snat, &segment());
}

#[test]
fn named_sets_and_defines() {
    let rules = r#"#!/usr/sbin/nft -f
flush ruleset
define web = { 80, 443 }
define all_ports = { $web, 8080 }
define inside = 10.0.0.0/8
table inet f {
  comment "the only one"
  set blocked {
    type ipv4_addr; flags interval; auto-merge
    elements = { 203.0.113.0/24, 203.0.113.7,
                 198.51.100.1-198.51.100.3, }
  }
  set names { type ifname; elements = { "work", "lab" }; }
  set empty { type inet_service; comment "for later"; }
  chain c {
    type filter hook forward priority filter; policy drop;
    define late = 9
    ip daddr @blocked drop   # a comment
    tcp dport @empty drop
    iifname @names ip saddr $inside tcp dport $all_ports accept comment "web"
    iifname != @names tcp dport { $late, \
      22 } accept
  }
}
"#;
    let site = site(rules);
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    assert_eq!(verdict(site, &port(8080)), Verdict::Accept);
    assert_ne!(verdict(site, &port(22)), Verdict::Accept);
    assert_ne!(verdict(site, &to([203, 0, 113, 200])), Verdict::Accept);
    assert_ne!(verdict(site, &to([198, 51, 100, 3])), Verdict::Accept);
    let other = Candidate { input: Some(VIF1), ..port(22) };
    assert_eq!(verdict(site, &other), Verdict::Accept);
    assert_eq!(verdict(site, &Candidate { destination_port: 9, ..other.clone() }), Verdict::Accept);
    assert_ne!(verdict(site, &Candidate { destination_port: 80, ..other }), Verdict::Accept);
}
