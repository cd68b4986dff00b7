//! Test binaries: building them, and listing their tests, to run each in a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A test binary.
#[derive(Debug)]
pub struct Binary {
    /// The name of its target.
    pub name: String,
    /// Where it was built.
    pub path: PathBuf,
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
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str()) {
            binaries.push(Binary { name: name.to_owned(), path: path.into() });
        }
    }
    Ok(Some(binaries))
}

/// The names of a binary's tests, without those that are ignored.
pub fn list(folder: &Path, binary: &Path) -> Result<Vec<String>> {
    let names = |arguments: &[&str]| -> Result<Vec<String>> {
        let output = Command::new(binary).args(arguments).current_dir(folder).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{} does not list its tests", binary.display());
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = names(&["--list", "--format", "terse", "--ignored"])?;
    let all = names(&["--list", "--format", "terse"])?;
    Ok(all.into_iter().filter(|name| !ignored.contains(name)).collect())
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
