//! What a command works on: a store's file, or a disk.

mod in_use;
mod signature;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use casblock::device::scsi::{Disk, DiskOptions, Probe, SgIo};
use casblock::device::{BlockDevice, DeviceError, Failure};
use casblock::environment::System;
use casblock::heartbeat::{Cluster, Timing};
use casblock::{OpenOptions, Store};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

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
    Disk(Box<ScsiDisk>),
}

impl Device {
    /// As a device.
    pub fn as_device(&self) -> &dyn BlockDevice {
        match self {
            Self::Store(store) => store,
            Self::Disk(disk) => disk.as_ref(),
        }
    }

    /// The store, if it is one.
    pub fn as_store(&self) -> Option<&Store> {
        match self {
            Self::Store(store) => Some(store),
            Self::Disk(_) => None,
        }
    }

    /// What whoever relies on what is written has to know, if there is anything.
    pub fn caution(&self) -> Option<&'static str> {
        match self {
            Self::Disk(disk) if !disk.probe().is_written_through() => Some(
                "its updates are done before they are on stable storage: a cut of the disk's power may take back what hosts \
                 have been told is theirs",
            ),
            _ => None,
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
            Self::Scsi(path) => Ok(Device::Disk(Box::new(open_disk(path, false, COMMAND_TIMEOUT)?))),
        }
    }

    /// Finds out all about a disk, and by whom it seems to be used. Changes nothing; one that seems to be used is sent
    /// a compare-and-write, which cannot succeed, only with consent.
    pub fn examine(&self, consent: Consent) -> anyhow::Result<(Probe, Option<String>)> {
        let path = self.path();
        let looked = Looked::at(path)?;
        // That nobody can tell is no reason not to tell the rest.
        let used = looked.used().unwrap_or_else(|error| Some(format!("not known: {error:#}")));
        let probe = looked.disk.probe().clone();
        if used.is_some() && !consent.is_given() {
            return Ok((probe, used));
        }
        match looked.open_to_write(COMMAND_TIMEOUT) {
            Ok(disk) => Ok((disk.probe().clone(), used)),
            // One that is write-protected has all the rest to tell.
            Err(error) if failure(&error) == Some(Failure::ReadOnly) => Ok((probe, used)),
            Err(error) => Err(error),
        }
    }

    /// Opens it to take part in a cluster, whose header is looked for before anything is written: whatever else is on a
    /// disk was consented to when the cluster was made. A command to a disk takes no longer than its beats can wait for.
    pub fn open_for_cluster(&self, first_lba: u64, output: &Output) -> anyhow::Result<Box<dyn BlockDevice>> {
        match self {
            Self::Store(path) => Ok(Box::new(durable::open(path, OpenOptions::new(), output)?)),
            Self::Scsi(path) => {
                let cluster = Cluster::open(&open_disk(path, false, COMMAND_TIMEOUT)?, first_lba)?;
                Ok(Box::new(open_disk(path, true, cluster_timeout(cluster.timing()))?))
            }
        }
    }

    /// Opens it to be written; a disk that seems to be used is refused without consent.
    pub fn open_to_write(&self, consent: Consent, output: &Output) -> anyhow::Result<Device> {
        self.open_to_write_in_time(consent, COMMAND_TIMEOUT, output)
    }

    /// As [`open_to_write`](Self::open_to_write), for commands that a disk should answer within a time.
    pub fn open_to_write_in_time(
        &self,
        consent: Consent,
        command_timeout: Duration,
        output: &Output,
    ) -> anyhow::Result<Device> {
        let path = match self {
            Self::Store(path) => return Ok(Device::Store(durable::open(path, OpenOptions::new(), output)?)),
            Self::Scsi(path) => path,
        };
        if consent.is_given() {
            return Ok(Device::Disk(Box::new(open_disk(path, true, command_timeout)?)));
        }
        let looked = Looked::at(path)?;
        if let Some(used) = looked.used()? {
            bail!("{}: {used}; nothing was written (--i-know-what-is-on-it writes all the same)", path.display());
        }
        Ok(Device::Disk(Box::new(looked.open_to_write(command_timeout)?)))
    }
}

