//! The policy at work: what the rules say is done, for every packet, and counted exactly.

use std::path::Path;

use firewall::Dropped;
use smoltcp::wire::EthernetAddress;
use tests::flags::{ACK, FIN, PSH, RST, SYN};
use tests::packet::address;
use tests::{Connection, World, echo, echo_reply, icmp_error, site, tcp, udp};

const CLIENT: &str = "10.0.1.7:5000";
const EXTERNAL: &str = "192.0.2.2:5000";
const SERVER: &str = "198.51.100.9:53";

/// A policy of these rules in a forward chain that drops the rest; masquerade towards the uplink.
fn forward(rules: &str) -> String {
    format!(
        "table ip filter {{\n chain forward {{ type filter hook forward priority filter; policy drop;\n{rules}\n }}\n}}\n\
         table ip nat {{ chain postrouting {{ type nat hook postrouting priority srcnat;\n\
         oifname \"uplink\" masquerade\n}}\n}}\n"
    )
}

/// The line of a policy on which this text stands.
fn line(rules: &str, text: &str) -> u32 {
    let found = rules.lines().position(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("{text} is in no line")) as u32 + 1
}

/// Packets and octets of the counter on the line with this text.
fn count(world: &World, rules: &str, text: &str) -> (u64, u64) {
    let counter = world.rule(line(rules, text));
    (counter.packets, counter.octets)
}

#[test]
fn the_default_site_forwards_masquerades_and_refuses_as_it_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firewall/site");
    let site = match rules_compiler::compile(&directory) {
        Ok(compiled) => compiled.leak(),
        Err(diagnostics) => panic!("{}", diagnostics.render(false)),
    };
    let mut world = World::with(site, |_, _| {});
    assert_eq!(world.open_udp(CLIENT, SERVER), EXTERNAL.parse().unwrap());
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"));
    let reset = world.answer("work", tcp(CLIENT, "198.51.100.9:25", SYN, b""));
    assert_eq!(reset.tcp_flags(), RST | ACK);
    let refused = world.answer("work", udp(CLIENT, "10.0.2.9:7000", b"x"));
    assert_eq!(refused.icmp(), (3, 13));
    world.refuse("uplink", udp(SERVER, "192.0.2.2:22", b"x"), Dropped::Policy);
    world.answer("lab", echo("10.0.2.9", "10.0.2.1", 1, 1, b"x"));
}

#[test]
fn without_a_rule_for_established_packets_replies_are_judged_one_by_one() {
    let rules = forward("iifname \"work\" oifname \"uplink\" accept");
    let mut world = World::new(site::PLAN, &rules);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.refuse("uplink", udp(SERVER, EXTERNAL, b"x"), Dropped::Policy);
    world.refuse("uplink", udp(SERVER, EXTERNAL, b"x"), Dropped::Policy);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
}

#[test]
fn a_stateless_rule_for_replies_lets_them_in_one_by_one() {
    let rules = forward(
        "iifname \"work\" oifname \"uplink\" accept\n\
         iifname \"uplink\" udp sport 53 ip daddr 10.0.1.7 udp dport 5000 counter accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    world.open_udp(CLIENT, SERVER);
    world.open_udp(CLIENT, "198.51.100.9:54");
    for _ in 0..3 {
        world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"));
    }
    world.refuse("uplink", udp("198.51.100.9:54", EXTERNAL, b"x"), Dropped::Policy);
    assert_eq!(count(&world, &rules, "sport 53"), (3, 3 * 29));
}

#[test]
fn ct_state_is_new_until_the_first_reply() {
    let rules = forward("ct state new counter accept\nct state established counter accept");
    let mut world = World::new(site::PLAN, &rules);
    for _ in 0..4 {
        world.cross("work", "uplink", udp(CLIENT, SERVER, b"four"));
    }
    assert_eq!(count(&world, &rules, "state new"), (4, 4 * 32));
    assert_eq!(count(&world, &rules, "state established"), (0, 0));
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"in"));
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"out"));
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"in"));
    assert_eq!(count(&world, &rules, "state new"), (4, 4 * 32));
    assert_eq!(count(&world, &rules, "state established"), (3, 30 + 31 + 30));
    // Another flow of the same mapping is new again.
    world.open_udp(CLIENT, "198.51.100.9:54");
    assert_eq!(count(&world, &rules, "state new").0, 5);
}

