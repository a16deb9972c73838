//! The keys of `[nat]`: what they mean, and what is refused in them.

mod common;

use common::{PLAN, lines};
use rules::site::{Filtering, Filterings, Nat, SynAnswer, UdpShort};
use rules_compiler::compile_text;

/// The plan without its route, behind which there would be too many hosts for blocks.
fn plan() -> &'static str {
    PLAN.split("[[route]]").next().unwrap_or(PLAN)
}

const OPEN: &str = "# weir: allow open\n";

fn nat(text: &str) -> &'static Nat {
    let compiled = compile_text(&format!("{}{text}", plan()), OPEN)
        .unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false)));
    &compiled.leak().nat
}

/// The errors, with lines counted from the first of `text`.
fn refused(text: &str) -> Vec<String> {
    let Err(diagnostics) = compile_text(&format!("{text}{}", plan()), OPEN) else {
        panic!("this compiles:\n{text}")
    };
    lines(&diagnostics)
}

#[test]
fn every_key_is_kept() {
    let given = nat(r#"
[nat]
filtering = "address-dependent"
port_rest = 0
port_blocks = 251
client_floor = 10
client_ceiling = 20
pickup = true
syn_answer = "port-unreachable"
fragments = "64K"
[nat.filtering_by]
udp = "endpoint-independent"
icmp = "address-and-port-dependent"
[nat.timeout]
udp_short = { ports = "123,53,500-510", seconds = 60 }
"#);
    let filtering = Filterings {
        tcp: Filtering::AddressDependent,
        udp: Filtering::EndpointIndependent,
        icmp: Filtering::AddressAndPortDependent,
    };
    assert_eq!(given.filtering, filtering);
    assert_eq!((given.port_rest, given.port_blocks), (0, 251));
    assert_eq!((given.client_floor, given.client_ceiling), (10, 20));
    assert_eq!((given.pickup, given.syn_answer), (true, SynAnswer::PortUnreachable));
    assert_eq!(given.fragments, 65_536);
    let short = UdpShort { ports: &[(53, 53), (123, 123), (500, 510)], seconds: 60 };
    assert_eq!(given.timeout.udp_short, Some(short));
}

#[test]
fn what_is_not_said_has_its_default() {
    assert_eq!(nat("[nat]\n"), &Nat::DEFAULT);
    assert_eq!(nat("[nat]\nfragments = \"16M\"\n").fragments, 16 << 20);
}

#[test]
fn the_text_of_rust_holds_them() {
    let plan = format!(
        "{PLAN}[nat]\nsyn_answer = \"port-unreachable\"\n[nat.timeout]\nudp_short = {{ ports = \"53\", seconds = 9 }}\n"
    );
    let text = compile_text(&plan, OPEN).map(|compiled| compiled.to_rust()).unwrap_or_default();
    for part in [
        "filtering: ::rules::site::Filterings { tcp: ::rules::site::Filtering::AddressAndPortDependent, ",
        "syn_answer: ::rules::site::SynAnswer::PortUnreachable, fragments: 2097152 }",
        "udp_short: ::core::option::Option::Some(::rules::site::UdpShort { ports: &[(53, 53)], seconds: 9 })",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn values_out_of_their_ranges() {
    let text = r#"[nat]
filtering = "endpoint-independant"
port_rest = 86401
port_blocks = 64513
client_floor = 32257
client_ceiling = 129025
pickup = 1
syn_answer = "reset"
fragments = "63K"
[nat.filtering_by]
udp = "none"
sctp = "endpoint-independent"
[nat.timeout]
udp_short = { ports = "53,1024", seconds = 301, prots = 1 }
"#;
    let told = refused(text);
    let kinds = "endpoint-independent, address-dependent, address-and-port-dependent";
    let expected = [
        format!(
            r#"2:13: "endpoint-independant" is no filtering; expected one of: {kinds}; did you mean "endpoint-independent"?"#
        ),
        r#"3:13: "port_rest" must be from 0 to 86400 seconds"#.into(),
        r#"4:15: "port_blocks" must be from 0 to 251: 129024 ports for 514 hosts"#.into(),
        r#"5:16: "client_floor" must be from 0 to 32256: 129024 ports for 4 clients"#.into(),
        r#"6:18: "client_ceiling" must be from 0 to 129024, the pool"#.into(),
        r#"7:10: "pickup" must be true or false, not integer"#.into(),
        r#"8:14: "reset" is no syn_answer; expected one of: silent, port-unreachable"#.into(),
        r#"9:13: fragments must be a size from "64K" to "16M", such as "1M""#.into(),
        format!(r#"11:7: "none" is no filtering; expected one of: {kinds}"#),
        r#"12:1: unknown key "sctp" in [nat.filtering_by]"#.into(),
        r#"14:23: ports must be well-known ones, 1 to 1023 (RFC 4787 REQ-5), such as "53,123""#.into(),
        r#"14:44: "seconds" must be from 1 to 300 seconds, the idle time of UDP"#.into(),
        r#"14:49: unknown key "prots" in [udp_short]; did you mean "ports"?"#.into(),
    ];
    assert_eq!(told, expected.map(|line| format!("weir.toml:{line}")));
}

#[test]
fn values_that_do_not_go_together() {
    let cases = [
        ("[nat]\nclient_floor = 20\nclient_ceiling = 19\n", "3:18: client_ceiling is below client_floor"),
        (
            "[nat]\nexternal_ports = \"2000-2099\"\nclient_floor = 51\n",
            "3:16: \"client_floor\" must be from 0 to 50: 200 ports for 4 clients",
        ),
        (
            "[nat.timeout]\nudp_short = { ports = \"53,50-60\", seconds = 9 }\n",
            "2:23: ports repeat or overlap",
        ),
        (
            "[nat.timeout]\nudp_short = { ports = \"0\", seconds = 9 }\n",
            "2:23: ports must be well-known ones, 1 to 1023 (RFC 4787 REQ-5), such as \"53,123\"",
        ),
        (
            "[nat.timeout]\nudp_short = { seconds = 9 }\n",
            "2:13: udp_short has no \"ports\", such as ports = \"53,123\"",
        ),
        ("[nat.timeout]\nudp_short = 60\n", "2:13: \"udp_short\" must be a table, not integer"),
    ];
    for (text, told) in cases {
        assert_eq!(refused(text), [format!("weir.toml:{told}")], "{text}");
    }
}
