//! A copy of the workspace to weaken, so that the sources are never touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::mutants::Mutant;
use crate::workspace::root;

/// What the workspace's manifests need to load, and the models to build.
const PARTS: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "src",
    "benches",
    "examples",
    "tests",
    "crates",
    "loom-tests",
    "power-cuts",
    "xtask",
];

/// The copy.
pub struct Tree {
    /// Its folder.
    pub folder: PathBuf,
}

/// Makes the copy, in place of an older one.
pub fn copy(folder: &Path) -> Result<Tree> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for part in PARTS {
        copy_all(&root().join(part), &folder.join(part))?;
    }
    Ok(Tree { folder: folder.to_owned() })
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    if from.is_dir() {
        fs::create_dir_all(to).with_context(failed)?;
        for entry in fs::read_dir(from).with_context(failed)? {
            let name = entry.with_context(failed)?.file_name();
            if name != "target" {
                copy_all(&from.join(&name), &to.join(&name))?;
            }
        }
    } else if from.is_file() {
        // Read and written, not copied: the new file's time must be new, for cargo goes by it.
        fs::write(to, fs::read(from).with_context(failed)?).with_context(failed)?;
    }
    Ok(())
}

impl Tree {
    /// Runs `f` while the copy is weakened by `mutant`.
    pub fn with<T>(&self, mutant: &Mutant, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.folder.join(&mutant.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let weakened = mutant.apply(&text);
        ensure!(weakened != text, "{mutant}: changes nothing");
        fs::write(&path, weakened)?;
        let done = f();
        fs::write(&path, text)?;
        done
    }
}
