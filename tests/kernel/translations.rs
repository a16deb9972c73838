//! Each form of a translation: where packets go, and what who answers them sees.

/// Bodies of a nat chain at prerouting.
pub const DESTINATIONS: &[&str] = &[
    "ip daddr 192.0.2.2 counter dnat to 10.0.1.2",
    "ip daddr 192.0.2.3 iifname uplink dnat to 10.0.1.2 persistent",
    "ip daddr 192.0.2.2 tcp dport 80 counter dnat to 10.0.1.2:8080",
    "ip daddr 192.0.2.2 tcp dport 443 dnat to 10.0.1.2:ssh persistent",
    "ip daddr 192.0.2.3 tcp dport 80-90 dnat ip to 10.0.1.2:8080-8090",
    "iifname uplink meta l4proto { tcp, udp } th dport 5000-6000 dnat to 10.0.1.2-10.0.1.5:8080-8090",
    "ip daddr 192.0.2.4 dnat to 10.0.1.2-10.0.1.5",
    "ip daddr 192.0.2.4 dnat ip interval to 10.0.2.2-10.0.2.3",
    "ip daddr 192.0.2.2/31 dnat ip prefix to 10.0.1.4/31",
    "dnat prefix to ip daddr map { 192.0.2.2 : 10.0.2.7, 192.0.2.3 : 172.16.0.5 }",
    "dnat ip prefix to ip daddr map { 192.0.2.2/31 : 10.0.1.4/31, 192.0.2.4/31 : 10.0.1.6/31 }",
    "iifname uplink ip daddr 192.0.2.2-192.0.2.5 counter dnat to tcp dport map { 80 : 10.0.1.2, 443-444 : 10.0.1.3, * : 10.0.1.4 }",
    "ip daddr 192.0.2.5 dnat to tcp dport map { * : 10.0.1.7 . 9, 80 : 10.0.1.2 . 8080, }",
    "ip daddr 192.0.2.5 dnat ip addr . port to udp dport map { 53 : 10.0.1.2 . 5353, 54 : 10.0.1.3 . domain }",
    "ip daddr 192.0.2.3 dnat to tcp dport map { 80 : 10.0.1.2 . 8080-8081, 81 : 10.0.1.3 . 81-82 }",
    "ip daddr 192.0.2.3 dnat ip interval to tcp dport map { 80 : 10.0.1.2-10.0.1.3, 81 : 10.0.1.4-10.0.1.5 }",
    "ip daddr 192.0.2.4 meta l4proto tcp dnat to ip saddr map { 198.51.100.9 : 10.0.1.2 . 80, 203.0.113.0/24 : 10.0.1.3 . 81 }",
    "ip daddr 192.0.2.2 dnat to iifname map { \"uplink\" : 10.0.1.2, * : 10.0.2.3 }",
    "ip daddr 192.0.2.5 tcp dport 80 dnat to :8080",
    "iifname work udp dport 53 redirect to :5353",
    "iifname lab tcp dport 80 counter redirect",
    "iifname { work, lab } counter tcp dport 100-199 redirect to :200-299",
    "iifname uplink dnat to ip daddr . tcp dport map { 192.0.2.2 . 80 : 10.0.1.2 . 8080, 192.0.2.3 . 443 : 10.0.1.3 . 8443 }",
    "ip daddr 192.0.2.2 tcp dport vmap { 80 : jump web, 22 : accept, 443 : goto web }\nip daddr 192.0.2.2 counter dnat to 10.0.2.5",
    "iifname work ip daddr 198.51.100.9 counter dnat to 10.0.2.5",
    "iifname work ip daddr 198.51.100.9 udp dport 53 counter dnat to 10.0.2.5:5353",
    "ip daddr 192.0.2.2 ct state new tcp dport 1000-2000 counter dnat to 10.0.1.3",
    "ip daddr 192.0.2.2 icmp type echo-request dnat to 10.0.1.3",
];

/// Bodies of a nat chain at postrouting.
pub const SOURCES: &[&str] = &[
    "iifname { work, lab } oifname uplink counter masquerade",
    "oifname uplink masquerade random",
    "oifname uplink masquerade fully-random,persistent",
    "oifname uplink tcp sport 5000 counter masquerade to :40000-41000",
    "oifname uplink meta l4proto { tcp, udp } masquerade to :10000-12048 random,persistent",
    "iifname { work, lab } oifname uplink counter snat to 192.0.2.3",
    "oifname uplink snat ip to 192.0.2.2-192.0.2.3 persistent",
    "oifname uplink udp dport 53 snat to 192.0.2.3:4000-5000",
    "oifname uplink tcp dport 443 snat to 192.0.2.2-192.0.2.3:4000-4999 fully-random",
    "oifname uplink snat ip prefix to ip saddr map { 10.0.1.2/31 : 192.0.2.4/31 }",
    "oifname uplink ip saddr 10.0.1.4/31 snat prefix to 192.0.2.4/31",
    "oifname uplink snat to ip saddr map { 10.0.1.0/24 : 192.0.2.2, 10.0.2.0/24 : 192.0.2.3 }",
    "oifname uplink snat ip interval to ip saddr map { 10.0.1.0/24 : 192.0.2.2-192.0.2.3 }",
    "ip saddr 10.0.1.2 oifname uplink accept\noifname uplink counter masquerade",
    "oifname uplink jump sources\niifname lab oifname work counter masquerade",
    "iifname work oifname lab counter snat to 192.0.2.5",
    "oifname lab counter masquerade",
    "oifname uplink ct status ! dnat counter masquerade",
];

/// A policy with one translation, and one in the other direction beside it, of an address that the forms leave alone: what
/// forwards take is nobody else's (RFC 4787 REQ-3).
pub fn policy(hook: &str, body: &str) -> String {
    let priority = if hook == "prerouting" { "dstnat" } else { "srcnat" };
    let lines: String = body.lines().map(|line| format!("    {line}\n")).collect();
    let chains = match (body.contains("web"), body.contains("sources")) {
        (true, _) => {
            "  chain web {\n    iifname uplink dnat to 10.0.1.4\n    ip saddr 10.0.0.0/8 counter accept\n  }\n"
        }
        (_, true) => {
            "  chain sources {\n    tcp dport 80 counter return\n    ip saddr 10.0.1.0/24 counter snat to 192.0.2.4\n    counter masquerade\n  }\n"
        }
        _ => "",
    };
    let beside = match hook {
        "prerouting" => {
            "  chain beside {\n    type nat hook postrouting priority srcnat;\n    oifname uplink ip saddr 10.0.0.0/8 snat to 192.0.2.6\n  }\n"
        }
        _ => {
            "  chain beside {\n    type nat hook prerouting priority dstnat;\n    iifname uplink ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.0.1.2:80\n  }\n"
        }
    };
    format!(
        "table ip nat {{
{chains}  chain translations {{
    type nat hook {hook} priority {priority}; policy accept;
{lines}  }}
{beside}}}
table inet filter {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state invalid counter drop
    ct status dnat counter
    ct status snat counter
    ip daddr 10.0.1.0/24 counter
    tcp dport 8080-8090 counter
    ct direction reply counter
    ct state established counter
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ct state new counter
    ct status dnat counter
    ip daddr 10.0.0.0/8 counter
  }}
}}
"
    )
}
