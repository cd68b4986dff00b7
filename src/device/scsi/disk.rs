//! A SCSI disk as a device.

use std::borrow::Cow;
use std::fmt;
use std::sync::PoisonError;

use super::cdb::{Caching, Cdb};
use super::error::ScsiError;
use super::images::Images;
use super::pages::page;
use super::probe::{Probe, Proof};
use super::sense::{Sense, SenseKey};
use super::session::{DiskOptions, Miscompare, Outcome, Pause, Repeat, Session};
use super::transport::{Data, Transport};
use crate::device::{BlockDevice, DeviceError, Failure, check_compare_and_write, check_range};
use crate::environment::{Environment, System};
use crate::sync::Mutex;

/// A SCSI disk.
///
/// Each command is sent once, and again only if the disk says that it did not begin it: after a UNIT ATTENTION, or when it
/// was busy. All else that may come after a write or a compare-and-write was begun, its lost answer included, is
/// [`DeviceError::OutcomeUnknown`]. Where the disk takes FUA, all updates are on stable storage when they are done.
///
/// A compare-and-write that finds another image than expected reads the blocks right afterwards, to show them. If others
/// update them in between, that is what they hold then; if others have put back what was expected, it is sent again.
///
/// Some targets answer BUSY also to what they had begun. So an update that was answered so and is then not done, for whatever
/// reason, is [`DeviceError::OutcomeUnknown`], too. Linux itself sends a command again after BUSY, and does not tell: if
/// a compare-and-write took a second or longer, and the blocks hold the very image that it was to write, they may hold it by
/// an earlier attempt of its own, and the outcome is unknown as well.
///
/// See [the module](super) for what each answer of the disk means.
///
/// ```no_run
/// # #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::device::BlockDevice;
/// use casblock::device::scsi::{Disk, SgIo};
///
/// let disk = Disk::open(SgIo::open("/dev/sdb")?)?;
/// let mut block = vec![0; disk.block_bytes()];
/// disk.read(0, &mut block)?;
/// # Ok(())
/// # }
/// # #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
/// # fn main() {}
/// ```
pub struct Disk<T, E = System> {
    session: Session<T, E>,
    probe: Probe,
    /// The most bytes that go with one read or write: a whole number of blocks.
    chunk_bytes: usize,
    compare_and_write_blocks_max: u32,
    caching: Caching,
    compare_and_write_caching: Caching,
    troubles: Mutex<Troubles>,
}

/// What is to be remembered of what the disk said.
#[derive(Default, Debug)]
struct Troubles {
    /// A write that was done before may be lost: all flushes fail from now on.
    write_lost: Option<Sense>,
    updates: Updates,
    /// It said that it changed, and could not be looked at yet.
    unchecked: bool,
    /// It is another disk now: everything fails.
    changed: Option<String>,
}

/// How many writes and compare-and-writes there were.
#[derive(Default, Debug)]
struct Updates {
    /// Those that were begun.
    begun: u64,
    /// Those of them that have ended, in whatever way.
    ended: u64,
    /// Those that had ended when the last flush that succeeded began.
    flushed: u64,
}

/// What became of a compare-and-write that was sent once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// The blocks held what was expected, and were replaced.
    Written,
    /// They held something else, and were left alone.
    Miscompare {
        /// Where the first difference was, if the disk says so: in bytes, from the first block on. As the disk said it.
        reported_offset: Option<u64>,
    },
}

/// How often a disk may report a miscompare after which the blocks hold what was expected. Others may put it there, but
/// not each time.
const MISCOMPARES_UNSEEN_MAX: u32 = 8;

impl<T: Transport> Disk<T> {
    /// Opens a disk, and finds out what it can: see [`probe`](super::probe()). Nothing on it is changed.
    ///
    /// # Errors
    /// As for [`probe`](super::probe()).
    pub fn open(transport: T) -> Result<Self, DeviceError> {
        Self::open_with(transport, System, DiskOptions::default())
    }
}

