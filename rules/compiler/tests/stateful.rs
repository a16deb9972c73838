//! Limits, quotas, sets that packets change, objects with names, log lines: what they remember.

mod common;

use common::*;
use rules::object::{Level, LogId, SECOND};
use rules::site::Site;
use rules::{Candidate, CounterId, Hook, Memory, Residue, State, Tally, Verdict};

/// A chain at forward, and what its statements remember.
struct Running {
    site: &'static Site,
    memory: Memory,
    now: u64,
    counted: Vec<u16>,
    logged: Vec<u16>,
}

impl Tally for Running {
    fn count(&mut self, counter: CounterId, _: u32) {
        self.counted.push(counter.0);
    }

    fn log(&mut self, log: LogId, _: &Candidate) {
        self.logged.push(log.0);
    }

    fn memory(&mut self) -> Option<(&mut Memory, u64)> {
        Some((&mut self.memory, self.now))
    }
}

impl Running {
    /// `table` stands in the table, `body` in the chain.
    fn new(table: &str, body: &str) -> Self {
        let site = site(&forward(body).replacen("{\n", &format!("{{\n{table}\n"), 1));
        let memory = Memory::new(&site.policy, 7, 0);
        Self { site, memory, now: 0, counted: Vec::new(), logged: Vec::new() }
    }

    fn passes(&mut self, candidate: &Candidate) -> bool {
        let policy = &self.site.policy;
        policy.evaluate(Hook::Forward, &mut candidate.clone(), self).verdict == Verdict::Accept
    }

    /// How many of so many packets pass.
    fn passed(&mut self, count: usize, candidate: &Candidate) -> usize {
        (0..count).filter(|_| self.passes(candidate)).count()
    }
}

fn from(host: u8) -> Candidate {
    Candidate { source: [10, 0, 1, host].into(), ..segment() }
}

#[test]
fn a_limit_lets_its_burst_pass_and_then_its_rate() {
    let mut running = Running::new("", "limit rate 2/second burst 4 packets accept");
    assert_eq!(running.passed(10, &segment()), 4);
    running.now = SECOND;
    assert_eq!(running.passed(10, &from(9)), 2);
    running.now = 100 * SECOND;
    assert_eq!(running.passed(10, &segment()), 4);
}

#[test]
fn what_stands_ahead_of_a_map_is_asked_once() {
    // One packet takes one token, whichever element it meets.
    let map = "tcp dport vmap { 22 : accept, 80 : accept, 443 : accept, * : continue }";
    let mut running = Running::new("", &format!("limit rate 1/hour burst 3 packets counter {map}"));
    assert_eq!(running.passed(10, &segment()), 3);
    assert_eq!(running.counted.len(), 3);
    // A packet that the limit lets go on is not taken for one that it does not.
    let side = "chain side { limit rate 1/hour burst 1 packets tcp dport vmap { 443 : accept }\n}";
    let mut running = Running::new(side, "jump side\njump side\ncounter");
    assert_eq!(running.passed(3, &segment()), 1);
    assert_eq!(running.counted.len(), 2);
    // What an element changes leads to no other element.
    let marked = "chain marked { meta mark set 2\n}";
    let mut running = Running::new(
        marked,
        "meta mark 0 meta mark set 1\nmeta mark vmap { 1 : jump marked, 2 : accept }\ncounter",
    );
    assert_eq!(running.passed(2, &segment()), 0);
    assert_eq!(running.counted.len(), 2);
    // The mark that the rule itself sets is that of its map.
    let mut running = Running::new("", "meta mark 0 meta mark set 1 meta mark vmap { 1 : accept, 0 : drop }");
    assert_eq!(running.passed(2, &segment()), 2);
}

#[test]
fn over_a_limit_and_by_octets() {
    let mut running = Running::new("", "limit rate over 1/minute drop\naccept");
    assert_eq!(running.passed(10, &segment()), 5);
    // A thousand octets a second, in packets of sixty.
    let mut running = Running::new("", "limit rate 1000 bytes/second accept");
    assert_eq!(running.passed(100, &segment()), 16);
    let mut running = Running::new("", "limit rate 1 kbytes/second burst 1 kbytes accept");
    assert_eq!(running.passed(100, &segment()), 34);
}

#[test]
fn a_limit_pays_for_whom_its_rule_matches() {
    let mut running =
        Running::new("", "tcp dport 22 limit rate 1/hour burst 1 packets accept\ntcp dport 443 accept");
    assert_eq!(running.passed(3, &segment()), 3);
    assert_eq!(running.passed(3, &Candidate { destination_port: 22, ..segment() }), 1);
}

#[test]
fn named_objects_are_shared() {
    let table = "limit slow { rate 1/hour burst 3 packets; }\ncounter seen { }\nquota some { 120 bytes }";
    let body = "tcp dport 22 limit name \"slow\" counter name seen accept\nudp dport 53 limit name slow counter name \"seen\" accept\ntcp dport 443 quota name some accept";
    let mut running = Running::new(table, body);
    let ssh = Candidate { destination_port: 22, ..segment() };
    assert_eq!((running.passed(2, &ssh), running.passed(2, &datagram())), (2, 1));
    assert_eq!(running.counted, [0, 0, 0]);
    assert_eq!(running.passed(5, &segment()), 2);
    assert_eq!(running.site.policy.counters().next().map(|at| at.line), Some(3));
}

