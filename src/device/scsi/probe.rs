//! Finding out what a disk is and can, without changing it.

use super::cdb::{Caching, Cdb, opcode};
use super::error::ScsiError;
use super::images::Images;
use super::pages::{self, BlockLimits, CAPACITY_BYTES, Capacity, Inquiry, Mode, page};
use super::session::{BLOCK_BYTES_MAX, DiskOptions, Outcome, Session};
use super::transport::{Data, Transport};
use crate::device::{DeviceError, Failure, first_difference};
use crate::environment::{Environment, System};

/// What a disk says that it is and can, and what was found out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Probe {
    /// Who made it, and what it is called.
    pub inquiry: Inquiry,
    /// Its serial number.
    pub serial_number: Option<String>,
    /// Its name, the same on all ways to it: see [`designator`](super::designator()).
    pub designator: Option<String>,
    /// How many blocks of what length.
    pub capacity: Capacity,
    /// Limits of transfers, where it reports any.
    pub block_limits: Option<BlockLimits>,
    /// Write protection and cache, where it reports them.
    pub mode: Option<Mode>,
    /// Whether COMPARE AND WRITE is among the commands that it lists, if it lists any.
    pub compare_and_write_listed: Option<bool>,
    /// Whether it takes FUA.
    pub force_unit_access: bool,
    /// Whether it compares and writes: what was found out, whatever it says.
    pub compare_and_write: Proof,
}

impl Probe {
    /// The number of blocks.
    pub fn block_count(&self) -> u64 {
        self.capacity.last_lba.saturating_add(1)
    }

    /// The most blocks that one compare-and-write takes, from what is claimed and what was found out; 0 if the disk has none.
    ///
    /// A claim alone is no proof, and one of 0 no disproof: Linux's `scsi_debug` claims 0 and takes 255, tgt claims 128 and takes
    /// any number. So the claim is only the limit, where there is one; else it is the one block that was tried.
    pub fn compare_and_write_blocks_max(&self) -> u8 {
        let claimed = self.block_limits.map_or(0, |limits| limits.compare_and_write_blocks_max);
        match self.compare_and_write {
            Proof::Works { .. } => claimed.max(1),
            Proof::NotTried | Proof::NotKnown { .. } => claimed,
            Proof::Unsupported | Proof::ComparesNothing => 0,
        }
    }

    /// Whether its compare-and-write is sent with FUA: as it was found out, or else as reads are.
    pub fn compare_and_write_force_unit_access(&self) -> bool {
        match self.compare_and_write {
            Proof::Works { force_unit_access, .. } => force_unit_access,
            _ => self.force_unit_access,
        }
    }

    /// Whether updates are on stable storage when they are done: all are sent with FUA, or there is no volatile cache. Where they
    /// are not, a cut of the disk's power may take back what was done since the last flush; nobody is told.
    pub fn is_written_through(&self) -> bool {
        let no_cache = self.mode.is_some_and(|mode| mode.write_cache == Some(false));
        no_cache || self.force_unit_access && self.compare_and_write_force_unit_access()
    }
}

/// Whether a disk compares and writes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Proof {
    /// Nobody tried.
    NotTried,
    /// It refuses the command.
    Unsupported,
    /// It refused to write where the block held something else.
    Works {
        /// Whether it takes FUA with the command.
        force_unit_access: bool,
        /// Whether it says where the difference is.
        offset: ReportedOffset,
    },
    /// It says that it wrote, though the block held something else: it does not compare, and must not be used for this.
    ComparesNothing,
    /// It could not be found out.
    NotKnown {
        /// Why.
        reason: String,
    },
}

/// Whether a disk that finds a difference says where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportedOffset {
    /// It does not.
    None,
    /// It does, and is right.
    Right,
    /// It says that it is at this byte, where it is not.
    Wrong(u64),
    /// It says something, but the block was being changed by others, each time.
    Unchecked,
}

/// Asks a disk for all that it says about itself, and tries its compare-and-write. It changes nothing.
///
/// The last block is read, and then compared with an image that no one can hold: three quarters of it are random, and one byte
/// differs from what was read. What would be written is what was read. So a disk that compares writes nothing, whatever
/// others write meanwhile; and one that does not compare writes what the block held a moment before. (That could undo what
/// another host writes in that moment, as all compare-and-writes on such a disk can. A command of 0 blocks could not, but
/// proves only that the command is known.)
///
/// # Errors
/// [`DeviceError::Failed`]: with [`Failure::Unsupported`] for what is no disk, or has blocks of a length that is no power of two
/// from 512 bytes to 64 KiB; others. [`DeviceError::OutcomeUnknown`], if it does not answer. What is optional for a disk
/// is `None` in the answer where it is missing, or could not be had.
pub fn probe(transport: &impl Transport) -> Result<Probe, DeviceError> {
    probe_with(transport, System, DiskOptions::default())
}

