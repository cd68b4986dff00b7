//! Whether somebody uses a disk already: what `casblock` looks at before it writes to one.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use casblock::device::BlockDevice;

use super::signature;

/// An error that names the disk's user, if it seems to have one: it is mounted, swap space, part of something else, or has
/// partitions or a mark that is known.
pub fn refuse_used(path: &Path, device: &dyn BlockDevice) -> anyhow::Result<()> {
    if let Some(used) = used(path, device)? {
        bail!("{}: {used}; nothing was written (--i-know-what-is-on-it writes all the same)", path.display());
    }
    Ok(())
}

/// Who seems to use a disk.
pub fn used(path: &Path, device: &dyn BlockDevice) -> anyhow::Result<Option<String>> {
    let system = System { root: "/".into() };
    for disk in system.block_devices(path)? {
        if let Some(used) = system.used(&disk)? {
            return Ok(Some(used));
        }
    }
    let bytes = (device.block_count().saturating_mul(device.block_bytes() as u64)).min(signature::LOOKED_AT as u64);
    let mut beginning = vec![0; bytes as usize];
    device.read(0, &mut beginning).with_context(|| format!("{}: looking at what it holds", path.display()))?;
    Ok(signature::found(&beginning).map(|found| format!("holds {found}")))
}

/// The system's files about its disks: below `/`, or a folder in tests.
struct System {
    root: PathBuf,
}

impl System {
    fn path(&self, rest: &str) -> PathBuf {
        self.root.join(rest)
    }

    /// The block device that a path is, or that belongs to a SCSI generic device, as folders in /sys.
    fn block_devices(&self, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let metadata = path.metadata().with_context(|| path.display().to_string())?;
        let number = format!("{}:{}", rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let kind = metadata.file_type();
        if kind.is_block_device() {
            return Ok(vec![self.path(&format!("sys/dev/block/{number}"))]);
        }
        if kind.is_char_device() {
            // A disk that has no block device, as no driver took it, has none here.
            let folder = self.path(&format!("sys/dev/char/{number}/device/block"));
            return Ok(entries(&folder));
        }
        bail!("{}: is no disk; scsi: takes a block device or a SCSI generic device", path.display());
    }

    /// Who uses a disk, or one of its partitions.
    fn used(&self, disk: &Path) -> anyhow::Result<Option<String>> {
        let mut numbers = vec![self.number(disk)?];
        if let Some(partition) = entries(disk).into_iter().find(|entry| entry.join("partition").exists()) {
            let name = partition.file_name().unwrap_or_default().to_string_lossy().into_owned();
            numbers.push(self.number(&partition)?);
            if let Some(used) = self.mounted_or_swap(&numbers)? {
                return Ok(Some(used));
            }
            return Ok(Some(format!("has partitions ({name})")));
        }
        if let Some(holder) = entries(&disk.join("holders")).first() {
            return Ok(Some(format!("is part of {}", holder.file_name().unwrap_or_default().display())));
        }
        self.mounted_or_swap(&numbers)
    }

    fn number(&self, disk: &Path) -> anyhow::Result<String> {
        let path = disk.join("dev");
        let number = fs::read_to_string(&path).with_context(|| format!("{}: reading", path.display()))?;
        Ok(number.trim().to_owned())
    }

    /// Where one of the devices is mounted, or that it is swap space.
    fn mounted_or_swap(&self, numbers: &[String]) -> anyhow::Result<Option<String>> {
        let path = self.path("proc/self/mountinfo");
        let mounts = fs::read_to_string(&path).with_context(|| format!("{}: reading", path.display()))?;
        for mount in mounts.lines() {
            // proc(5): mount's number, its parent's, major:minor, root, where it is mounted, …
            let mut fields = mount.split(' ').skip(2);
            if let (Some(number), Some(place)) = (fields.next(), fields.nth(1))
                && numbers.iter().any(|its| its == number)
            {
                return Ok(Some(format!("is mounted on {place}")));
            }
        }
        // A system without swap may have no such file.
        let swaps = fs::read_to_string(self.path("proc/swaps")).unwrap_or_default();
        for swap in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
            let Ok(metadata) = Path::new(swap).metadata() else { continue };
            let number = format!("{}:{}", rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
            if numbers.contains(&number) {
                return Ok(Some("is swap space in use".into()));
            }
        }
        Ok(None)
    }
}

/// What is in a folder, in order; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with one disk, 8:0, that is used as told.
    fn used(with: &[(&str, &str)]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let files = [("sys/sda/dev", "8:0\n"), ("proc/self/mountinfo", "22 1 0:19 / /proc rw - proc proc rw\n")];
        for (path, contents) in files.iter().chain(with) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        System { root: folder.path().into() }.used(&folder.path().join("sys/sda")).unwrap()
    }

    #[test]
    fn a_disk_in_use_is_found_to_be() {
        assert_eq!(used(&[]), None);
        let mounts = "22 1 0:19 / /proc rw - proc proc rw\n30 1 8:0 / /srv rw - ext4 /dev/sda rw\n";
        assert_eq!(used(&[("proc/self/mountinfo", mounts)]).unwrap(), "is mounted on /srv");
        let partition = [("sys/sda/sda1/partition", "1\n"), ("sys/sda/sda1/dev", "8:1\n")];
        assert_eq!(used(&partition).unwrap(), "has partitions (sda1)");
        let mounted = ("proc/self/mountinfo", "30 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n");
        assert_eq!(used(&[partition[0], partition[1], mounted]).unwrap(), "is mounted on /boot");
        assert_eq!(used(&[("sys/sda/holders/dm-0/x", "")]).unwrap(), "is part of dm-0");
        let other = "30 1 8:16 / /srv rw - ext4 /dev/sdb rw\n";
        assert_eq!(used(&[("proc/self/mountinfo", other)]), None);
    }

    #[test]
    fn files_are_no_disks() {
        let system = System { root: "/".into() };
        let error = system.block_devices(Path::new("/proc/self/status")).unwrap_err();
        assert!(error.to_string().contains("is no disk"), "{error}");
        assert!(system.block_devices(Path::new("/no/such/disk")).is_err());
        // A character device that is no disk has no block device.
        assert!(system.block_devices(Path::new("/dev/null")).unwrap().is_empty());
    }
}
