//! Errors as the user sees them: one line on stderr, and the exit status.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use casblock::OpenError;

use crate::signals::Interrupted;

/// The exit status of a miscompare, as sg_compare_and_write(8) has it.
pub const MISCOMPARE: u8 = 14;

/// The exit status of a compare-and-write of which nobody can tell whether it was done.
pub const INDETERMINATE: u8 = 3;

/// Prints an error and gives its exit status.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("casblock: {}", describe(error));
    match error.downcast_ref::<Interrupted>() {
        Some(interrupted) => ExitCode::from(interrupted.exit_status()),
        None => ExitCode::FAILURE,
    }
}

/// An error with all its causes and what to do about it, in one line. A cause that the text before it has is left out.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    if let Some(advice) = error.chain().find_map(|cause| cause.downcast_ref()).and_then(advice) {
        let _ = write!(text, "; {advice}");
    }
    text.replace('\n', " ")
}

/// What the command's user can do, where the library's words do not say it.
fn advice(error: &OpenError) -> Option<&'static str> {
    match error {
        OpenError::Exists { .. } => Some("--force tells it to"),
        OpenError::NotAStore { .. } => Some("casblock create and casblock import make one"),
        OpenError::InUse { .. } => Some("try again when it is closed"),
        OpenError::ReadOnlyFile { .. } => Some("read, info, word get, export, events and check work on it as it is"),
        OpenError::Io { source, doing: "opening", .. } if source.kind() == io::ErrorKind::NotFound => {
            Some("casblock create and casblock import make a store")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let source = io::Error::other("the disk burns");
        let error = OpenError::Io { path: "a.casb".into(), doing: "opening", source };
        assert_eq!(describe(&anyhow::Error::new(error)), "a.casb: opening: the disk burns");
        let error = anyhow::Error::new(io::Error::other("inner")).context("outer");
        assert_eq!(describe(&error), "outer: inner");
    }
}
