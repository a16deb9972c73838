//! What is wrong with a site as a whole: memory, chains nobody reaches, rules that never come to be.

mod common;

use common::*;
use rules_compiler::compile_text;

const OPEN: &str = "# weir: allow open\n";

fn told(plan: &str, rules: &str) -> Vec<String> {
    match compile_text(plan, rules) {
        Ok(compiled) => lines(compiled.warnings()),
        Err(diagnostics) => lines(&diagnostics),
    }
}

#[test]
fn tables_fit_the_memory() {
    let plan = |memory: &str, rest: &str| format!("memory = \"{memory}\"\n{PLAN}{rest}");
    assert_eq!(told(&plan("32M", ""), OPEN), [""; 0]);
    // Five ports, two addresses, 65 536 sessions.
    assert_eq!(
        told(&plan("8M", ""), OPEN),
        [
            "weir.toml:1:10: the site wants 24 MiB, not 8: sessions 9600 KiB, free ports 54 KiB, rules 1 KiB, frames 10840 KiB, fragments 1024 KiB, the machine and the image 2624 KiB"
        ]
    );
    assert_eq!(told(&plan("24M", ""), OPEN), [""; 0]);
    let sessions = "[nat]\nsessions = 1048576\n";
    assert_eq!(
        told(&plan("32M", sessions), OPEN),
        [
            "weir.toml:1:10: the site wants 165 MiB, not 32: sessions 153600 KiB, free ports 54 KiB, rules 1 KiB, frames 10840 KiB, fragments 1024 KiB, the machine and the image 2624 KiB"
        ]
    );
    assert_eq!(told(&plan("172M", sessions), OPEN), [""; 0]);
    let fragments = "[nat]\nfragments = \"16M\"\n";
    assert_eq!(told(&plan("39M", fragments), OPEN), [""; 0]);
    assert!(told(&plan("38M", fragments), OPEN)[0].contains("fragments 16384 KiB"));
    // Rules count too.
    let rules = forward(&"ip saddr 10.0.1.2 tcp dport 22 counter\n".repeat(20_000));
    assert!(told(&plan("24M", ""), &rules)[0].starts_with("weir.toml:1:10: the site wants 2"));
}

#[test]
fn a_chain_nobody_reaches() {
    let file = |comment: &str| {
        forward("accept").replace(
            "chain c",
            &format!("chain a {{ {comment}\n  jump b\n}}\nchain b {{ accept\n}}\nchain c"),
        )
    };
    assert_eq!(
        told(PLAN, &file("")),
        [
            "rules.nft:2:7: chain \"a\" has no hook, and no jump leads there; if that is meant, say so in it: comment \"weir: allow unreachable\""
        ]
    );
    assert_eq!(told(PLAN, &file("comment \"weir: allow unreachable\"")), [""; 0]);
    assert_eq!(
        told(PLAN, &file("comment \"weir: allow unreachible\"")),
        ["rules.nft:2:19: \"allow unreachible\" says nothing to Weir here"]
    );
}

#[test]
fn deny_warnings_makes_them_errors() {
    let site =
        |rules: &str| compile_text(PLAN, &forward(rules)).unwrap_or_else(|d| panic!("{}", d.render(false)));
    assert!(site("tcp dport 22 accept").deny_warnings().is_ok());
    let Err(denied) = site("tcp dport { 22, 22 } accept").deny_warnings() else { panic!("it passes") };
    assert_eq!((denied.errors(), denied.warnings()), (1, 0));
    assert!(denied.render(false).starts_with("error: elements of this set repeat or overlap"));
}

#[test]
fn a_set_that_is_never_closed_is_one_error() {
    assert_eq!(
        told(PLAN, &forward("tcp dport { 22, 80\naccept\nudp dport 53 drop")),
        ["rules.nft:4:11: this brace is never closed"]
    );
    assert_eq!(
        told(PLAN, &forward("tcp dport { 22, 80\nudp dport { 53 } drop\nip saddr 22 drop")),
        [
            "rules.nft:4:11: this brace is never closed",
            "rules.nft:6:10: \"22\" is a number, not an IPv4 address"
        ]
    );
    // A comma that is missing is another mistake.
    assert_eq!(
        told(PLAN, &forward("tcp dport { 22,\n80\n443 } accept")),
        ["rules.nft:6:1: expected \",\" or \"}\", found \"443\""]
    );
}
