//! What Linux's `/sys` says about disks: which block device commands go to, and whose block numbers they have.

use std::path::{Path, PathBuf};

/// Where a device is in `/sys/dev/block` or `/sys/dev/char`.
pub fn number(device: u64) -> String {
    format!("{}:{}", libc::major(device), libc::minor(device))
}

/// A block device by what `/sys` says.
#[derive(PartialEq, Eq, Debug)]
pub struct BlockDevice {
    /// Where it should be.
    pub path: PathBuf,
    /// Its number, as in `8:16`.
    pub number: String,
}

/// The block device of the disk that has this generic device.
pub fn block_of_generic(device: u64, sys: &Path) -> Result<BlockDevice, String> {
    let blocks = sys.join("dev/char").join(number(device)).join("device/block");
    let disk = std::fs::read_dir(&blocks).ok().and_then(|mut names| names.next()?.ok());
    let disk = disk.ok_or_else(|| "a character device without a block device in /sys".to_owned())?;
    let number = std::fs::read_to_string(disk.path().join("dev")).map_err(|error| format!("its number: {error}"))?;
    Ok(BlockDevice { path: Path::new("/dev").join(disk.file_name()), number: number.trim().into() })
}

/// Whether block numbers of the commands sent here are those of the device.
pub fn whole_disk(device: u64, sys: &Path) -> Result<(), String> {
    let folder = sys.join("dev/block").join(number(device));
    if !folder.join("size").exists() {
        return Err("not in /sys, so whether it is a whole disk cannot be told".into());
    }
    if folder.join("partition").exists() {
        return Err("a partition: commands would go to the whole disk; use that".into());
    }
    if !folder.join("dm").exists() {
        // bcache, for one, hands commands on to the disk below it.
        return match is_scsi(&folder.join("device")) {
            true => Ok(()),
            false => Err("no SCSI disk of its own: commands may go to a disk below; use that".into()),
        };
    }
    match std::fs::read_to_string(folder.join("dm/uuid")) {
        Ok(uuid) if uuid.starts_with("mpath-") => Ok(()),
        _ => Err("a mapped device, but not multipath: commands would go to the disk below; use that".into()),
    }
}

/// Whether a device's folder in `/sys` is that of a SCSI device.
fn is_scsi(device: &Path) -> bool {
    let of_scsi = |link: PathBuf| link.file_name().is_some_and(|bus| bus == "scsi");
    ["scsi_disk", "scsi_device"].iter().any(|class| device.join(class).is_dir())
        || std::fs::read_link(device.join("subsystem")).is_ok_and(of_scsi)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device number as the kernel packs it.
    const DEVICE: u64 = libc::makedev(8, 16);

    /// A folder that looks like `/sys`, with these files in it.
    fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = sys.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        sys
    }

    #[test]
    fn only_whole_disks_and_multipath_are_let_through() {
        let size = ("dev/block/8:16/size", "131072\n");
        let scsi = ("dev/block/8:16/device/scsi_disk/0:0:0:0/x", "");
        for (files, usable) in [
            (vec![size, scsi], true),
            (vec![size, ("dev/block/8:16/device/scsi_device/0:0:0:0/x", "")], true),
            (vec![size, ("dev/block/8:16/device/vendor", "")], false),
            // What hands commands on, as bcache does.
            (vec![size], false),
            (vec![scsi], false),
            (vec![size, ("dev/block/8:16/dm/uuid", "mpath-3600140500000\n")], true),
            (vec![size, scsi, ("dev/block/8:16/partition", "1\n")], false),
            (vec![size, ("dev/block/8:16/dm/uuid", "LVM-abc\n")], false),
            (vec![size, ("dev/block/8:16/dm/uuid", "part1-mpath-3600140500000\n")], false),
            (vec![size, ("dev/block/8:16/dm/name", "linear\n")], false),
            (vec![("dev/block/8:17/size", "131072\n")], false),
            (vec![], false),
        ] {
            assert_eq!(whole_disk(DEVICE, sys(&files).path()).is_ok(), usable, "{files:?}");
        }
    }

    #[test]
    fn a_generic_device_stands_for_its_block_device() {
        let sys =
            sys(&[("dev/char/8:16/device/block/sdq/dev", "65:0\n"), ("dev/char/8:17/device/block/sdr/size", "1\n")]);
        let expected = BlockDevice { path: "/dev/sdq".into(), number: "65:0".into() };
        assert_eq!(block_of_generic(DEVICE, sys.path()), Ok(expected));
        assert!(block_of_generic(DEVICE + 1, sys.path()).is_err(), "without a number");
        assert!(block_of_generic(DEVICE + 2, sys.path()).is_err());
    }

    #[test]
    fn a_scsi_device_is_known_by_its_bus() {
        let device = tempfile::tempdir().unwrap();
        assert!(!is_scsi(device.path()));
        let subsystem = device.path().join("subsystem");
        std::os::unix::fs::symlink("../../../bus/virtio", &subsystem).unwrap();
        assert!(!is_scsi(device.path()));
        std::fs::remove_file(&subsystem).unwrap();
        std::os::unix::fs::symlink("../../../bus/scsi", &subsystem).unwrap();
        assert!(is_scsi(device.path()));
    }
}
