//! A suite's output, kept in a file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The file that a suite's output goes to.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// An empty log.
    pub fn new(path: PathBuf) -> Result<Self> {
        let failed = || format!("cannot write {}", path.display());
        fs::create_dir_all(path.parent().expect("a log lies in a folder")).with_context(failed)?;
        let file = File::create(&path).with_context(failed)?;
        Ok(Self { path, file })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It, for a command to write to.
    pub fn file(&self) -> Result<File> {
        Ok(self.file.try_clone()?)
    }

    /// Adds a line.
    pub fn line(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.file, "{line}")?)
    }

    /// Runs a command to its end, its output going here; whether it succeeded.
    pub fn run(&mut self, command: &mut Command) -> Result<bool> {
        self.line(&format!("$ {command:?}"))?;
        command.stdout(self.file()?).stderr(self.file()?);
        let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
        self.line(&format!("({status})"))?;
        Ok(status.success())
    }

    /// All that is in it.
    pub fn text(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.path)?).into_owned())
    }
}

/// The last `count` lines of a text.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What libtest says of the tests that failed, at most `most` lines of it for each binary.
pub fn failures(text: &str, most: usize) -> String {
    let mut failures = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.find(|line| *line == "failures:") {
        let of_one = lines.by_ref().take_while(|line| *line != "failures:" && !line.starts_with("test result:"));
        let said: Vec<_> = std::iter::once(line).chain(of_one).collect();
        failures.extend_from_slice(&said[..said.len().min(most)]);
    }
    failures.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_commands_print_and_how_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path().join("logs/one.log")).unwrap();
        let mut shell = |script: &str| log.run(Command::new("sh").args(["-c", script])).unwrap();
        assert!(shell("echo out; echo err >&2"));
        assert!(!shell("exit 3"));
        let text = log.text().unwrap();
        assert!(text.contains("\nout\nerr\n"), "{text}");
        assert_eq!(tail(&text, 1), "(exit status: 3)");
        assert_eq!(tail("a\nb", 5), "a\nb");
    }
    #[test]
    fn failures_are_told_by_each_binary() {
        let text = "running 2 tests\n\nfailures:\n\n---- a stdout ----\npanicked at x\nmore\n\nfailures:\n    a\n\ntest result: FAILED. 1\n\
                    running\ntest result: ok\nrunning\nfailures:\nb\ntest result: FAILED.";
        assert_eq!(failures(text, 4), "failures:\n\n---- a stdout ----\npanicked at x\nfailures:\nb");
        assert_eq!(failures("test result: ok. 3 passed", 4), "");
    }
}
