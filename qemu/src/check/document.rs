//! Findings as documents: JSON of our own with SARIF's names, and SARIF itself.

use rules_compiler::{Diagnostic, Diagnostics, Severity};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// The version of our JSON: a field that changes its meaning raises it, one that is added does not.
const VERSION: u32 = 1;

/// A check.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    version: u32,
    /// The directory.
    site: String,
    diagnostics: Vec<Finding<'a>>,
    summary: Summary,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding<'a> {
    level: &'static str,
    message: &'a str,
    /// Relative to the site.
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    region: Option<Region>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
}

/// A place within a file; SARIF 2.1.0, 3.30.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
    start_column: u32,
    end_column: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    errors: usize,
    warnings: usize,
    /// Findings that are counted and not listed.
    omitted: usize,
    /// Rules, sets, size and steps, of a site without errors.
    policy: Option<String>,
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Where a finding is; `None` for a whole file.
fn region(of: &Diagnostic) -> Option<Region> {
    let Diagnostic { line, column, end_column, .. } = *of;
    (line > 0).then_some(Region { start_line: line, start_column: column, end_column })
}

/// The findings as one JSON document, with a line end.
pub fn json(directory: &Path, findings: &Diagnostics, policy: Option<String>) -> String {
    let diagnostics: Vec<_> = findings
        .iter()
        .map(|it| Finding {
            level: level(it.severity),
            message: &it.message,
            file: &it.file,
            region: region(it),
            label: it.label.as_deref(),
        })
        .collect();
    let (errors, warnings) = (findings.errors(), findings.warnings());
    let omitted = (errors + warnings).saturating_sub(diagnostics.len());
    let summary = Summary { errors, warnings, omitted, policy };
    print(&Document { version: VERSION, site: directory.display().to_string(), diagnostics, summary })
}

/// The findings as one log of SARIF 2.1.0, with a line end.
pub fn sarif(directory: &Path, findings: &Diagnostics) -> String {
    let results: Vec<Value> = findings.iter().map(result).collect();
    print(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "weir", "version": env!("CARGO_PKG_VERSION") } },
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": { "SITE": { "uri": format!("file://{}/", uri(directory.as_os_str().as_encoded_bytes())) } },
            "results": results,
        }],
    }))
}

fn result(of: &Diagnostic) -> Value {
    let text = match &of.label {
        Some(label) => format!("{}; {label}", of.message),
        None => of.message.clone(),
    };
    let mut location = json!({ "artifactLocation": { "uri": uri(of.file.as_bytes()), "uriBaseId": "SITE" } });
    if let (Some(region), Value::Object(fields)) = (region(of), &mut location) {
        fields.insert("region".to_owned(), json!(region));
    }
    json!({
        "level": level(of.severity),
        "message": { "text": text },
        "locations": [{ "physicalLocation": location }],
    })
}

/// A path as a URI has it (RFC 3986 2.1): whatever is not plain is written as `%` and its number.
fn uri(path: &[u8]) -> String {
    let octet = |&octet: &u8| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
            char::from(octet).to_string()
        }
        other => format!("%{other:02X}"),
    };
    path.iter().map(octet).collect()
}