#[test]
fn a_reply_that_was_seen_is_one_though_rules_drop_it() {
    let rules = forward("iifname \"work\" ct state new counter accept\niifname \"work\" counter drop");
    let mut world = World::new(site::PLAN, &rules);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.refuse("uplink", udp(SERVER, EXTERNAL, b"x"), Dropped::Policy);
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
    assert_eq!(count(&world, &rules, "state new").0, 1);
    // Out of time to live it was seen too; what no connection has was not.
    let opening = "10.0.1.7:5001";
    world.cross("work", "uplink", udp(opening, SERVER, b"x"));
    world.answer("uplink", udp(SERVER, "192.0.2.2:5001", b"x").ttl(1));
    world.refuse("work", udp(opening, SERVER, b"x"), Dropped::Policy);
    let opening = "10.0.1.7:5002";
    world.cross("work", "uplink", tcp(opening, SERVER, SYN, b""));
    world.refuse("uplink", tcp(SERVER, "192.0.2.2:5002", FIN, b""), Dropped::Policy);
    world.cross("work", "uplink", tcp(opening, SERVER, SYN, b""));
}

#[test]
fn prerouting_is_asked_ahead_of_time_to_live() {
    let rules = format!(
        "{}table ip raw {{ chain early {{ type filter hook prerouting priority raw; policy accept;\n\
         ip ttl 1 counter drop\n}}\n}}\n",
        forward("accept")
    );
    let mut world = World::new(site::PLAN, &rules);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    for _ in 0..2 {
        world.refuse("work", udp(CLIENT, SERVER, b"x").ttl(1), Dropped::Policy);
    }
    assert_eq!(count(&world, &rules, "ttl 1").0, 2);
}

#[test]
fn behind_dstnat_prerouting_sees_where_packets_go() {
    let early = |priority: &str| {
        let chain = format!("type filter hook prerouting priority {priority}; policy accept;");
        let rule = "iifname \"uplink\" ip daddr 10.0.1.7 udp dport 5000 counter drop";
        format!("{}table ip early {{ chain early {{ {chain}\n{rule}\n}}\n}}\n", forward("accept"))
    };
    for (priority, is_dropped) in [("-10", true), ("-150", false)] {
        let mut world = World::new(site::PLAN, &early(priority));
        world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
        for _ in 0..2 {
            match is_dropped {
                true => world.refuse("uplink", udp(SERVER, EXTERNAL, b"x"), Dropped::Policy),
                false => drop(world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"))),
            }
        }
    }
}

#[test]
fn what_the_appliance_says_needs_the_rules_leave_too() {
    let rules = format!(
        "{}table ip own {{\n chain leaving {{ type filter hook output priority filter; policy drop;\n\
         ct state established icmp type echo-reply counter accept\n\
         ct state related oifname \"work\" icmp type time-exceeded counter accept\n }}\n\
         chain late {{ type filter hook postrouting priority mangle; policy accept;\n\
         ip saddr 10.0.1.1 ip daddr 10.0.1.8 counter drop\n }}\n}}\n",
        forward("iifname \"work\" ip daddr 198.51.100.9 reject")
    );
    let mut world = World::new(site::PLAN, &rules);
    world.answer("work", echo("10.0.1.7", "10.0.1.1", 1, 1, b"x"));
    world.answer("work", udp(CLIENT, "198.51.100.7:53", b"x").ttl(1));
    world.refuse("work", echo("10.0.1.8", "10.0.1.1", 1, 1, b"x"), Dropped::Policy);
    let before = world.drops("work", Dropped::Policy);
    world.send("work", udp(CLIENT, SERVER, b"x"));
    world.send("work", udp(CLIENT, "10.0.1.1:53", b"x"));
    assert_eq!(world.drops("work", Dropped::Policy), before + 2);
    assert!(world.sent("work").is_empty());
    assert_eq!(count(&world, &rules, "echo-reply").0, 2);
    assert_eq!(count(&world, &rules, "time-exceeded").0, 1);
    assert_eq!(count(&world, &rules, "10.0.1.8").0, 1);
}

#[test]
fn a_session_that_may_only_be_new_is_shut_by_its_first_reply() {
    let rules = forward(
        "ct state new iifname \"work\" accept\niifname \"uplink\" ct state established counter accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"));
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
}

