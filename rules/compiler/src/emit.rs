//! A compiled site as Rust text: plain statics, no std, paths of `::rules` and `::core` only.

mod objects;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rules::policy::Reject;
use rules::site::{ClientNetwork, Filtering, Filterings, Nat, PanicAction, Prefix, Timeouts};
use rules::table::{Action, Base, Rule};
use rules::translation::{DestinationChoice, Netmap, SourceChoice};
use rules::tree::Node;
use rules::{Forward, SourceNat};

use crate::compiled::Compiled;
use crate::opening::Openings;
use crate::pack::Packed;
use crate::plan::{Client, Plan, UdpShort};
use crate::program::{Lookup, Program};
use crate::trees::Forest;
use objects::{count, dynamic_set, effect, key, limit, log, quota};

/// The number of each set.
type Sets = HashMap<*const [(u32, u32)], usize>;

const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// The whole text.
pub(crate) fn site(compiled: &Compiled) -> String {
    let mut out = String::from("// Compiled from weir.toml and rules.nft.\n");
    program(&mut out, &compiled.program, &compiled.packed);
    plan(&mut out, &compiled.plan);
    out
}

/// Appends a line; writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => { let _ = writeln!($out, $($arg)*); };
}

fn program(out: &mut String, program: &Program, packed: &Packed) {
    for (name, bases) in HOOKS.iter().zip(&packed.hooks) {
        line!(out, "static {name}: [::rules::table::Base; {}] = [{}];", bases.len(), joined(bases, base));
    }
    code(out, packed);
    let Openings { ports, classes, chains, .. } = &packed.openings;
    line!(out, "const OPENINGS: ::rules::opening::Openings = ::rules::opening::Openings {{");
    line!(out, "    ports: &{ports:?}, classes: {classes}, chains: &{chains:?},");
    line!(out, "}};");
    line!(out, "static FILES: [(u32, &str); {}] = {:?};", program.files.len(), program.files);
    for (name, lines) in [("LINES", &program.locations), ("COUNTER_LINES", &program.counters)] {
        line!(out, "static {name}: [u32; {}] = {lines:?};", lines.len());
    }
    let forwards = joined(&program.forwards, |forward| {
        let Forward { protocol, address: of, first, last } = forward;
        let of = option(*of, address);
        format!("::rules::Forward {{ protocol: {protocol}, address: {of}, first: {first}, last: {last} }}")
    });
    let objects = [
        ("FORWARDS", "Forward", program.forwards.len(), forwards),
        ("LIMITS", "object::Limit", program.limits.len(), joined(&program.limits, limit)),
        ("QUOTAS", "object::Quota", program.quotas.len(), joined(&program.quotas, quota)),
        ("LOGS", "object::Log", program.logs.len(), joined(&program.logs, log)),
        ("COUNTS", "object::Count", program.counts.len(), joined(&program.counts, count)),
        (
            "DYNAMIC_SETS",
            "object::DynamicSet",
            program.dynamic_sets.len(),
            joined(&program.dynamic_sets, dynamic_set),
        ),
    ];
    for (name, kind, count, items) in objects {
        line!(out, "static {name}: [::rules::{kind}; {count}] = [{items}];");
    }
    line!(out, "const MARKS_CONNECTIONS: bool = {};", program.marks_connections);
    line!(out, "const READS_OTHER_PORTS: bool = {};", program.reads_other_ports);
    line!(out, "const UNTRACKS: bool = {};", program.untracks);
}

fn code(out: &mut String, packed: &Packed) {
    for (index, ranges) in packed.sets.iter().enumerate() {
        line!(out, "static SET_{index}: [(u32, u32); {}] = {ranges:?};", ranges.len());
    }
    let sets: Sets = packed.sets.iter().enumerate().map(|(at, set)| (Arc::as_ptr(set), at)).collect();
    for (index, chain) in packed.chains.iter().enumerate() {
        let rules = joined(&chain.rules, |Rule { start, length, id }| {
            format!(
                "::rules::table::Rule {{ start: {start}, length: {length}, id: ::rules::RuleId({}) }}",
                id.0
            )
        });
        line!(out, "static CHAIN_{index}: [::rules::table::Rule; {}] = [{rules}];", chain.rules.len());
        if let Some(Forest { roots, nodes, lists, .. }) = &chain.trees {
            let nodes = joined(nodes, |Node(one, other)| format!("::rules::tree::Node({one}, {other})"));
            line!(out, "const TREES_{index}: ::rules::tree::Trees = ::rules::tree::Trees {{");
            line!(out, "    roots: &{roots:?}, nodes: &[{nodes}], lists: &{lists:?},");
            line!(out, "}};");
        }
    }
    let chains = joined(&packed.chains.iter().enumerate().collect::<Vec<_>>(), |(index, chain)| {
        let trees = option(chain.trees.as_ref(), |_| format!("TREES_{index}"));
        format!("::rules::table::Chain {{ rules: &CHAIN_{index}, trees: {trees} }}")
    });
    line!(out, "static CHAINS: [::rules::table::Chain; {}] = [{chains}];", packed.chains.len());
    let places = (0..packed.sets.len()).map(|index| format!("&SET_{index}")).collect::<Vec<_>>().join(", ");
    line!(out, "const CODE: ::rules::code::Code = ::rules::code::Code {{");
    line!(out, "    words: &{:?},", packed.words);
    line!(out, "    sets: &[{places}],");
    line!(out, "    lookups: &[{}],", joined(&packed.lookups, |of| lookup(of, &sets)));
    line!(
        out,
        "    effects: &[{}],",
        joined(&packed.effects, |of| format!("::rules::table::Effect::{}", effect(of)))
    );
    line!(
        out,
        "    actions: &[{}],",
        joined(&packed.actions, |of| format!("::rules::table::Action::{}", action_of(of)))
    );
    line!(out, "}};");
}

