//! Whether somebody uses a disk already: what `casblock` looks at before it writes to one.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use casblock::device::BlockDevice;
use casblock::device::scsi::{SgIo, Transport as _};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::signature::{self, LOOKED_AT, LOOKED_AT_BEFORE_THE_END};

/// Who uses a disk, by what the system says: it is mounted, swap space, part of something else, has partitions, or somebody
/// has it for himself. No command is sent to the disk.
pub fn used(disk: &SgIo) -> anyhow::Result<Option<String>> {
    // Of what was opened, not of what its path leads to by now.
    let number = number_of(disk.device_number());
    if let Some(used) = (System { root: "/".into() }).used(&number)? {
        return Ok(Some(used));
    }
    Ok(is_claimed(disk)?.then(|| "is in use: the kernel does not give it to a second user".into()))
}

/// What a disk holds, by the marks in its first blocks and its last.
pub fn holds(disk: &dyn BlockDevice) -> anyhow::Result<Option<String>> {
    let block_bytes = disk.block_bytes() as u64;
    let read = |from: u64, to: u64| {
        let mut bytes = vec![0; ((to - from) * block_bytes) as usize];
        disk.read(from, &mut bytes)
            .with_context(|| format!("{}: looking at what it holds", BlockDevice::name(disk)))?;
        anyhow::Ok(bytes)
    };
    let blocks = disk.block_count();
    let beginning = read(0, blocks.min(LOOKED_AT as u64 / block_bytes))?;
    let end = read(blocks.saturating_sub(LOOKED_AT_BEFORE_THE_END as u64 / block_bytes), blocks)?;
    let found =
        signature::found(&beginning).or_else(|| signature::found_at_the_end(&end, blocks.saturating_mul(block_bytes)));
    Ok(found.map(|found| format!("holds {found}")))
}

/// How often the kernel is asked whether somebody has the disk for himself, and how long in between: another casblock
/// that asks has it for a moment.
const CLAIMS: u32 = 10;
const BETWEEN_CLAIMS: Duration = Duration::from_millis(20);

/// Whether somebody has the disk, or a part of it, for himself: a file system mounted by whomever and wherever, a mapped
/// device, an array, swap space. Such users open it exclusively, and one who does excludes the others.
fn is_claimed(disk: &SgIo) -> anyhow::Result<bool> {
    // The same device, and no path that may lead to another by now.
    let path = format!("/proc/self/fd/{}", disk.as_fd().as_raw_fd());
    for _ in 0..CLAIMS {
        match rustix::fs::open(&path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => return Ok(false),
            Err(Errno::BUSY) => std::thread::sleep(BETWEEN_CLAIMS),
            Err(errno) => return Err(errno).with_context(|| format!("{}: opening it exclusively", disk.name())),
        }
    }
    Ok(true)
}

/// As in /sys and /proc: `8:16`.
fn number_of(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// The system's files about its disks: below `/`, or a folder in tests.
struct System {
    root: PathBuf,
}

impl System {
    fn path(&self, rest: &str) -> PathBuf {
        self.root.join(rest)
    }

    /// Who uses the disk of this number, or one of its partitions.
    fn used(&self, number: &str) -> anyhow::Result<Option<String>> {
        let disk = self.path(&format!("sys/dev/block/{number}"));
        // It is what was opened that is looked at, or it is an error.
        let mut numbers = vec![self.number(&disk)?];
        if let Some(partition) = entries(&disk).into_iter().find(|entry| entry.join("partition").exists()) {
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
            if numbers.contains(&number_of(metadata.rdev())) {
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
        let files =
            [("sys/dev/block/8:0/dev", "8:0\n"), ("proc/self/mountinfo", "22 1 0:19 / /proc rw - proc proc rw\n")];
        for (path, contents) in files.iter().chain(with) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        System { root: folder.path().into() }.used("8:0").unwrap()
    }

    #[test]
    fn a_disk_in_use_is_found_to_be() {
        assert_eq!(used(&[]), None);
        let mounts = "22 1 0:19 / /proc rw - proc proc rw\n30 1 8:0 / /srv rw - ext4 /dev/sda rw\n";
        assert_eq!(used(&[("proc/self/mountinfo", mounts)]).unwrap(), "is mounted on /srv");
        let partition = [("sys/dev/block/8:0/sda1/partition", "1\n"), ("sys/dev/block/8:0/sda1/dev", "8:1\n")];
        assert_eq!(used(&partition).unwrap(), "has partitions (sda1)");
        let mounted = ("proc/self/mountinfo", "30 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n");
        assert_eq!(used(&[partition[0], partition[1], mounted]).unwrap(), "is mounted on /boot");
        assert_eq!(used(&[("sys/dev/block/8:0/holders/dm-0/x", "")]).unwrap(), "is part of dm-0");
        let other = "30 1 8:16 / /srv rw - ext4 /dev/sdb rw\n";
        assert_eq!(used(&[("proc/self/mountinfo", other)]), None);
    }

    #[test]
    fn a_disk_of_which_nothing_is_known_is_not_taken_for_unused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(System { root: folder.path().into() }.used("8:0").is_err());
    }

    #[test]
    fn what_a_disk_holds_is_found_at_both_ends() {
        use casblock::{Geometry, Store};
        let store = Store::in_memory(Geometry::blocks(1 << 13)).unwrap();
        assert_eq!(holds(&store).unwrap(), None);
        let last = store.geometry().block_count() - 1;
        for (lba, magic, expected) in [(last, &b"EFI PART"[..], "a GPT"), (0, b"CASR", "records of a casblock cluster")]
        {
            let mut block = [0; 512];
            block[..magic.len()].copy_from_slice(magic);
            store.write(lba, &block).unwrap();
            assert!(holds(&store).unwrap().unwrap().contains(expected));
        }
        holds(&Store::in_memory(Geometry::blocks(1)).unwrap()).unwrap();
    }
}
