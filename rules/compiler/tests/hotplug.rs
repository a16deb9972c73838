//! `[hotplug]` in weir.toml: places for NICs that come, and what is refused.

mod common;

use std::net::Ipv4Addr;

use common::lines;
use rules::site::ClientNetwork;
use rules_compiler::compile_text;

const PLAN: &str =
    "[uplink]\naddress = \"192.0.2.2/24\"\n[[client]]\nname = \"work\"\naddress = \"10.0.1.1/24\"\n";
const OPEN: &str = "# weir: allow open\n";

fn refused(rest: &str) -> Vec<String> {
    let plan = format!("{PLAN}{rest}");
    let Err(diagnostics) = compile_text(&plan, OPEN) else { panic!("this compiles:\n{plan}") };
    lines(&diagnostics)
}

#[test]
fn a_pool_is_as_many_clients_behind_those_of_the_plan() {
    let plan = format!(
        "{PLAN}[hotplug]\naddress = \"10.137.0.1\"\npeers = \"10.137.0.254-10.137.1.1\"\nmtu = 1400\n"
    );
    let rules = "table inet f { chain forward { type filter hook forward priority 0; policy drop;\n\
                 iifname \"vif*\" oifname \"uplink\" accept\n iifname \"vif3\" oifname \"work\" accept\n }\n }";
    let site = compile_text(&plan, rules).unwrap_or_else(|told| panic!("{}", told.render(false))).leak();
    let places: Vec<_> = site.clients.iter().filter(|client| client.is_hotplug).collect();
    assert_eq!((site.clients.len(), places.len(), site.clients[0].is_hotplug), (5, 4, false));
    assert_eq!(places.iter().map(|place| place.name).collect::<Vec<_>>(), ["vif1", "vif2", "vif3", "vif4"]);
    let peers = [[10, 137, 0, 254], [10, 137, 0, 255], [10, 137, 1, 0], [10, 137, 1, 1]].map(Ipv4Addr::from);
    for (place, peer) in places.iter().zip(peers) {
        assert_eq!(place.network, ClientNetwork::Peer(peer));
        assert_eq!((place.address, place.mtu, place.mac), (Ipv4Addr::new(10, 137, 0, 1), Some(1400), None));
    }
    let other = plan.replace("[hotplug]", "[hotplug]\nname = \"guest\"");
    let site = compile_text(&other, OPEN).unwrap_or_else(|told| panic!("{}", told.render(false))).leak();
    assert_eq!(site.clients[4].name, "guest4");
}

#[test]
fn what_is_no_pool_is_refused_where_it_stands() {
    let address = "address = \"10.137.0.1\"\n";
    let cases = [
        (
            "[hotplug]\n",
            vec![
                r#"weir.toml:6:1: [hotplug] has no "address", such as address = "10.137.0.1""#,
                r#"weir.toml:6:1: [hotplug] has no "peers", such as peers = "10.137.0.20-10.137.0.27""#,
            ],
        ),
        (
            "[hotplug]\npeers = \"10.137.0.2-10.137.0.1\"\nADDRESS",
            vec![r#"weir.toml:7:9: "10.137.0.2-10.137.0.1" ends before it begins"#],
        ),
        ("[hotplug]\npeers = \"10.137.0.2-x\"\nADDRESS", vec![r#"weir.toml:7:9: "x" is no IPv4 address"#]),
        (
            "[hotplug]\npeers = \"10.137.0.2-10.137.0.40\"\nADDRESS",
            vec!["weir.toml:7:9: a site has at most 32 clients: there is room for 31 here"],
        ),
        (
            "[hotplug]\npeers = \"10.0.1.9\"\nADDRESS",
            vec![r#"weir.toml:7:9: 10.0.1.9/32 overlaps 10.0.1.0/24 of client "work""#],
        ),
        (
            "[hotplug]\npeers = \"10.137.0.1-10.137.0.2\"\nADDRESS",
            vec![
                "weir.toml:7:9: the peer has the firewall's own address",
                "weir.toml:8:11: 10.137.0.1 is in 10.137.0.1/32 of client \"vif1\"",
            ],
        ),
        (
            "[hotplug]\npeers = \"10.137.0.2\"\nname = \"a name\"\nADDRESS",
            vec![r#"weir.toml:8:8: "a name" begins no names of clients: 1 to 13 of a-z A-Z 0-9 _ . -"#],
        ),
        (
            "[hotplug]\npeers = \"10.137.0.2\"\nmac = \"02:00:00:00:00:01\"\nADDRESS",
            vec![r#"weir.toml:8:1: unknown key "mac" in [hotplug]"#],
        ),
        (
            "[hotplug]\npeers = \"10.137.0.2-10.137.0.9\"\naddress = \"127.0.0.1\"\n",
            vec!["weir.toml:8:11: 127.0.0.1 is a loopback address"],
        ),
    ];
    for (rest, told) in cases {
        assert_eq!(refused(&rest.replace("ADDRESS", address)), told, "{rest}");
    }
    let taken = "[[client]]\nname = \"vif2\"\naddress = \"10.0.2.1/24\"\n[hotplug]\npeers = \"10.137.0.2-10.137.0.9\"\n";
    let told = refused(&format!("{taken}{address}"));
    assert_eq!(told, [r#"weir.toml:9:1: a client named "vif2" is there already"#]);
}
