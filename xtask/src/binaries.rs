//! Test binaries: building them, and listing their tests, to run each in a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace::LOOM_LIMITS;

/// A test binary.
#[derive(Debug)]
pub struct Binary {
    /// The name of its target.
    pub name: String,
    /// Where it was built.
    pub path: PathBuf,
    /// The folder of its package, from where it is run.
    pub folder: PathBuf,
}

impl Binary {
    /// A call of it, without standard input.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder).stdin(Stdio::null());
        for limit in LOOM_LIMITS {
            command.env_remove(limit);
        }
        command
    }

    /// The names of its tests, without those that are ignored.
    pub fn tests(&self) -> Result<Vec<String>> {
        let names = |ignored: &[&str]| -> Result<Vec<String>> {
            let output = self.command(&["--list", "--format", "terse"]).args(ignored).output()?;
            ensure!(output.status.success(), "{} does not list its tests", self.path.display());
            let text = String::from_utf8(output.stdout)?;
            Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
        };
        let ignored = names(&["--ignored"])?;
        Ok(names(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
    }
}

/// Builds those of a `cargo test`, and runs none; nothing if they do not compile. What the compiler says goes to `log`.
pub fn build(cargo_test: &mut Command, log: File) -> Result<Option<Vec<Binary>>> {
    let command = cargo_test.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    // Its standard output is read here.
    let output = command.stdout(Stdio::piped()).stderr(log).output().context("cannot run cargo")?;
    if !output.status.success() {
        return Ok(None);
    }
    let mut binaries = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let manifest = text(&message["manifest_path"]);
        // Programs that tests call are built, too.
        if message["profile"]["test"] == true
            && let (Some(path), Some(name), Some(manifest)) =
                (text(&message["executable"]), text(&message["target"]["name"]), manifest)
        {
            let folder = Path::new(&manifest).parent().context("a manifest lies in a folder")?.to_owned();
            binaries.push(Binary { name, path: path.into(), folder });
        }
    }
    Ok(Some(binaries))
}

/// Whether a loom model is a twin, which passes because what it runs fails.
pub fn is_twin(name: &str) -> bool {
    name.split("::").any(|part| part.starts_with("control_"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn twins_are_told_by_their_name() {
        assert!(super::is_twin("blocks::control_without_fence"));
        assert!(super::is_twin("control_read::unvalidated"));
        assert!(!super::is_twin("readers_see_the_control_word"));
    }
}
