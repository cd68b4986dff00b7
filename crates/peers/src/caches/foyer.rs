//! foyer's memory cache.

use foldhash::fast::RandomState;
use foyer_memory::{Cache as Inner, CacheBuilder, CacheProperties, S3FifoConfig};

use super::{Cache, Disk};
use crate::block::Block;

/// `foyer::Cache`.
pub struct Foyer {
    blocks: Inner<u64, Block, RandomState, CacheProperties>,
    disk: Disk,
}

impl Cache for Foyer {
    const NAME: &'static str = "foyer";
    const USE: &'static str = "foyer-memory 0.22: Cache of [u8; 512] with foldhash and S3-FIFO, with which its hits are fastest; get, then insert (its way to wait \
                               for another's miss is asynchronous)";

    fn new(disk: Disk, capacity: u32) -> Self {
        let builder = CacheBuilder::new(capacity as usize).with_eviction_config(S3FifoConfig::default());
        Self { blocks: builder.with_hash_builder(RandomState::default()).build(), disk }
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    #[inline]
    fn read<T>(&self, lba: u64, look: impl FnOnce(&Block) -> T) -> T {
        match self.blocks.get(&lba) {
            Some(entry) => look(entry.value()),
            None => look(self.blocks.insert(lba, self.disk.read_block(lba)).value()),
        }
    }

    #[inline]
    fn write(&self, lba: u64, block: &Block) {
        self.disk.write_block(lba, block);
        self.blocks.insert(lba, *block);
    }
}
