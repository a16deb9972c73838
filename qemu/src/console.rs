//! The serial line of a VM, as lines that can be waited for.

use crate::error::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStderr, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest line that is kept in one piece.
const LINE_MAX: usize = 1 << 20;

/// Lines that are kept; older ones are forgotten.
const LINES_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    /// How many lines were forgotten: the index of `lines[0]`, counted from the beginning.
    forgotten: usize,
    partial: Vec<u8>,
    /// Streams that are still open.
    open: u8,
    log: Option<File>,
}

/// What a VM says: its serial line and QEMU's own complaints.
#[derive(Debug, Clone, Default)]
pub struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Console {
    /// Listens to QEMU's output, in threads that end with it.
    pub(crate) fn listen(output: ChildStdout, errors: ChildStderr) -> Self {
        let console = Self::default();
        console.lock().open = 2;
        let (serial, complaints) = (console.clone(), console.clone());
        thread::spawn(move || serial.read(output, |console, octets| console.hear(octets)));
        thread::spawn(move || {
            let mut text = Vec::new();
            complaints.read(errors, |console, octets| {
                // Whole lines only: they must not end up inside a line of the guest.
                text.extend_from_slice(octets);
                while let Some(end) = text.iter().position(|octet| *octet == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    console.add(&String::from_utf8_lossy(&line));
                }
            });
        });
        console
    }

    fn read(&self, mut from: impl Read, mut hear: impl FnMut(&Self, &[u8])) {
        let mut octets = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut octets) {
            hear(self, octets.get(..length).unwrap_or_default());
        }
        self.lock().open -= 1;
        self.shared.1.notify_all();
    }

    /// Takes octets of the serial line.
    fn hear(&self, octets: &[u8]) {
        let mut state = self.lock();
        for octet in octets {
            if *octet == b'\n' || state.partial.len() >= LINE_MAX {
                let line = std::mem::take(&mut state.partial);
                state.add(&String::from_utf8_lossy(&line));
            }
            if *octet != b'\n' {
                state.partial.push(*octet);
            }
        }
        drop(state);
        self.shared.1.notify_all();
    }

    fn add(&self, line: &str) {
        self.lock().add(line);
        self.shared.1.notify_all();
    }

    /// How many lines were said so far.
    pub fn lines(&self) -> usize {
        let state = self.lock();
        state.forgotten + state.lines.len()
    }

    /// The first line from index `from` on that `is_it` accepts; waits `timeout` for one.
    pub fn find(&self, from: usize, timeout: Duration, is_it: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut from = from;
        let mut state = self.lock();
        loop {
            let new = state.lines.get(from.saturating_sub(state.forgotten)..).unwrap_or_default();
            if let Some(line) = new.iter().find(|line| is_it(line)) {
                return Some(line.clone());
            }
            from = state.forgotten + state.lines.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until QEMU has closed its output.
    pub(crate) fn wait_end(&self, timeout: Duration) {
        let state = self.lock();
        let waited = self.shared.1.wait_timeout_while(state, timeout, |state| state.open > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The last lines, an unfinished one included.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let state = self.lock();
        let partial =
            Some(printable(&String::from_utf8_lossy(&state.partial))).filter(|line| !line.is_empty());
        let all = state.lines.iter().cloned().chain(partial);
        let skipped = (state.lines.len() + 1).saturating_sub(lines);
        all.skip(skipped).collect()
    }

    /// Everything that is kept, as lines.
    pub fn text(&self) -> String {
        self.tail(LINES_MAX).join("\n")
    }

    pub(crate) fn copy_to(&self, path: &Path) -> Result<()> {
        let context = || format!("cannot write {}", path.display());
        let mut file = File::create(path).context(context)?;
        let mut state = self.lock();
        for line in &state.lines {
            writeln!(file, "{line}").context(context)?;
        }
        state.log = Some(file);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, line: &str) {
        let line = printable(line);
        if self.log.as_mut().is_some_and(|log| writeln!(log, "{line}").is_err()) {
            // A full disk ends the log, not the VM.
            self.log = None;
        }
        self.lines.push(line);
        if self.lines.len() > LINES_MAX {
            let old = LINES_MAX / 2;
            self.lines.drain(..old);
            self.forgotten += old;
        }
    }
}

/// Without what could move the cursor of a terminal: firmware clears the screen, and a guest is a stranger.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_from_where_they_are_asked_for() {
        let console = Console::default();
        console.hear(b"one\r\ntw");
        assert_eq!(console.find(0, Duration::ZERO, |line| line.starts_with("tw")), None);
        console.hear(b"o\n");
        assert_eq!(console.find(0, Duration::ZERO, |line| line == "two"), Some("two".into()));
        assert_eq!(console.find(2, Duration::ZERO, |_| true), None);
        assert_eq!(console.lines(), 2);
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let console = Console::default();
        console.hear(b"\x1b[2Jhello\x07\n");
        assert_eq!(console.text(), "[2Jhello");
    }

    #[test]
    fn a_flood_is_bounded_and_indices_stay_true() {
        let console = Console::default();
        for number in 0..LINES_MAX + 10 {
            console.add(&number.to_string());
        }
        assert_eq!(console.lines(), LINES_MAX + 10);
        assert!(console.lock().lines.len() <= LINES_MAX);
        assert_eq!(console.find(LINES_MAX + 5, Duration::ZERO, |_| true), Some((LINES_MAX + 5).to_string()));
        console.hear(&vec![b'x'; LINE_MAX + 1]);
        assert!(console.lock().partial.len() <= LINE_MAX);
    }

    #[test]
    fn the_tail_holds_the_unfinished_line() {
        let console = Console::default();
        console.hear(b"one\ntwo\nthr");
        assert_eq!(console.tail(2), ["two", "thr"]);
        assert_eq!(console.tail(9), ["one", "two", "thr"]);
    }
}
