//! Concatenations, marks, connections, address types, IPv6 beside IPv4: what they say of packets.

mod common;

use std::net::Ipv4Addr;

use common::*;
use rules::{Candidate, Connection, Direction, Endpoints, Hook, State, Verdict};

/// Whether a rule of a chain at forward accepts.
fn accepts(rule: &str, candidate: &Candidate) -> bool {
    verdict(site(&forward(&format!("{rule} accept"))), candidate) == Verdict::Accept
}

/// A rule takes the one packet, and leaves the other.
fn tells(rule: &str, taken: &Candidate, left: &Candidate) {
    assert!(accepts(rule, taken), "{rule} does not take {taken:?}");
    assert!(!accepts(rule, left), "{rule} takes {left:?}");
}

fn port(destination_port: u16) -> Candidate {
    Candidate { destination_port, ..segment() }
}

fn from(host: u8) -> Candidate {
    Candidate { source: Ipv4Addr::new(10, 0, 1, host), ..segment() }
}

#[test]
fn concatenations_of_single_values() {
    let rule = "ip saddr . tcp dport { 10.0.1.9 . 80, 10.0.1.2 . 443, 10.0.1.2 . 22 }";
    tells(rule, &segment(), &port(80));
    tells(rule, &port(22), &Candidate { protocol: 17, ..segment() });
    tells(rule, &Candidate { destination_port: 80, ..from(9) }, &from(9));
    tells("ip saddr . tcp dport != { 10.0.1.9 . 80, 10.0.1.2 . 443 }", &port(80), &segment());
    tells(
        "iifname . oifname { work . uplink, lab . uplink }",
        &segment(),
        &Candidate { input: Some(VIF1), ..segment() },
    );
    tells(
        "meta l4proto . th dport { tcp . 443, udp . 53 }",
        &segment(),
        &Candidate { destination_port: 443, ..datagram() },
    );
}

#[test]
fn concatenations_of_ranges() {
    let rule = "ip saddr . tcp dport { 10.0.1.0/28 . 400-443, 10.0.2.1-10.0.2.9 . 1-9 }";
    tells(rule, &segment(), &port(444));
    tells(rule, &port(400), &from(16));
    let interfaces = "iifname . tcp dport { \"vif*\" . 443, \"work\" . 22 }";
    tells(interfaces, &Candidate { input: Some(VIF2), ..segment() }, &segment());
}

#[test]
fn named_sets_of_concatenations() {
    let rules = "
table inet f {
  set pairs { typeof ip saddr . tcp dport; flags interval; elements = { 10.0.1.2 . 440-450 }
    elements = { 10.0.1.3 . 1 }
  }
  chain c { type filter hook forward priority 0; policy drop; ip saddr . tcp dport @pairs accept
  }
}
";
    let site = site(rules);
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    assert_eq!(verdict(site, &Candidate { destination_port: 1, ..from(3) }), Verdict::Accept);
    assert_ne!(verdict(site, &port(451)), Verdict::Accept);
}

#[test]
fn maps_of_concatenations() {
    let rule = "iifname . tcp dport vmap { work . 443 : accept, work . 80-90 : drop, lab . 22 : drop, * : accept }\ndrop";
    let site = site(&forward(rule));
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    assert_ne!(verdict(site, &port(85)), Verdict::Accept);
    assert_ne!(verdict(site, &Candidate { input: Some(LAB), ..port(22) }), Verdict::Accept);
    assert_eq!(verdict(site, &port(22)), Verdict::Accept);
    // Without the protocol of the key, not even * is met.
    assert_ne!(verdict(site, &datagram()), Verdict::Accept);
}

#[test]
fn a_dnat_by_address_and_port() {
    let rules = "# weir: allow open
table ip n { chain c { type nat hook prerouting priority dstnat
  dnat to ip daddr . tcp dport map { 192.0.2.2 . 80 : 10.0.1.2 . 8080, 192.0.2.3 . 80 : 10.0.1.3 . 81 }
}
}
";
    let to = |last: u8, destination_port| Candidate {
        input: Some(UPLINK),
        output: None,
        destination: Ipv4Addr::new(192, 0, 2, last),
        ..port(destination_port)
    };
    let site = site(rules);
    let dnat = |candidate: &Candidate| evaluate(site, Hook::Prerouting, candidate).0.dnat;
    assert_eq!(dnat(&to(2, 80)), Some((Ipv4Addr::new(10, 0, 1, 2), Some(8080))));
    assert_eq!(dnat(&to(3, 80)), Some((Ipv4Addr::new(10, 0, 1, 3), Some(81))));
    assert_eq!(dnat(&to(2, 81)), None);
    let forwards: Vec<_> = site.policy.forwards().map(|forward| (forward.protocol, forward.first)).collect();
    assert_eq!(forwards, [(6, 80)]);
}

