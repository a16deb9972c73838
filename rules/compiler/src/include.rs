//! `include`: the files that a `rules.nft` is made of, all read before any of them is understood.
//!
//! As `nft -I . -f rules.nft` does in the site directory: names count from there in every file, a wildcard
//! stands for the files that match, in the order of their names, and may stand for none. Weir reads nothing
//! outside of the site directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::FILE_MAX;
use crate::diagnostics::{Diagnostics, quoted};
use crate::source::{self, Source};
use crate::syntax::lexer::{Token, Tokens};

/// The most files within each other, as nft has it.
const DEPTH_MAX: usize = 16;

/// The most files in all, those that are included twice counted twice.
const FILES_MAX: usize = 256;

type Span = std::ops::Range<usize>;

/// An `include` that was found.
struct Include {
    /// Where the name stands, in quotes.
    name: Span,
    depth: usize,
}

/// The rules with every file that they include; those, and the directories of wildcards, are added to `files`.
pub(crate) fn all(
    root: Source,
    directory: Option<&Path>,
    files: &mut Vec<PathBuf>,
    diagnostics: &mut Diagnostics,
) -> Source {
    let before = diagnostics.errors();
    let mut source = root;
    read_all(&mut source, directory, files, diagnostics);
    source.is_whole = diagnostics.errors() == before;
    source
}

fn read_all(
    source: &mut Source,
    directory: Option<&Path>,
    files: &mut Vec<PathBuf>,
    diagnostics: &mut Diagnostics,
) {
    let mut waiting = found(source, source.root(), 1);
    let mut count = 0;
    // The first one first, so that errors come in the order of reading.
    waiting.reverse();
    while let Some(Include { name, depth }) = waiting.pop() {
        let told = |diagnostics: &mut Diagnostics, source: &Source, message: String| {
            diagnostics.error(source, name.clone(), message);
        };
        let Some(directory) = directory else {
            told(diagnostics, source, "there is no directory to include files from".to_owned());
            continue;
        };
        if depth > DEPTH_MAX {
            told(diagnostics, source, format!("more than {DEPTH_MAX} files within each other"));
            return;
        }
        let paths = match matching(directory, source.slice(&name).trim_matches('"'), files) {
            Ok(paths) => paths,
            Err(message) => {
                told(diagnostics, source, message);
                continue;
            }
        };
        let mut ranges = Vec::with_capacity(paths.len());
        for (path, file) in paths {
            count += 1;
            let Some(text) = source::read(&path, &file, diagnostics) else { continue };
            if count > FILES_MAX || (source.text.len() + text.text.len()) as u64 > FILE_MAX {
                let most = FILE_MAX >> 20;
                let message = format!("more than {FILES_MAX} files or {most} MiB are included");
                told(diagnostics, source, message);
                return;
            }
            files.push(path);
            let range = source.append(text);
            let mut more = found(source, range.clone(), depth + 1);
            more.reverse();
            waiting.extend(more);
            ranges.push(range);
        }
        source.include(name.start, ranges);
    }
}

/// The includes of one file.
fn found(source: &Source, file: Span, depth: usize) -> Vec<Include> {
    let mut found = Vec::new();
    // Reading twice what includes nothing is no use.
    if !source.slice(&file).contains("include") {
        return found;
    }
    let mut tokens = Tokens::new(&source.text, file);
    loop {
        let (token, span) = tokens.next();
        match token {
            Token::End => return found,
            Token::Word if source.slice(&span) == "include" => {
                let (token, name) = tokens.peek().clone();
                if token == Token::Quoted {
                    found.push(Include { name, depth });
                }
            }
            _ => {}
        }
    }
}

/// The files of a name, as they are reached from here and from the site directory.
fn matching(
    directory: &Path,
    name: &str,
    files: &mut Vec<PathBuf>,
) -> Result<Vec<(PathBuf, String)>, String> {
    let name = name.trim_start_matches("./");
    let is_outside = name.starts_with('/') || name.split('/').any(|part| part == "..");
    if is_outside {
        return Err(format!("{} is not in the site directory", quoted(name)));
    }
    let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
    if folder.contains(['*', '?']) || name.contains(['[', '{', '~', '\\']) {
        return Err(format!("{}: this wildcard is not in this version's subset", quoted(name)));
    }
    if !last.contains(['*', '?']) {
        let path = within(directory, name)?;
        // Reading from anything else may never end.
        return if path.is_file() {
            Ok(vec![(path, name.to_owned())])
        } else {
            Err(format!("{} is no file", quoted(name)))
        };
    }
    let folder_path = within(directory, folder)?;
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", quoted(folder));
    let mut matching = Vec::new();
    for entry in fs::read_dir(&folder_path).map_err(cannot)?.take(16 * FILES_MAX) {
        let entry = entry.map_err(cannot)?;
        // Names that are no text match nothing that was written.
        let Ok(file) = entry.file_name().into_string() else { continue };
        let is_hidden = file.starts_with('.') && !last.starts_with('.');
        if is_hidden || !matches(last.as_bytes(), file.as_bytes()) || !entry.path().is_file() {
            continue;
        }
        let relative = if folder.is_empty() { file } else { format!("{folder}/{file}") };
        matching.push((within(directory, &relative)?, relative));
    }
    matching.sort_by(|(_, one), (_, other)| one.cmp(other));
    // A new file there would be included too.
    files.push(folder_path);
    Ok(matching)
}

/// A file of the site directory, links followed.
fn within(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let path = directory.join(name);
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|error| format!("cannot include {}: {error}", quoted(name)))
    };
    if real(&path)?.starts_with(real(directory)?) {
        Ok(path)
    } else {
        Err(format!("{} leads out of the site directory", quoted(name)))
    }
}

/// Whether a name is as the pattern says: `*` is any text, `?` any octet.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Where the last `*` stands, and how much of the name was given to it.
    let mut star = None;
    while next < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, next));
                at += 1;
            }
            Some(&octet) if octet == b'?' || Some(&octet) == name.get(next) => {
                at += 1;
                next += 1;
            }
            _ => match star {
                Some((stood, given)) => {
                    star = Some((stood, given + 1));
                    at = stood + 1;
                    next = given + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|&octet| octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_match_as_shells_have_them() {
        for (pattern, name, expected) in [
            ("*.nft", "a.nft", true),
            ("*.nft", ".nft", true),
            ("*.nft", "a.nfs", false),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("*a*b", "xaxbxab", true),
            ("*a*b", "xaxbxa", false),
            ("", "", true),
            ("?", "", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
