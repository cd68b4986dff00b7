//! Block devices: whatever has compare-and-write. A [`Store`] is one, a SCSI disk another.
//!
//! This layer knows the stores below it, and nothing of the hosts that share a device.

pub mod conformance;
mod error;
mod faulty;
pub mod scsi;
mod store;

use std::borrow::Cow;
use std::sync::Arc;

use crate::store::Store;

pub use error::{BoxError, DeviceError, Failure};
pub use faulty::{FaultCounts, Faults, Faulty, Link};

/// A device of equal blocks with compare-and-write, shared by threads, processes, and perhaps hosts.
///
/// Who implements it promises:
///
/// - **Blocks are atomic.** Each block of a read is what it was at one moment during the call, each block of a write changes
///   at once; several in one call do so one by one, in any order.
/// - **A compare-and-write is atomic**, the blocks of one call together, against every other operation on them. A block
///   never written compares, and reads, as zeros.
/// - **Errors tell the truth.** [`Miscompare`](DeviceError::Miscompare) and [`Failed`](DeviceError::Failed) mean that
///   nothing was changed and nothing will be; whatever may have happened, or may happen yet, is
///   [`OutcomeUnknown`](DeviceError::OutcomeUnknown). A read error is no miscompare, and a timeout is no failure.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::device::{BlockDevice, DeviceError};
/// use casblock::{Geometry, Store};
///
/// fn increment(device: &dyn BlockDevice, lba: u64) -> Result<(), DeviceError> {
///     let mut current = vec![0; device.block_bytes()];
///     device.read(lba, &mut current)?;
///     loop {
///         let mut wanted = current.clone();
///         wanted[0] += 1;
///         match device.compare_and_write(lba, &current, &wanted) {
///             Err(DeviceError::Miscompare(miscompare)) => current.copy_from_slice(&miscompare.found),
///             other => return other,
///         }
///     }
/// }
///
/// let store = Store::in_memory(Geometry::blocks(8))?;
/// increment(&store, 7)?;
/// # Ok(())
/// # }
/// ```
pub trait BlockDevice: Send + Sync {
    /// What messages call it: a path, mostly.
    fn name(&self) -> Cow<'_, str>;

    /// Bytes of a block: a power of two, at least 512.
    fn block_bytes(&self) -> usize;

    /// The number of blocks.
    fn block_count(&self) -> u64;

    /// The most blocks that one compare-and-write takes; 0 if the device has none.
    fn compare_and_write_blocks_max(&self) -> u32;

    /// Copies blocks to `out`, from block `lba` on: as many as it is long.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] with [`Failure::Invalid`] unless `out` is a whole number of blocks, all of which the device
    /// has; others. After an error the contents of `out` mean nothing.
    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError>;

    /// As [`read`](Self::read), but no copy that somebody keeps: what the blocks held after it was called. Devices that keep copies, and
    /// those that stand before others, must answer it.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn read_current(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.read(lba, out)
    }

    /// Replaces blocks, whatever they hold, from block `lba` on: as many as `data` is long.
    ///
    /// # Errors
    /// As for [`read`](Self::read). If some blocks may have been changed, it is [`DeviceError::OutcomeUnknown`].
    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError>;

    /// If the blocks from `lba` on hold `expected`, replaces them by `new`; else says what they hold. Both are equally
    /// long, and at most [`compare_and_write_blocks_max`](Self::compare_and_write_blocks_max) blocks.
    ///
    /// # Errors
    /// [`DeviceError::Miscompare`], with [`Failure::Invalid`] and [`Failure::Unsupported`] for what is never possible;
    /// others. See the promises above.
    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError>;

    /// Puts on stable storage all updates that were done before it was called.
    ///
    /// # Errors
    /// Any but a miscompare. How much is on stable storage is not known then.
    fn flush(&self) -> Result<(), DeviceError>;

    /// The store that the device is, if it is one and nothing stands between: its heartbeat words are then at hand.
    fn as_store(&self) -> Option<&Store> {
        None
    }
}

/// Hands every operation to what is pointed to.
macro_rules! pass_on {
    ($($pointer:ty),*) => {$(
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            fn name(&self) -> Cow<'_, str> {
                (**self).name()
            }

            fn block_bytes(&self) -> usize {
                (**self).block_bytes()
            }

            fn block_count(&self) -> u64 {
                (**self).block_count()
            }

            fn compare_and_write_blocks_max(&self) -> u32 {
                (**self).compare_and_write_blocks_max()
            }

            fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
                (**self).read(lba, out)
            }

            fn read_current(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
                (**self).read_current(lba, out)
            }

            fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
                (**self).write(lba, data)
            }

            fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
                (**self).compare_and_write(lba, expected, new)
            }

            fn flush(&self) -> Result<(), DeviceError> {
                (**self).flush()
            }

            fn as_store(&self) -> Option<&Store> {
                (**self).as_store()
            }
        }
    )*};
}

pass_on!(&D, Arc<D>, Box<D>);

/// How many blocks `bytes` are, if all of them, from `lba` on, are the device's.
///
/// # Errors
/// [`Failure::Invalid`], with a [`crate::Error`] that says what is wrong.
pub fn check_range(device: &(impl BlockDevice + ?Sized), lba: u64, bytes: usize) -> Result<u64, DeviceError> {
    let (block_size, blocks) = (device.block_bytes(), device.block_count());
    let count = (bytes / block_size) as u64;
    let wrong = if !bytes.is_multiple_of(block_size) {
        crate::Error::BufferLength { bytes, expected: "a whole number of blocks", block_size }
    } else if lba > blocks || count > blocks - lba {
        crate::Error::LbaOutOfRange { lba, count, blocks }
    } else {
        return Ok(count);
    };
    Err(DeviceError::failed(Failure::Invalid, wrong))
}

/// How many blocks a compare-and-write of these buffers takes, if it is possible: at least 1.
///
/// # Errors
/// [`Failure::Unsupported`] where the device has no compare-and-write; else [`Failure::Invalid`], with a [`crate::Error`].
pub fn check_compare_and_write(
    device: &(impl BlockDevice + ?Sized),
    lba: u64,
    expected: &[u8],
    new: &[u8],
) -> Result<u64, DeviceError> {
    let (block_size, most) = (device.block_bytes(), device.compare_and_write_blocks_max());
    if most == 0 {
        return Err(DeviceError::failed(Failure::Unsupported, "the device has no compare-and-write"));
    }
    let wrong_length = |bytes, expected| {
        Err(DeviceError::failed(Failure::Invalid, crate::Error::BufferLength { bytes, expected, block_size }))
    };
    if expected.len() != new.len() {
        return wrong_length(new.len(), "as many as are expected, in blocks");
    }
    let count = check_range(device, lba, expected.len())?;
    match count {
        0 => wrong_length(0, if most == 1 { "one block" } else { "at least one block" }),
        _ if count > most.into() => wrong_length(expected.len(), if most == 1 { "one block" } else { "fewer blocks" }),
        _ => Ok(count),
    }
}

/// Offset of the first byte in which two blocks differ, if they do.
pub fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b)
}