#[test]
fn redirect_leads_to_the_port_that_a_packet_came_in_by() {
    let rules = "# weir: allow open
table ip n { chain c { type nat hook prerouting priority dstnat
  udp dport 53 counter redirect to :5353
  tcp dport 80 dnat to :8080
}
}
";
    let site = site(rules);
    let dnat = |candidate: Candidate| {
        let (decision, counts, after) =
            evaluate(site, Hook::Prerouting, &Candidate { output: None, ..candidate });
        assert_eq!(after.dnat, decision.dnat.is_some());
        (decision.dnat, counts.0.len())
    };
    assert_eq!(dnat(datagram()), (Some((Ipv4Addr::new(10, 0, 1, 1), Some(5353))), 1));
    let lab = Candidate { input: Some(LAB), ..datagram() };
    assert_eq!(dnat(lab), (Some((Ipv4Addr::new(10, 0, 2, 1), Some(5353))), 1));
    assert_eq!(dnat(port(80)), (Some((Ipv4Addr::new(198, 51, 100, 7), Some(8080))), 0));
    assert_eq!(dnat(port(81)), (None, 0));
}

#[test]
fn masks_on_numbers() {
    tells("ip saddr & 255.255.0.255 == 10.0.0.2", &segment(), &from(3));
    tells("tcp dport & 0x1 != 0", &segment(), &port(442));
    tells("ip ttl | 1 == 63", &Candidate { ttl: 62, ..segment() }, &Candidate { ttl: 61, ..segment() });
    tells("ip id ^ 0xff == 0x12cb", &segment(), &Candidate { identification: 0x1235, ..segment() });
    tells("meta length and 0x3c == 60", &segment(), &Candidate { length: 59, ..segment() });
}

#[test]
fn marks_are_set_and_matched_behind() {
    let body = "ip saddr 10.0.1.2 meta mark set 0x12\nmeta mark set mark or 0x100 xor 2\nct mark set mark and 0xff0\nct mark 0x110 meta mark 0x110 accept";
    let site = site(&forward(body));
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    let (_, _, after) = evaluate(site, Hook::Forward, &from(3));
    assert_eq!((after.mark, after.connection.map(|connection| connection.mark)), (0x102, Some(0x100)));
    assert!(site.policy.marks_connections);
    let none = Candidate { state: State::Invalid, connection: None, ..segment() };
    let (decision, _, after) = evaluate(site, Hook::Forward, &none);
    assert_eq!((after.mark, after.connection), (0x110, None));
    assert_ne!(decision.verdict, Verdict::Accept);
}

#[test]
fn connections_have_a_direction_and_two_ends() {
    let original = Endpoints { source_port: 5, ..ENDPOINTS };
    let reply = Endpoints {
        source: Ipv4Addr::new(10, 0, 1, 9),
        destination: Ipv4Addr::new(192, 0, 2, 2),
        source_port: 8080,
        destination_port: 6,
    };
    let connection = Connection { mark: 3, direction: Direction::Reply, original, reply: Some(reply) };
    let candidate = Candidate { connection: Some(connection), state: State::Established, ..segment() };
    let invalid = Candidate { connection: None, state: State::Invalid, ..segment() };
    tells("ct direction reply", &candidate, &segment());
    tells("ct original ip saddr 10.0.1.2 ct reply ip saddr 10.0.1.9", &candidate, &segment());
    tells("ct original ip daddr 198.51.100.7", &segment(), &invalid);
    tells("ct reply ip daddr 192.0.2.0/24", &candidate, &segment());
    tells("tcp dport 443 ct original proto-src 5 ct reply proto-src 8080", &candidate, &segment());
    tells("tcp dport 443 ct reply proto-src 443 ct reply proto-dst 40000", &segment(), &candidate);
    tells("ct mark 3", &candidate, &segment());
    // Without a connection there is nothing to compare, neither way.
    assert!(!accepts("ct direction != reply", &invalid) && !accepts("ct status ! dnat", &invalid));
}

#[test]
fn address_types_follow_from_the_plan() {
    let to = |destination: [u8; 4]| Candidate { destination: destination.into(), ..segment() };
    tells("fib daddr type local", &to([10, 0, 2, 1]), &segment());
    tells("fib daddr type local", &to([192, 0, 2, 3]), &to([192, 0, 2, 4]));
    tells("fib daddr type { broadcast, multicast }", &to([10, 0, 2, 255]), &to([10, 0, 2, 254]));
    tells("fib daddr type multicast", &to([224, 0, 0, 1]), &to([240, 0, 0, 1]));
    tells("fib daddr type != local", &segment(), &to([10, 137, 0, 1]));
    tells("fib saddr type unicast", &segment(), &Candidate { source: [10, 0, 1, 1].into(), ..segment() });
    // Local on another interface is no more than unicast.
    tells("fib daddr . iif type local", &to([10, 0, 1, 1]), &to([10, 0, 2, 1]));
    tells("fib daddr . iif type != { local, broadcast }", &to([10, 0, 2, 1]), &to([10, 0, 1, 1]));
    assert!(accepts("fib saddr . iif oif exists", &segment()));
    assert!(!accepts("fib saddr . iif oif missing", &segment()));
    assert!(
        accepts("meta pkttype host", &segment()) && !accepts("pkttype { broadcast, multicast }", &segment())
    );
}

