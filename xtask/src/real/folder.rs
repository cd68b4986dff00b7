//! The run folder: what `init.sh` reads, and the results that it writes.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::kernel::Kernel;
use crate::workspace::target;

/// The first process inside.
const INIT: &str = include_str!("init.sh");

/// A disk inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// LIO's.
    Lio,
    /// The disk of scsi_debug.
    ScsiDebug,
}

impl Disk {
    /// The variable that has its path.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Lio => "LIO",
            Self::ScsiDebug => "SCSI_DEBUG",
        }
    }
}

/// A word of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// These bytes, whatever they are.
    Text(OsString),
    /// The path of a disk, after a prefix.
    Disk(&'static str, Disk),
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&Path> for Word {
    fn from(path: &Path) -> Self {
        Self::Text(path.into())
    }
}

/// A program to run inside.
#[derive(Clone, Debug)]
pub struct Step {
    /// The program, and its arguments.
    pub words: Vec<Word>,
    /// Where it runs.
    pub folder: PathBuf,
    /// The machine is ended if it takes longer.
    pub limit: Duration,
}

impl Step {
    /// The step as lines for the shell.
    fn script(&self) -> Vec<u8> {
        let words = self.words.iter().map(|word| match word {
            Word::Text(text) => quoted(text.as_bytes()),
            Word::Disk(prefix, disk) => {
                [quoted(prefix.as_bytes()), format!("\"${}\"", disk.variable()).into_bytes()].concat()
            }
        });
        let words: Vec<_> = words.collect();
        let folder = quoted(self.folder.as_os_str().as_bytes());
        [b"cd ", &*folder, b" || exit\nexec ", &words.join(&b" "[..]), b"\n"].concat()
    }
}

/// Bytes as one word of the shell's.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in bytes {
        match byte {
            b'\'' => word.extend(br"'\''"),
            _ => word.push(byte),
        }
    }
    word.push(b'\'');
    word
}

/// What came of a step.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Ended {
    /// What the shell says of its exit: 128 and more is a signal. None if it has not ended, or never began.
    pub status: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// How far the machine has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// No step has begun, or the last has ended.
    Around {
        /// How many steps have ended.
        ended: usize,
    },
    /// This step runs: its index.
    Step(usize),
}

/// A run folder. It goes away when it is dropped.
pub struct Folder(TempDir);

