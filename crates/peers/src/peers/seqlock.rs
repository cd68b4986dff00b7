//! The `seqlock` crate: readers repeat, writers lock.

use std::path::Path;

use anyhow::Result;
use crossbeam_utils::CachePadded;
use seqlock::SeqLock;

use super::{Durability, Handle, Peer};
use crate::block::{Block, FIRST, Words, copy_words, words};

/// A sequence lock for each block.
pub struct SeqLocks(Box<[CachePadded<SeqLock<Words>>]>);

impl Peer for SeqLocks {
    const NAME: &'static str = "seqlock";
    const USE: &'static str = "seqlock 0.2: an array of SeqLock<[u64; 64]>, each on cache lines of its own";
    const SURVIVES: &'static str = "nothing: it is the memory of one process";
    type Handle<'p> = &'p Self;

    fn create(_folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Ok(Self((0..blocks).map(|_| CachePadded::new(SeqLock::new(words(&FIRST)))).collect()))
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Handle for &SeqLocks {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        copy_words(&self.0[block as usize].read(), out);
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        let mut current = self.0[block as usize].lock_write();
        let holds = *current == words(known);
        if holds {
            *current = words(new);
        } else {
            copy_words(&current, known);
        }
        holds
    }
}
