//! moka.

use std::sync::Arc;

use foldhash::fast::RandomState;
use moka::sync::Cache as Inner;

use super::{Cache, Disk};
use crate::block::Block;

/// `moka::sync::Cache`.
pub struct Moka {
    blocks: Inner<u64, Arc<Block>, RandomState>,
    disk: Disk,
}

impl Cache for Moka {
    const NAME: &'static str = "moka";
    const USE: &'static str = "moka 0.12: sync::Cache of Arc<[u8; 512]> with foldhash; get_with on a miss";

    fn new(disk: Disk, capacity: u32) -> Self {
        let builder = Inner::builder().max_capacity(capacity.into()).initial_capacity(capacity as usize);
        Self { blocks: builder.build_with_hasher(RandomState::default()), disk }
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    #[inline]
    fn read<T>(&self, lba: u64, look: impl FnOnce(&Block) -> T) -> T {
        match self.blocks.get(&lba) {
            Some(block) => look(&block),
            None => look(&self.blocks.get_with(lba, || Arc::new(self.disk.read_block(lba)))),
        }
    }

    #[inline]
    fn write(&self, lba: u64, block: &Block) {
        self.disk.write_block(lba, block);
        self.blocks.insert(lba, Arc::new(*block));
    }
}
