//! `arc-swap`: each update allocates a block, readers count references.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arc_swap::ArcSwap;

use super::{Durability, Handle, Peer};
use crate::block::{Block, FIRST};

/// A pointer for each block.
pub struct ArcSwapped(Box<[ArcSwap<Block>]>);

impl Peer for ArcSwapped {
    const NAME: &'static str = "arc-swap";
    const USE: &'static str = "arc-swap 1.9: an array of ArcSwap<[u8; 512]>; load, compare, compare_and_swap";
    const SURVIVES: &'static str = "nothing: it is the memory of one process";
    type Handle<'p> = &'p Self;

    fn create(_folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Ok(Self((0..blocks).map(|_| ArcSwap::from_pointee(FIRST)).collect()))
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Handle for &ArcSwapped {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        *out = **self.0[block as usize].load();
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        let swap = &self.0[block as usize];
        let mut current = swap.load();
        if **current != *known {
            *known = **current;
            return false;
        }
        loop {
            let previous = swap.compare_and_swap(&*current, Arc::new(*new));
            if Arc::ptr_eq(&previous, &current) {
                return true;
            }
            if **previous != *known {
                *known = **previous;
                return false;
            }
            // Replaced by the same contents.
            current = previous;
        }
    }
}