#[test]
fn a_quota_is_used_up_and_over_begins_behind_it() {
    assert_eq!(Running::new("", "quota 180 bytes accept").passed(9, &segment()), 3);
    assert_eq!(Running::new("", "quota until 1 kbytes used 904 bytes accept").passed(9, &segment()), 2);
    assert_eq!(Running::new("", "quota over 180 bytes accept").passed(9, &segment()), 6);
}

#[test]
fn each_element_has_a_bucket_of_its_own() {
    let mut running = Running::new(
        "set seen { type ipv4_addr; flags dynamic; size 2; }",
        "add @seen { ip saddr limit rate 1/hour burst 2 packets } accept",
    );
    assert_eq!((running.passed(5, &from(2)), running.passed(5, &from(3))), (2, 2));
    // There is no room for a third.
    assert_eq!(running.passed(5, &from(4)), 0);
}

#[test]
fn a_meter_holds_everybody_to_a_rate() {
    let mut running = Running::new(
        "",
        "meter m size 10 { ip saddr . tcp dport limit rate over 1/hour burst 2 packets } drop\naccept",
    );
    assert_eq!((running.passed(5, &from(2)), running.passed(5, &from(3))), (2, 2));
    assert_eq!(running.passed(5, &Candidate { destination_port: 1, ..from(3) }), 2);
    assert_eq!(running.passed(5, &datagram()), 5);
}

#[test]
fn elements_end_in_time_and_can_be_taken_away() {
    let table =
        "set knocked { type ipv4_addr; flags dynamic,timeout; timeout 10s; elements = { 10.0.1.9 }\n}";
    let body = "tcp dport 1 add @knocked { ip saddr } drop\ntcp dport 2 update @knocked { ip saddr timeout 1m } drop\ntcp dport 3 delete @knocked { ip saddr } drop\nip saddr @knocked accept";
    let mut running = Running::new(table, body);
    let knock = |port| Candidate { destination_port: port, ..segment() };
    assert!(running.passes(&from(9)) && !running.passes(&segment()));
    assert!(!running.passes(&knock(1)) && running.passes(&segment()));
    running.now = 5 * SECOND;
    assert!(!running.passes(&knock(1)), "it is there: its time goes on");
    running.now = 10 * SECOND;
    assert!(!running.passes(&segment()) && !running.passes(&from(9)));
    assert!(!running.passes(&knock(2)));
    running.now = 60 * SECOND;
    assert!(running.passes(&segment()));
    assert!(!running.passes(&knock(3)) && !running.passes(&segment()));
}

#[test]
fn a_packet_without_the_key_goes_neither_way() {
    let table = "set s { type inet_service; flags dynamic; }";
    let body = "tcp dport 1 add @s { tcp dport }\nmeta l4proto { tcp, udp } th dport != @s accept";
    let mut running = Running::new(table, body);
    assert!(running.passes(&datagram()) && !running.passes(&echo()));
}

#[test]
fn log_lines_are_written_where_they_stand_and_go_on() {
    let mut running =
        Running::new("", "tcp dport 22 log prefix \"ssh: \" level info drop\nlog level debug counter accept");
    assert!(running.passes(&segment()) && !running.passes(&Candidate { destination_port: 22, ..segment() }));
    assert_eq!((&running.logged[..], &running.counted[..]), (&[1, 0][..], &[0][..]));
    let logs: Vec<_> = running.site.policy.logs.iter().map(|log| (log.prefix, log.level)).collect();
    assert_eq!(logs, [("ssh: ", Level::Info), ("", Level::Debug)]);
}

