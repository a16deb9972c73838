//! Files as owners write them, and the sites that they are for.

/// The plans of the files, by the name that a file's first line gives.
const PLANS: &[(&str, &str)] = &[
    ("usual", tests::site::PLAN),
    (
        "extra",
        r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
extra = ["192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"]
[[client]]
name = "work"
address = "10.0.1.1/24"
[[client]]
name = "lab"
address = "10.0.2.1/24"
[[route]]
to = "172.16.0.0/12"
via = "10.0.1.254"
"#,
    ),
    (
        "hypervisor",
        r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
extra = ["192.0.2.3", "192.0.2.4"]
[[client]]
name = "web0"
address = "10.1.0.1/24"
[[client]]
name = "web1"
address = "10.1.1.1/24"
[[client]]
name = "db0"
address = "10.2.0.1/24"
[[client]]
name = "bare"
address = "10.3.0.1/24"
"#,
    ),
    (
        "qubes",
        r#"
[uplink]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
[[client]]
name = "vif1"
address = "10.137.0.1"
peer = "10.137.0.10"
[[client]]
name = "vif2"
address = "10.137.0.1"
peer = "10.137.0.11"
[[client]]
name = "vif3"
address = "10.137.0.1"
peer = "10.137.0.12"
"#,
    ),
];

macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("corpus/", $name, ".nft")))),*] };
}

/// Each file with its name.
pub const FILES: &[(&str, &str)] = files![
    "router-home" "router-office" "desktop" "server" "hypervisor" "qubes" "stateless" "nat-heavy" "hooks"
    "guest-network" "zones-by-mark" "router-zones" "behind-srcnat"
];

/// The plan of a file: of its line `# plan: NAME`, or the usual one.
///
/// # Panics
/// If there is no such plan.
pub fn plan(rules: &str) -> &'static str {
    let name = rules.lines().find_map(|line| line.strip_prefix("# plan: ")).unwrap_or("usual");
    let plan = PLANS.iter().find(|(known, _)| *known == name);
    plan.unwrap_or_else(|| panic!("no plan {name}")).1
}
