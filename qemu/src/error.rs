//! What went wrong, and what to do next.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure told to a person: what happened, and where known, what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Compiler output ahead of the message.
    diagnosis: String,
    message: String,
    advice: Option<String>,
    usage: bool,
}

impl Error {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { diagnosis: String::new(), message: message.into(), advice: None, usage: false }
    }

    /// A wrong use of the command line, with exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message) }
    }

    /// A failure that a compiler has explained: its rendered diagnostics come first.
    pub fn diagnosed(diagnosis: &str, message: impl Into<String>) -> Self {
        Self { diagnosis: format!("{}\n\n", diagnosis.trim_end()), ..Self::new(message) }
    }

    /// Adds the next step to take.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The message alone, to be said within another.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The exit code of `weir`: 1 for a failure, 2 for a wrong command line.
    pub fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}error: {}", self.diagnosis, self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "\n  help: {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Says what was being done when a system call failed.
pub trait Context<T> {
    /// Turns an error into ours: `what: cause`.
    ///
    /// # Errors
    /// The same as before, with `what` in front.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(format!("{}: {cause}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_the_message_on_a_line_of_its_own() {
        let error = Error::new("no QEMU").advise("run qemu/setup.sh");
        assert_eq!(error.to_string(), "error: no QEMU\n  help: run qemu/setup.sh");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_diagnosis_comes_first() {
        let error = Error::diagnosed("error: odd\n  --> weir.toml:3:1\n", "the site has errors");
        assert_eq!(error.to_string(), "error: odd\n  --> weir.toml:3:1\n\nerror: the site has errors");
    }

    #[test]
    fn a_usage_error_exits_with_2() {
        assert_eq!(Error::usage("x").exit_code(), 2);
    }
}
