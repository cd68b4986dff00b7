//! parking_lot: a lock beside each block.

use std::path::Path;

use anyhow::Result;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, RwLock};

use super::{Durability, Handle, Peer};
use crate::block::{Block, FIRST};

/// A mutex for each block.
pub struct Mutexes(Box<[CachePadded<Mutex<Block>>]>);

impl Peer for Mutexes {
    const NAME: &'static str = "parking_lot Mutex";
    const USE: &'static str = "parking_lot 0.13: an array of Mutex<[u8; 512]>, each on cache lines of its own";
    const SURVIVES: &'static str = "nothing: it is the memory of one process";
    type Handle<'p> = &'p Self;

    fn create(_folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Ok(Self((0..blocks).map(|_| CachePadded::new(Mutex::new(FIRST))).collect()))
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Handle for &Mutexes {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        *out = *self.0[block as usize].lock();
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        let mut current = self.0[block as usize].lock();
        super::compare_and_write_here(&mut current, known, new)
    }
}

/// A reader-writer lock for each block.
pub struct RwLocks(Box<[CachePadded<RwLock<Block>>]>);

impl Peer for RwLocks {
    const NAME: &'static str = "parking_lot RwLock";
    const USE: &'static str = "parking_lot 0.13: an array of RwLock<[u8; 512]>, each on cache lines of its own";
    const SURVIVES: &'static str = "nothing: it is the memory of one process";
    type Handle<'p> = &'p Self;

    fn create(_folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Ok(Self((0..blocks).map(|_| CachePadded::new(RwLock::new(FIRST))).collect()))
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Handle for &RwLocks {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        *out = *self.0[block as usize].read();
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        let mut current = self.0[block as usize].write();
        super::compare_and_write_here(&mut current, known, new)
    }
}
