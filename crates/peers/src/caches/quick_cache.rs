//! quick_cache.

use std::convert::Infallible;
use std::sync::Arc;

use quick_cache::sync::Cache as Inner;

use super::{Cache, Disk};
use crate::block::Block;

/// `quick_cache::sync::Cache`.
pub struct QuickCache {
    blocks: Inner<u64, Arc<Block>>,
    disk: Disk,
}

impl Cache for QuickCache {
    const NAME: &'static str = "quick_cache";
    const USE: &'static str = "quick_cache 0.7: sync::Cache of Arc<[u8; 512]>; get_or_insert_with on a miss";

    fn new(disk: Disk, capacity: u32) -> Self {
        Self { blocks: Inner::new(capacity as usize), disk }
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    #[inline]
    fn read<T>(&self, lba: u64, look: impl FnOnce(&Block) -> T) -> T {
        if let Some(block) = self.blocks.get(&lba) {
            return look(&block);
        }
        let read = || Ok::<_, Infallible>(Arc::new(self.disk.read_block(lba)));
        let Ok(block) = self.blocks.get_or_insert_with(&lba, read);
        look(&block)
    }

    #[inline]
    fn write(&self, lba: u64, block: &Block) {
        self.disk.write_block(lba, block);
        self.blocks.insert(lba, Arc::new(*block));
    }
}
