//! A compiled site, and the two ways it reaches the `rules` crate.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rules::code::Code;
use rules::object::{DynamicSet, Limit, Log, Quota};
use rules::opening::Openings;
use rules::policy::Policy;
use rules::site::{Client, Nat, Site, Timeouts, UdpShort, Uplink};
use rules::table::{Action, Chain, Effect, KEY_MAX, Lookup};
use rules::tree::Trees;

use crate::diagnostics::Diagnostics;
use crate::emit;
use crate::explain;
use crate::pack::{self, Packed};
use crate::plan::Plan;
use crate::program::{self, Program};
use crate::source::Source;
use crate::trees::Forest;

/// A site without errors.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub(crate) plan: Plan,
    source: Source,
    pub(crate) program: Program,
    pub(crate) packed: Packed,
    warnings: Diagnostics,
    files: Vec<PathBuf>,
}

impl Compiled {
    pub(crate) fn new(
        (plan, source): (Plan, Source),
        program: Program,
        packed: Packed,
        warnings: Diagnostics,
        files: Vec<PathBuf>,
    ) -> Self {
        Self { plan, source, program, packed, warnings, files }
    }

    /// The site for use in this process, which keeps it for good.
    #[must_use]
    pub fn leak(self) -> &'static Site {
        let site = Site {
            memory: self.plan.memory,
            uplink: Uplink {
                address: self.plan.uplink.address,
                gateway: self.plan.uplink.gateway,
                extra: self.plan.uplink.extra.leak(),
                mac: self.plan.uplink.mac,
                mtu: self.plan.uplink.mtu,
            },
            clients: self.plan.clients.into_iter().map(leak_client).collect::<Vec<_>>().leak(),
            routes: self.plan.routes.leak(),
            nat: leak_nat(self.plan.nat, self.plan.udp_short),
            panic: self.plan.panic,
            policy: leak_program(self.program, self.packed),
        };
        Box::leak(Box::new(site))
    }

    /// The site as Rust text: `pub static SITE: rules::site::Site` with all its tables, for a crate without std.
    ///
    /// The text depends on the site's files alone.
    #[must_use]
    pub fn to_rust(&self) -> String {
        emit::site(self)
    }

    /// What the build has to say all the same.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// The site if there is nothing to warn of; else the warnings, as errors (`--deny warnings`).
    ///
    /// # Errors
    /// Every warning of this site.
    pub fn deny_warnings(self) -> Result<Self, Diagnostics> {
        if self.warnings.warnings() == 0 { Ok(self) } else { Err(self.warnings.denied()) }
    }

    /// This message about the `memory` of weir.toml, as an error besides the warnings.
    #[must_use]
    pub fn refuse_memory(&self, message: impl Into<String>) -> Diagnostics {
        let mut findings = self.warnings.clone();
        findings.error(&self.source, self.plan.memory_span.clone(), message);
        findings.sort();
        findings
    }

    /// The files that were read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// One line: rules, sets, octets of table, worst-case steps, and how much is for IPv6 alone.
    #[must_use]
    pub fn summary(&self) -> String {
        let rules: usize = self.program.chains.iter().map(Vec::len).sum();
        let ipv6 = match self.program.rules_of_ipv6 {
            0 => String::new(),
            kept => format!("; {kept} rules are for IPv6, of which this version forwards nothing"),
        };
        format!(
            "{rules} rules in {} chains, {} counters, {} sets, {} octets of table, at most {} steps a hook{ipv6}",
            self.program.chains.len(),
            self.program.counters.len(),
            self.program.sets,
            self.octets(),
            self.program.steps,
        )
    }

    /// The chains of each hook in the order in which they run, as the rows of a table, heads first.
    #[must_use]
    pub fn hooks(&self) -> Vec<Vec<String>> {
        explain::hooks(&self.program)
    }

    /// Every rule as it is compiled, in lines, under the names of the chains.
    #[must_use]
    pub fn explain(&self) -> String {
        explain::rules(&self.program)
    }

    /// The size of the policy's tables in the image, in octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        octets(&self.program, &self.packed)
    }

    /// The directory that the site was read from, when it was.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.files.first().and_then(|file| file.parent())
    }
}

/// The size of the tables of a policy, in octets.
pub(crate) fn octets(program: &Program, packed: &Packed) -> usize {
    let ranges: usize = shared(program).iter().map(|ranges| ranges.len()).sum();
    packed.octets()
        + ranges * size_of::<(u32, u32)>()
        + (program.locations.len() + program.counters.len()) * size_of::<u32>()
        + program.files.iter().map(|(_, file)| size_of::<(u32, &str)>() + file.len()).sum::<usize>()
        + program.forwards.len() * size_of::<rules::Forward>()
        + program.limits.len() * size_of::<Limit>()
        + program.quotas.len() * size_of::<Quota>()
        + program.logs.iter().map(|log| size_of::<Log>() + log.prefix.len()).sum::<usize>()
        + program.dynamic_sets.iter().map(octets_of_set).sum::<usize>()
}

