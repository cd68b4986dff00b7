//! The device as the cases meet it: it can be taken away from them, and counts how often they met others.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use casblock::device::{BlockDevice, DeviceError, Failure};

use crate::signals::Interruptible;

/// A device that does nothing more once a signal came: so whatever works with it ends soon.
pub struct Watched<'d> {
    device: &'d dyn BlockDevice,
    interrupt: &'d Interruptible,
    /// Whether it compares by a read, and then writes: others' updates in between are lost.
    loses_updates: bool,
    miscompares: AtomicU64,
}

impl<'d> Watched<'d> {
    pub fn new(device: &'d dyn BlockDevice, interrupt: &'d Interruptible, loses_updates: bool) -> Self {
        Self { device, interrupt, loses_updates, miscompares: AtomicU64::new(0) }
    }

    /// How many compare-and-writes found something else: for whoever only counts, how often it met others.
    pub fn miscompares(&self) -> u64 {
        self.miscompares.load(Relaxed)
    }

    fn go_on(&self) -> Result<(), DeviceError> {
        self.interrupt.check().map_err(|interrupted| DeviceError::failed(Failure::Invalid, interrupted))
    }

    fn compare_then_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        let mut found = vec![0; expected.len()];
        self.device.read(lba, &mut found)?;
        match DeviceError::miscompare(lba, expected, found.into()) {
            Some(miscompare) => Err(miscompare),
            None => {
                // One processor, too, is to have somebody else in here.
                std::thread::yield_now();
                self.device.write(lba, new)
            }
        }
    }
}

impl BlockDevice for Watched<'_> {
    fn name(&self) -> Cow<'_, str> {
        self.device.name()
    }

    fn block_bytes(&self) -> usize {
        self.device.block_bytes()
    }

    fn block_count(&self) -> u64 {
        self.device.block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        self.device.compare_and_write_blocks_max()
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.go_on()?;
        self.device.read(lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.go_on()?;
        self.device.write(lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        self.go_on()?;
        let answer = match self.loses_updates {
            false => self.device.compare_and_write(lba, expected, new),
            true => self.compare_then_write(lba, expected, new),
        };
        if let Err(DeviceError::Miscompare(_)) = answer {
            self.miscompares.fetch_add(1, Relaxed);
        }
        answer
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.go_on()?;
        self.device.flush()
    }
}