fn plan(out: &mut String, plan: &Plan) {
    let uplink = &plan.uplink;
    line!(out, "/// The compiled site.");
    line!(out, "pub static SITE: ::rules::site::Site = ::rules::site::Site {{");
    line!(out, "    memory: {},", option(plan.memory, |m| m.to_string()));
    line!(out, "    uplink: ::rules::site::Uplink {{");
    line!(out, "        address: {},", prefix(&uplink.address));
    line!(out, "        gateway: {},", option(uplink.gateway, address));
    line!(out, "        extra: &[{}],", joined(&uplink.extra, |a| address(*a)));
    line!(out, "        mac: {},", option(uplink.mac, |mac| format!("{mac:?}")));
    line!(out, "        mtu: {},", option(uplink.mtu, |mtu| mtu.to_string()));
    line!(out, "    }},");
    line!(out, "    clients: &[");
    for each in &plan.clients {
        line!(out, "        {},", client(each));
    }
    line!(out, "    ],");
    let routes = joined(&plan.routes, |route| {
        format!("::rules::site::Route {{ to: {}, via: {} }}", prefix(&route.to), address(route.via))
    });
    line!(out, "    routes: &[{routes}],");
    line!(out, "    nat: {},", nat(&plan.nat, plan.udp_short.as_ref()));
    let panic = match plan.panic {
        PanicAction::PowerOff => "PowerOff",
        PanicAction::Reboot => "Reboot",
    };
    line!(out, "    panic: ::rules::site::PanicAction::{panic},");
    let hooks = HOOKS.map(|name| format!("&{name}")).join(", ");
    line!(
        out,
        "    policy: ::rules::policy::Policy {{ hooks: [{hooks}], chains: &CHAINS, openings: OPENINGS, code: CODE, files: &FILES, lines: &LINES, counter_lines: &COUNTER_LINES, forwards: &FORWARDS, limits: &LIMITS, quotas: &QUOTAS, logs: &LOGS, dynamic_sets: &DYNAMIC_SETS, counts: &COUNTS, marks_connections: MARKS_CONNECTIONS, reads_other_ports: READS_OTHER_PORTS, untracks: UNTRACKS }},"
    );
    line!(out, "}};");
}

fn client(client: &Client) -> String {
    let network = match client.network {
        ClientNetwork::Subnet(length) => format!("Subnet({length})"),
        ClientNetwork::Peer(peer) => format!("Peer({})", address(peer)),
    };
    format!(
        "::rules::site::Client {{ name: {:?}, address: {}, network: ::rules::site::ClientNetwork::{network}, mac: {}, hosts: &[{}], mtu: {}, is_hotplug: {} }}",
        client.name,
        address(client.address),
        option(client.mac, |mac| format!("{mac:?}")),
        joined(&client.hosts, |a| address(*a)),
        option(client.mtu, |mtu| mtu.to_string()),
        client.is_hotplug,
    )
}

fn nat(nat: &Nat, udp_short: Option<&UdpShort>) -> String {
    let of = |filtering: Filtering| format!("::rules::site::Filtering::{filtering:?}");
    let Filterings { tcp, udp, icmp } = nat.filtering;
    let fields = [
        format!("sessions: {}", nat.sessions),
        format!("external_ports: {:?}", nat.external_ports),
        format!(
            "filtering: ::rules::site::Filterings {{ tcp: {}, udp: {}, icmp: {} }}",
            of(tcp),
            of(udp),
            of(icmp)
        ),
        format!("port_rest: {}", nat.port_rest),
        format!("port_blocks: {}", nat.port_blocks),
        format!("client_floor: {}", nat.client_floor),
        format!("client_ceiling: {}", nat.client_ceiling),
        format!("timeout: {}", timeouts(&nat.timeout, udp_short)),
        format!("inbound_refresh: {}", nat.inbound_refresh),
        format!("pickup: {}", nat.pickup),
        format!("syn_answer: ::rules::site::SynAnswer::{:?}", nat.syn_answer),
        format!("fragments: {}", nat.fragments),
    ];
    format!("::rules::site::Nat {{ {} }}", fields.join(", "))
}