/// How long a disk may take for a command, unless said otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take where one block is all that is asked for: as short as Linux has it, so that there is time left to look
/// whose image is there.
pub const ONE_BLOCK_TIMEOUT: Duration = Duration::from_secs(7);

/// A store's file, for commands that take no disk.
pub fn store_file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|argument| match Target::from(argument) {
        Target::Store(path) => Ok(path),
        Target::Scsi(_) => Err("this is for stores: a file is needed, not a disk"),
    })
}

/// A disk by SG_IO.
type ScsiDisk = Disk<SgIo>;

/// A disk that was opened to be read, and looked at: nothing was sent to it that could write.
struct Looked<'p> {
    path: &'p Path,
    disk: ScsiDisk,
    /// Who uses it, by what the system says.
    used: Option<String>,
}

impl<'p> Looked<'p> {
    fn at(path: &'p Path) -> anyhow::Result<Self> {
        let transport = SgIo::open_read_only(path).with_context(|| name(path))?;
        // Before the first command.
        let used = in_use::used(&transport)?;
        Ok(Self { path, disk: open_on(path, transport, false, COMMAND_TIMEOUT)?, used })
    }

    /// Who seems to use it.
    fn used(&self) -> anyhow::Result<Option<String>> {
        self.used.clone().map_or_else(|| in_use::holds(&self.disk), |used| Ok(Some(used)))
    }

    /// Opens the same disk to be written.
    fn open_to_write(self, command_timeout: Duration) -> anyhow::Result<ScsiDisk> {
        let transport = SgIo::open(self.path).with_context(|| name(self.path))?;
        if transport.device_number() != self.disk.transport().device_number() {
            bail!("{}: leads to another disk than a moment ago", self.path.display());
        }
        open_on(self.path, transport, true, command_timeout)
    }
}

/// Opens a disk. Whether it compares is found out only where it is to be written.
fn open_disk(path: &Path, write: bool, command_timeout: Duration) -> anyhow::Result<ScsiDisk> {
    let transport = if write { SgIo::open(path) } else { SgIo::open_read_only(path) };
    open_on(path, transport.with_context(|| name(path))?, write, command_timeout)
}

fn open_on(path: &Path, transport: SgIo, write: bool, command_timeout: Duration) -> anyhow::Result<ScsiDisk> {
    let mut options = DiskOptions::default();
    (options.prove_compare_and_write, options.command_timeout) = (write, command_timeout);
    Disk::open_with(transport, System, options).with_context(|| name(path))
}

fn name(path: &Path) -> String {
    format!("{}{}", String::from_utf8_lossy(SCSI), path.display())
}

/// What kind of failure of a device an error is, if it is one.
fn failure(error: &anyhow::Error) -> Option<Failure> {
    error.chain().find_map(|cause| cause.downcast_ref::<DeviceError>())?.failure()
}

/// How long a command to a disk of a cluster may take: less than a beat may, so that there can be another try and a look at what
/// became of the first; but no disk is taken for silent in less than a second.
fn cluster_timeout(timing: Timing) -> Duration {
    (timing.io_timeout / 2).clamp(Duration::from_secs(1), COMMAND_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_a_clusters_disk_end_before_its_beats_must() {
        let timeout = |io_timeout_ms| {
            let io_timeout = Duration::from_millis(io_timeout_ms);
            cluster_timeout(Timing { io_timeout, ..Timing::default() }).as_millis()
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

    #[test]
    fn a_failure_is_seen_through_what_was_said_about_it() {
        let error = anyhow::Error::new(DeviceError::failed(Failure::ReadOnly, "no")).context("scsi:/dev/sdb");
        assert_eq!(failure(&error), Some(Failure::ReadOnly));
        assert_eq!(failure(&anyhow::anyhow!("no")), None);
    }
}