#[test]
fn without_a_gateway_strangers_have_no_way_back() {
    let plan = PLAN.replace("gateway = \"192.0.2.1\"\n", "");
    let rules = forward("fib saddr . iif oif missing drop\naccept");
    let site = rules_compiler::compile_text(&plan, &rules).expect("it compiles").leak();
    let outside = |source: [u8; 4]| Candidate { input: Some(UPLINK), source: source.into(), ..segment() };
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    assert_eq!(verdict(site, &outside([192, 0, 2, 77])), Verdict::Accept);
    assert_ne!(verdict(site, &outside([198, 51, 100, 7])), Verdict::Accept);
}

#[test]
fn rules_for_ipv6_stand_beside_those_for_ipv4() {
    let body = "icmpv6 type { nd-neighbor-solicit, nd-router-advert } accept
ip6 saddr fe80::/10 udp dport 546 accept
ip6 daddr @six tcp dport { 22, 443 } counter accept
meta nfproto ipv6 drop
ct state new reject with icmpv6 type admin-prohibited
udp dport 53 accept";
    let rules = forward(body).replace("table inet f {\n", "table inet f {\nset six { type ipv6_addr; flags interval; elements = { 2001:db8::/32, fd00::1-fd00::9 }\n}\n");
    let site = site(&rules);
    assert_ne!(verdict(site, &segment()), Verdict::Accept);
    assert_eq!(verdict(site, &datagram()), Verdict::Accept);
    assert!(site.policy.counters().len() == 0);
}

#[test]
fn a_set_of_one_flag_or_state_is_what_nft_makes_of_it() {
    let flags = |tcp_flags: u8| Candidate { tcp_flags, ..segment() };
    tells("tcp flags { syn }", &flags(0x0a), &flags(0x10));
    let rules = format!("define one = {{ syn }}\n{}", forward("tcp flags { $one } accept"));
    let verdict_of = |tcp_flags| verdict(site(&rules), &flags(tcp_flags));
    assert!(verdict_of(0x0a) == Verdict::Accept && verdict_of(0x10) != Verdict::Accept);
    tells("tcp flags { syn|ack }", &flags(0x02), &flags(0x01));
    tells("tcp flags != { syn }", &flags(0x0a), &flags(0x02));
    tells("tcp flags { syn, ack }", &flags(0x02), &flags(0x12));
    tells("ct state { new|established }", &segment(), &Candidate { state: State::Related, ..segment() });
}

#[test]
fn a_define_may_be_empty_and_a_set_in_a_rule_not() {
    let rules = |rule: &str| {
        format!(
            "define none = {{ }}\ndefine some = {{ $none, 10.0.1.2 }}\n{}",
            forward(rule).replacen("{\n", "{\nset s { type ipv4_addr; elements = $none; }\n", 1)
        )
    };
    assert_eq!(verdict(site(&rules("ip saddr @s drop\nip saddr $some accept")), &segment()), Verdict::Accept);
    let compiled = rules_compiler::compile_text(PLAN, &rules("ip saddr @s drop")).expect("it compiles");
    assert_eq!(lines(compiled.warnings()), ["rules.nft:4:5: set \"s\" is empty"]);
    for rule in [
        "ip saddr $none accept",
        "ip saddr != $none accept",
        "ip saddr . tcp dport $none accept",
        "ip6 saddr $none accept",
        "ether saddr { $none } accept",
    ] {
        let told = lines(&refused(&rules(&format!("ip saddr @s drop\n{rule}"))));
        assert!(told.iter().any(|line| line.ends_with("this set has no elements")), "{rule}: {told:?}");
    }
    let told = lines(&refused(&format!("define none = {{\n}}\n{}", forward("accept"))));
    assert_eq!(told.first().map(String::as_str), Some("rules.nft:2:1: expected a value, found \"}\""));
}

#[test]
fn a_reject_for_ipv4_leaves_ipv6_to_others() {
    let body = "reject with icmp host-prohibited\nreject with icmpv6 admin-prohibited\ndrop";
    assert_eq!(
        verdict(site(&forward(body)), &segment()),
        Verdict::Reject(rules::RuleId(0), rules::Reject::Icmp(10))
    );
}