#[test]
fn ct_state_of_an_error_is_related_and_counted_as_such() {
    let rules = forward(
        "ct state related counter accept\nct state established counter accept\niifname \"work\" accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    for n in 1..=3 {
        let error = icmp_error("203.0.113.1", "192.0.2.2", (3, 1), seen.octets.clone());
        let length = error.octets().len() as u64;
        world.cross("uplink", "work", error);
        assert_eq!(count(&world, &rules, "related"), (n, n * length));
    }
    assert_eq!(count(&world, &rules, "established"), (0, 0));
}

#[test]
fn counters_count_every_packet_of_a_session_whatever_their_number() {
    // One, two (what a session remembers), and four (the whole policy for each packet).
    for counters in [1, 2, 4] {
        let counting = "  counter\n".repeat(counters);
        let rules =
            forward(&format!("{counting}ct state established,related accept\niifname \"work\" accept"));
        let mut world = World::new(site::PLAN, &rules);
        let mut octets = 0;
        for n in 0..50u64 {
            let data = vec![0; n as usize * 7];
            world.cross("work", "uplink", udp(CLIENT, SERVER, &data));
            world.cross("uplink", "work", udp(SERVER, EXTERNAL, &data));
            octets += 2 * (28 + n * 7);
        }
        let counts: Vec<_> = world.datapath.rule_counters().map(|(_, c)| (c.packets, c.octets)).collect();
        assert_eq!(counts, vec![(100, octets); counters]);
    }
}

#[test]
fn counters_behind_a_verdict_or_a_mismatch_count_nothing() {
    let rules = forward(
        "udp dport 54 counter\nct state established accept\n\
         ct state established counter comment \"weir: allow shadowed\"\n\
         iifname \"work\" udp dport 53 counter accept\niifname \"work\" counter accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    for _ in 0..5 {
        world.cross("work", "uplink", udp(CLIENT, SERVER, b""));
        world.cross("uplink", "work", udp(SERVER, EXTERNAL, b""));
    }
    let counts: Vec<u64> = world.datapath.rule_counters().map(|(_, counter)| counter.packets).collect();
    assert_eq!(counts, [0, 0, 1, 0]);
}

#[test]
fn dropped_and_rejected_packets_are_counted_too() {
    let rules = forward("udp dport 27 counter drop\nudp dport 28 counter reject\niifname \"work\" accept");
    let mut world = World::new(site::PLAN, &rules);
    for _ in 0..3 {
        world.refuse("work", udp(CLIENT, "198.51.100.9:27", b"x"), Dropped::Policy);
        let refused = world.answer("work", udp(CLIENT, "198.51.100.9:28", b"x"));
        assert_eq!((refused.icmp(), refused.source()), ((3, 3), address("10.0.1.1")));
    }
    assert_eq!(count(&world, &rules, "dport 27"), (3, 87));
    assert_eq!(count(&world, &rules, "dport 28"), (3, 87));
    assert_eq!(world.drops("work", Dropped::Rejected), 3);
}

