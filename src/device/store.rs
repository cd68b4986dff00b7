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
        Store::write(self, lba, data).map_err(|error| match error {
            // Blocks before the one it ended at were written.
            Error::NoSpace { .. } | Error::Corrupt { .. } | Error::Sync { .. } if data.len() > self.block_bytes() => {
                DeviceError::unknown(error)
            }
            error => error.into(),
        })
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
