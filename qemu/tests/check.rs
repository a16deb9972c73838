//! `weir check` from outside: the table of chains, rules as they are compiled, the way of a packet.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const PLAN: &str = "[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n[[client]]\nname = \"work\"\naddress = \"10.0.1.1/24\"\n";

const RULES: &str = "table inet f {
  chain forward {
    type filter hook forward priority 0; policy drop;
    tcp dport { 25, 465 } reject with tcp reset
    iifname work counter goto out
    ct status dnat accept
  }
  chain out {
    limit rate 1/second burst 1 packets accept
  }
  chain input { type filter hook input priority 0; icmp type echo-request accept
  }
}
table ip n {
  chain pre { type nat hook prerouting priority dstnat; iifname uplink tcp dport 8022 dnat to 10.0.1.5:22
  }
  chain post { type nat hook postrouting priority srcnat; oifname uplink masquerade
  }
}
";

/// A site directory that is gone in the end.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-check-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::write(path.join("weir.toml"), PLAN).expect("a file");
        fs::write(path.join("rules.nft"), RULES).expect("a file");
        Self(path)
    }

    fn check(&self, options: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("check").args(options).arg("--site").arg(&self.0).output().expect("the program was built")
    }

    /// What is printed behind the table of chains.
    fn way(&self, packet: &str) -> Vec<String> {
        let output = self.check(&["--packet", packet]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, way) = text.split_once("\n\n").expect("a way behind an empty line");
        way.lines().map(str::to_owned).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Fails only when somebody else was faster.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_chains_of_each_hook_are_a_table() {
    let output = Site::new("table").check(&[]);
    let text = String::from_utf8(output.stdout).expect("text");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["hook", "priority", "type", "chain", "policy", "rules"]);
    assert_eq!(rows[1], ["prerouting", "-100", "nat", "ip", "n", "pre", "accept", "1"]);
    assert_eq!(rows[3], ["forward", "0", "filter", "inet", "f", "forward", "drop", "3"]);
    assert_eq!((rows.len(), rows[5][0]), (6, "memory:"));
}

#[test]
fn the_memory_that_a_site_needs_is_told_with_its_parts_although_there_is_enough() {
    let site = Site::new("memory");
    let told = || {
        let output = site.check(&[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().find_map(|line| line.strip_prefix("memory: needs ").map(str::to_owned)).expect("a line")
    };
    let needs = |text: &str| -> u32 { text.split(' ').next().expect("a word").parse().expect("MiB") };
    let usual = told();
    for part in [" MiB of 32: image and stacks ", ", sessions and indexes ", ", buffers ", " KiB"] {
        assert!(usual.contains(part), "{part} in {usual}");
    }
    let plan = PLAN.replacen("[uplink]", "memory = \"96M\"\n[uplink]", 1);
    fs::write(site.0.join("weir.toml"), format!("{plan}[nat]\nsessions = 131072\n")).expect("a file");
    let large = told();
    assert!(large.contains(" MiB of 96: ") && needs(&large) > needs(&usual), "{large} after {usual}");
}

#[test]
fn a_packet_shows_each_rule_that_it_meets() {
    let site = Site::new("way");
    let way = site.way("iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 syn");
    assert_eq!(
        way,
        [
            "prerouting",
            "  rules.nft:15  chain pre { type nat hook prerouting priority dstnat; iifname uplink tcp dport 8022 dnat to 10.0.1.5:22  (first packets only)",
            "    no rule decides: policy accept",
            "forward",
            "  rules.nft:3  type filter hook forward priority 0; policy drop;",
            "    rules.nft:5  iifname work counter goto out  ->",
            "    rules.nft:9  limit rate 1/second burst 1 packets accept  -> ends here",
            "postrouting",
            "  rules.nft:17  chain post { type nat hook postrouting priority srcnat; oifname uplink masquerade  (first packets only)",
            "    rules.nft:17  chain post { type nat hook postrouting priority srcnat; oifname uplink masquerade  -> ends here",
            "accepted: it leaves by uplink, from 192.0.2.2 to 1.1.1.1:443",
        ]
    );
}

#[test]
fn the_last_line_says_what_becomes_of_a_packet() {
    let site = Site::new("end");
    for (packet, end) in [
        ("iif work ip 10.0.1.2 > 1.1.1.1 tcp 25", "rejected by rules.nft:4, its sender is told: TcpReset"),
        (
            "iif uplink ip 1.1.1.1 > 192.0.2.2 tcp 8022",
            "accepted: it leaves by work, from 1.1.1.1 to 10.0.1.5:22",
        ),
        (
            "iif uplink ip 1.1.1.1 > 192.0.2.2 icmp 8",
            "accepted: it reaches the appliance itself, at 192.0.2.2",
        ),
        (
            "iif uplink ip 1.1.1.1 > 192.0.2.9 udp 5",
            "dropped ahead of the rules: 192.0.2.9 is none of the external addresses",
        ),
        (
            "iif work ip 10.0.9.9 > 1.1.1.1 udp 5",
            "dropped ahead of the rules: 10.0.9.9 is not behind work (anti-spoofing)",
        ),
        (
            "iif uplink ip 1.1.1.1 > 10.0.1.2 udp 5 state established",
            "dropped ahead of the rules: 10.0.1.2 is none of the external addresses",
        ),
        (
            "iif uplink ip 1.1.1.1 > 192.0.2.2 sctp 22",
            "accepted: it reaches the appliance itself, at 192.0.2.2",
        ),
        ("iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 ack", "dropped: it belongs to no connection and opens none"),
        ("iif work ip 10.0.1.2 > 1.1.1.1 udp 5 ttl 1", "dropped: its time to live ends here"),
    ] {
        assert_eq!(site.way(packet).last().map(String::as_str), Some(end), "{packet}");
    }
}

#[test]
fn a_packet_of_a_connection_comes_behind_its_first_and_an_answer() {
    let site = Site::new("established");
    let rules = "table ip f {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established tcp flags ack accept
    iifname work ct state new accept
    iifname uplink icmp type echo-reply drop
    accept
  }
}
";
    fs::write(site.0.join("rules.nft"), rules).expect("a file");
    let way = site.way("iif work ip 10.0.1.2 > 1.1.1.1 tcp 443 ack state established");
    assert_eq!(
        way,
        [
            "first, its connection is opened:",
            "forward",
            "  rules.nft:3  type filter hook forward priority 0; policy drop;",
            "    rules.nft:5  iifname work ct state new accept  -> ends here",
            "it is answered:",
            "forward",
            "  rules.nft:3  type filter hook forward priority 0; policy drop;",
            "    rules.nft:4  ct state established tcp flags ack accept  -> ends here",
            "then comes the packet itself:",
            "forward",
            "  rules.nft:3  type filter hook forward priority 0; policy drop;",
            "    rules.nft:4  ct state established tcp flags ack accept  -> ends here",
            "accepted: it leaves by uplink, from 10.0.1.2 to 1.1.1.1:443",
        ]
    );
    let way = site.way("iif work ip 10.0.1.2 > 1.1.1.1 icmp 8 state established");
    assert_eq!(way.last().map(String::as_str), Some("dropped by rules.nft:6"), "{way:?}");
    let way = site.way("iif work ip 10.0.1.2 > 1.1.1.1 udp 53 state established");
    assert!(way.iter().any(|line| line.contains("no rule is asked")), "{way:?}");
}

