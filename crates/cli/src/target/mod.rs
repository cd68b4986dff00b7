//! What a command works on: a store's file, or a disk.

mod in_use;
mod signature;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use casblock::device::BlockDevice;
use casblock::device::scsi::{Disk, DiskOptions, Probe, SgIo};
use casblock::environment::System;
use casblock::heartbeat::{Cluster, Timing};
use casblock::{OpenOptions, Store};
use clap::Args;

use crate::durable;
use crate::output::Output;

/// What stands before a disk's path.
const SCSI: &[u8] = b"scsi:";

/// A store's file, or a disk: `PATH`, or `scsi:/dev/sdX`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A store's file.
    Store(PathBuf),
    /// A SCSI disk, by a device's file.
    Scsi(PathBuf),
}

impl From<OsString> for Target {
    fn from(argument: OsString) -> Self {
        match argument.as_bytes().strip_prefix(SCSI) {
            Some(path) => Self::Scsi(OsString::from_vec(path.to_vec()).into()),
            None => Self::Store(argument.into()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(path) => write!(f, "{}", path.display()),
            Self::Scsi(path) => write!(f, "scsi:{}", path.display()),
        }
    }
}

/// Whether to write to a disk that seems to be in use.
#[derive(Args, Clone, Copy, Debug)]
pub struct Consent {
    /// Write to a disk also if it is mounted, has partitions, or holds something that is known
    #[arg(long)]
    i_know_what_is_on_it: bool,
}

impl Consent {
    /// Whether it was given.
    pub fn is_given(self) -> bool {
        self.i_know_what_is_on_it
    }
}

/// An open target.
pub enum Device {
    /// A store.
    Store(Store),
    /// A disk.
    Disk(Box<dyn BlockDevice>),
}

impl Device {
    /// As a device.
    pub fn as_device(&self) -> &dyn BlockDevice {
        match self {
            Self::Store(store) => store,
            Self::Disk(disk) => disk,
        }
    }

    /// The store, if it is one.
    pub fn as_store(&self) -> Option<&Store> {
        match self {
            Self::Store(store) => Some(store),
            Self::Disk(_) => None,
        }
    }
}

impl Target {
    /// The path, of a store's file or a device's.
    pub fn path(&self) -> &Path {
        match self {
            Self::Store(path) | Self::Scsi(path) => path,
        }
    }

    /// The store's path; an error, which says that only stores have `what`, for a disk.
    pub fn store(&self, what: &str) -> anyhow::Result<&Path> {
        match self {
            Self::Store(path) => Ok(path),
            Self::Scsi(_) => bail!("{self}: a disk has no {what}; a store's file is needed"),
        }
    }

    /// Opens it to be read.
    pub fn open_to_read(&self) -> anyhow::Result<Device> {
        match self {
            Self::Store(path) => Ok(Device::Store(Store::open_read_only(path)?)),
            Self::Scsi(path) => Ok(Device::Disk(Box::new(open_disk(path, false)?))),
        }
    }

    /// Finds out all about a disk, and by whom it seems to be used. Changes nothing.
    pub fn examine(&self) -> anyhow::Result<(Probe, Option<String>)> {
        let disk = open_disk(self.path(), true)?;
        let used = in_use::used(self.path(), &disk)?;
        Ok((disk.probe().clone(), used))
    }

    /// Opens it to take part in a cluster, whose header is looked for before anything is written: whatever else is on a
    /// disk was consented to when the cluster was made. A command to a disk takes no longer than its beats can wait for.
    pub fn open_for_cluster(&self, first_lba: u64, output: &Output) -> anyhow::Result<Box<dyn BlockDevice>> {
        match self {
            Self::Store(path) => Ok(Box::new(durable::open(path, OpenOptions::new(), output)?)),
            Self::Scsi(path) => {
                let cluster = Cluster::open(&open_disk(path, false)?, first_lba)?;
                let mut options = DiskOptions::default();
                options.command_timeout = command_timeout(cluster.timing(), options.command_timeout);
                Ok(Box::new(open_disk_with(path, true, options)?))
            }
        }
    }

    /// Opens it to be written; a disk that seems to be used is refused without consent.
    pub fn open_to_write(&self, consent: Consent, output: &Output) -> anyhow::Result<Device> {
        match self {
            Self::Store(path) => Ok(Device::Store(durable::open(path, OpenOptions::new(), output)?)),
            Self::Scsi(path) => {
                let disk = open_disk(path, true)?;
                if !consent.i_know_what_is_on_it {
                    in_use::refuse_used(path, &disk)?;
                }
                Ok(Device::Disk(Box::new(disk)))
            }
        }
    }
}

/// A disk by SG_IO.
type ScsiDisk = Disk<SgIo>;

/// Opens a disk. Whether it compares is found out only where it is to be written.
fn open_disk(path: &Path, write: bool) -> anyhow::Result<ScsiDisk> {
    open_disk_with(path, write, DiskOptions::default())
}

/// How long a command to a disk of a cluster may take: less than a beat may, so that there can be another try and a look at what
/// became of the first; but no disk is taken for silent in less than a second.
fn command_timeout(timing: Timing, usual: Duration) -> Duration {
    (timing.io_timeout / 2).clamp(Duration::from_secs(1), usual.max(Duration::from_secs(1)))
}

fn open_disk_with(path: &Path, write: bool, mut options: DiskOptions) -> anyhow::Result<ScsiDisk> {
    let transport = if write { SgIo::open(path) } else { SgIo::open_read_only(path) };
    options.prove_compare_and_write = write;
    let failed = || format!("{}{}", String::from_utf8_lossy(SCSI), path.display());
    Disk::open_with(transport.with_context(failed)?, System, options).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_a_clusters_disk_end_before_its_beats_must() {
        let timeout = |io_timeout_ms| {
            let io_timeout = Duration::from_millis(io_timeout_ms);
            command_timeout(Timing { io_timeout, ..Timing::default() }, Duration::from_secs(30)).as_millis()
        };
        assert_eq!([100, 2_000, 8_000, 60_000, 600_000].map(timeout), [1_000, 1_000, 4_000, 30_000, 30_000]);
    }

    #[test]
    fn targets_are_told_apart() {
        let target = |text: &str| Target::from(OsString::from(text));
        assert_eq!(target("scsi:/dev/sda"), Target::Scsi("/dev/sda".into()));
        assert_eq!(target("./scsi:x"), Target::Store("./scsi:x".into()));
        assert_eq!(target("/dev/sda"), Target::Store("/dev/sda".into()));
        assert_eq!(target("scsi:/dev/sda").to_string(), "scsi:/dev/sda");
        assert!(target("scsi:/dev/sda").store("heartbeat words").unwrap_err().to_string().contains("heartbeat words"));
        assert_eq!(target("a").store("heartbeat words").unwrap(), Path::new("a"));
    }
}
