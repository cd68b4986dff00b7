//! A host's way to its disk: the machine can stand still before and after every request, and faults are planted there.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use casblock::ats::Nonce;
use casblock::ats::record::{Fields, payload, payload_mut, seal};
use casblock::device::{BlockDevice, DeviceError};
use casblock::environment::Environment as _;

use super::hosts::Planted;
use super::world::HostTime;

/// A device as a machine sees it.
pub struct Machine<D> {
    pub device: D,
    pub planted: Option<Planted>,
    pub time: Arc<HostTime>,
}

const TAKEN: Option<u64> = Some(1);
const FENCED: Option<u64> = Some(2);
/// Where the planted time of a host's own clock stands in its record's payload, behind all else.
const STAMP: std::ops::Range<usize> = 200..208;
/// The stale time of the clusters here.
const STALE: Duration = Duration::from_secs(16);

fn number(block: &[u8], at: std::ops::Range<usize>) -> u64 {
    payload(block).get(at).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The state in a host's record: bits 40 and 41 of its beat.
fn state_of(block: &[u8]) -> Option<u64> {
    (block.get(4..8)? == b"host").then(|| number(block, 0..8) >> 40 & 3)
}

/// The record of a block with another number in its payload, sealed anew.
fn with(lba: u64, block: &[u8], at: std::ops::Range<usize>, number: u64, nonce: Option<Nonce>) -> Vec<u8> {
    let mut block = block.to_vec();
    let Ok(fields) = Fields::of_block(lba, &block) else { return block };
    payload_mut(&mut block)[at].copy_from_slice(&number.to_le_bytes());
    seal(&mut block, lba, &Fields { nonce: nonce.unwrap_or(fields.nonce), ..fields });
    block
}

impl<D: BlockDevice> Machine<D> {
    /// Asks the device, with a pause before and after perhaps.
    fn ask<T>(&self, how: impl FnOnce(&D) -> T) -> T {
        self.time.pause_perhaps();
        let answer = how(&self.device);
        self.time.pause_perhaps();
        answer
    }

    /// Fences whoever wrote a time that is long past by this machine's clock.
    fn believe_the_time(&self, lba: u64, block: &mut [u8]) {
        let written = Duration::from_millis(number(block, STAMP));
        if state_of(block) == TAKEN && !written.is_zero() && self.time.now().saturating_sub(written) > STALE {
            let beat = number(block, 0..8) ^ (3 << 40);
            let fenced = with(lba, block, 0..8, beat, Some(Nonce::new(self.time.random())));
            if self.device.compare_and_write(lba, block, &fenced).is_ok() {
                block.copy_from_slice(&fenced);
            }
        }
    }
}

impl<D: BlockDevice> BlockDevice for Machine<D> {
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
        self.ask(|device| device.read(lba, out))?;
        if self.planted == Some(Planted::RemoteClocksCompared) {
            let blocks = out.chunks_exact_mut(self.device.block_bytes());
            (lba..).zip(blocks).for_each(|(lba, block)| self.believe_the_time(lba, block));
        }
        Ok(())
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.ask(|device| device.write(lba, data))
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        match self.planted {
            Some(Planted::BeatWithoutCompare) if state_of(expected) == TAKEN && state_of(new) == TAKEN => {
                self.ask(|device| device.write(lba, new))
            }
            Some(Planted::BreakWithoutFencing) if state_of(new) == FENCED => Ok(()),
            Some(Planted::RemoteClocksCompared) if state_of(new) == TAKEN => {
                let stamped = with(lba, new, STAMP, self.time.now().as_millis() as u64, None);
                self.ask(|device| device.compare_and_write(lba, expected, &stamped))
            }
            _ => self.ask(|device| device.compare_and_write(lba, expected, new)),
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.ask(|device| device.flush())
    }
}
