//! Processes in namespaces, with waits that end: by their end, in time, or by an interrupt.

use super::agent;
use crate::error::{Context, Error, Result};
use crate::netns::{Namespace, Service};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often an interrupt is looked for.
const TICK: Duration = Duration::from_millis(20);

/// Set by an interrupt.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Stop<'_> {
    /// Whether to go on.
    ///
    /// # Errors
    /// There was an interrupt.
    pub fn check(self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::new("interrupted")) } else { Ok(()) }
    }

    /// Sleeps, unless interrupted.
    ///
    /// # Errors
    /// There was an interrupt.
    pub fn sleep(self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
        }
        self.check()
    }
}

/// A process whose output is heard. It ends when this is dropped.
#[derive(Debug)]
pub struct Process<'a> {
    what: String,
    service: Service,
    lines: Receiver<String>,
    complaints: Option<JoinHandle<String>>,
    stop: Stop<'a>,
}

impl<'a> Process<'a> {
    /// Starts words in a namespace.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn start(namespace: &Namespace, words: &[String], stop: Stop<'a>) -> Result<Self> {
        Self::spawn(namespace.command().args(words), words.join(" "), stop)
    }

    /// Starts one of the traffic generators: this program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn agent(namespace: &Namespace, words: &str, stop: Stop<'a>) -> Result<Self> {
        let program = std::env::current_exe().context(|| "cannot find this program itself".to_owned())?;
        let mut command = namespace.command();
        command.arg(program).arg(agent::COMMAND).args(words.split_whitespace());
        Self::spawn(&mut command, words.to_owned(), stop)
    }

    fn spawn(command: &mut Command, what: String, stop: Stop<'a>) -> Result<Self> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut service = Service(child.context(|| format!("cannot run {what}"))?);
        let (sender, lines) = mpsc::channel();
        if let Some(output) = service.0.stdout.take() {
            thread::spawn(move || {
                let whole = BufReader::new(output).lines().map_while(std::io::Result::ok);
                // Ends early when nobody listens any more.
                whole.map(|line| sender.send(line)).take_while(std::result::Result::is_ok).for_each(drop);
            });
        }
        let complaints = service.0.stderr.take().map(|errors| thread::spawn(move || all_of(errors)));
        Ok(Self { what, service, lines, complaints, stop })
    }

    /// The next line.
    ///
    /// # Errors
    /// It ended, or the time is up.
    pub fn line(&mut self, timeout: Duration) -> Result<String> {
        match self.next(Instant::now() + timeout)? {
            Some(line) => Ok(line),
            None => Err(self.failure()),
        }
    }

    /// Everything that it still says until its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn rest(&mut self, timeout: Duration) -> Result<String> {
        let end = Instant::now() + timeout;
        let mut text = String::new();
        while let Some(line) = self.next(end)? {
            text += &line;
            text.push('\n');
        }
        if text.is_empty() { Err(self.failure()) } else { Ok(text) }
    }

    /// What a traffic generator says at its end.
    ///
    /// # Errors
    /// It does not end in time, or failed.
    pub fn result<T: DeserializeOwned>(&mut self, timeout: Duration) -> Result<T> {
        let text = self.line(timeout)?;
        serde_json::from_str(&text).context(|| format!("{} said {text:?}", self.what))
    }

    /// Waits until a traffic generator listens.
    ///
    /// # Errors
    /// It does not.
    pub fn ready(&mut self) -> Result<()> {
        match self.line(Duration::from_secs(10))?.as_str() {
            agent::READY => Ok(()),
            other => Err(Error::new(format!("{} said {other:?}", self.what))),
        }
    }

    /// A line, or none at the end.
    fn next(&mut self, end: Instant) -> Result<Option<String>> {
        loop {
            self.stop.check()?;
            match self.lines.recv_timeout(TICK) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                    return Err(Error::new(format!("{} takes too long", self.what)));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Why it ended without a result.
    fn failure(&mut self) -> Error {
        // Fails only when it is gone already.
        let _ = self.service.0.kill();
        let said = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Error::new(format!("{} failed: {}", self.what, said.trim().trim_start_matches("error: ")))
    }
}

fn all_of(mut errors: ChildStderr) -> String {
    let mut octets = Vec::new();
    // What came until it broke is worth showing.
    let _ = errors.read_to_end(&mut octets);
    String::from_utf8_lossy(&octets).into_owned()
}