#[test]
fn a_packet_that_cannot_be_read_is_wrong_use() {
    let output = Site::new("wrong").check(&["--packet", "iif lab ip 10.0.1.2 > 1.1.1.1 tcp 1"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("--packet: no interface is named \"lab\"") && told.contains("help: iif NAME ip"),
        "{told}"
    );
}

#[test]
fn every_rule_is_explained() {
    let output = Site::new("explain").check(&["--explain"]);
    let text = String::from_utf8(output.stdout).expect("text");
    for line in [
        "inet f forward",
        "  rules.nft:4  protocol 6, dport in { 25, 465 }, reject TcpReset",
        "  rules.nft:5  iif work, counter 0, goto inet f out",
        "  rules.nft:9  limit 0, accept",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
}

#[test]
fn programs_get_one_document_and_the_exit_code() {
    let site = Site::new("json");
    let read = |output: &Output| -> serde_json::Value {
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    };
    let fine = site.check(&["--format", "json"]);
    assert_eq!((fine.status.code(), fine.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(read(&fine)["summary"]["errors"], 0);
    fs::write(site.0.join("rules.nft"), RULES.replace("iifname work", "iifname wrok")).expect("a file");
    let wrong = site.check(&["--format", "json"]);
    assert_eq!(wrong.status.code(), Some(1));
    let found = &read(&wrong)["diagnostics"][0];
    assert_eq!((&found["file"], &found["startLine"]), (&"rules.nft".into(), &5.into()));
    let sarif = site.check(&["--format", "sarif"]);
    assert_eq!((sarif.status.code(), &read(&sarif)["version"]), (Some(1), &"2.1.0".into()));
    fs::remove_file(site.0.join("rules.nft")).expect("the file");
    assert_eq!(read(&site.check(&["--format", "json"]))["diagnostics"][0]["file"], "rules.nft");
    let both = site.check(&["--format", "json", "--explain"]);
    assert_eq!((both.status.code(), both.stdout.as_slice()), (Some(2), &b""[..]));
}

#[test]
fn a_watched_site_is_checked_again_when_a_file_changes() {
    let site = Site::new("watch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["check", "--watch", "--site"]).arg(&site.0).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program was built");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut until = |text: &str| lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(text)));
    assert!(until(" rules in ").is_some());
    fs::write(site.0.join("rules.nft"), RULES.replace("iifname work", "iifname wrok")).expect("a file");
    assert!(until("client \"wrok\" is not declared").is_some());
    fs::write(site.0.join("rules.nft"), RULES).expect("a file");
    assert!(until(" rules in ").is_some());
    let id = Pid::from_raw(i32::try_from(child.id()).expect("a process"));
    kill(id, Signal::SIGINT).expect("it runs");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn the_schema_is_a_document_of_its_own() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_weir")).arg("schema").output().expect("the program was built");
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(schema["required"][0], "uplink");
}
