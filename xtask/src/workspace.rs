//! Where things lie, and how cargo is called.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};

/// The folder of the workspace.
pub fn root() -> &'static Path {
    static XTASK: LazyLock<PathBuf> = LazyLock::new(|| {
        // Cargo says where it runs this from: a folder that was moved does not rebuild what was compiled in.
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
    });
    XTASK.parent().expect("xtask lies in the workspace")
}

/// The folder that cargo builds in.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Whether this is a machine's run, which must not skip anything.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// A call of cargo with the words of `line`, in the workspace, without standard input.
pub fn cargo(line: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(line.split_whitespace()).current_dir(root()).stdin(Stdio::null());
    command
}

/// What ends a loom model early, with success.
pub const LOOM_LIMITS: [&str; 3] = ["LOOM_MAX_PERMUTATIONS", "LOOM_MAX_DURATION", "LOOM_MAX_PREEMPTIONS"];

/// Has some tests try more than there is time for each day.
pub const LONG: &str = "CASBLOCK_TEST_LONG";

/// Sets a cargo call to build for loom, with `flags` besides, in a target folder of its own.
pub fn for_loom<'c>(command: &'c mut Command, flags: &str, target: &Path) -> &'c mut Command {
    for limit in LOOM_LIMITS {
        command.env_remove(limit);
    }
    // Models are many, and their builds take a while.
    command.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    with_flags(command, &format!("--cfg loom {flags}"), target)
}

/// Sets a cargo call to build with every atomic access recorded, in a target folder of its own.
pub fn for_power_cuts(command: &mut Command) -> &mut Command {
    with_flags(command, "--cfg power_cuts", &target().join("power-cuts"))
}

fn with_flags<'c>(command: &'c mut Command, flags: &str, target: &Path) -> &'c mut Command {
    // The encoded form, where it is set, would hide the other.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target)
}

/// All Rust files below `folder`, in order.
pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A duration as a person reads it.
pub fn pretty(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}