impl Folder {
    /// A folder from which the machine runs these steps.
    pub fn new(kernel: &Kernel, steps: &[Step]) -> Result<Self> {
        let parent = target().join("xtask");
        fs::create_dir_all(&parent)?;
        let folder = tempfile::Builder::new().prefix("real-").tempdir_in(&parent);
        let folder = Self(folder.with_context(|| format!("cannot make a folder in {}", parent.display()))?);
        folder.write("init.sh", INIT.as_bytes())?;
        fs::set_permissions(folder.path().join("init.sh"), Permissions::from_mode(0o755))?;
        folder.write("environment", &environment(kernel, folder.path()))?;
        fs::create_dir(folder.path().join("steps"))?;
        fs::create_dir(folder.path().join("out"))?;
        for (index, step) in steps.iter().enumerate() {
            folder.write(&format!("steps/{}.sh", index + 1), &step.script())?;
        }
        Ok(folder)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<()> {
        let path = self.path().join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The path of one of a step's results: `stdout`, `stderr`, `status` or `started`.
    pub fn result(&self, step: usize, of: &str) -> PathBuf {
        self.path().join(format!("out/{}.{of}", step + 1))
    }

    fn text(&self, step: usize, of: &str) -> String {
        // What was never written is as good as empty.
        let bytes = fs::read(self.result(step, of)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What has come of a step.
    pub fn ended(&self, step: usize) -> Ended {
        let status = self.text(step, "status").trim().parse().ok();
        Ended { status, stdout: self.text(step, "stdout"), stderr: self.text(step, "stderr") }
    }

    /// How far the machine has come with `steps` steps.
    pub fn stage(&self, steps: usize) -> Stage {
        let is_there = |step: usize, of| self.result(step, of).exists();
        let ended = (0..steps).take_while(|&step| is_there(step, "status")).count();
        match ended < steps && is_there(ended, "started") {
            true => Stage::Step(ended),
            false => Stage::Around { ended },
        }
    }

    /// Whether the machine came to its end.
    pub fn is_done(&self) -> bool {
        self.path().join("out/done").exists()
    }

    /// Why the disks could not be made.
    pub fn trouble(&self) -> Option<String> {
        Some(fs::read_to_string(self.path().join("out/trouble")).ok()?.trim().to_owned())
    }
}

fn environment(kernel: &Kernel, folder: &Path) -> Vec<u8> {
    let lines = [("BUSYBOX", &*kernel.busybox), ("MODULES", &*kernel.modules), ("RUN", folder)];
    let lines = lines.map(|(name, path)| {
        let value = quoted(&path.as_os_str().to_owned().into_vec());
        [name.as_bytes(), b"=", &*value, b"\n"].concat()
    });
    lines.concat()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn step(words: Vec<Word>) -> Step {
        Step { words, folder: "/".into(), limit: Duration::from_secs(1) }
    }

    #[test]
    fn words_reach_the_program_as_they_are() {
        let odd = ["a b", "it's", "$HOME `id` \\ \"", "*", "", "two\nlines", "-n"];
        let mut words: Vec<Word> = vec!["printf".into(), "[%s]".into()];
        words.extend(odd.map(Word::from));
        words.push(Word::Disk("scsi:", Disk::ScsiDebug));
        let script = OsString::from_vec(step(words).script());
        let output = Command::new("sh").arg("-c").arg(script).env("SCSI_DEBUG", "/dev/a disk").output().unwrap();
        let expected: String = odd.iter().chain(&["scsi:/dev/a disk"]).map(|word| format!("[{word}]")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_failure() {
        let mut step = step(vec!["true".into()]);
        step.folder = "/there/is/no/such".into();
        let script = OsString::from_vec(step.script());
        assert!(!Command::new("sh").arg("-c").arg(script).output().unwrap().status.success());
    }

    #[test]
    fn results_are_read_as_far_as_they_are_written() {
        let kernel = Kernel { linux: "/l".into(), modules: "/it's".into(), busybox: "/b b".into() };
        let folder = Folder::new(&kernel, &[step(vec!["true".into()]), step(vec!["false".into()])]).unwrap();
        let environment = fs::read_to_string(folder.path().join("environment")).unwrap();
        assert!(environment.starts_with("BUSYBOX='/b b'\nMODULES='/it'\\''s'\nRUN='"), "{environment}");

        assert_eq!(folder.stage(2), Stage::Around { ended: 0 });
        folder.write("out/1.started", b"").unwrap();
        assert_eq!(folder.stage(2), Stage::Step(0));
        folder.write("out/1.stdout", b"text").unwrap();
        assert_eq!(folder.ended(0), Ended { status: None, stdout: "text".into(), stderr: String::new() });
        folder.write("out/1.status", b"3\n").unwrap();
        assert_eq!(folder.ended(0).status, Some(3));
        assert_eq!(folder.stage(2), Stage::Around { ended: 1 });
        folder.write("out/2.started", b"").unwrap();
        assert_eq!(folder.stage(2), Stage::Step(1));
        folder.write("out/2.status", b"0\n").unwrap();
        assert_eq!(folder.stage(2), Stage::Around { ended: 2 });

        assert!(!folder.is_done());
        folder.write("out/done", b"").unwrap();
        assert!(folder.is_done());
        assert_eq!(folder.trouble(), None);
        folder.write("out/trouble", b"no module sg\n").unwrap();
        assert_eq!(folder.trouble().as_deref(), Some("no module sg"));

        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