fn timeouts(t: &Timeouts, udp_short: Option<&UdpShort>) -> String {
    let short = option(udp_short, |short| {
        let UdpShort { ports, seconds } = short;
        format!("::rules::site::UdpShort {{ ports: &{ports:?}, seconds: {seconds} }}")
    });
    format!(
        "::rules::site::Timeouts {{ udp: {}, udp_short: {short}, tcp_established: {}, tcp_transitory: {}, icmp: {}, other: {} }}",
        t.udp, t.tcp_established, t.tcp_transitory, t.icmp, t.other,
    )
}

fn base(base: &Base) -> String {
    format!(
        "::rules::table::Base {{ kind: ::rules::table::Kind::{:?}, stage: ::rules::table::Stage::{:?}, chain: {}, openings: {}, accepts: {}, id: ::rules::RuleId({}) }}",
        base.kind, base.stage, base.chain, base.openings, base.accepts, base.id.0,
    )
}

fn lookup(lookup: &Lookup, sets: &Sets) -> String {
    let Lookup { key: of, rows, is_sorted, negated } = lookup;
    let rows = sets.get(&Arc::as_ptr(rows)).map_or(format!("{rows:?}"), |index| format!("SET_{index}"));
    let key = key(of);
    format!(
        "::rules::table::Lookup {{ key: {key}, rows: &{rows}, is_sorted: {is_sorted}, negated: {negated} }}"
    )
}

fn action_of(action: &Action) -> String {
    match action {
        Action::Accept => "Accept".to_owned(),
        Action::Drop => "Drop".to_owned(),
        Action::Return => "Return".to_owned(),
        Action::Jump(chain) => format!("Jump({chain})"),
        Action::Goto(chain) => format!("Goto({chain})"),
        Action::Snat(choice) => {
            format!("Snat(::rules::translation::SourceChoice::{})", source_choice(choice))
        }
        Action::Dnat(choice) => {
            format!("Dnat(::rules::translation::DestinationChoice::{})", destination_choice(choice))
        }
        Action::Reject(Reject::TcpReset) => "Reject(::rules::Reject::TcpReset)".to_owned(),
        Action::Reject(Reject::Icmp(code)) => format!("Reject(::rules::Reject::Icmp({code}))"),
    }
}

fn source_choice(choice: &SourceChoice) -> String {
    match choice {
        SourceChoice::Always(source) => format!("Always(::rules::SourceNat::{})", source_nat(source)),
        SourceChoice::Netmap(of) => format!("Netmap({})", netmap(of)),
    }
}

fn source_nat(source: &SourceNat) -> String {
    match *source {
        SourceNat::Masquerade { ports: of, random } => {
            format!("Masquerade {{ ports: {}, random: {random} }}", ports(of))
        }
        SourceNat::To { first, last, ports: of, random } => format!(
            "To {{ first: {}, last: {}, ports: {}, random: {random} }}",
            address(first),
            address(last),
            ports(of)
        ),
        SourceNat::Static(to) => format!("Static({})", address(to)),
    }
}

fn destination_choice(choice: &DestinationChoice) -> String {
    match *choice {
        DestinationChoice::To { first, last, ports: of } => {
            format!("To {{ first: {}, last: {}, ports: {} }}", address(first), address(last), ports(of))
        }
        DestinationChoice::Ports { first, last } => format!("Ports {{ first: {first}, last: {last} }}"),
        DestinationChoice::Netmap(of) => format!("Netmap({})", netmap(&of)),
    }
}

fn netmap(netmap: &Netmap) -> String {
    let Netmap { address: to, length } = *netmap;
    format!("::rules::translation::Netmap {{ address: {}, length: {length} }}", address(to))
}

fn ports(ports: Option<(u16, u16)>) -> String {
    option(ports, |ports| format!("{ports:?}"))
}

fn address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("::core::net::Ipv4Addr::new({a}, {b}, {c}, {d})")
}

fn prefix(prefix: &Prefix) -> String {
    format!("::rules::site::Prefix {{ address: {}, length: {} }}", address(prefix.address), prefix.length)
}

fn option<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    match value {
        None => "::core::option::Option::None".to_owned(),
        Some(value) => format!("::core::option::Option::Some({})", text(value)),
    }
}

fn joined<T>(items: &[T], text: impl FnMut(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}
