//! What is wrong with a site as a whole: chains nobody reaches, rules that never come to be.

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
fn too_little_memory_is_told_at_its_place() {
    let compiled = compile_text(&format!("memory = \"8M\"\n{PLAN}"), OPEN).unwrap();
    let findings = compiled.refuse_memory("that is too little");
    assert_eq!(lines(&findings), ["weir.toml:1:10: that is too little"]);
    assert_eq!((findings.errors(), compiled.warnings().errors()), (1, 0));
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
