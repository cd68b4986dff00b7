//! What the tests of the command share: a folder, and running `casblock` in it.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod signals;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The command under test.
pub const CASBLOCK: &str = env!("CARGO_BIN_EXE_casblock");

/// A temporary folder, in which commands run.
pub struct Folder(tempfile::TempDir);

/// What a command did.
pub struct Done {
    /// Its exit status.
    pub status: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Folder {
    /// A new, empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The names of all files in it, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Makes a file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A command in this folder, with nothing on stdin, that does not log.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        signals::interruptible(&mut command);
        command
    }

    /// Runs `casblock` with these arguments, which are separated by blanks.
    pub fn casblock(&self, arguments: &str) -> Done {
        done(self.command(CASBLOCK).args(arguments.split_whitespace()).output().unwrap())
    }

    /// As [`casblock`](Self::casblock), with something on stdin.
    pub fn casblock_reading(&self, stdin: &[u8], arguments: &str) -> Done {
        let mut command = self.command(CASBLOCK);
        let mut child = command.args(arguments.split_whitespace()).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // Whoever refuses its input does not read it to the end.
            scope.spawn(move || drop(pipe.write_all(stdin)));
            done(child.wait_with_output().unwrap())
        })
    }

    /// Makes a store of 64 blocks of 512 bytes with the default words and writers.
    pub fn store(&self, name: &str) -> PathBuf {
        self.casblock(&format!("create {name} --blocks 64")).succeeds();
        self.path(name)
    }
}

fn done(output: Output) -> Done {
    let Output { status, stdout, stderr } = output;
    let stderr = String::from_utf8(stderr).unwrap();
    Done { status: status.code().unwrap_or_else(|| panic!("killed: {status}: {stderr}")), stdout, stderr }
}

impl Done {
    /// Asserts that it did what it was told, without complaints.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{}", self.text());
        self
    }

    /// Asserts that it failed with status 1, nothing on stdout, and one line that has each of these in it.
    #[track_caller]
    pub fn fails(self, with: &[&str]) -> Self {
        assert_eq!(self.status, 1, "{}", self.stderr);
        assert_eq!(self.text(), "");
        self.complains(with)
    }

    /// Asserts that stderr is one line that has each of these in it.
    #[track_caller]
    pub fn complains(self, with: &[&str]) -> Self {
        assert!(self.stderr.starts_with("casblock: ") && self.stderr.lines().count() == 1, "{:?}", self.stderr);
        for part in with {
            assert!(self.stderr.contains(part), "{part:?} is not in {:?}", self.stderr);
        }
        self
    }

    /// What it wrote to stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it wrote to stdout: one line of JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let text = self.text();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        serde_json::from_str(&text).unwrap()
    }
}

/// Says that something could not be tested, past libtest's capture of what passing tests print.
pub fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// Overwrites bytes of a file.
pub fn patch(path: &PathBuf, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Reads bytes of a file.
pub fn bytes_at<const N: usize>(path: &PathBuf, offset: u64) -> [u8; N] {
    let mut bytes = [0; N];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// Runs a shell script where it may mount things that nobody else sees; `None` if the system does not allow it.
pub fn with_mounts(folder: &Folder, script: &str) -> Option<Done> {
    let in_namespace = |script: &str| {
        let mut command = folder.command("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-ec", script]).env("CASBLOCK", CASBLOCK);
        command.output().ok()
    };
    let probe = in_namespace("mount -t tmpfs none /mnt")?;
    if probe.status.success() { in_namespace(script).map(done) } else { None }
}
