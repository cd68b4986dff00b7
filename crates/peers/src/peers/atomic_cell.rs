//! crossbeam's `AtomicCell`, which for blocks is a seqlock.

use std::path::Path;

use anyhow::Result;
use crossbeam_utils::atomic::AtomicCell;

use super::{Durability, Handle, Peer};
use crate::block::{Block, FIRST, Words, copy_words, words};

/// A cell for each block.
pub struct AtomicCells(Box<[AtomicCell<Words>]>);

impl Peer for AtomicCells {
    const NAME: &'static str = "crossbeam AtomicCell";
    const USE: &'static str = "crossbeam-utils 0.8: an array of AtomicCell<[u64; 64]>";
    const SURVIVES: &'static str = "nothing: it is the memory of one process";
    type Handle<'p> = &'p Self;

    fn create(_folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Ok(Self((0..blocks).map(|_| AtomicCell::new(words(&FIRST))).collect()))
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Handle for &AtomicCells {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        copy_words(&self.0[block as usize].load(), out);
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        match self.0[block as usize].compare_exchange(words(known), words(new)) {
            Ok(_) => true,
            Err(found) => {
                copy_words(&found, known);
                false
            }
        }
    }
}
