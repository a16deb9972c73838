//! What nftables has counted, from its listing in JSON.

use serde_json::Value;

/// One `counter` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Family, table and chain.
    pub chain: String,
    /// Packets.
    pub packets: u64,
    /// Octets of IPv4, headers included.
    pub octets: u64,
}

/// The counters of a listing, in its order.
///
/// # Panics
/// If it is none.
pub fn counters(listing: &[u8]) -> Vec<Counter> {
    let listing: Value = serde_json::from_slice(listing).expect("JSON from nft");
    let items = listing["nftables"].as_array().expect("a list of objects");
    items.iter().filter_map(|item| item.get("rule")).flat_map(of_rule).collect()
}

fn of_rule(rule: &Value) -> Vec<Counter> {
    let text = |key: &str| rule[key].as_str().unwrap_or_default();
    let chain = format!("{} {} {}", text("family"), text("table"), text("chain"));
    let statements = rule["expr"].as_array().into_iter().flatten();
    let counted = statements.filter_map(|statement| statement.get("counter"));
    let counter = |value: &Value| Counter {
        chain: chain.clone(),
        packets: value["packets"].as_u64().unwrap_or_default(),
        octets: value["bytes"].as_u64().unwrap_or_default(),
    };
    counted.map(counter).collect()
}

/// In which order nft lists what a file says: chains as they were first named, whatever is added to them later.
pub struct Order(Vec<usize>);

impl Order {
    /// The order of a file that opens at most one chain a line.
    pub fn new(rules: &str) -> Self {
        let (mut tables, mut chains): (Vec<String>, Vec<(usize, String)>) = Default::default();
        let (mut table, mut chain, mut lines) = (0, 0, Vec::new());
        for line in rules.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["table", family, name, ..] = words[..] {
                table = place(&mut tables, format!("{family} {name}"));
            }
            let opened = words.iter().position(|word| *word == "chain").and_then(|at| words.get(at + 1));
            if let Some(name) = opened {
                chain = place(&mut chains, (table, (*name).to_owned()));
            }
            lines.push((table, chain));
        }
        let mut sorted = lines.clone();
        sorted.sort_unstable();
        sorted.dedup();
        Self(lines.iter().map(|of| place(&mut sorted, *of)).collect())
    }

    /// The place of what stands on a line, from 1.
    pub fn of(&self, line: u32) -> usize {
        let at = usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
        at.and_then(|at| self.0.get(at)).copied().unwrap_or_default()
    }
}

fn place<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}
