//! A store as a device.

use std::borrow::Cow;

use super::{BlockDevice, DeviceError, Failure};
use crate::error::Error;
use crate::store::Store;

impl From<Error> for DeviceError {
    /// What it means if a call for one block, or one that changes nothing, ended so.
    fn from(error: Error) -> Self {
        let failure = match error {
            Error::Miscompare(miscompare) => return Self::Miscompare(miscompare),
            Error::LbaOutOfRange { .. } | Error::WordOutOfRange { .. } | Error::BufferLength { .. } => Failure::Invalid,
            Error::NoSpace { .. } => Failure::NoSpace,
            Error::TooManyWriters { .. } => Failure::Busy,
            Error::ReadOnly | Error::Forked => Failure::ReadOnly,
            Error::NotExclusive | Error::NotPower => Failure::Unsupported,
            Error::Corrupt { .. } => Failure::Corrupt,
            Error::Sync { .. } | Error::Lock { .. } => Failure::Io,
            Error::NotSynced { .. } => return Self::unknown(error),
        };
        Self::failed(failure, error)
    }
}

/// What it means if a write ended so, of one block or of many.
fn write_error(error: Error, many: bool) -> DeviceError {
    match error {
        // Found before the first block was written.
        Error::LbaOutOfRange { .. } | Error::BufferLength { .. } | Error::ReadOnly | Error::Forked => error.into(),
        Error::TooManyWriters { .. } => error.into(),
        // Blocks before the one it ended at were written.
        error if many => DeviceError::unknown(error),
        error => error.into(),
    }
}

impl BlockDevice for Store {
    fn name(&self) -> Cow<'_, str> {
        self.path().map_or("(memory)".into(), |path| path.to_string_lossy())
    }

    fn block_bytes(&self) -> usize {
        self.geometry().size_of_block().bytes()
    }

    fn block_count(&self) -> u64 {
        self.geometry().block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    #[inline]
    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        Ok(Store::read(self, lba, out)?)
    }

    #[inline]
    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        let many = data.len() > self.block_bytes();
        Store::write(self, lba, data).map_err(|error| write_error(error, many))
    }

    #[inline]
    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        Ok(Store::compare_and_write(self, lba, expected, new)?)
    }

    /// As [`Store::sync`]: what it is worth depends on the store's durability.
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(self.sync()?)
    }

    fn as_store(&self) -> Option<&Store> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_many_blocks_that_ends_in_the_middle_is_not_undone() {
        let errno = || std::io::Error::from_raw_os_error(5);
        let ends_anywhere: [fn() -> Error; 4] = [
            || Error::NoSpace { frames: 8 },
            || Error::Corrupt { what: String::new() },
            || Error::Sync { source: std::io::Error::from_raw_os_error(5) },
            || Error::Lock { source: std::io::Error::from_raw_os_error(5) },
        ];
        for error in ends_anywhere {
            assert!(matches!(write_error(error(), true), DeviceError::OutcomeUnknown { .. }), "{:?}", error());
            assert!(write_error(error(), false).failure().is_some(), "{:?}", error());
        }
        assert_eq!(write_error(Error::ReadOnly, true).failure(), Some(Failure::ReadOnly));
        assert_eq!(write_error(Error::Lock { source: errno() }, false).failure(), Some(Failure::Io));
    }
}
