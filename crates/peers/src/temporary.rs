//! Folders for the files of a run, which go with it, however it ends: some gigabytes of them may lie in memory.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

/// A folder in each of some others.
pub struct Temporary(Vec<TempDir>);

impl Temporary {
    /// Makes the folders, and sees that they are removed when a signal ends the process.
    pub fn within(folders: &[&Path]) -> Result<Self> {
        // First: a signal that comes while they are made is dealt with as soon as they are.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let make = |within: &&Path| {
            let made = tempfile::Builder::new().prefix("casblock-compare-").tempdir_in(within);
            made.with_context(|| format!("cannot make a folder in {}", within.display()))
        };
        let made = Self(folders.iter().map(make).collect::<Result<_>>()?);
        let paths: Vec<PathBuf> = made.paths().map(Path::to_owned).collect();
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                for path in paths {
                    // Others may still be making files in it.
                    let remove = |_: &_| path.exists() && std::fs::remove_dir_all(&path).is_err();
                    (0..1000).take_while(remove).for_each(drop);
                }
                eprintln!();
                std::process::exit(128 + signal);
            }
        });
        Ok(made)
    }

    /// The folders.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(TempDir::path)
    }
}
