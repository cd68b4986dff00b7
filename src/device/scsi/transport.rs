//! What carries commands to a disk, and answers back.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cdb::Cdb;
use super::sense::Sense;
use crate::device::{BoxError, Failure};

/// Carries commands to one logical unit: `SgIo` through Linux, others through a network.
///
/// Who implements it promises to send a command once at most, but for one that was answered BUSY or TASK SET FULL. One that is
/// sent twice unseen finds its own write, and reports a miscompare though it was done; [`Disk`](super::Disk) suspects that
/// only of answers that took a second or longer, as Linux's do after BUSY if the target had begun the command.
pub trait Transport: Send + Sync {
    /// What messages call the disk: a path, mostly.
    fn name(&self) -> Cow<'_, str>;

    /// Sends a command, and waits for the answer, for about so long. That is no promise: taking a command back may need longer,
    /// and so may finding a way to the disk. Nobody else's time may depend on it.
    ///
    /// # Errors
    /// [`TransportError`], if there is no answer. Whatever the disk answers is none: see [`Completion`].
    fn execute(&self, command: &Cdb, data: Data<'_>, timeout: Duration) -> Result<Completion, TransportError>;

    /// The most bytes that go with one command, if there is a limit.
    fn transfer_bytes_max(&self) -> Option<usize> {
        None
    }
}

/// Hands every call to what is pointed to.
macro_rules! pass_on {
    ($($pointer:ty),*) => {$(
        impl<T: Transport + ?Sized> Transport for $pointer {
            fn name(&self) -> Cow<'_, str> {
                (**self).name()
            }

            fn execute(&self, command: &Cdb, data: Data<'_>, timeout: Duration) -> Result<Completion, TransportError> {
                (**self).execute(command, data, timeout)
            }

            fn transfer_bytes_max(&self) -> Option<usize> {
                (**self).transfer_bytes_max()
            }
        }
    )*};
}

pass_on!(&T, Arc<T>, Box<T>);

/// What goes with a command.
#[derive(Debug)]
pub enum Data<'a> {
    /// Nothing.
    None,
    /// From the disk, at most as much as fits.
    In(&'a mut [u8]),
    /// To the disk.
    Out(&'a [u8]),
}

impl Data<'_> {
    /// How many bytes may go.
    pub fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::In(buffer) => buffer.len(),
            Self::Out(buffer) => buffer.len(),
        }
    }

    /// The same data, for one attempt of several.
    pub fn reborrow(&mut self) -> Data<'_> {
        match self {
            Self::None => Data::None,
            Self::In(buffer) => Data::In(buffer),
            Self::Out(buffer) => Data::Out(buffer),
        }
    }
}

/// What a disk answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    /// What became of the command.
    pub status: Status,
    /// Sense data, as they came. May be empty.
    pub sense: Vec<u8>,
    /// How many bytes of the data did not go: 0 for most commands that were done.
    pub residual_bytes: usize,
}

impl Completion {
    /// An answer without sense data.
    pub fn of(status: Status) -> Self {
        Self { status, sense: Vec::new(), residual_bytes: 0 }
    }

    /// The sense data, if they make sense.
    pub fn sense(&self) -> Option<Sense> {
        Sense::parse(&self.sense)
    }
}

/// STATUS of a command (SAM-6, 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Status(pub u8);

impl Status {
    /// It was done.
    pub const GOOD: Self = Self(0x00);
    /// See the sense data.
    pub const CHECK_CONDITION: Self = Self(0x02);
    /// The disk does not take it now.
    pub const BUSY: Self = Self(0x08);
    /// Another host has reserved the disk.
    pub const RESERVATION_CONFLICT: Self = Self(0x18);
    /// The disk has no room for one more command.
    pub const TASK_SET_FULL: Self = Self(0x28);
    /// An auto contingent allegiance has to be cleared first.
    pub const ACA_ACTIVE: Self = Self(0x30);
    /// Another host had it aborted.
    pub const TASK_ABORTED: Self = Self(0x40);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::GOOD => "GOOD",
            Self::CHECK_CONDITION => "CHECK CONDITION",
            Self::BUSY => "BUSY",
            Self::RESERVATION_CONFLICT => "RESERVATION CONFLICT",
            Self::TASK_SET_FULL => "TASK SET FULL",
            Self::ACA_ACTIVE => "ACA ACTIVE",
            Self::TASK_ABORTED => "TASK ABORTED",
            Self(other) => return write!(f, "status {other:02X}h"),
        };
        f.write_str(name)
    }
}

/// Why there is no answer. The three are kept apart, because a command that was sent may have been done, or may be yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The command was not sent, and will not be.
    #[error("{source}")]
    NotSent {
        /// What kind of failure.
        failure: Failure,
        /// The system's reason.
        source: BoxError,
    },
    /// The disk cannot be reached. Whether the command was sent before that is not known.
    #[error("{source}")]
    Unreachable {
        /// How one can tell.
        source: BoxError,
    },
    /// The command was sent, or may have been, and its answer did not come in time, or not at all.
    #[error("{source}")]
    NoAnswer {
        /// How the answer was missed.
        source: BoxError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_names_of_the_standard() {
        let names = [0x00, 0x02, 0x08, 0x18, 0x28, 0x30, 0x40, 0x22].map(|status| Status(status).to_string());
        let expected = [
            "GOOD",
            "CHECK CONDITION",
            "BUSY",
            "RESERVATION CONFLICT",
            "TASK SET FULL",
            "ACA ACTIVE",
            "TASK ABORTED",
            "status 22h",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn data_are_as_long_as_their_buffer() {
        assert_eq!((Data::None.bytes(), Data::In(&mut [0; 3]).bytes(), Data::Out(&[0; 4]).bytes()), (0, 3, 4));
    }
}
