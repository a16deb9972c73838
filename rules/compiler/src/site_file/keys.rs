//! The keys of `weir.toml`, section by section. The schema and the commented example have the same.

pub(super) const TOP: [&str; 7] = ["memory", "uplink", "client", "hotplug", "route", "nat", "panic"];
pub(super) const UPLINK: [&str; 5] = ["address", "gateway", "extra", "mac", "mtu"];
pub(super) const CLIENT: [&str; 6] = ["name", "address", "peer", "mac", "hosts", "mtu"];
pub(super) const HOTPLUG: [&str; 4] = ["name", "address", "peers", "mtu"];
pub(super) const ROUTE: [&str; 2] = ["to", "via"];
pub(super) const PANIC: [&str; 1] = ["action"];
pub(super) const NAT: [&str; 14] = [
    "mapping",
    "filtering",
    "filtering_by",
    "sessions",
    "external_ports",
    "port_rest",
    "port_blocks",
    "client_floor",
    "client_ceiling",
    "inbound_refresh",
    "pickup",
    "syn_answer",
    "fragments",
    "timeout",
];
pub(super) const FILTERING_BY: [&str; 3] = ["tcp", "udp", "icmp"];
pub(super) const TIMEOUT: [&str; 6] =
    ["udp", "udp_short", "tcp_established", "tcp_transitory", "icmp", "other"];
pub(super) const UDP_SHORT: [&str; 2] = ["ports", "seconds"];

#[cfg(test)]
mod tests {
    use super::*;
    use rules::site::Nat;
    use serde_json::Value;
    use std::collections::BTreeSet;

    const EXAMPLE: &str = include_str!("../../example.toml");

    /// Each section: where it is in the schema, where in the example, and its keys.
    const SECTIONS: [(&str, &[&str], &[&str]); 10] = [
        ("", &[], &TOP),
        ("/properties/uplink", &["uplink"], &UPLINK),
        ("/properties/client/items", &["client"], &CLIENT),
        ("/properties/hotplug", &["hotplug"], &HOTPLUG),
        ("/properties/route/items", &["route"], &ROUTE),
        ("/properties/panic", &["panic"], &PANIC),
        ("/properties/nat", &["nat"], &NAT),
        ("/properties/nat/properties/filtering_by", &["nat", "filtering_by"], &FILTERING_BY),
        ("/properties/nat/properties/timeout", &["nat", "timeout"], &TIMEOUT),
        (
            "/properties/nat/properties/timeout/properties/udp_short",
            &["nat", "timeout", "udp_short"],
            &UDP_SHORT,
        ),
    ];

    #[test]
    fn the_schema_has_the_keys_of_the_reader_and_no_others() {
        let schema: Value = serde_json::from_str(crate::SCHEMA).unwrap();
        for (place, _, keys) in SECTIONS {
            let section = schema.pointer(place).unwrap_or_else(|| panic!("{place} in the schema"));
            let known: BTreeSet<&str> =
                section["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(known, keys.iter().copied().collect(), "{place}");
            assert_eq!(section["additionalProperties"], false, "{place}");
        }
    }

    #[test]
    fn the_example_has_every_key_and_every_default() {
        let example: toml::Table = EXAMPLE.parse().unwrap();
        for (_, place, keys) in SECTIONS {
            let mut met = BTreeSet::new();
            collect(&toml::Value::Table(example.clone()), place, &mut met);
            assert_eq!(met, keys.iter().map(|key| (*key).to_owned()).collect(), "{place:?}");
        }
        let compiled = crate::compile_text(EXAMPLE, "# weir: allow open\n")
            .unwrap_or_else(|told| panic!("{}", told.render(false)));
        assert_eq!(compiled.warnings().warnings(), 0);
        let without: String =
            EXAMPLE.lines().take_while(|line| *line != "[nat]").map(|line| format!("{line}\n")).collect();
        let plain = crate::compile_text(&without, "# weir: allow open\n").unwrap();
        assert_eq!(format!("{:?}", compiled.plan.nat), format!("{:?}", plain.plan.nat));
        assert_eq!(format!("{:?}", plain.plan.nat), format!("{:?}", Nat::DEFAULT));
        assert_eq!(compiled.plan.panic, plain.plan.panic);
    }

    #[test]
    fn the_schema_has_the_defaults_of_the_example() {
        let schema: Value = serde_json::from_str(crate::SCHEMA).unwrap();
        let example: toml::Table = EXAMPLE.parse().unwrap();
        let nat = example["nat"].as_table().unwrap();
        let mut count = 0;
        for (place, values) in [
            ("/properties/nat/properties", nat),
            ("/properties/nat/properties/timeout/properties", nat["timeout"].as_table().unwrap()),
            ("/properties/panic/properties", example["panic"].as_table().unwrap()),
        ] {
            for (key, told) in schema.pointer(place).unwrap().as_object().unwrap() {
                if let Some(default) = told.get("default") {
                    assert_eq!(serde_json::to_value(&values[key]).unwrap(), *default, "{key}");
                    count += 1;
                }
            }
        }
        // All but the tables in [nat], and `udp_short`.
        assert_eq!(count, NAT.len() - 2 + TIMEOUT.len() - 1 + PANIC.len());
    }

    #[test]
    fn the_schema_takes_the_example_and_no_wrong_key_or_type() {
        let schema: Value = serde_json::from_str(crate::SCHEMA).unwrap();
        let judge = jsonschema::validator_for(&schema).unwrap();
        let example = serde_json::to_value(EXAMPLE.parse::<toml::Table>().unwrap()).unwrap();
        let wrong: Vec<String> = judge.iter_errors(&example).map(|error| error.to_string()).collect();
        assert_eq!(wrong, [""; 0]);
        for (_, place, keys) in SECTIONS {
            for key in keys {
                for change in [misspell as fn(&mut Value, &str) -> bool, mistype] {
                    let mut changed = example.clone();
                    assert!(at(&mut changed, place, &mut |table| change(table, key)), "{place:?} {key}");
                    assert!(!judge.is_valid(&changed), "{place:?} {key}");
                }
            }
        }
    }

    /// Gives a key another name.
    fn misspell(table: &mut Value, key: &str) -> bool {
        let Some(value) = table.as_object_mut().and_then(|table| table.remove(key)) else { return false };
        table[format!("{key}x")] = value;
        true
    }

    /// Gives a key a value of a type that none has.
    fn mistype(table: &mut Value, key: &str) -> bool {
        let Some(value) = table.get_mut(key) else { return false };
        *value = Value::Null;
        true
    }

    /// Changes the first table at a place that can be changed so.
    fn at(value: &mut Value, place: &[&str], change: &mut dyn FnMut(&mut Value) -> bool) -> bool {
        match (value, place) {
            (Value::Array(items), _) => items.iter_mut().any(|item| at(item, place, change)),
            (table, []) => change(table),
            (table, [first, rest @ ..]) => table.get_mut(*first).is_some_and(|inner| at(inner, rest, change)),
        }
    }

    /// The keys of all tables at a place, lists looked into.
    fn collect(value: &toml::Value, place: &[&str], met: &mut BTreeSet<String>) {
        match (value, place) {
            (toml::Value::Array(items), _) => items.iter().for_each(|item| collect(item, place, met)),
            (toml::Value::Table(table), []) => met.extend(table.keys().cloned()),
            (toml::Value::Table(table), [first, rest @ ..]) => {
                table.get(*first).into_iter().for_each(|inner| collect(inner, rest, met));
            }
            _ => {}
        }
    }
}
