//! Caches: casblock's, and what people would use instead, each as its own documentation advises for values that are read by many.
//!
//! All stand before the same disk, whose blocks are read on a miss, and which is written before the cache is.

mod casblock;
mod foyer;
mod moka;
mod quick_cache;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ::casblock::device::{BlockDevice, DeviceError};

use crate::block::{BLOCK, Block, numbered};

pub use casblock::Casblock;
pub use foyer::Foyer;
pub use moka::Moka;
pub use quick_cache::QuickCache;

/// A cache of blocks before a disk.
pub trait Cache: Sync + Sized {
    /// Its name in the tables: short.
    const NAME: &'static str;
    /// How it is used: its version, its options. One line for the report.
    const USE: &'static str;

    /// One of so many blocks.
    fn new(disk: Disk, capacity: u32) -> Self;

    /// The disk.
    fn disk(&self) -> &Disk;

    /// Looks at a block, where it is: what `look` sees in it.
    fn read<T>(&self, lba: u64, look: impl FnOnce(&Block) -> T) -> T;

    /// Replaces a block, on the disk and in the cache.
    fn write(&self, lba: u64, block: &Block);
}

/// A disk that is no slower than memory: each block holds its number, whatever is written. It counts its reads.
#[derive(Debug)]
pub struct Disk {
    blocks: u64,
    reads: AtomicU64,
}

impl Disk {
    /// One of so many blocks.
    pub fn of(blocks: u64) -> Self {
        Self { blocks, reads: AtomicU64::new(0) }
    }

    /// How many blocks were read so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// What a block holds.
    #[inline]
    pub fn read_block(&self, lba: u64) -> Block {
        self.reads.fetch_add(1, Relaxed);
        numbered(lba)
    }

    /// As if it replaced a block.
    #[inline]
    pub fn write_block(&self, lba: u64, block: &Block) {
        std::hint::black_box((lba, block));
    }
}

impl BlockDevice for Disk {
    fn name(&self) -> Cow<'_, str> {
        "a disk of no cost".into()
    }

    fn block_bytes(&self) -> usize {
        BLOCK
    }

    fn block_count(&self) -> u64 {
        self.blocks
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        1
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        (lba..).zip(out.as_chunks_mut().0).for_each(|(lba, out)| *out = self.read_block(lba));
        Ok(())
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        (lba..).zip(data.as_chunks().0).for_each(|(lba, block)| self.write_block(lba, block));
        Ok(())
    }

    fn compare_and_write(&self, lba: u64, _expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        self.write(lba, new)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::number;

    fn keeps_what_fits<C: Cache>() {
        // Of those that are cut into shards, by a hash that is another each time, each shard has room for more than its share.
        let cache = C::new(Disk::of(1000), 1600);
        for round in 0..20 {
            for lba in 0..100 {
                if round % 3 == 1 {
                    cache.write(lba, &numbered(lba));
                }
                assert_eq!(cache.read(lba, number), Some(lba), "{}", C::NAME);
            }
        }
        assert_eq!(cache.disk().reads(), 100, "{}", C::NAME);

        let cache = C::new(Disk::of(1000), 200);
        for lba in 0..1000 {
            assert_eq!(cache.read(lba, number), Some(lba), "{}", C::NAME);
        }
        assert!(cache.disk().reads() >= 900, "{}", C::NAME);
        let again = cache.disk().reads();
        (0..1000).for_each(|lba| assert_eq!(cache.read(lba, number), Some(lba)));
        assert!(cache.disk().reads() >= again + 700, "{}: it keeps no more than it may", C::NAME);
    }

    #[test]
    fn caches_keep_what_fits() {
        keeps_what_fits::<Casblock>();
        keeps_what_fits::<Moka>();
        keeps_what_fits::<QuickCache>();
        keeps_what_fits::<Foyer>();
    }
}
