//! Rules mean in Weir what they mean in nftables.
//!
//! The same `rules.nft` is loaded into the kernel of a Linux router with the addresses of the site, in a network
//! namespace, and into Weir; both get the same packets, and every packet of a connection is compared: the port it leaves
//! by, its translation, the answer to who sent it, and at the end what the rules have counted. What Weir does otherwise
//! on purpose is in [`chosen::Chosen`], nowhere else.
//!
//! `WEIR_SEED` sets which packets and rules, `WEIR_PACKETS` how many packets a file gets.
#![forbid(unsafe_code)]

mod chosen;
mod corpus;
mod duel;
mod flow;
mod interest;
mod judgement;
mod listing;
mod router;
mod traffic;

use std::path::Path;
use std::process::Command;

use qemu::scratch::Scratch;
use tests::Chance;
use tests::netns::skip;

use duel::{Duel, Tally};

/// Packets that each file gets.
const PACKETS: usize = 500;

/// Runs a test where namespaces can be had: here, or as root of a user namespace. Where they cannot be had at all, it
/// says so.
fn with_namespaces(test: &str, body: impl FnOnce()) {
    let Some(reason) = router::obstacle() else { return body() };
    let user = ["--user", "--map-root-user", "--net"];
    let probe = Command::new("unshare").args(user).arg("true").output();
    if std::env::var_os("WEIR_IN_NAMESPACE").is_some() || !probe.is_ok_and(|probe| probe.status.success()) {
        return skip(test, reason);
    }
    let mut again = Command::new("unshare");
    again.args(user).arg(std::env::current_exe().expect("a test is a program"));
    again.args(["--exact", test, "--nocapture"]).env("WEIR_IN_NAMESPACE", "1");
    assert!(again.status().expect("unshare runs").success(), "{test}, in a user namespace");
}

fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What a site without timeouts to wait for says: the clock of the appliance is moved for the rates of answers.
const TIMEOUTS: &str = "
[nat]
sessions = 4096
[nat.timeout]
udp = 1000000
tcp_established = 1000000
tcp_transitory = 1000000
icmp = 1000000
other = 1000000
";

/// Sends packets to Weir and to the kernel, which both have these rules.
///
/// # Errors
/// What Weir or nft says against them, or the first difference.
fn compare(plan: &str, rules: &str, chance: Chance, packets: usize) -> Result<Tally, String> {
    compare_with(plan, [rules, rules], chance, packets)
}

/// As [`compare`], with rules for Weir and others for the kernel.
fn compare_with(plan: &str, both: [&str; 2], chance: Chance, packets: usize) -> Result<Tally, String> {
    let [rules, theirs] = both;
    let scratch = Scratch::new().map_err(|error| error.to_string())?;
    for (name, text) in [("weir.toml", format!("{plan}{TIMEOUTS}")), ("rules.nft", rules.to_owned())] {
        std::fs::write(scratch.join(name), text).map_err(|error| error.to_string())?;
    }
    let compiled = rules_compiler::compile(scratch.path()).map_err(|told| told.render(false))?;
    let site = compiled.leak();
    std::fs::write(scratch.join("rules.nft"), theirs).map_err(|error| error.to_string())?;
    router::inside(|| play(site, scratch.path(), rules, chance, packets))
}

fn play(
    site: &'static rules::site::Site,
    directory: &Path,
    rules: &str,
    chance: Chance,
    packets: usize,
) -> Result<Tally, String> {
    let mut duel = Duel::new(site, directory, rules, chance)?;
    for _ in 0..packets {
        duel.step()?;
    }
    duel.compare_counters()?;
    Ok(duel.tally)
}

#[test]
fn the_usual_policy_means_what_it_means_in_the_kernel() {
    with_namespaces("the_usual_policy_means_what_it_means_in_the_kernel", || {
        let chance = Chance::from_environment(1);
        let rules = tests::site::RULES;
        let tally = compare(tests::site::PLAN, rules, chance, setting("WEIR_PACKETS", PACKETS));
        println!("{:?}", tally.unwrap_or_else(|why| panic!("{why}")));
    });
}

#[test]
fn files_as_owners_write_them_mean_what_they_mean_in_the_kernel() {
    with_namespaces("files_as_owners_write_them_mean_what_they_mean_in_the_kernel", || {
        let mut chance = Chance::from_environment(2);
        let mut tally = Tally::default();
        let mut differences = Vec::new();
        for (name, rules) in corpus::FILES {
            let chance = Chance::new(chance.word());
            match compare(corpus::plan(rules), rules, chance, setting("WEIR_PACKETS", PACKETS)) {
                Ok(of) => tally.add(&of),
                Err(why) => differences.push(format!("{name}: {why}")),
            }
        }
        println!("{tally:?}");
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    });
}

/// The comparison itself: rules that differ in one place are told apart.
#[test]
fn another_rule_in_the_kernel_is_a_difference() {
    with_namespaces("another_rule_in_the_kernel_is_a_difference", || {
        let rules =
            corpus::FILES.iter().find(|(name, _)| *name == "router-home").expect("a file of the corpus").1;
        let changes = [
            ("iifname $lan oifname $wan counter accept", "iifname $lan oifname $wan counter drop"),
            ("counter dnat to $webserver", "counter dnat to 10.0.1.4"),
            ("oifname $wan counter masquerade", "oifname $wan counter accept"),
            ("counter reject with tcp reset", "counter reject"),
            ("ct state invalid counter drop", "ct state invalid counter counter drop"),
            ("tcp dport { 22, 80, 631 } counter accept", "tcp dport { 22, 80, 631 } accept counter"),
        ];
        for (from, to) in changes {
            let theirs = rules.replace(from, to);
            assert_ne!(rules, theirs);
            let found = compare_with(tests::site::PLAN, [rules, &theirs], Chance::new(3), 2000);
            assert!(found.is_err(), "not noticed: {to}: {found:?}");
        }
    });
}
