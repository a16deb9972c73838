//! Plain text on a terminal: columns, and a screen that is drawn over.

use std::io::{self, IsTerminal, Write};

/// Rows with their columns aligned, two spaces apart.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Where lines are shown: drawn over in place on a terminal, else appended when they are new.
#[derive(Debug)]
pub struct Screen {
    is_drawn_over: bool,
    drawn: usize,
    appended: Vec<String>,
}

impl Screen {
    /// A screen on standard output; `is_live` asks to draw over.
    pub fn new(is_live: bool) -> Self {
        Self { is_drawn_over: is_live && io::stdout().is_terminal(), drawn: 0, appended: Vec::new() }
    }

    /// Shows the lines as they are now.
    pub fn show(&mut self, lines: &[String]) {
        let text = if self.is_drawn_over { self.over(lines) } else { self.new_lines(lines) };
        let mut out = io::stdout().lock();
        // Nobody looks any more when this fails.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Moves up over what was drawn, and draws again. Lines are cut at the edge, so that each stays one.
    fn over(&mut self, lines: &[String]) -> String {
        let mut text = if self.drawn > 0 { format!("\x1b[{}A\r\x1b[J", self.drawn) } else { String::new() };
        text.push_str("\x1b[?7l");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[?7h");
        self.drawn = lines.len();
        text
    }

    /// The lines that were not there last time.
    fn new_lines(&mut self, lines: &[String]) -> String {
        let new: String = lines
            .iter()
            .filter(|line| !self.appended.contains(line))
            .map(|line| format!("{line}\n"))
            .collect();
        self.appended = lines.to_vec();
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(columns(&rows(&[&["a", "bb", "c"], &["aaa", "b"]])), ["a    bb  c", "aaa  b"]);
    }

    #[test]
    fn a_drawn_screen_goes_up_as_many_lines_as_it_drew() {
        let mut screen = Screen { is_drawn_over: true, drawn: 0, appended: vec![] };
        let lines = ["one".to_owned(), "two".to_owned()];
        assert_eq!(screen.over(&lines), "\x1b[?7lone\ntwo\n\x1b[?7h");
        assert!(screen.over(&lines[..1]).starts_with("\x1b[2A\r\x1b[J"));
        assert!(screen.over(&lines).starts_with("\x1b[1A\r\x1b[J"));
    }

    #[test]
    fn an_appended_screen_shows_what_is_new() {
        let mut screen = Screen { is_drawn_over: false, drawn: 0, appended: vec![] };
        let lines = ["one".to_owned(), "two".to_owned()];
        assert_eq!(screen.new_lines(&lines[..1]), "one\n");
        assert_eq!(screen.new_lines(&lines), "two\n");
        assert_eq!(screen.new_lines(&lines), "");
    }
}
