//! Where results go: the one place that knows whether they are text or JSON.
//!
//! The convention, for all commands:
//! - A result goes to stdout. With the global flag `--json` it is JSON, one object a line, whose names are `snake_case`
//!   with units last (`length_bytes`). Otherwise it is text for people. See [`Output::result`].
//! - An error goes to stderr as one line of text that begins with `casblock:`, with `--json` too: programs have the exit
//!   status. Return it; `exit.rs` prints it.
//! - A miscompare is a result, not an error: it goes to stdout, and the exit status is 14.
//! - Progress bars ([`Output::progress`]) and the log go to stderr.
//! - Whoever reads stdout may stop reading (`| head`): that ends the command quietly, and changes no exit status that
//!   is already certain.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::progress::Progress;

/// Prints results as the user asked for them.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints JSON if `json`, else text.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Prints one result: `value` as a line of JSON, or what its `Display` says, with an end of line.
    ///
    /// # Errors
    /// What stdout answers; that nobody reads it is none.
    pub fn result<T: Serialize + fmt::Display>(&self, value: &T) -> io::Result<()> {
        if self.json { self.line(&serde_json::to_string(value)?) } else { self.line(value) }
    }

    /// As [`result`](Self::result), for one of many: whether anybody reads it.
    ///
    /// # Errors
    /// As there.
    pub fn stream<T: Serialize + fmt::Display>(&self, value: &T) -> io::Result<bool> {
        let text = if self.json { serde_json::to_string(value)? } else { value.to_string() };
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true),
        }
    }

    /// Prints a line of text where results are text, and nothing where they are JSON.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    pub fn text(&self, line: impl fmt::Display) -> io::Result<()> {
        if self.json { Ok(()) } else { self.line(line) }
    }

    fn line(&self, line: impl fmt::Display) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        ignore_broken_pipe(writeln!(stdout, "{line}").and_then(|()| stdout.flush()))
    }

    /// A bar on stderr for `length` steps of `doing`; see [`Progress`].
    pub fn progress(&self, doing: &'static str, length: u64) -> Progress {
        Progress::new(doing, length)
    }
}

/// Turns the error of a write to stdout that nobody reads any more into success.
pub fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
