//! What nftables has counted, from its listing in JSON.

use serde_json::Value;

/// One `counter`, of a rule or with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Family, table, and chain or name.
    pub place: String,
    /// Whether its chain is a nat chain at postrouting.
    pub is_of_source_nat: bool,
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
    let chains: Vec<&Value> = items.iter().filter_map(|item| item.get("chain")).collect();
    let is_of_source_nat = |counter: &Counter| {
        let mut chains =
            chains.iter().filter(|chain| chain["type"] == "nat" && chain["hook"] == "postrouting");
        chains.any(|chain| place_of(chain, "name") == counter.place)
    };
    let counters = items.iter().flat_map(of_item);
    counters.map(|counter| Counter { is_of_source_nat: is_of_source_nat(&counter), ..counter }).collect()
}

/// Family, table, and a name of an object.
fn place_of(object: &Value, name: &str) -> String {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    format!("{} {} {}", text("family"), text("table"), text(name))
}

fn of_item(item: &Value) -> Vec<Counter> {
    let named = item.get("counter").map(|named| (named, vec![named]));
    let anonymous = item.get("rule").map(|rule| {
        let statements = rule["expr"].as_array().into_iter().flatten();
        // A name stands where an object is meant.
        let counted = statements.filter_map(|statement| statement.get("counter")).filter(|of| of.is_object());
        (rule, counted.collect())
    });
    let Some((item, counted)) = named.or(anonymous) else { return Vec::new() };
    let place = place_of(item, if item.get("chain").is_some() { "chain" } else { "name" });
    let counter = |value: &&Value| Counter {
        place: place.clone(),
        is_of_source_nat: false,
        packets: value["packets"].as_u64().unwrap_or_default(),
        octets: value["bytes"].as_u64().unwrap_or_default(),
    };
    counted.iter().map(counter).collect()
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
                // Objects come before chains.
                chain = place(&mut chains, (table, String::new()));
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