fn print(document: &impl Serialize) -> String {
    // Maps with text for keys and no floating point numbers: nothing that JSON does not have.
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str =
        "[uplink]\naddress = \"192.0.2.2/24\"\n[[client]]\nname = \"work\"\naddress = \"10.0.1.1/24\"\n";

    /// The findings about a policy, as both documents.
    fn documents(plan: &str, rules: &str) -> (Value, Value) {
        let compiled = rules_compiler::compile_text(plan, rules);
        let (findings, policy) = match &compiled {
            Ok(compiled) => (compiled.warnings(), Some(compiled.summary())),
            Err(findings) => (findings, None),
        };
        let directory = Path::new("/sites/my site");
        let read = |text: String| serde_json::from_str(&text).unwrap();
        (read(json(directory, findings, policy)), read(sarif(directory, findings)))
    }

    /// What SARIF 2.1.0 says of the parts that are used here: 3.13, 3.14, 3.18, 3.19, 3.27, 3.11, 3.28, 3.29, 3.4, 3.30.
    fn sarif_schema() -> Value {
        let artifact = json!({
            "type": "object",
            "properties": {
                "uri": { "type": "string", "pattern": "^([a-z]+://)?([A-Za-z0-9/._~-]|%[0-9A-F]{2})*$" },
                "uriBaseId": { "type": "string" },
                "index": { "type": "integer", "minimum": -1 },
                "description": { "type": "object" },
            },
            "additionalProperties": false,
        });
        let region = json!({
            "type": "object",
            "properties": {
                "startLine": { "type": "integer", "minimum": 1 },
                "startColumn": { "type": "integer", "minimum": 1 },
                "endLine": { "type": "integer", "minimum": 1 },
                "endColumn": { "type": "integer", "minimum": 1 },
            },
            "additionalProperties": false,
        });
        let result = json!({
            "type": "object",
            "properties": {
                "level": { "enum": ["none", "note", "warning", "error"] },
                "message": {
                    "type": "object",
                    "properties": { "text": { "type": "string" } },
                    "required": ["text"],
                    "additionalProperties": false,
                },
                "locations": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "physicalLocation": {
                                "type": "object",
                                "properties": { "artifactLocation": artifact, "region": region },
                                "required": ["artifactLocation"],
                                "additionalProperties": false,
                            },
                        },
                        "additionalProperties": false,
                    },
                },
            },
            "required": ["message"],
            "additionalProperties": false,
        });
        let driver = json!({
            "type": "object",
            "properties": { "name": { "type": "string" }, "version": { "type": "string" } },
            "required": ["name"],
            "additionalProperties": false,
        });
        let run = json!({
            "type": "object",
            "properties": {
                "tool": { "type": "object", "properties": { "driver": driver }, "required": ["driver"], "additionalProperties": false },
                "columnKind": { "enum": ["utf16CodeUnits", "unicodeCodePoints"] },
                "originalUriBaseIds": { "type": "object", "additionalProperties": artifact },
                "results": { "type": "array", "items": result },
            },
            "required": ["tool"],
            "additionalProperties": false,
        });
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {
                "$schema": { "type": "string", "format": "uri" },
                "version": { "enum": ["2.1.0"] },
                "runs": { "type": "array", "minItems": 0, "items": run },
            },
            "required": ["version", "runs"],
            "additionalProperties": false,
        })
    }

    #[test]
    fn what_is_told_is_sarif() {
        let judge = jsonschema::validator_for(&sarif_schema()).unwrap();
        let mut seen = 0;
        for (plan, rules) in [
            (PLAN, "# weir: allow open\ntable ip t {\n set s { type ipv4_addr; }\n}\n"),
            (
                PLAN,
                "table ip t {\n chain c { type filter hook forward priority 0\n  iifname \"w\u{f6}rk\" accept\n tcp dport 99999 drop\n",
            ),
            ("nonsense = 5\n[uplink]\n", ""),
            (&" ".repeat((1 << 20) + 1), ""),
        ] {
            let (_, sarif) = documents(plan, rules);
            let wrong: Vec<String> = judge.iter_errors(&sarif).map(|error| error.to_string()).collect();
            assert_eq!(wrong, [""; 0], "{sarif}");
            seen += sarif["runs"][0]["results"].as_array().unwrap().len();
            for (place, value) in [
                ("/version", json!("2.0")),
                ("/runs/0/results/0/level", json!("fatal")),
                ("/runs/0/results/0/message", json!("text")),
                ("/runs/0/tool/driver", json!({})),
                ("/runs/0/columnKind", json!("octets")),
            ] {
                let mut other = sarif.clone();
                *other.pointer_mut(place).unwrap() = value;
                assert!(!judge.is_valid(&other), "{place}");
            }
        }
        assert!(seen > 4);
    }

    #[test]
    fn an_error_has_its_place_and_its_label() {
        let rules = "# weir: allow open\ntable ip t {\n chain c { type filter hook forward priority 0\n  iifname \"wörk\" accept\n }\n}\n";
        let (json, sarif) = documents(PLAN, rules);
        let found =
            json["diagnostics"].as_array().unwrap().iter().find(|it| it["startColumn"] == 11).unwrap();
        assert_eq!(
            *found,
            json!({
                "level": "error",
                "message": "client \"wörk\" is not declared in weir.toml",
                "file": "rules.nft",
                "startLine": 4,
                "startColumn": 11,
                "endColumn": 17,
                "label": "did you mean \"work\"?",
            })
        );
        assert_eq!((&json["version"], &json["site"]), (&json!(1), &json!("/sites/my site")));
        assert_eq!(json["summary"]["policy"], Value::Null);
        let results = sarif["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), json["diagnostics"].as_array().unwrap().len());
        let place = &results.last().unwrap()["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"], json!({ "uri": "rules.nft", "uriBaseId": "SITE" }));
        assert_eq!(place["region"], json!({ "startLine": 4, "startColumn": 11, "endColumn": 17 }));
        assert_eq!(sarif["runs"][0]["originalUriBaseIds"]["SITE"]["uri"], json!("file:///sites/my%20site/"));
    }

    #[test]
    fn a_site_without_errors_has_a_summary_and_its_warnings() {
        let (json, sarif) = documents(
            PLAN,
            "# weir: allow open\ntable ip t {\n  set s { type ipv4_addr; elements = { 10.0.1.5 }; }\n}\n",
        );
        assert_eq!(json["diagnostics"][0]["level"], "warning");
        assert_eq!((&json["summary"]["errors"], &json["summary"]["warnings"]), (&json!(0), &json!(1)));
        assert!(json["summary"]["policy"].as_str().is_some_and(|text| text.starts_with("0 rules in ")));
        assert_eq!(sarif["runs"][0]["results"][0]["level"], "warning");
    }

    #[test]
    fn what_is_about_a_whole_file_has_no_region_and_what_is_too_much_is_counted() {
        let (json, sarif) = documents(&" ".repeat((1 << 20) + 1), "");
        let first = &json["diagnostics"][0];
        assert_eq!((&first["file"], first.get("startLine")), (&json!("weir.toml"), None));
        let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place.get("region"), None);
        let plan = format!("{PLAN}{}", (0..130).map(|n| format!("wrong{n} = 1\n")).collect::<String>());
        let (json, _) = documents(&plan, "# weir: allow open\n");
        let summary = &json["summary"];
        assert_eq!(summary["errors"].as_u64().unwrap(), 100 + summary["omitted"].as_u64().unwrap());
        assert!(summary["omitted"].as_u64().unwrap() >= 30);
    }
}