/// As [`probe()`], with a clock and dice to wait by, and options. Without
/// [`prove_compare_and_write`](DiskOptions::prove_compare_and_write) it sends no command that could write.
///
/// # Errors
/// As for [`probe()`].
pub fn probe_with(
    transport: &impl Transport,
    environment: impl Environment,
    options: DiskOptions,
) -> Result<Probe, DeviceError> {
    Session { transport, environment, options }.probe()
}

/// Bytes asked for of INQUIRY data; the standard's minimum is 36.
const INQUIRY_BYTES: u16 = 96;
/// Bytes asked for of a page of vital product data.
const PAGE_BYTES: u16 = 1024;
/// Bytes asked for of the caching mode page, its header, and a few block descriptors.
const MODE_BYTES: u16 = 128;
/// Bytes asked for about a supported command: its header, its CDB's bits, and timeouts.
const SUPPORTED_BYTES: u32 = 64;
/// How often the compare-and-write is tried again because the block changed meanwhile.
const TRIES_MAX: usize = 3;

impl<T: Transport, E: Environment> Session<T, E> {
    /// See [`probe()`].
    pub fn probe(&self) -> Result<Probe, DeviceError> {
        let inquiry = self.inquiry()?;
        // Disks have to say first what happened to them, and some have to get ready.
        self.ask(&Cdb::test_unit_ready(), 0)?;
        let capacity = self.capacity()?;
        let supported = informational(self.page(page::SUPPORTED))?.unwrap_or_default();
        let supported = pages::supported_pages(&supported).unwrap_or_default();
        // Some disks stumble over a page that they do not have.
        let page = |page: u8| if supported.contains(&page) { informational(self.page(page)) } else { Ok(None) };
        let mode = question(self.ask(&Cdb::mode_sense_10(page::CACHING_MODE, MODE_BYTES), MODE_BYTES.into()))?;
        let listed = Cdb::report_supported_operation_code(opcode::COMPARE_AND_WRITE, SUPPORTED_BYTES);
        let mut probe = Probe {
            inquiry,
            serial_number: page(page::SERIAL_NUMBER)?.and_then(|page| pages::serial_number(&page)),
            designator: page(page::IDENTIFICATION)?.and_then(|page| pages::designator(&page)),
            capacity,
            block_limits: page(page::BLOCK_LIMITS)?.and_then(|page| BlockLimits::parse(&page)),
            mode: mode.and_then(|mode| Mode::parse(&mode)),
            compare_and_write_listed: question(self.ask(&listed, SUPPORTED_BYTES as usize))?
                .and_then(|answer| pages::command_supported(&answer)),
            force_unit_access: false,
            compare_and_write: Proof::NotTried,
        };
        let says = probe.mode.map(|mode| mode.takes_force_unit_access);
        probe.force_unit_access = says != Some(false) && self.takes_force_unit_access(&capacity, says)?;
        if self.options.prove_compare_and_write {
            let caching = if probe.force_unit_access { Caching::THROUGH } else { Caching::ALLOWED };
            probe.compare_and_write = self.prove(&capacity, caching)?;
        }
        Ok(probe)
    }

    fn inquiry(&self) -> Result<Inquiry, DeviceError> {
        let command = Cdb::inquiry(INQUIRY_BYTES);
        let inquiry = Inquiry::parse(&self.ask(&command, INQUIRY_BYTES.into())?);
        let inquiry = inquiry.ok_or_else(|| nonsense(command, "too short"))?;
        match (inquiry.qualifier, inquiry.device_type) {
            (0, 0) => Ok(inquiry),
            (qualifier, device_type) => {
                let failure = if qualifier == 0 { Failure::Unsupported } else { Failure::Unreachable };
                Err(DeviceError::failed(failure, ScsiError::NotADisk { qualifier, device_type }))
            }
        }
    }

    /// How many blocks of what length, if they can be used.
    pub fn capacity(&self) -> Result<Capacity, DeviceError> {
        let command = Cdb::read_capacity_16(CAPACITY_BYTES as u32);
        let capacity = Capacity::parse(&self.ask(&command, CAPACITY_BYTES)?);
        let capacity = capacity.ok_or_else(|| nonsense(command, "too short"))?;
        let block_bytes = capacity.block_bytes;
        if !block_bytes.is_power_of_two() || !(512..=BLOCK_BYTES_MAX).contains(&block_bytes) {
            return Err(DeviceError::failed(Failure::Unsupported, ScsiError::BlockBytes { block_bytes }));
        }
        let last_lba = capacity.last_lba;
        if last_lba.checked_add(1).and_then(|blocks| blocks.checked_mul(block_bytes.into())).is_none() {
            return Err(DeviceError::failed(Failure::Unsupported, ScsiError::Capacity { last_lba, block_bytes }));
        }
        Ok(capacity)
    }

    /// A page of vital product data, if there is one.
    pub fn page(&self, page: u8) -> Result<Option<Vec<u8>>, DeviceError> {
        optional(self.ask(&Cdb::vital_product_data(page, PAGE_BYTES), PAGE_BYTES.into()))
    }

