//! `weir check`: what is wrong with a site, for people or for programs.

pub mod document;

use crate::args::{self, Format};
use crate::error::{Error, Result};
use crate::image::{self, Site};
use crate::{memory, table, trace, watch};
use rules_compiler::{Compiled, Diagnostics};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// `weir check`: the findings about a site, and its summary.
///
/// # Errors
/// There is no such site, it has errors, or warnings that are denied.
pub fn run(arguments: &args::Check, interrupted: &AtomicBool) -> Result<()> {
    if arguments.format != Format::Text && (arguments.explain || arguments.packet.is_some()) {
        return Err(Error::usage("--explain and --packet are for --format text"));
    }
    let directory = image::locate(arguments.site.site.as_deref())?;
    if arguments.watch {
        watch::run(&directory, interrupted, || match arguments.packet {
            // A packet wants a site that stays for ever: each has a process of its own.
            Some(_) => look_apart(arguments, &directory).unwrap_or_else(|error| format!("{error}\n")),
            None => look(arguments, &directory).show(),
        });
        return Ok(());
    }
    let seen = look(arguments, &directory);
    print!("{}", seen.text);
    eprint!("{}", seen.warnings);
    seen.result
}

/// What one check has to say.
struct Seen {
    /// For standard output.
    text: String,
    /// For standard error.
    warnings: String,
    result: Result<()>,
}

impl Seen {
    /// All of it in the order in which a person reads it.
    fn show(self) -> String {
        let error = self.result.err().map(|error| format!("{error}\n")).unwrap_or_default();
        format!("{}{}{error}", self.text, self.warnings)
    }
}

/// The same check in a process of its own.
fn look_apart(arguments: &args::Check, directory: &Path) -> Result<String> {
    let failed = |cause: std::io::Error| Error::new(format!("cannot look at the site again: {cause}"));
    let mut again = Command::new(std::env::current_exe().map_err(failed)?);
    again.arg("check").arg("--site").arg(directory);
    if arguments.explain {
        again.arg("--explain");
    }
    if arguments.deny.is_some() {
        again.args(["--deny", "warnings"]);
    }
    if let Some(packet) = &arguments.packet {
        again.arg("--packet").arg(packet);
    }
    let output = again.output().map_err(failed)?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Ok(text(&output.stdout) + &text(&output.stderr))
}

fn look(arguments: &args::Check, directory: &Path) -> Seen {
    let denies = arguments.deny == Some(args::Deny::Warnings);
    if arguments.format == Format::Text {
        return match image::compile(directory, denies) {
            Ok(compiled) => text(arguments, compiled, directory),
            Err(error) => Seen { text: String::new(), warnings: String::new(), result: Err(error) },
        };
    }
    let compiled = image::findings(directory);
    let compiled = if denies { compiled.and_then(Compiled::deny_warnings) } else { compiled };
    let (findings, policy): (&Diagnostics, _) = match &compiled {
        Ok(compiled) => (compiled.warnings(), Some(compiled.summary())),
        Err(findings) => (findings, None),
    };
    let text = match arguments.format {
        Format::Sarif => document::sarif(directory, findings),
        Format::Json | Format::Text => document::json(directory, findings, policy),
    };
    let result = match findings.errors() {
        0 => Ok(()),
        1 => Err(Error::new(format!("the site {} has 1 error", directory.display()))),
        count => Err(Error::new(format!("the site {} has {count} errors", directory.display()))),
    };
    Seen { text, warnings: String::new(), result }
}

fn text(arguments: &args::Check, compiled: Compiled, directory: &Path) -> Seen {
    let mut text = format!("{}: {}\n", directory.display(), compiled.summary());
    for line in table::columns(&compiled.hooks()) {
        text.push_str(&format!("{line}\n"));
    }
    // The figures of the site want one that stays, as the comparison with what it declares does.
    text.push_str(&format!("{}\n", memory::summary(compiled.clone().leak())));
    if arguments.explain {
        text.push_str(&format!("\n{}\n", compiled.explain()));
    }
    let warnings = image::warnings(&compiled);
    let mut result = Ok(());
    if let Some(packet) = &arguments.packet {
        match trace::way(&Site::of(compiled, directory.to_owned()), packet) {
            Ok(way) => text.push_str(&format!("\n{way}\n")),
            Err(error) => result = Err(error),
        }
    }
    Seen { text, warnings, result }
}
