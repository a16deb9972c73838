//! The compiler of a site: `weir.toml` and `rules.nft` in, the tables of the `rules` crate out.
//!
//! It reads text and says what is wrong with it, all at once; it decides about no packet. The same code serves
//! the build script, `weir check` and the tests.
#![forbid(unsafe_code)]

mod blocks;
mod check;
mod compiled;
mod diagnostics;
mod emit;
mod explain;
mod include;
mod lower;
mod names;
mod opening;
mod pack;
mod plan;
mod program;
mod prove;
mod site_file;
mod source;
mod syntax;
mod trees;

use std::path::{Path, PathBuf};

pub use compiled::Compiled;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};

use pack::Packed;
use source::Source;

/// The JSON schema of `weir.toml`, for editors: the keys of the reader, their types, ranges and defaults.
pub const SCHEMA: &str = include_str!("../weir.schema.json");

/// The largest `rules.nft`, in octets: several times 10 000 rules.
pub const FILE_MAX: u64 = 4 << 20;

/// The largest `weir.toml`, in octets.
pub const PLAN_MAX: u64 = 1 << 20;

/// Compiles the site in `directory`: its `weir.toml` and its `rules.nft`.
///
/// # Errors
/// Everything that is wrong with the two files, warnings included, in the order of the files.
pub fn compile(directory: &Path) -> Result<Compiled, Diagnostics> {
    let plan_path = directory.join("weir.toml");
    let rules_path = directory.join("rules.nft");
    let mut diagnostics = Diagnostics::default();
    let plan = source::read(&plan_path, "weir.toml", &mut diagnostics);
    let rules = source::read(&rules_path, "rules.nft", &mut diagnostics);
    let mut files = vec![plan_path, rules_path];
    let rules = rules.map(|rules| include::all(rules, Some(directory), &mut files, &mut diagnostics));
    compile_sources(plan, rules, files, diagnostics)
}

/// The files that the site in `directory` consists of, whether or not they are sound, and the directories that its
/// wildcards look into.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let rules_path = directory.join("rules.nft");
    let mut diagnostics = Diagnostics::default();
    let rules = source::read(&rules_path, "rules.nft", &mut diagnostics);
    let mut files = vec![directory.join("weir.toml"), rules_path];
    if let Some(rules) = rules {
        include::all(rules, Some(directory), &mut files, &mut diagnostics);
    }
    files
}

/// Compiles a site whose two files are given as text, as if they stood in a directory of their own.
///
/// # Errors
/// As [`compile`].
pub fn compile_text(weir_toml: &str, rules_nft: &str) -> Result<Compiled, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let plan = source::accept("weir.toml".into(), "weir.toml", weir_toml.as_bytes().into(), &mut diagnostics);
    let rules =
        source::accept("rules.nft".into(), "rules.nft", rules_nft.as_bytes().into(), &mut diagnostics);
    let rules = rules.map(|rules| include::all(rules, None, &mut Vec::new(), &mut diagnostics));
    compile_sources(plan, rules, Vec::new(), diagnostics)
}

fn compile_sources(
    plan: Option<Source>,
    rules: Option<Source>,
    files: Vec<PathBuf>,
    mut diagnostics: Diagnostics,
) -> Result<Compiled, Diagnostics> {
    let plan = plan.map(|source| (site_file::read(&source, &mut diagnostics), source));
    let program = match (&plan, rules) {
        (Some((plan, _)), Some(source)) => {
            let ruleset = syntax::parse(&source, &mut diagnostics);
            Some(lower::lower(&ruleset, &source, plan, &mut diagnostics))
        }
        _ => None,
    };
    let packed = program.as_ref().and_then(Packed::new);
    if let (Some((plan, source)), Some(program)) = (&plan, &program) {
        blocks::fit(plan, program, source, &mut diagnostics);
        if packed.is_none() {
            let message = "the rules have more than 65536 sets, maps or statements that differ";
            diagnostics.error(source, 0..0, message);
        }
    }
    diagnostics.sort();
    match (plan, program, packed) {
        (Some((plan, source)), Some(program), Some(packed)) if diagnostics.errors() == 0 => {
            Ok(Compiled::new((plan, source), program, packed, diagnostics, files))
        }
        _ => Err(diagnostics),
    }
}
