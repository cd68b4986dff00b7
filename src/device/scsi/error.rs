//! What a SCSI disk, or the way to it, can say besides success: the sources of a [`DeviceError`].

use std::fmt;

use super::cdb::Cdb;
use super::sense::{Sense, SenseKey};
use super::session::BLOCK_BYTES_MAX;
use super::transport::{Completion, Status, TransportError};
use crate::device::DeviceError;

/// Why a command to a SCSI disk did not do what it should. The source of a [`DeviceError`], which says what it means.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScsiError {
    /// The disk answered, but not with success.
    #[error("{command}: {answer}")]
    Answer {
        /// What it was asked.
        command: Cdb,
        /// What it said.
        answer: Answer,
    },
    /// It said that it was done, but not all data went.
    #[error("{command}: GOOD, but {residual_bytes} of {bytes} bytes were not transferred")]
    Short {
        /// What it was asked.
        command: Cdb,
        /// How many bytes should have gone.
        bytes: usize,
        /// How many of them did not.
        residual_bytes: usize,
    },
    /// It did not answer.
    #[error("{command}: {source}")]
    Transport {
        /// What it was asked.
        command: Cdb,
        /// Why there is no answer.
        source: TransportError,
    },
    /// A write or a compare-and-write was answered BUSY, which leaves open whether it was done, and sent again; that it was not
    /// done then tells nothing about the first time.
    #[error("{command}: BUSY, and when it was sent again: {source}")]
    PerhapsDone {
        /// What it was asked.
        command: Cdb,
        /// What came of sending it again.
        source: Box<DeviceError>,
    },
    /// A miscompare that may be with one's own image: the command may have been sent before, and done.
    #[error("block {lba}: miscompare{}, but the command may have been sent before, and done: {why}", at(*reported_offset))]
    PerhapsOwnImage {
        /// The first block compared.
        lba: u64,
        /// The offset of the first difference, if the disk reported one: in bytes, from the first block on.
        reported_offset: Option<u64>,
        /// Why that may be.
        why: &'static str,
    },
    /// The answer makes no sense.
    #[error("{command}: {what}")]
    Nonsense {
        /// What it was asked.
        command: Cdb,
        /// What is wrong with the answer.
        what: String,
    },
    /// There is no disk, but something else or nothing.
    #[error("not a disk: peripheral qualifier {qualifier}, device type {device_type:02X}h")]
    NotADisk {
        /// PERIPHERAL QUALIFIER.
        qualifier: u8,
        /// PERIPHERAL DEVICE TYPE.
        device_type: u8,
    },
    /// Blocks that cannot be used.
    #[error("blocks of {block_bytes} bytes: only powers of two from 512 to {BLOCK_BYTES_MAX} can be used")]
    BlockBytes {
        /// Their length in bytes.
        block_bytes: u32,
    },
    /// More blocks than can be: their bytes have no 64-bit number.
    #[error("its last block is said to be {last_lba}, of {block_bytes} bytes: no disk is that large")]
    Capacity {
        /// The last block, as the disk says.
        last_lba: u64,
        /// Length of a block, in bytes.
        block_bytes: u32,
    },
    /// A write of several commands ended at a later one.
    #[error("the blocks from {lba} to {} were written, then: {source}", stopped_at - 1)]
    PartlyWritten {
        /// The first block.
        lba: u64,
        /// The first block of the command that it ended at.
        stopped_at: u64,
        /// How that ended.
        source: Box<DeviceError>,
    },
    /// The blocks differed from what was expected, and were left alone; but they could not be read afterwards.
    #[error("block {lba}: miscompare{}; what it holds could not be read: {source}", at(*reported_offset))]
    MiscompareUnread {
        /// The first block compared.
        lba: u64,
        /// The offset of the first difference, if the disk reported one: in bytes, from the first block on.
        reported_offset: Option<u64>,
        /// Why they could not be read.
        source: Box<DeviceError>,
    },
    /// Time and again the disk reported a miscompare, but what was read afterwards was what had been expected.
    #[error("block {lba}: {times} miscompares{}, after each of which it read as expected", at(*reported_offset))]
    MiscompareUnseen {
        /// The first block compared.
        lba: u64,
        /// How often.
        times: u32,
        /// The offset that the disk reported the last time, if any: in bytes, from the first block on.
        reported_offset: Option<u64>,
    },
    /// When the disk was opened, its compare-and-write succeeded against an image that the block did not hold.
    #[error("the disk writes without comparing: its compare-and-write succeeded where it had to fail")]
    ComparesNothing,
    /// An earlier write that the disk had said was done was lost.
    #[error("an earlier write was lost: {sense}")]
    WriteLost {
        /// What the disk says about it.
        sense: Sense,
    },
    /// The disk said that it had changed, and did not answer when it was looked at. The command was not sent.
    #[error("the disk said that it changed, and could not be looked at: {source}")]
    Unchecked {
        /// What became of that.
        source: Box<DeviceError>,
    },
    /// The disk was exchanged, or its size was changed, after it was opened.
    #[error("no longer the disk that was opened: {what}; open it anew")]
    Changed {
        /// What changed.
        what: String,
    },
}

/// An offset, for messages.
fn at(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at byte {offset}"))
}

/// An answer, as an error keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// The sense data, if they make sense.
    pub sense: Option<Sense>,
}

impl From<&Completion> for Answer {
    fn from(completion: &Completion) -> Self {
        Self { status: completion.status, sense: completion.sense() }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, &self.sense) {
            (Status::CHECK_CONDITION, Some(sense)) => write!(f, "{sense}"),
            (Status::CHECK_CONDITION, None) => f.write_str("CHECK CONDITION without sense data"),
            (status, _) => write!(f, "{status}"),
        }
    }
}

impl ScsiError {
    /// The sense data that the disk gave, where it gave any.
    pub fn sense(&self) -> Option<Sense> {
        match self {
            Self::Answer { answer, .. } => answer.sense,
            Self::WriteLost { sense } => Some(*sense),
            _ => None,
        }
    }

    /// The sense key, where there are sense data.
    pub fn sense_key(&self) -> Option<SenseKey> {
        self.sense().map(|sense| sense.key)
    }
}