impl<T: Transport, E: Environment> Disk<T, E> {
    /// As [`open`](Self::open), with a clock and dice to wait by, and options.
    ///
    /// # Errors
    /// As for [`probe`](super::probe()).
    pub fn open_with(transport: T, environment: E, options: DiskOptions) -> Result<Self, DeviceError> {
        let session = Session { transport, environment, options };
        let probe = session.probe()?;
        let block_bytes = probe.capacity.block_bytes as usize;
        let limits = probe.block_limits.unwrap_or_default();
        let transport_max = session.transport.transfer_bytes_max().unwrap_or(usize::MAX);
        let disk_max = match limits.transfer_blocks_max {
            0 => usize::MAX,
            blocks => (blocks as usize).saturating_mul(block_bytes),
        };
        let bytes_max = session.options.transfer_bytes_max.min(transport_max).min(disk_max).min(u32::MAX as usize);
        // Both images go with one command.
        let images_max = u32::try_from(transport_max / 2 / block_bytes).unwrap_or(u32::MAX);
        let caching = |force_unit_access| Caching { force_unit_access, ..Caching::ALLOWED };
        Ok(Self {
            chunk_bytes: (bytes_max / block_bytes).max(1) * block_bytes,
            compare_and_write_blocks_max: u32::from(probe.compare_and_write_blocks_max()).min(images_max),
            caching: caching(probe.force_unit_access),
            compare_and_write_caching: caching(probe.compare_and_write_force_unit_access()),
            troubles: Mutex::default(),
            session,
            probe,
        })
    }

    /// The way to it.
    pub fn transport(&self) -> &T {
        &self.session.transport
    }

