//! The text of a site's file.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::diagnostics::Diagnostics;
use crate::{FILE_MAX, PLAN_MAX};

/// A file that is text.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// As people reach it from where they are.
    pub path: String,
    /// Relative to the site directory.
    pub file: &'static str,
    pub text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Source {
    fn new(path: String, file: &'static str, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path, file, text, lines }
    }

    /// The line and the column, in characters, of an offset; both from 1.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        let column = before.chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    pub fn line_of(&self, offset: usize) -> u32 {
        let line = self.lines.partition_point(|&start| start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// The octets of a line, without its end.
    pub fn line_range(&self, line: u32) -> Range<usize> {
        let index = (line as usize).saturating_sub(1);
        let start = self.lines.get(index).copied().unwrap_or(self.text.len());
        let end = self.lines.get(index + 1).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }

    pub fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or("")
    }
}

/// Reads a file; what is wrong with it as a file is told.
pub(crate) fn read(path: &Path, file: &'static str, diagnostics: &mut Diagnostics) -> Option<Source> {
    let shown = path.display().to_string();
    let mut octets = Vec::new();
    let result = File::open(path).and_then(|opened| opened.take(FILE_MAX + 1).read_to_end(&mut octets));
    if let Err(error) = result {
        diagnostics.error_in(&shown, file, format!("cannot read {file}: {error}"));
        return None;
    }
    accept(shown, file, octets, diagnostics)
}

/// Takes octets as text.
pub(crate) fn accept(
    path: String,
    file: &'static str,
    octets: Vec<u8>,
    diagnostics: &mut Diagnostics,
) -> Option<Source> {
    let most = if file == "weir.toml" { PLAN_MAX } else { FILE_MAX };
    if octets.len() as u64 > most {
        diagnostics.error_in(&path, file, format!("{file} is larger than {} MiB", most >> 20));
        return None;
    }
    let text = match String::from_utf8(octets) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = Source::new(path, file, text);
            diagnostics.error(&source, valid..valid, "the file is not UTF-8 from here on");
            return None;
        }
    };
    let source = Source::new(path, file, text);
    let refused =
        [('\u{feff}', "a byte order mark"), ('\0', "a NUL"), ('\r', "a carriage return (CR LF line end)")];
    for (character, name) in refused {
        // TOML allows CR LF; nft does not.
        if character == '\r' && file == "weir.toml" {
            continue;
        }
        if let Some(at) = source.text.find(character) {
            let message = format!("{name} has no place in {file}");
            diagnostics.error(&source, at..at + character.len_utf8(), message);
            return None;
        }
    }
    Some(source)
}
