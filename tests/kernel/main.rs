//! Rules mean in Weir what they mean in nftables.
//!
//! The same `rules.nft` is loaded into the kernel of a Linux router with the addresses of the site, in a network
//! namespace, and into Weir; both get the same packets, and every packet of a connection is compared: the port it leaves
//! by, its translation, the answer to who sent it, and at the end what the rules have counted. What Weir does otherwise
//! on purpose is in [`chosen::Chosen`], nowhere else.
//!
//! `WEIR_SEED` sets which packets and rules, `WEIR_PACKETS` how many packets a file gets, `WEIR_RULESETS` how many files
//! are made by chance: for hours, if wanted.
#![forbid(unsafe_code)]

mod chosen;
mod compare;
mod corpus;
mod duel;
mod flow;
mod forms;
mod generate;
mod interest;
mod judgement;
mod listing;
mod router;
mod traffic;
mod translations;
mod vocabulary;

use std::process::Command;

use tests::Chance;
use tests::netns::skip;

use compare::{Case, Trouble};
use duel::Tally;

/// Packets that each file gets.
const PACKETS: usize = 500;

/// Policies made by chance.
const RULESETS: usize = 200;

/// Runs a test where namespaces can be had: here, or as root of a user namespace. Where they cannot be had at all, it
/// says so.
fn with_namespaces(test: &str, body: impl FnOnce()) {
    let Some(reason) = router::obstacle() else {
        return match router::lack() {
            None => body(),
            // There is nothing to compare with, in CI neither.
            Some(reason) => eprintln!("SKIPPED: {test}: this kernel's nftables lacks something: {reason}"),
        };
    };
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

/// A comparison of so many packets as the environment says.
fn case(plan: &'static str, rules: &str, seed: u64) -> Case {
    Case { plan, rules: rules.to_owned(), seed, packets: setting("WEIR_PACKETS", PACKETS) }
}

/// A difference in the fewest lines that show it.
fn told(case: Case, why: &Trouble) -> String {
    let Trouble::Differs(_) = why else { return format!("{why}\n{}", case.rules) };
    let small = case.shrunk();
    let again = small.compare().err();
    let again = again.map_or_else(|| "gone when looked at again".into(), |why| why.to_string());
    format!("{why}\n\nIn fewer lines:\n{}\n{again}", small.rules)
}

#[test]
fn the_usual_policy_means_what_it_means_in_the_kernel() {
    with_namespaces("the_usual_policy_means_what_it_means_in_the_kernel", || {
        let case = case(tests::site::PLAN, tests::site::RULES, Chance::from_environment(1).word());
        let tally = case.compare().unwrap_or_else(|why| panic!("{}", told(case, &why)));
        println!("{tally:?}");
    });
}

#[test]
fn files_as_owners_write_them_mean_what_they_mean_in_the_kernel() {
    with_namespaces("files_as_owners_write_them_mean_what_they_mean_in_the_kernel", || {
        let mut chance = Chance::from_environment(2);
        let mut tally = Tally::default();
        let mut differences = Vec::new();
        for (name, rules) in corpus::FILES {
            let case = case(corpus::plan(rules), rules, chance.word());
            match case.compare() {
                Ok(of) => tally.add(&of),
                Err(why) => differences.push(format!("{name}: {}", told(case, &why))),
            }
        }
        println!("{tally:?}");
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    });
}

/// Every form at every hook where nft knows it.
#[test]
fn each_form_matches_what_it_matches_in_the_kernel() {
    with_namespaces("each_form_matches_what_it_matches_in_the_kernel", || {
        let mut chance = Chance::from_environment(5);
        let mut differences = Vec::new();
        for (hook, lines) in forms::all() {
            let takes = |line: &&str| match rules_compiler::compile_text(
                tests::site::PLAN,
                &forms::policy(&[line], hook),
            ) {
                Ok(_) => true,
                Err(told) => {
                    println!(
                        "refused at {hook:?}: {line}: {}",
                        told.render(false).lines().next().unwrap_or_default()
                    );
                    false
                }
            };
            let lines: Vec<&str> = lines.iter().map(String::as_str).filter(takes).collect();
            let case = case(tests::site::PLAN, &forms::policy(&lines, hook), chance.word());
            match case.compare() {
                Ok(tally) => {
                    println!("{hook:?}: {tally:?}");
                    assert!(tally.counted * 3 > tally.counters, "too few forms have matched: {tally:?}");
                }
                Err(why) => differences.push(told(case, &why)),
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    });
}

#[test]
fn each_translation_translates_as_in_the_kernel() {
    with_namespaces("each_translation_translates_as_in_the_kernel", || {
        let mut chance = Chance::from_environment(6);
        let (mut tally, mut differences) = (Tally::default(), Vec::new());
        let all = [("prerouting", translations::DESTINATIONS), ("postrouting", translations::SOURCES)];
        for (hook, body) in
            all.into_iter().flat_map(|(hook, bodies)| bodies.iter().map(move |body| (hook, body)))
        {
            let case = case(corpus::plan("# plan: extra"), &translations::policy(hook, body), chance.word());
            match case.compare() {
                Ok(of) => tally.add(&of),
                Err(why) => differences.push(format!("{body}: {}", told(case, &why))),
            }
        }
        println!("{tally:?}");
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    });
}

/// Policies by chance: of those that Weir refuses there are few, and the kernel takes what Weir takes.
#[test]
fn policies_by_chance_mean_what_they_mean_in_the_kernel() {
    with_namespaces("policies_by_chance_mean_what_they_mean_in_the_kernel", || {
        let mut chance = Chance::from_environment(4);
        let rulesets = setting("WEIR_RULESETS", RULESETS);
        let (mut tally, mut refused) = (Tally::default(), 0);
        for number in 0..rulesets {
            let rules = generate::rules(&mut chance);
            let case = case(tests::site::PLAN, &rules, chance.word());
            match case.compare() {
                Ok(of) => tally.add(&of),
                Err(Trouble::Refused(why)) => {
                    println!("policy {number} is refused: {why}");
                    refused += 1;
                }
                Err(why) => panic!("policy {number}: {}", told(case, &why)),
            }
        }
        println!("{rulesets} policies, {refused} refused: {tally:?}");
        assert!(refused * 10 <= rulesets, "Weir refuses {refused} of {rulesets} policies");
        assert!(tally.counted * 4 > tally.counters, "too few counters have counted: {tally:?}");
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
            let case = Case { packets: 2000, ..case(tests::site::PLAN, rules, 3) };
            let found = case.compare_with(&theirs);
            assert!(found.is_err(), "not noticed: {to}: {found:?}");
        }
    });
}
