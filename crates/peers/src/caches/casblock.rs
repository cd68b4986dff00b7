//! casblock's own.

use casblock::cache::{BlockCache, Config};

use super::{Cache, Disk};
use crate::block::Block;

/// `BlockCache`.
pub struct Casblock(BlockCache<Disk>);

impl Cache for Casblock {
    const NAME: &'static str = "casblock";
    const USE: &'static str = "BlockCache, with hints";

    fn new(disk: Disk, capacity: u32) -> Self {
        Self(BlockCache::new(disk, Config::blocks(capacity)).expect("there is memory"))
    }

    fn disk(&self) -> &Disk {
        self.0.device()
    }

    #[inline]
    fn read<T>(&self, lba: u64, look: impl FnOnce(&Block) -> T) -> T {
        let block = self.0.get(lba).expect("the disk does not fail");
        look((&*block).try_into().expect("a block"))
    }

    #[inline]
    fn write(&self, lba: u64, block: &Block) {
        self.0.write(lba, block).expect("the disk does not fail");
    }
}