#[test]
fn what_remembers_is_asked_for_every_packet() {
    let later = Candidate { state: State::Established, ..segment() };
    let residue =
        |table: &str, body: &str| Running::new(table, body).site.policy.residue(Hook::Forward, &later);
    for body in
        ["limit rate 5/second accept", "log accept", "quota 5 mbytes accept", "meta mark set 1 accept"]
    {
        assert_eq!(residue("", body), Residue::PER_PACKET, "{body}");
        let behind = format!("ct state established accept\n{body}");
        assert_eq!(residue("", &behind), Residue::ACCEPT, "{behind}");
    }
    let set = "set s { type ipv4_addr; flags dynamic; }";
    assert_eq!(residue(set, "ip saddr @s accept"), Residue::PER_PACKET);
    assert_eq!(residue("", "ct mark 1 drop\naccept"), Residue::PER_PACKET);
    assert_eq!(residue("", "meta mark 1 drop\naccept"), Residue::ACCEPT);
    assert_eq!(residue("", "ip saddr . tcp dport { 10.0.1.2 . 443 } accept"), Residue::ACCEPT);
    assert_eq!(residue("", "ip ttl . tcp dport { 5 . 443 } drop\naccept"), Residue::PER_PACKET);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let cases = [
        (
            "set s { type ipv4_addr; }",
            "add @s { ip saddr } accept",
            r#"5:5: set "s" does not change: it needs "flags dynamic""#,
        ),
        (
            "set s { type ipv4_addr; flags dynamic; }",
            "add @s { ip saddr timeout 5s } accept",
            r#"5:5: a timeout needs "flags timeout" in set "s""#,
        ),
        (
            "set s { type ipv4_addr; flags dynamic; }",
            "add @s { tcp dport } accept",
            r#"5:5: set "s" holds ipv4_addr, not inet_service"#,
        ),
        (
            "set s { type ipv4_addr; flags dynamic; }",
            "add @s { ip saddr limit rate 5/second } accept; add @s { ip saddr } accept",
            "5:53: all statements that put elements into a set give them the same limit in this version",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "add @s { ip saddr timeout 5s ct count over 5 } drop",
            "5:5: elements with ct count have nothing else in this version: no limit, no timeout, no first elements, no delete",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "delete @s { ip saddr ct count over 5 } drop",
            "5:8: elements with ct count have nothing else in this version: no limit, no timeout, no first elements, no delete",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "add @s { ip saddr ct count over 5 } drop; add @s { ip saddr } accept",
            "5:47: elements with ct count have nothing else in this version: no limit, no timeout, no first elements, no delete",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "add @s { ip saddr ct count over 5 } drop; add @s { ip saddr ct count over 6 } drop",
            "5:64: all statements that put elements into a set give them the same ct count in this version",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "add @s { ip saddr ct count over 5 } drop; ip saddr @s accept",
            "5:52: a match on a set whose elements have ct count is not in this version's subset",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "ct count accept",
            "5:10: expected a number, found \"accept\"",
        ),
        (
            "set s { type ipv4_addr; size 9; flags dynamic,timeout; }",
            "ct count over 99999999999 accept",
            "5:15: a decimal number below 2^32 is wanted here",
        ),
        ("limit l { }", "limit name l accept", "2:7: the limit has no rate"),
        ("counter c { }\ncounter c { }", "counter name c accept", r#"3:9: there is a counter "c" already"#),
        (
            "set s { type ipv4_addr; flags dynamic; timeout 5; }",
            "ip saddr @s accept",
            r#"2:48: a time is written like "30s", "5m", "1h30m" or "2d""#,
        ),
    ];
    for (table, body, told) in cases {
        let rules = forward(body).replacen("{\n", &format!("{{\n{table}\n"), 1);
        let all = lines(&refused(&rules));
        assert!(all.contains(&format!("rules.nft:{told}")), "{rules}{all:#?}");
    }
}

#[test]
fn objects_that_nobody_names_are_warned_of() {
    let rules = forward("accept").replacen("{\n", "{\nquota q { 5 bytes }\n", 1);
    let compiled = rules_compiler::compile_text(PLAN, &rules).expect("it compiles");
    assert_eq!(lines(compiled.warnings()), [r#"rules.nft:2:7: quota "q" is never used"#]);
}

#[test]
fn a_segment_size_is_set_for_tcp_where_it_can_be() {
    let site = |body: &str| site(&forward(body));
    let explained = |body: &str| {
        let compiled = rules_compiler::compile_text(PLAN, &forward(body)).expect("it compiles");
        compiled.explain().lines().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(
        explained("tcp option maxseg size set 1360"),
        "  rules.nft:4  protocol 6, segments of at most 1360"
    );
    assert_eq!(
        explained("tcp flags syn tcp option maxseg size set rt mtu accept"),
        "  rules.nft:4  protocol 6, tcp flags not & 0x2 = 0x0, segments as the links take them, accept"
    );
    let later = Candidate { state: State::Established, ..segment() };
    assert_eq!(
        site("tcp option maxseg size set 1360\naccept").policy.residue(Hook::Forward, &later),
        Residue::PER_PACKET
    );
    for (body, told) in [
        (
            "udp dport 5 tcp option maxseg size set 1360",
            r#"4:13: "tcp option" conflicts with the protocol matched before"#,
        ),
        ("tcp option maxseg size set 0", "4:28: a segment of no octets carries nothing"),
        (
            "tcp option maxseg size 1360",
            "4:24: a match on the maximum segment size is not in this version's subset; it can be set",
        ),
        ("tcp option window count 1", r#"4:1: "tcp option" is not in this version's subset"#),
    ] {
        assert_eq!(lines(&refused(&forward(body))), [format!("rules.nft:{told}")], "{body}");
    }
    let early = "# weir: allow open\ntable ip t { chain c { type filter hook prerouting priority 0; tcp option maxseg size set rt mtu\n}\n}\n";
    let told = "rules.nft:2:64: \"rt mtu\" has its place at forward, output and postrouting: elsewhere no route is known";
    assert_eq!(lines(&refused(early)), [told]);
}
