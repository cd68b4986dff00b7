//! What a device can answer besides success.

use std::error::Error;
use std::fmt;

use crate::error::Miscompare;

/// The cause of an error: a device's own type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a device did not say that it was done. The three are kept apart, because what to do about them differs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The blocks held something else, and were left alone. Where the device itself does not bring the blocks with its answer,
    /// they are read right afterwards; so `found` is what they held at some moment after the compare and before the return. It
    /// always differs from what was expected, and `offset` is where it first does; both count from the first block
    /// compared, `lba`.
    #[error("block {}: byte {} differs from what was expected", .0.lba, .0.offset)]
    Miscompare(Box<Miscompare>),
    /// It did not happen, and will not.
    #[error("{source}")]
    Failed {
        /// What kind of failure.
        failure: Failure,
        /// The device's own error.
        source: BoxError,
    },
    /// It may have happened, or may happen yet: the answer was lost, or did not come in time.
    #[error("the outcome is not known: {source}")]
    OutcomeUnknown {
        /// How the answer was missed.
        source: BoxError,
    },
}

impl DeviceError {
    /// It did not happen.
    pub fn failed(failure: Failure, source: impl Into<BoxError>) -> Self {
        Self::Failed { failure, source: source.into() }
    }

    /// It may have happened, or may happen yet.
    pub fn unknown(source: impl Into<BoxError>) -> Self {
        Self::OutcomeUnknown { source: source.into() }
    }

    /// The blocks from `lba` on were found to hold `found`, not `expected`; `None` if there is no difference.
    pub fn miscompare(lba: u64, expected: &[u8], found: Box<[u8]>) -> Option<Self> {
        let offset = super::first_difference(expected, &found)?;
        Some(Self::Miscompare(Box::new(Miscompare { lba, offset, found })))
    }

    /// What kind of failure, if it is one.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed { failure, .. } => Some(*failure),
            _ => None,
        }
    }
}

/// What kind of failure: whether trying again can help.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// What was asked for is impossible: a length, or blocks that the device does not have.
    Invalid,
    /// The device cannot do that.
    Unsupported,
    /// It may be read, not written.
    ReadOnly,
    /// It has no room.
    NoSpace,
    /// Another host has reserved it (SPC-4, 5.13): a conflict that only people, or the cluster's manager, can solve.
    ReservationConflict,
    /// It has too much to do, or is getting ready.
    Busy,
    /// It cannot be reached.
    Unreachable,
    /// It tried, and could not: a bad medium, an I/O error.
    Io,
    /// What it holds makes no sense to it.
    Corrupt,
}

impl Failure {
    /// Whether trying again may help, without anybody doing something about it.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Busy | Self::Unreachable | Self::Io)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "an invalid request",
            Self::Unsupported => "not supported",
            Self::ReadOnly => "read-only",
            Self::NoSpace => "no space",
            Self::ReservationConflict => "a reservation conflict",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Io => "an I/O error",
            Self::Corrupt => "damaged contents",
        })
    }
}