fn octets_of_set(set: &program::DynamicSet) -> usize {
    size_of::<DynamicSet>() + set.elements.len() * size_of::<[u32; KEY_MAX]>()
}

/// The sets that rules look into, each once.
pub(crate) fn shared(program: &Program) -> Vec<&Arc<[(u32, u32)]>> {
    let steps = program.chains.iter().flatten().flat_map(|rule| &rule.steps);
    let mut met = HashSet::new();
    let sets = steps.filter_map(|step| match step {
        program::Step::Match(program::Match { test: program::Test::In(ranges), .. }) => Some(ranges),
        program::Step::Lookup(lookup) => Some(&lookup.rows),
        _ => None,
    });
    sets.filter(|ranges| met.insert(Arc::as_ptr(ranges))).collect()
}

/// The sets that are static already.
type Leaked = HashMap<*const [(u32, u32)], &'static [(u32, u32)]>;

fn leak_nat(nat: Nat, udp_short: Option<crate::plan::UdpShort>) -> Nat {
    let udp_short = udp_short.map(|short| UdpShort { ports: short.ports.leak(), seconds: short.seconds });
    Nat { timeout: Timeouts { udp_short, ..nat.timeout }, ..nat }
}

fn leak_client(client: crate::plan::Client) -> Client {
    Client {
        name: client.name.leak(),
        address: client.address,
        network: client.network,
        mac: client.mac,
        hosts: client.hosts.leak(),
        mtu: client.mtu,
        is_hotplug: client.is_hotplug,
    }
}

fn leak_program(program: Program, packed: Packed) -> Policy {
    let files = program.files.into_iter().map(|(first, file)| (first, &*file.leak()));
    Policy {
        hooks: packed.hooks.map(|bases| &*bases.leak()),
        chains: packed.chains.into_iter().map(leak_chain).collect::<Vec<_>>().leak(),
        openings: Openings {
            ports: packed.openings.ports.leak(),
            classes: packed.openings.classes,
            chains: packed.openings.chains.leak(),
        },
        code: leak_code(packed.words, &packed.sets, packed.lookups, packed.effects, packed.actions),
        files: files.collect::<Vec<_>>().leak(),
        lines: program.locations.leak(),
        counter_lines: program.counters.leak(),
        forwards: program.forwards.leak(),
        limits: program.limits.leak(),
        quotas: program.quotas.leak(),
        logs: program.logs.into_iter().map(leak_log).collect::<Vec<_>>().leak(),
        counts: program.counts.leak(),
        dynamic_sets: program.dynamic_sets.into_iter().map(leak_dynamic).collect::<Vec<_>>().leak(),
        marks_connections: program.marks_connections,
        reads_other_ports: program.reads_other_ports,
        untracks: program.untracks,
    }
}

fn leak_code(
    words: Vec<u32>,
    sets: &[Arc<[(u32, u32)]>],
    lookups: Vec<program::Lookup>,
    effects: Vec<Effect>,
    actions: Vec<Action>,
) -> Code {
    let leaked: Leaked = sets.iter().map(|set| (Arc::as_ptr(set), &*set.to_vec().leak())).collect();
    let set = |set: &Arc<[(u32, u32)]>| leaked.get(&Arc::as_ptr(set)).copied().unwrap_or_default();
    let lookup = |of: program::Lookup| Lookup {
        key: of.key,
        rows: set(&of.rows),
        is_sorted: of.is_sorted,
        negated: of.negated,
    };
    Code {
        words: words.leak(),
        sets: sets.iter().map(set).collect::<Vec<_>>().leak(),
        lookups: lookups.into_iter().map(lookup).collect::<Vec<_>>().leak(),
        effects: effects.leak(),
        actions: actions.leak(),
    }
}

fn leak_chain(chain: pack::Chain) -> Chain {
    let trees = chain.trees.map(|Forest { roots, nodes, lists, .. }| Trees {
        roots: roots.leak(),
        nodes: nodes.leak(),
        lists: lists.leak(),
    });
    Chain { rules: chain.rules.leak(), trees }
}

fn leak_log(log: program::Log) -> Log {
    Log { prefix: log.prefix.leak(), level: log.level }
}

fn leak_dynamic(set: program::DynamicSet) -> DynamicSet {
    let program::DynamicSet { size, width, timeout, limit, elements, .. } = set;
    DynamicSet { size, width, timeout, limit, elements: elements.leak() }
}