    /// What the disk is and can, as it was found when it was opened.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// As [`compare_and_write`](BlockDevice::compare_and_write), but does not look what the blocks hold if it is something
    /// else: one command, where that is not needed. So it cannot tell a miscompare with its own image, where Linux has sent the
    /// command again.
    ///
    /// # Errors
    /// As for [`compare_and_write`](BlockDevice::compare_and_write), save that a miscompare is none.
    pub fn compare_and_write_once(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<Compared, DeviceError> {
        Ok(match self.compare(lba, expected, new)? {
            None => Compared::Written,
            Some(miscompare) => Compared::Miscompare { reported_offset: miscompare.offset },
        })
    }

    /// Sends one compare-and-write; gives the miscompare, if it is certain that this is not with an image of its own that was
    /// answered BUSY.
    fn compare(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<Option<Miscompare>, DeviceError> {
        if self.probe.compare_and_write == Proof::ComparesNothing {
            return Err(DeviceError::failed(Failure::Unsupported, ScsiError::ComparesNothing));
        }
        let blocks = check_compare_and_write(self, lba, expected, new)?;
        // At most `compare_and_write_blocks_max`, which came from a `u8`.
        let command = Cdb::compare_and_write(lba, blocks as u8, self.compare_and_write_caching);
        match self.send(&command, Data::Out(Images::new(expected, new).bytes()))? {
            Outcome::Done(_) => Ok(None),
            Outcome::Miscompare(Miscompare { offset, repeat: Repeat::Sent }) => {
                Err(perhaps_own_image(lba, offset, "the first answer was BUSY"))
            }
            Outcome::Miscompare(miscompare) => Ok(Some(miscompare)),
        }
    }

    /// What the blocks hold after a miscompare, as an error; `None` if it is what was expected.
    fn miscompare(&self, lba: u64, expected: &[u8], new: &[u8], told: Miscompare) -> Option<DeviceError> {
        let (mut found, reported_offset) = (vec![0; expected.len()], told.offset);
        match self.read(lba, &mut found) {
            Ok(()) if told.repeat != Repeat::None && found == new && found != expected => {
                Some(perhaps_own_image(lba, reported_offset, "it took long, and they hold what was to be written"))
            }
            Ok(()) => DeviceError::miscompare(lba, expected, found.into()),
            Err(_) if told.repeat != Repeat::None => {
                Some(perhaps_own_image(lba, reported_offset, "it took long, and what they hold could not be read"))
            }
            // Nothing was changed, whatever became of the read.
            Err(error) => Some(DeviceError::failed(
                error.failure().unwrap_or(Failure::Io),
                ScsiError::MiscompareUnread { lba, reported_offset, source: error.into() },
            )),
        }
    }

    fn send(&self, command: &Cdb, data: Data<'_>) -> Result<Outcome, DeviceError> {
        let unchecked = {
            let troubles = self.troubles();
            if let Some(what) = &troubles.changed {
                return Err(changed(what));
            }
            troubles.unchecked
        };
        if unchecked {
            self.check_again()?;
        }
        let own_updates = u64::from(command.changes_blocks());
        self.troubles().updates.begun += own_updates;
        let result = self.session.send(command, data, &|sense| self.notice(sense, own_updates));
        self.troubles().updates.ended += own_updates;
        result
    }

    /// Hears what the disk says about other things than the command it was sent.
    ///
    /// All who share the way to the disk share this, and each is told to one of them: it may be the operating system that
    /// hears it. So none of what is done here can be relied on. `own_updates` is how many updates the command is, which is not
    /// begun yet.
    fn notice(&self, sense: &Sense, own_updates: u64) -> Result<(), DeviceError> {
        let attention = |codes: &[(u8, u8)]| {
            sense.key == SenseKey::UnitAttention && codes.contains(&(sense.code.code, sense.code.qualifier))
        };
        // Writes may have been in a cache that lost its power, if there were any. Each way to a disk says first that it was
        // reset.
        if sense.tells_loss() || attention(&[(0x29, 0x00), (0x29, 0x01)]) && self.may_lose(own_updates) {
            self.troubles().write_lost = Some(*sense);
        }
        // The medium, the capacity, the INQUIRY data, which disks there are changed; or it was reset, as it is when its number is
        // given to another.
        let reset = sense.key == SenseKey::UnitAttention && sense.code.code == 0x29;
        if reset || attention(&[(0x28, 0x00), (0x2a, 0x09), (0x3f, 0x03), (0x3f, 0x0e)]) {
            self.troubles().unchecked = true;
            self.check_again()?;
        }
        Ok(())
    }

    /// Whether there may be updates, besides one's own, that are only in a cache.
    fn may_lose(&self, own_updates: u64) -> bool {
        let Updates { begun, flushed, .. } = self.troubles().updates;
        !self.probe.is_written_through() && begun - own_updates > flushed
    }

    /// Whether it is still the disk that was opened. Whatever comes of it, the command that is waiting was not begun.
    fn check_again(&self) -> Result<(), DeviceError> {
        self.look_again().map_err(|error| match error {
            DeviceError::OutcomeUnknown { .. } => {
                DeviceError::failed(Failure::Io, ScsiError::Unchecked { source: error.into() })
            }
            error => error,
        })
    }

    fn look_again(&self) -> Result<(), DeviceError> {
        let (before, now) = (self.probe.capacity, self.session.capacity()?);
        let designator = match &self.probe.designator {
            None => None,
            Some(_) => self.session.page(page::IDENTIFICATION)?.and_then(|page| super::designator(&page)),
        };
        let what = if designator != self.probe.designator {
            format!("its name was {:?}, and is {designator:?}", self.probe.designator)
        } else if now.block_bytes != before.block_bytes {
            format!("its blocks were of {} bytes, and are of {}", before.block_bytes, now.block_bytes)
        } else if now.last_lba < before.last_lba {
            format!("its last block was {}, and is {}", before.last_lba, now.last_lba)
        } else {
            self.troubles().unchecked = false;
            return Ok(());
        };
        let error = changed(&what);
        self.troubles().changed = Some(what);
        Err(error)
    }

    #[cfg(test)]
    pub(super) fn environment(&self) -> &E {
        &self.session.environment
    }

    fn troubles(&self) -> crate::sync::MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn perhaps_own_image(lba: u64, reported_offset: Option<u64>, why: &'static str) -> DeviceError {
    DeviceError::unknown(ScsiError::PerhapsOwnImage { lba, reported_offset, why })
}

fn changed(what: &str) -> DeviceError {
    DeviceError::failed(Failure::Unreachable, ScsiError::Changed { what: what.into() })
}

impl<T: Transport, E: Environment> BlockDevice for Disk<T, E> {
    fn name(&self) -> Cow<'_, str> {
        self.session.transport.name()
    }

    fn block_bytes(&self) -> usize {
        self.probe.capacity.block_bytes as usize
    }

    fn block_count(&self) -> u64 {
        self.probe.block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        self.compare_and_write_blocks_max
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        check_range(self, lba, out.len())?;
        let mut lba = lba;
        for chunk in out.chunks_mut(self.chunk_bytes) {
            let blocks = chunk.len() / self.block_bytes();
            self.send(&Cdb::read_16(lba, blocks as u32, self.caching), Data::In(chunk))?;
            lba += blocks as u64;
        }
        Ok(())
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        check_range(self, lba, data.len())?;
        let mut next = lba;
        for chunk in data.chunks(self.chunk_bytes) {
            let blocks = chunk.len() / self.block_bytes();
            let written = self.send(&Cdb::write_16(next, blocks as u32, self.caching), Data::Out(chunk));
            match written {
                Ok(_) => next += blocks as u64,
                Err(error) if next == lba => return Err(error),
                Err(error) => {
                    let source = ScsiError::PartlyWritten { lba, stopped_at: next, source: error.into() };
                    return Err(DeviceError::unknown(source));
                }
            }
        }
        Ok(())
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        let mut pause = Pause::new(&self.session.environment, self.session.options.patience);
        let mut times = 0;
        loop {
            let Some(told) = self.compare(lba, expected, new)? else { return Ok(()) };
            if let Some(error) = self.miscompare(lba, expected, new, told) {
                return Err(error);
            }
            times += 1;
            if times == MISCOMPARES_UNSEEN_MAX || !pause.wait() {
                let error = ScsiError::MiscompareUnseen { lba, times, reported_offset: told.offset };
                return Err(DeviceError::failed(Failure::Io, error));
            }
        }
    }

    /// Once the disk has said that a write was lost, this fails each time, whatever the disk answers: whose write it was nobody
    /// knows, and all who share the disk have to be told. It succeeds again when the disk is opened anew, and what was
    /// written since the last flush that succeeded is written again.
    fn flush(&self) -> Result<(), DeviceError> {
        let ended = self.troubles().updates.ended;
        let flushed = self.send(&Cdb::synchronize_cache_16(), Data::None);
        let mut troubles = self.troubles();
        if let Some(sense) = flushed.as_ref().err().and_then(sense_of).filter(Sense::tells_loss) {
            troubles.write_lost = Some(sense);
        }
        if let Some(sense) = troubles.write_lost {
            return Err(DeviceError::failed(Failure::Io, ScsiError::WriteLost { sense }));
        }
        match flushed {
            Ok(_) => {
                troubles.updates.flushed = troubles.updates.flushed.max(ended);
                Ok(())
            }
            // What a disk without a cache answers.
            Err(DeviceError::Failed { failure: Failure::Unsupported, .. }) if self.probe.is_written_through() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What the disk said, if the error comes from that.
fn sense_of(error: &DeviceError) -> Option<Sense> {
    match error {
        DeviceError::Failed { source, .. } => source.downcast_ref::<ScsiError>()?.sense(),
        _ => None,
    }
}

impl<T: Transport, E> fmt::Debug for Disk<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("name", &self.session.transport.name())
            .field("probe", &self.probe)
            .finish_non_exhaustive()
    }
}
