//! Child processes for tests: the test's own executable again, running one of its ignored tests.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What children begin the lines with that are meant for their parent, to tell them from the test harness's own.
const MARK: &str = "child: ";

/// Names the folder of the test to its children.
const FOLDER: &str = "CASBLOCK_TEST_FOLDER";

/// Holds off the other tests of this executable. A child that is being started has, until it executes, all descriptors
/// of its parent, and with them the locks of stores that another test may believe it has closed.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed left nothing behind that matters to the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child; killed and waited for when it goes out of scope.
pub struct Child {
    pub process: std::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts `test` in a process of its own.
    pub fn start(test: &str, variables: &[(&str, &str)], folder: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The next line the child says; `None` when it ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let line = self.lines.next()?.unwrap();
            // The harness may have begun the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.into());
            }
        }
    }

    /// Waits for the child to end well; gives the lines it says until then.
    pub fn finish(mut self) -> Vec<String> {
        let mut said = Vec::new();
        said.extend(std::iter::from_fn(|| self.hear()));
        let status = self.process.wait().unwrap();
        assert!(status.success(), "a child ended with {status}");
        said
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In a child: the test's folder, and a variable it was started with. `None` in whoever was not started by a test.
pub fn settings(variable: &str) -> Option<(PathBuf, String)> {
    Some((std::env::var_os(FOLDER)?.into(), std::env::var(variable).ok()?))
}

/// In a child: says lines to the parent.
pub fn say(lines: &str) {
    let mut out = std::io::stdout().lock();
    for line in lines.lines() {
        writeln!(out, "{MARK}{line}").unwrap();
    }
    out.flush().unwrap();
}
