//! The cache as a device: everything above it works with it or without.

use std::borrow::Cow;

use super::{BlockCache, Consistency};
use crate::Store;
use crate::device::{BlockDevice, DeviceError};
use crate::environment::Environment;

impl<D: BlockDevice, E: Environment> BlockDevice for BlockCache<D, E> {
    fn name(&self) -> Cow<'_, str> {
        self.device().name()
    }

    fn block_bytes(&self) -> usize {
        self.device().block_bytes()
    }

    fn block_count(&self) -> u64 {
        self.device().block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        self.device().compare_and_write_blocks_max()
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        Self::read(self, lba, out)
    }

    fn read_current(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.read_as(lba, out, Consistency::Current)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        Self::write(self, lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        Self::compare_and_write(self, lba, expected, new)
    }

    /// As the device's: the cache has nothing that the device has not.
    fn flush(&self) -> Result<(), DeviceError> {
        self.device().flush()
    }

    /// Over a store nothing that is read is older than what the store has: so the cache stands between in no way that matters.
    fn as_store(&self) -> Option<&Store> {
        self.device().as_store()
    }
}
