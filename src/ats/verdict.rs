//! What came of an operation.

use std::time::Duration;

use super::record::Owner;
use crate::device::DeviceError;

/// What came of a compare-and-write that was made certain. `docs/ats.md` tells what to do about each.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// It was done, and the device said so.
    Written,
    /// It was done, though the device did not say so: its answer was lost, and a look at the block showed our own image, or a
    /// record which says that it replaced ours.
    OwnWriteLanded {
        /// How many attempts there were; one of them took effect, once.
        attempts: u32,
        /// Whether a peer has replaced it since.
        replaced: bool,
    },
    /// It was not done, and will not be: the block held something else. Mostly a peer that was faster, no fault.
    PeerChanged {
        /// The first byte in which the block differs from what was expected, in bytes.
        offset: usize,
        /// What the block held.
        found: Box<[u8]>,
        /// Who wrote that, if it is a [`Record`](super::Record).
        owner: Option<Owner>,
    },
    /// It was not done, and will not be: the device could not, at each attempt.
    Unwritten {
        /// The last answer: always [`DeviceError::Failed`].
        source: DeviceError,
    },
    /// It may have been done, or may be yet. Nobody can tell from what the device answered.
    Indeterminate {
        /// Whether it may be done yet: for all that is known, the block holds what an unanswered attempt expects, or may come
        /// to. If not, it is only unknown whether it was.
        may_still_land: bool,
        /// What the block held when it was seen after the last attempt; `None` if it could not be read.
        found: Option<Box<[u8]>>,
        /// The last answer that was missed, whatever came of attempts after it: always [`DeviceError::OutcomeUnknown`].
        source: DeviceError,
    },
}

impl Verdict {
    /// Whether it was done; `None` where nobody can tell.
    pub fn is_written(&self) -> Option<bool> {
        match self {
            Self::Written | Self::OwnWriteLanded { .. } => Some(true),
            Self::PeerChanged { .. } | Self::Unwritten { .. } => Some(false),
            Self::Indeterminate { .. } => None,
        }
    }

    /// Its name in the log: `written`, `own_write_landed`, `peer_changed`, `unwritten`, `indeterminate`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::OwnWriteLanded { .. } => "own_write_landed",
            Self::PeerChanged { .. } => "peer_changed",
            Self::Unwritten { .. } => "unwritten",
            Self::Indeterminate { .. } => "indeterminate",
        }
    }
}

/// A verdict, and how it was come by.
#[derive(Debug)]
#[must_use]
pub struct Outcome {
    /// What came of it.
    pub verdict: Verdict,
    /// What the blocks held last, for all that is known: our image if it was written (and not replaced since), else what was
    /// found, or else what was expected. The next operation may expect it.
    pub block: Box<[u8]>,
    /// How many attempts it took, of all the rounds of an update.
    pub attempts: u32,
    /// How long it took.
    pub elapsed: Duration,
}