#[test]
fn tcp_flags_are_judged_for_every_segment_ahead_of_established() {
    let rules = forward(
        "tcp flags & (fin | rst) == rst counter drop\n\
         tcp flags syn / syn,ack counter\n\
         ct state established,related counter accept\n\
         iifname \"work\" accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    world.refuse("uplink", connection.from_server(RST | ACK, b""), Dropped::Policy);
    world.refuse("work", connection.from_client(RST, b""), Dropped::Policy);
    connection.talk(&mut world);
    connection.close(&mut world);
    assert_eq!(count(&world, &rules, "== rst").0, 2);
    assert_eq!(count(&world, &rules, "syn / syn,ack").0, 1);
    // SYN-ACK, ACK, two talks, the close.
    assert_eq!(count(&world, &rules, "established").0, 2 + 6 + 3);
}

#[test]
fn a_dropped_reset_does_not_shorten_its_session() {
    let rules = forward("tcp flags rst drop\nct state established,related accept\niifname \"work\" accept");
    let mut world = World::new(site::PLAN, &rules);
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    world.refuse("uplink", connection.from_server(RST, b""), Dropped::Policy);
    world.pass_seconds(7000);
    assert!(connection.is_alive(&mut world));
}

#[test]
fn ttl_length_dscp_and_id_are_judged_for_every_packet() {
    let rules = forward(
        "ip ttl < 10 counter drop\nip length > 1000 counter drop\nip dscp 10 counter drop\nip id 4660 counter drop\n\
         ct state established,related accept\niifname \"work\" accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    let data = [7; 973];
    for _ in 0..2 {
        world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
        world.refuse("work", udp(CLIENT, SERVER, &data), Dropped::Policy);
        world.refuse("work", udp(CLIENT, SERVER, b"x").tos(40), Dropped::Policy);
        world.refuse("work", udp(CLIENT, SERVER, b"x").identification(0x1234), Dropped::Policy);
        // The lowered value is what the forward hook sees.
        world.refuse("work", udp(CLIENT, SERVER, b"x").ttl(10), Dropped::Policy);
        world.cross("work", "uplink", udp(CLIENT, SERVER, b"x").ttl(11));
        world.cross("uplink", "work", udp(SERVER, EXTERNAL, &data[1..]));
        world.refuse("uplink", udp(SERVER, EXTERNAL, &data), Dropped::Policy);
    }
    assert_eq!(count(&world, &rules, "length").0, 4);
    for other in ["ttl", "dscp", "ip id"] {
        assert_eq!(count(&world, &rules, other).0, 2, "{other}");
    }
}

#[test]
fn a_reject_in_the_middle_of_a_session_is_answered_with_what_was_sent() {
    let rules = forward(
        "tcp flags fin reject with tcp reset\nip length > 1000 reject with icmp type host-prohibited\n\
         ct state established,related accept\niifname \"work\" accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    let mut connection = Connection::open(&mut world, CLIENT, SERVER);
    connection.talk(&mut world);
    // The server is refused in the client's external name; nothing internal is shown.
    let reset = world.answer("uplink", connection.from_server(FIN | ACK, b""));
    assert_eq!((reset.from(), reset.to()), (connection.external, connection.server));
    assert_eq!(reset.tcp().sequence_number, connection.client_seq);
    let long = connection.from_server(ACK | PSH, &[1; 1000]);
    let refused = world.answer("uplink", &long);
    assert_eq!((refused.icmp(), refused.source()), ((3, 10), address("192.0.2.2")));
    assert_eq!(refused.quote().octets, long.octets()[..548]);
}

#[test]
fn reject_says_what_the_rule_says() {
    for (how, code) in [
        ("reject", 3),
        ("reject with icmp type net-unreachable", 0),
        ("reject with icmp type host-unreachable", 1),
        ("reject with icmp type prot-unreachable", 2),
        ("reject with icmp type port-unreachable", 3),
        ("reject with icmp type net-prohibited", 9),
        ("reject with icmp type host-prohibited", 10),
        ("reject with icmp type admin-prohibited", 13),
    ] {
        let mut world = World::new(site::PLAN, &forward(how));
        let sent = udp(CLIENT, SERVER, b"x");
        let refused = world.answer("work", &sent);
        assert_eq!((refused.icmp(), refused.icmp_word()), ((3, code), [0; 4]), "{how}");
        assert_eq!(refused.quote().octets, sent.octets());
        assert_eq!(world.occupancy().sessions, 0);
    }
}

#[test]
fn accept_ends_its_base_chain_and_drop_ends_all() {
    let rules = "
table ip early {
  chain forward { type filter hook forward priority filter - 10; policy accept;
    udp dport 53 accept
    udp dport 54 drop
  }
}
table ip late {
  chain forward { type filter hook forward priority filter; policy drop;
    udp dport 54 accept
    udp dport 55 accept
    udp dport 53 udp sport 5001 accept
  }
}
table ip nat { chain postrouting { type nat hook postrouting priority srcnat; oifname \"uplink\" masquerade; }
}
";
    let mut world = World::new(site::PLAN, rules);
    world.refuse("work", udp(CLIENT, "198.51.100.9:53", b"x"), Dropped::Policy);
    world.refuse("work", udp(CLIENT, "198.51.100.9:54", b"x"), Dropped::Policy);
    world.cross("work", "uplink", udp(CLIENT, "198.51.100.9:55", b"x"));
    world.cross("work", "uplink", udp("10.0.1.7:5001", "198.51.100.9:53", b"x"));
}

#[test]
fn chains_of_prerouting_and_postrouting_are_asked_for_every_packet_too() {
    let rules = "
table ip filter {
  chain raw { type filter hook prerouting priority raw; policy accept;
    iifname \"uplink\" ip saddr 198.51.100.66 counter drop
    ip dscp 46 counter
  }
  chain forward { type filter hook forward priority filter; policy accept; ct state invalid drop; }
  chain leaving { type filter hook postrouting priority mangle; policy accept;
    oifname \"work\" ip length > 1000 counter drop
  }
}
table ip nat { chain postrouting { type nat hook postrouting priority srcnat; oifname \"uplink\" masquerade; }
}
";
    let mut world = World::new(site::PLAN, rules);
    world.open_udp(CLIENT, SERVER);
    world.open_udp(CLIENT, "198.51.100.66:53");
    world.refuse("uplink", udp("198.51.100.66:53", EXTERNAL, b"x"), Dropped::Policy);
    world.refuse("uplink", udp(SERVER, EXTERNAL, &[0; 1000]), Dropped::Policy);
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x").tos(46 << 2));
    world.cross("work", "uplink", udp(CLIENT, SERVER, &[0; 1000]).tos(46 << 2));
    assert_eq!(count(&world, rules, "198.51.100.66").0, 1);
    assert_eq!(count(&world, rules, "dscp 46").0, 2);
    assert_eq!(count(&world, rules, "length").0, 1);
}

#[test]
fn a_hairpinned_packet_is_dnat_to_the_rules_and_needs_their_leave() {
    let without =
        site::RULES.replace("    ct status dnat accept\n", "    iifname \"uplink\" ct status dnat accept\n");
    let mut world = World::new(site::PLAN, &without);
    world.cross("uplink", "work", udp("198.51.100.9:7", "192.0.2.2:8080", b"x"));
    world.refuse("lab", udp("10.0.2.9:5000", "192.0.2.2:8080", b"x"), Dropped::Policy);
    let counting = site::RULES.replace("ct status dnat accept", "ct status dnat counter accept");
    let mut world = World::new(site::PLAN, &counting);
    world.cross("lab", "work", udp("10.0.2.9:5000", "192.0.2.2:8080", b"x"));
    world.cross("lab", "work", udp("10.0.2.9:5000", "192.0.2.2:8080", b"x"));
    // Both before the reply, so that `established` did not take the second.
    assert_eq!(count(&world, &counting, "dnat counter"), (2, 58));
}

#[test]
fn nat_chains_see_the_first_packet_of_a_session_only() {
    let rules = site::RULES
        .replace("oifname \"uplink\" masquerade", "oifname \"uplink\" counter masquerade")
        .replace("ip daddr 192.0.2.2 udp dport 8080 dnat", "ip daddr 192.0.2.2 udp dport 8080 counter dnat");
    let mut world = World::new(site::PLAN, &rules);
    for _ in 0..3 {
        world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
        world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"));
        world.cross("uplink", "work", udp(SERVER, "192.0.2.2:8080", b"x"));
        world.cross("work", "uplink", udp("10.0.1.2:80", SERVER, b"x"));
    }
    assert_eq!(count(&world, &rules, "counter masquerade").0, 1);
    assert_eq!(count(&world, &rules, "counter dnat").0, 1);
}

#[test]
fn without_masquerade_sources_cross_as_they_are() {
    let rules = "
table ip filter { chain forward { type filter hook forward priority filter; policy drop;
  ct state established accept
  iifname \"work\" accept
}
}";
    let mut world = World::new(site::PLAN, rules);
    world.judges[0].hidden.clear();
    let seen = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    assert_eq!(seen.from(), CLIENT.parse().unwrap());
    let seen = world.cross("work", "uplink", echo("10.0.1.7", "198.51.100.9", 9, 1, b"x"));
    assert_eq!((seen.source(), seen.id()), (address("10.0.1.7"), 9));
    assert_eq!(world.occupancy().mappings, 0);
}

#[test]
fn snat_by_source_leaves_the_others_alone() {
    let rules = forward("ct state established accept\niifname { \"work\", \"lab\" } accept")
        .replace("oifname \"uplink\" masquerade", "iifname \"lab\" oifname \"uplink\" snat to 192.0.2.2");
    let mut world = World::new(site::PLAN, &rules);
    world.judges[0].hidden.remove(0);
    assert_eq!(world.open_udp("10.0.2.9:5000", SERVER), EXTERNAL.parse().unwrap());
    assert_eq!(world.open_udp(CLIENT, SERVER), CLIENT.parse().unwrap());
}

#[test]
fn dnat_without_a_port_keeps_the_port() {
    let rules = site::RULES.replace(
        "ip daddr 192.0.2.2 udp dport 8080 dnat to 10.0.1.2:80",
        "ip daddr 192.0.2.2 udp dport 9000-9005 dnat to 10.0.1.2",
    );
    let mut world = World::new(site::PLAN, &rules);
    for port in 9000..=9005 {
        let seen = world.cross("uplink", "work", udp(SERVER, ("192.0.2.2", port), b"x"));
        assert_eq!(seen.to(), std::net::SocketAddrV4::new(address("10.0.1.2"), port));
        let seen = world.cross("work", "uplink", udp(("10.0.1.2", port), SERVER, b"x"));
        assert_eq!(seen.from(), std::net::SocketAddrV4::new(address("192.0.2.2"), port));
    }
    world.refuse("uplink", udp(SERVER, "192.0.2.2:9006", b"x"), Dropped::Policy);
}

#[test]
fn icmp_rules_tell_queries_by_type() {
    let rules = forward(
        "icmp type echo-reply counter accept\nicmp type echo-request counter accept\nct state established accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    for seq in 0..3 {
        let seen = world.cross("work", "uplink", echo("10.0.1.7", "198.51.100.9", 9, seq, b"x"));
        let reply = echo_reply("198.51.100.9", "192.0.2.2", seen.id(), seq, b"x");
        world.cross("uplink", "work", reply);
    }
    assert_eq!(count(&world, &rules, "echo-request").0, 3);
    assert_eq!(count(&world, &rules, "echo-reply").0, 3);
    let timestamp = tests::icmp("10.0.1.7", "198.51.100.9", (13, 0), [0, 1, 0, 1], &[0; 12]);
    world.refuse("work", timestamp, Dropped::Policy);
}

#[test]
fn output_port_names_are_those_of_the_route_after_dnat() {
    let rules = site::RULES.replace(
        "ct status dnat accept",
        "iifname \"uplink\" oifname \"work\" ip daddr 10.0.1.2 tcp dport 80 counter accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    world.cross("uplink", "work", tcp(SERVER, "192.0.2.2:8080", SYN, b""));
    assert_eq!(count(&world, &rules, "dport 80 counter").0, 1);
    world.refuse("uplink", udp(SERVER, "192.0.2.2:8080", b"x"), Dropped::Policy);
}

#[test]
fn each_packet_is_asked_for_its_station_where_a_rule_wants_it() {
    let rules = forward(
        "iifname work ether saddr != 02:00:0a:00:01:07 counter drop\n\
         ct state established,related counter accept\niifname \"work\" accept",
    );
    let mut world = World::new(site::PLAN, &rules);
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    world.cross("uplink", "work", udp(SERVER, EXTERNAL, b"x"));
    world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    // The same flow, by another station of the link.
    world.moved.insert(address("10.0.1.7"), EthernetAddress([2, 0, 0, 0, 0, 9]));
    world.refuse("work", udp(CLIENT, SERVER, b"x"), Dropped::Policy);
    world.refuse("work", udp("10.0.1.7:5001", SERVER, b"x"), Dropped::Policy);
    assert_eq!(count(&world, &rules, "counter drop").0, 2);
    assert_eq!(count(&world, &rules, "counter accept").0, 2);
}

/// Rules that keep what is between work and the world out of sessions, and accept it both ways.
const UNTRACKED: &str = "table ip raw {\n chain pre { type filter hook prerouting priority raw;\n\
     iifname work udp dport 53 notrack\n iifname uplink udp sport 53 notrack\n iifname uplink icmp type destination-unreachable notrack\n}\n}\n\
     table ip filter {\n chain forward { type filter hook forward priority filter; policy drop;\n\
     ct state untracked counter accept\n iifname lab accept\n}\n}\n\
     table ip nat { chain post { type nat hook postrouting priority srcnat; oifname uplink masquerade; }; }\n";

#[test]
fn what_has_no_session_is_routed_both_ways_as_it_is() {
    let mut world = World::new(site::PLAN, UNTRACKED);
    // The world knows the way to the client.
    world.judges[0].hidden.clear();
    let sent = world.cross("work", "uplink", udp(CLIENT, SERVER, b"x"));
    assert_eq!(sent.source(), address("10.0.1.7"));
    let answer = world.cross("uplink", "work", udp(SERVER, CLIENT, b"y"));
    assert_eq!(answer.destination(), address("10.0.1.7"));
    // Path MTU discovery: a router on the way speaks of what the client has sent.
    let error = icmp_error("203.0.113.7", "10.0.1.7", (3, 4), udp(CLIENT, SERVER, b"x"));
    let told = world.cross("uplink", "work", error.clone());
    assert_eq!(told.icmp(), (3, 4));
    assert_eq!(told.octets[20..], error.octets()[20..]);
    assert_eq!(count(&world, UNTRACKED, "counter accept").0, 3);
    // Others have no business with the client, nor is it told of what it has not sent.
    world.refuse("uplink", udp("198.51.100.9:54", CLIENT, b"y"), Dropped::NotOurs);
    let error = icmp_error("203.0.113.7", "10.0.1.8", (3, 4), udp(CLIENT, SERVER, b"x"));
    world.refuse("uplink", error, Dropped::ErrorWithoutSession);
    let error = icmp_error("203.0.113.7", "10.0.1.7", (11, 0), udp(CLIENT, SERVER, b"x"));
    world.refuse("uplink", error, Dropped::NotOurs);
}

#[test]
fn where_all_have_sessions_strangers_do_not_reach_clients() {
    let rules = forward("accept");
    let mut world = World::new(site::PLAN, &rules);
    world.refuse("uplink", udp(SERVER, CLIENT, b"y"), Dropped::NotOurs);
    let error = icmp_error("203.0.113.7", "10.0.1.7", (3, 4), udp(CLIENT, SERVER, b"x"));
    world.refuse("uplink", error, Dropped::ErrorWithoutSession);
}
