//! What the build says: errors and warnings at a file, a line and a column.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::source::{Position, Source};

/// More findings than this are not told one by one.
const TOLD_MAX: usize = 100;

/// A line longer than this, in octets, is not shown.
const SHOWN_MAX: usize = 400;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The site cannot be built.
    Error,
    /// The site is built, and may not mean what it says.
    Warning,
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to the site directory.
    pub file: String,
    /// The line, from 1; 0 when it is about the whole file.
    pub line: u32,
    /// The column in characters, from 1; 0 when it is about the whole file.
    pub column: u32,
    /// The column behind the last character that it is about, on the same line; 0 when it is about the whole file.
    pub end_column: u32,
    /// What is wrong.
    pub message: String,
    /// What stands under the caret: what was expected, or what was perhaps meant.
    pub label: Option<String>,
    path: String,
    shown: Option<Shown>,
    order: (u8, usize),
}

/// The line that a finding is about.
#[derive(Debug, Clone)]
struct Shown {
    text: String,
    span: Range<usize>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        self.label.iter().try_for_each(|label| write!(f, "; {label}"))
    }
}

/// All findings of one build.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    told: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// The number of errors, those beyond the hundredth finding included.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The number of warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// The findings in the order of the files, at most a hundred.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.told.iter()
    }

    /// The findings as text for people, each with its line and a caret; empty when there are none.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in &self.told {
            text.push_str(&renderer.render(&[diagnostic.group()]));
            text.push_str("\n\n");
        }
        let untold = (self.errors + self.warnings).saturating_sub(self.told.len());
        if untold > 0 {
            text.push_str(&format!("and {untold} more\n"));
        }
        text
    }

    /// The same with every warning an error.
    pub(crate) fn denied(mut self) -> Self {
        self.told.iter_mut().for_each(|diagnostic| diagnostic.severity = Severity::Error);
        self.errors += std::mem::take(&mut self.warnings);
        self
    }

    /// Whether so much is wrong that looking further is of no use.
    pub(crate) fn is_full(&self) -> bool {
        self.told.len() >= TOLD_MAX
    }

    pub(crate) fn error(&mut self, source: &Source, span: Range<usize>, message: impl Into<String>) {
        self.tell(Severity::Error, source, span, message.into(), None);
    }

    pub(crate) fn error_with(
        &mut self,
        source: &Source,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.tell(Severity::Error, source, span, message.into(), Some(label.into()));
    }

    pub(crate) fn warning(
        &mut self,
        source: &Source,
        span: Range<usize>,
        message: impl Into<String>,
        label: Option<String>,
    ) {
        self.tell(Severity::Warning, source, span, message.into(), label);
    }

    /// An error about a file as a whole.
    pub(crate) fn error_in(&mut self, path: &str, file: &str, message: String) {
        self.errors += 1;
        if self.is_full() {
            return;
        }
        self.told.push(Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            end_column: 0,
            message,
            label: None,
            path: path.to_owned(),
            shown: None,
            order: (order_of(file), 0),
        });
    }

    pub(crate) fn sort(&mut self) {
        self.told.sort_by_key(|diagnostic| diagnostic.order);
    }

    fn tell(
        &mut self,
        severity: Severity,
        source: &Source,
        span: Range<usize>,
        message: String,
        label: Option<String>,
    ) {
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if self.is_full() {
            return;
        }
        let Position { path, file, line, column } = source.position(span.start);
        let shown = shown(source, &span);
        let end_column = column.saturating_add(width(source, &span));
        self.told.push(Diagnostic {
            severity,
            file: file.to_owned(),
            line,
            column,
            end_column,
            message,
            label,
            path: path.to_owned(),
            shown,
            order: (order_of(source.file()), span.start),
        });
    }
}

/// The plan is read before the policy.
fn order_of(file: &str) -> u8 {
    u8::from(file != "weir.toml")
}

/// The characters of a place that stand on its first line, one at least, as the caret has it.
fn width(source: &Source, span: &Range<usize>) -> u32 {
    let line = source.line_range(source.line_of(span.start));
    let end = span.end.min(line.end).max(span.start);
    let text = source.text.get(span.start..end).unwrap_or("");
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX).max(1)
}

fn shown(source: &Source, span: &Range<usize>) -> Option<Shown> {
    let range = source.line_range(source.line_of(span.start));
    let text = source.text.get(range.clone())?;
    if text.len() > SHOWN_MAX {
        return None;
    }
    let start = span.start.clamp(range.start, range.end) - range.start;
    let end = span.end.clamp(range.start, range.end) - range.start;
    // A caret needs a width; at the end of a line it stands behind it.
    let text = if start == text.len() { text.to_owned() + " " } else { text.to_owned() };
    let mut end = end.max(start + 1);
    while !text.is_char_boundary(end) {
        end += 1;
    }
    Some(Shown { text, span: start..end })
}

impl Diagnostic {
    fn group(&self) -> Group<'_> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let Some(shown) = &self.shown else {
            let mut origin = Origin::path(self.path.as_str());
            if self.line > 0 {
                origin = origin.line(self.line as usize).char_column(self.column as usize);
            }
            let group = Group::with_title(title).element(origin);
            return match &self.label {
                Some(label) => group.element(Level::HELP.message(label.as_str())),
                None => group,
            };
        };
        let annotation = AnnotationKind::Primary.span(shown.span.clone()).label(self.label.as_deref());
        let snippet = Snippet::source(shown.text.as_str())
            .path(self.path.as_str())
            .line_start(self.line as usize)
            .annotation(annotation);
        Group::with_title(title).element(snippet)
    }
}

/// What was perhaps meant by `word`: `did you mean "..."?`
pub(crate) fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if word.len() > 64 {
        return None;
    }
    let first = word.chars().next()?;
    let limit = (word.chars().count() / 3).clamp(1, 3);
    // Of very many names, those at the end are not looked at.
    known
        .into_iter()
        .take(2000)
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= 3)
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= limit && candidate != word)
        .min_by_key(|&(distance, candidate)| (distance, !candidate.starts_with(first)))
        .map(|(_, candidate)| format!("did you mean \"{candidate}\"?"))
}

/// A name as it stands in a message: quoted, without control characters, not too long.
pub(crate) fn quoted(word: &str) -> Rc<str> {
    let mut text: String =
        word.chars().take(48).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if word.chars().nth(48).is_some() {
        text.push('…');
    }
    format!("\"{text}\"").into()
}
