//! Where User-Mode Linux comes from: Debian's package, unpacked below the target folder, or installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::target;

/// What to do where it cannot be had.
pub const ADVICE: &str = "no User-Mode Linux: apt-get install user-mode-linux busybox-static";

/// The packages: the kernel with its modules, and the tools to load them with, which a container has not got.
const PACKAGES: [&str; 2] = ["user-mode-linux", "busybox-static"];

/// A kernel that runs as a process.
#[derive(Clone)]
pub struct Kernel {
    /// The kernel.
    pub linux: PathBuf,
    /// The folder of its modules, with `modules.dep`.
    pub modules: PathBuf,
    /// One program that is many small ones, linked with nothing.
    pub busybox: PathBuf,
}

impl Kernel {
    /// The kernel that was unpacked before, or is installed; else the packages are fetched, which changes nothing
    /// outside the target folder.
    pub fn get() -> Result<Self> {
        let unpacked = target().join("xtask").join("user-mode-linux");
        let below = |root| Self::below(root, version);
        if let Ok(kernel) = below(&unpacked).or_else(|_| below(Path::new("/"))) {
            return Ok(kernel);
        }
        fetch(&unpacked).context(ADVICE)?;
        below(&unpacked)
    }

    /// The kernel that the packages have put below `root`.
    fn below(root: &Path, version: fn(&Path) -> Result<String>) -> Result<Self> {
        let first = |names: &[&str]| {
            let path = names.iter().map(|name| root.join(name)).find(|path| path.is_file());
            path.with_context(|| format!("there is no {} in {}", names[0], root.display()))
        };
        let linux = first(&["usr/bin/linux.uml"])?;
        let busybox = first(&["usr/bin/busybox", "bin/busybox"])?;
        let modules = root.join("usr/lib/uml/modules").join(version(&linux)?);
        ensure!(modules.join("modules.dep").is_file(), "{} has no modules.dep", modules.display());
        Ok(Self { linux, modules, busybox })
    }
}

/// The version of a kernel, as it says itself.
fn version(linux: &Path) -> Result<String> {
    let output = Command::new(linux).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", linux.display()))?;
    ensure!(output.status.success(), "{}: {}", linux.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Fetches the packages, and unpacks them to `folder`.
fn fetch(folder: &Path) -> Result<()> {
    let parent = folder.parent().expect("it lies in the target folder");
    fs::create_dir_all(parent)?;
    let log = parent.join("user-mode-linux.log");
    eprintln!("fetching the packages {}", PACKAGES.join(" and "));
    // Unpacked beside where it goes, and moved there: what was ended in the middle is not taken for the whole.
    let new = tempfile::Builder::new().prefix("user-mode-linux-").tempdir_in(parent)?;
    let calls = Calls { folder: new.path(), log: File::create(&log)? };
    let fetched = calls.fetch();
    fetched.with_context(|| format!("the packages could not be fetched, see {}", log.display()))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(new.path().join("unpacked"), folder)?;
    Ok(())
}

/// Calls of the package tools, in a folder.
struct Calls<'a> {
    folder: &'a Path,
    log: File,
}

impl Calls<'_> {
    fn fetch(&self) -> Result<()> {
        if self.download().is_err() {
            // The list of packages is missing or old. Only root may fetch a new one.
            self.call(Command::new("apt-get").arg("update"))?;
            self.download()?;
        }
        let unpacked = self.folder.join("unpacked");
        let mut count = 0;
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                self.call(Command::new("dpkg").arg("-x").arg(path).arg(&unpacked))?;
                count += 1;
            }
        }
        if count != PACKAGES.len() {
            bail!("{count} packages came, not {}", PACKAGES.len());
        }
        Ok(())
    }

    fn download(&self) -> Result<()> {
        self.call(Command::new("apt-get").arg("download").args(PACKAGES))
    }

    fn call(&self, command: &mut Command) -> Result<()> {
        command.current_dir(self.folder).stdin(Stdio::null()).stdout(self.log.try_clone()?);
        let status = command.stderr(self.log.try_clone()?).status();
        let status = status.with_context(|| format!("cannot run {command:?}"))?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_only_with_all_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let below = || Kernel::below(folder.path(), |_| Ok("6.1.2".to_owned()));
        for part in ["usr/bin/linux.uml", "bin/busybox", "usr/lib/uml/modules/6.1.2/modules.dep"] {
            assert!(below().is_err());
            let path = folder.path().join(part);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let kernel = below().unwrap();
        assert_eq!(kernel.modules, folder.path().join("usr/lib/uml/modules/6.1.2"));
        assert_eq!(kernel.busybox, folder.path().join("bin/busybox"));
    }
}
