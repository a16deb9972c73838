//! The text of a site's file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::diagnostics::Diagnostics;
use crate::{FILE_MAX, PLAN_MAX};

/// A file that is text, with the files that it includes behind it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// All of them, one after the other.
    pub text: String,
    /// Whether every file that is included is there.
    pub is_whole: bool,
    files: Vec<Part>,
    /// Where each line begins.
    lines: Vec<usize>,
    /// The files that each `include` stands for, by where their name stands.
    includes: HashMap<usize, Vec<Range<usize>>>,
}

/// One of the files.
#[derive(Debug, Clone)]
struct Part {
    /// As people reach it from where they are.
    path: String,
    /// Relative to the site directory.
    file: String,
    start: usize,
    /// The number of its first line among all lines, from 0.
    first_line: usize,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position<'s> {
    /// As people reach it from where they are.
    pub path: &'s str,
    /// Relative to the site directory.
    pub file: &'s str,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl Source {
    fn new(path: String, file: &str, text: String) -> Self {
        let file = Part { path, file: file.to_owned(), start: 0, first_line: 0 };
        let lines = std::iter::once(0).chain(line_starts(&text, 0)).collect();
        Self { text, is_whole: true, files: vec![file], lines, includes: HashMap::new() }
    }

    /// Puts a file behind the others; where it stands.
    pub fn append(&mut self, other: Self) -> Range<usize> {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
            self.lines.push(self.text.len());
        }
        let start = self.text.len();
        // The line that begins behind the last line end is the first of this file.
        let first_line = self.lines.len() - 1;
        self.text.push_str(&other.text);
        self.lines.extend(line_starts(&other.text, start));
        let files = other.files.into_iter().map(|part| Part { start, first_line, ..part });
        self.files.extend(files);
        start..self.text.len()
    }

    /// Notes what the `include` whose name stands here comes to.
    pub fn include(&mut self, name: usize, files: Vec<Range<usize>>) {
        self.includes.insert(name, files);
    }

    /// The files that the `include` whose name stands here comes to.
    pub fn included(&self, name: usize) -> &[Range<usize>] {
        self.includes.get(&name).map_or(&[], Vec::as_slice)
    }

    /// The file that everything began with, without the included ones.
    pub fn root(&self) -> Range<usize> {
        0..self.files.get(1).map_or(self.text.len(), |part| part.start)
    }

    /// Relative to the site directory: the file that everything began with.
    pub fn file(&self) -> &str {
        self.files.first().map_or("", |part| part.file.as_str())
    }

    /// The files with the numbers of their first lines among all lines, from 1.
    pub fn files(&self) -> Vec<(u32, String)> {
        let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1);
        self.files.iter().map(|part| (number(part.first_line), part.file.clone())).collect()
    }

    fn part(&self, line: usize) -> Option<&Part> {
        let after = self.files.partition_point(|part| part.first_line <= line);
        after.checked_sub(1).and_then(|at| self.files.get(at))
    }

    /// Where an offset stands in its file.
    pub fn position(&self, offset: usize) -> Position<'_> {
        let line = self.lines.partition_point(|&start| start <= offset).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        let part = self.part(line);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
        Position {
            path: part.map_or("", |part| part.path.as_str()),
            file: part.map_or("", |part| part.file.as_str()),
            line: number(line - part.map_or(0, |part| part.first_line)),
            column: number(before.chars().count()),
        }
    }

    /// The number of a line among all lines, from 1.
    pub fn line_of(&self, offset: usize) -> u32 {
        let line = self.lines.partition_point(|&start| start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// A line, by its number among all lines, for a message about a place: its number, and its file if that
    /// is another.
    pub fn line_beside(&self, line: u32, place: &Range<usize>) -> String {
        let at = self.position(self.line_range(line).start);
        if at.file == self.position(place.start).file {
            format!("line {}", at.line)
        } else {
            format!("line {} of {}", at.line, at.file)
        }
    }

    /// The octets of a line, by its number among all lines, without its end.
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

/// Where the lines behind line ends begin.
fn line_starts(text: &str, start: usize) -> impl Iterator<Item = usize> + '_ {
    text.match_indices('\n').map(move |(at, _)| start + at + 1)
}

/// Reads a file; what is wrong with it as a file is told.
pub(crate) fn read(path: &Path, file: &str, diagnostics: &mut Diagnostics) -> Option<Source> {
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
    file: &str,
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
