//! Sites that the tests use: text as an owner writes it, compiled as the build does.

use rules::site::Site;

/// An uplink and two clients.
pub const PLAN: &str = r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"

[[client]]
name = "work"
address = "10.0.1.1/24"

[[client]]
name = "lab"
address = "10.0.2.1/24"
"#;

/// Clients reach the uplink by masquerade and the server 10.0.1.2 by a static forward; `work`
/// reaches port 7000 of `lab`, nothing else goes from client to client.
pub const RULES: &str = r#"
table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.0.1.2:80
    ip daddr 192.0.2.2 udp dport 8080 dnat to 10.0.1.2:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    iifname { "work", "lab" } oifname { "work", "lab" } ct status dnat snat to 192.0.2.2
    oifname "uplink" masquerade
  }
}
table ip filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    ct status dnat accept
    iifname { "work", "lab" } oifname "uplink" tcp dport 25 reject with icmp type admin-prohibited
    iifname { "work", "lab" } oifname "uplink" tcp dport 26 reject with tcp reset
    iifname { "work", "lab" } oifname "uplink" udp dport 27 drop
    iifname { "work", "lab" } oifname "uplink" accept
    iifname "work" oifname "lab" tcp dport 7000 accept
    iifname "work" oifname "lab" udp dport 7000 accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    icmp type echo-request accept
  }
}
"#;

/// The site of a network plan and a policy.
///
/// # Panics
/// If they do not compile, with what the compiler says.
pub fn site(plan: &str, rules: &str) -> &'static Site {
    match rules_compiler::compile_text(plan, rules) {
        Ok(compiled) => compiled.leak(),
        Err(diagnostics) => panic!("{}", diagnostics.render(false)),
    }
}

/// [`PLAN`] with these lines at its end, as `[nat]` sections are.
pub fn plan_with(lines: &str) -> String {
    format!("{PLAN}\n{lines}\n")
}
