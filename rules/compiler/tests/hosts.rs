//! RFC 7422: the hosts behind the clients have numbers that follow from the site alone.

mod common;

use std::net::Ipv4Addr;

use common::lines;
use rules::site::Site;
use rules_compiler::compile_text;

/// 256 addresses of work, two hosts of lab, a peer, and eight addresses behind a router of work.
const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
extra = ["192.0.2.3"]
[[client]]
name = "work"
address = "10.0.1.1/24"
[[client]]
name = "lab"
address = "10.0.2.1/24"
hosts = ["10.0.2.9", "10.0.2.5"]
[[client]]
name = "vault"
address = "10.137.0.1"
peer = "10.137.0.10"
[[route]]
to = "172.16.0.0/29"
via = "10.0.1.254"
[[route]]
to = "198.51.100.0/24"
via = "192.0.2.9"
"#;

fn compiled(nat: &str) -> Result<&'static Site, Vec<String>> {
    compile_text(&format!("{nat}{PLAN}"), "# weir: allow open\n")
        .map(rules_compiler::Compiled::leak)
        .map_err(|diagnostics| lines(&diagnostics))
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

#[test]
fn numbers_run_through_clients_and_then_routes() {
    let site = compiled("").expect("it compiles");
    assert_eq!(site.host_count(), 256 + 2 + 1 + 8);
    for (text, number, client) in [
        ("10.0.1.0", 0, 0),
        ("10.0.1.255", 255, 0),
        ("10.0.2.9", 256, 1),
        ("10.0.2.5", 257, 1),
        ("10.137.0.10", 258, 2),
        ("172.16.0.0", 259, 0),
        ("172.16.0.7", 266, 0),
    ] {
        assert_eq!(site.host_number(address(text)), Some(number), "{text}");
        assert_eq!(site.host(number), Some((client, address(text))), "{number}");
    }
    for stranger in ["10.0.2.4", "172.16.0.8", "198.51.100.7", "192.0.2.2", "0.0.0.0", "255.255.255.255"] {
        assert_eq!(site.host_number(address(stranger)), None, "{stranger}");
    }
    assert_eq!((site.host(267), site.host(u64::MAX)), (None, None));
    assert_eq!(site.external().collect::<Vec<_>>(), [address("192.0.2.2"), address("192.0.2.3")]);
}

#[test]
fn an_address_of_two_areas_has_the_number_of_the_narrower() {
    let more = "\n[[route]]\nto = \"172.16.0.4/31\"\nvia = \"10.137.0.10\"\n";
    let compiled = compile_text(&format!("{PLAN}{more}"), "# weir: allow open\n");
    let site = compiled.unwrap_or_else(|told| panic!("{}", told.render(false))).leak();
    assert_eq!(site.host_number(address("172.16.0.4")), Some(267));
    assert_eq!(site.host(267), Some((2, address("172.16.0.4"))));
    // Its place in the wider one is nobody's: no two numbers lead to one host.
    assert_eq!(site.host(263), None);
    assert_eq!(site.host(262), Some((0, address("172.16.0.3"))));
}

#[test]
fn every_host_has_a_block_or_the_site_is_refused() {
    // 267 hosts at two addresses: 134 at one of them, of 64 512 ports.
    let most = 64_512 / 134;
    let site = compiled(&format!("[nat]\nport_blocks = {most}\n")).expect("it compiles");
    assert_eq!(site.nat.port_blocks, most);
    assert_eq!(
        compiled(&format!("[nat]\nport_blocks = {}\n", most + 1)).err(),
        Some(vec![
            r#"weir.toml:2:15: "port_blocks" must be from 0 to 481: 129024 ports for 267 hosts"#.to_owned()
        ])
    );
    assert_eq!(
        compiled("[nat]\nport_blocks = 1\nexternal_ports = \"5000-5099\"\n").err(),
        Some(vec![
            r#"weir.toml:2:15: "port_blocks" must be from 0 to 0: 200 ports for 267 hosts; hosts = [...] in [[client]] lists those that count"#.to_owned()
        ])
    );
}

/// Who had a port must follow from the site alone: no rule may name other ports, nor other addresses unheard.
#[test]
fn rfc_7422_rules_do_not_choose_where_blocks_do() {
    let told = |blocks: u32, body: &str| {
        let rules = format!(
            "# weir: allow open\ntable ip n {{\nchain c {{ type nat hook postrouting priority srcnat\n{body}\n}}\n}}\n"
        );
        match compile_text(&format!("[nat]\nport_blocks = {blocks}\n{PLAN}"), &rules) {
            Ok(compiled) => (true, lines(compiled.warnings())),
            Err(told) => (false, lines(&told)),
        }
    };
    let ports =
        "rules.nft:4:27: with port_blocks the ports of a host follow from its number: no rule names others";
    let address =
        "rules.nft:4:9: with port_blocks the address of a host follows from its number, not from this rule";
    for (body, is_error, message) in [
        ("tcp dport 1 masquerade to :2000-2999", true, ports.replace("4:27", "4:28")),
        ("snat to 192.0.2.3", false, address.to_owned()),
        ("snat to 192.0.2.2-192.0.2.3", false, String::new()),
        ("masquerade", false, String::new()),
    ] {
        let expected: Vec<String> = Some(message).into_iter().filter(|message| !message.is_empty()).collect();
        assert_eq!(told(100, body), (!is_error, expected), "{body}");
        assert_eq!(told(0, body), (true, Vec::new()), "{body}");
    }
}

#[test]
fn an_address_that_is_one_hosts_alone_has_no_blocks() {
    let rules = "# weir: allow open\ntable ip n {\nchain c {\ntype nat hook prerouting priority dstnat\nip daddr 192.0.2.3 dnat to 10.137.0.10\n}\n}\n";
    let compile = |blocks: u32| compile_text(&format!("[nat]\nport_blocks = {blocks}\n{PLAN}"), rules);
    let most = 64_512 / 267;
    let site = compile(most).unwrap_or_else(|told| panic!("{}", told.render(false))).leak();
    assert_eq!(site.shared().collect::<Vec<_>>(), [address("192.0.2.2")]);
    assert_eq!(
        compile(most + 1).err().map(|told| lines(&told)),
        Some(vec![
            "weir.toml:2:15: 266 blocks for 267 hosts: rules.nft gives all ports of 192.0.2.3 to one host"
                .to_owned()
        ])
    );
}