    /// Reads the last block.
    fn read_last(&self, capacity: &Capacity, caching: Caching) -> Result<Vec<u8>, DeviceError> {
        let mut block = vec![0; capacity.block_bytes as usize];
        let command = Cdb::read_16(capacity.last_lba, 1, caching);
        self.send(&command, Data::In(&mut block), &|_| Ok(()))?;
        Ok(block)
    }

    /// Whether a read may be told to come from the medium. By the standard a disk then takes FUA with a write, too. `says` is
    /// what the disk says about that.
    fn takes_force_unit_access(&self, capacity: &Capacity, says: Option<bool>) -> Result<bool, DeviceError> {
        match self.read_last(capacity, Caching::THROUGH) {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            // A block that cannot be read refutes nothing. Where the disk says nothing, it can be used without FUA at least.
            Err(DeviceError::Failed { failure: Failure::Io, .. }) => Ok(says == Some(true)),
            Err(error) => Err(error),
        }
    }

    /// See [`probe()`].
    fn prove(&self, capacity: &Capacity, mut caching: Caching) -> Result<Proof, DeviceError> {
        let mut offset = None;
        for _ in 0..TRIES_MAX {
            let before = match self.read_last(capacity, caching) {
                Ok(block) => block,
                Err(error) => return not_known(error),
            };
            let expected = image_of_nobody(&before, &self.environment);
            let data = Images::new(&expected, &before);
            let send = |caching| {
                let command = Cdb::compare_and_write(capacity.last_lba, 1, caching);
                self.send(&command, Data::Out(data.bytes()), &|_| Ok(()))
            };
            let mut outcome = send(caching);
            if caching.force_unit_access
                && matches!(outcome, Err(DeviceError::Failed { failure: Failure::Invalid, .. }))
            {
                caching = Caching::ALLOWED;
                outcome = send(caching);
            }
            offset = match outcome {
                Ok(Outcome::Done(_)) => return Ok(Proof::ComparesNothing),
                // Nobody holds that image, so whether it was sent before does not matter.
                Ok(Outcome::Miscompare(miscompare)) => miscompare.offset,
                Err(error) if is_missing(&error) => return Ok(Proof::Unsupported),
                Err(error) => return not_known(error),
            };
            let works = |offset| Ok(Proof::Works { force_unit_access: caching.force_unit_access, offset });
            let Some(reported) = offset else { return works(ReportedOffset::None) };
            if first_difference(&expected, &before).is_some_and(|right| right as u64 == reported) {
                return works(ReportedOffset::Right);
            }
            if self.read_last(capacity, caching).is_ok_and(|after| after == before) {
                return works(ReportedOffset::Wrong(reported));
            }
        }
        let offset = if offset.is_none() { ReportedOffset::None } else { ReportedOffset::Unchecked };
        Ok(Proof::Works { force_unit_access: caching.force_unit_access, offset })
    }
}

/// An image that differs from `block` first at a quarter of its length, and that no one else can hold: the rest is random.
fn image_of_nobody(block: &[u8], environment: &impl Environment) -> Vec<u8> {
    let mut image = block.to_vec();
    let quarter = block.len() / 4;
    for bytes in image[quarter..].chunks_mut(16) {
        bytes.copy_from_slice(&environment.random().to_ne_bytes()[..bytes.len()]);
    }
    image[quarter] = !block[quarter];
    image
}

/// What could not be found out is told, unless there is nobody to ask any more.
fn not_known(error: DeviceError) -> Result<Proof, DeviceError> {
    match error {
        DeviceError::Failed { failure: Failure::Unreachable, .. } => Err(error),
        error => Ok(Proof::NotKnown { reason: error.to_string() }),
    }
}

/// Whether the disk, or the system, does not know or take the command.
fn is_missing(error: &DeviceError) -> bool {
    matches!(error.failure(), Some(Failure::Unsupported | Failure::Invalid))
}

/// `None` for what the disk does not tell, for whatever reason, as long as it can be reached: it can be used without.
fn informational<T>(answer: Result<Option<T>, DeviceError>) -> Result<Option<T>, DeviceError> {
    match answer {
        Err(error) if error.failure() != Some(Failure::Unreachable) => Ok(None),
        answer => answer,
    }
}

/// As [`informational`], of a question.
fn question(answer: Result<Vec<u8>, DeviceError>) -> Result<Option<Vec<u8>>, DeviceError> {
    informational(answer.map(Some))
}

/// `None` for what the disk does not have, or the system does not let this process ask.
fn optional(answer: Result<Vec<u8>, DeviceError>) -> Result<Option<Vec<u8>>, DeviceError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_missing(&error) || error.failure() == Some(Failure::ReadOnly) => Ok(None),
        Err(error) => Err(error),
    }
}

fn nonsense(command: Cdb, what: &str) -> DeviceError {
    DeviceError::failed(Failure::Corrupt, ScsiError::Nonsense { command, what: what.into() })
}
