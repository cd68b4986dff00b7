//! One mutex for the whole store: what a SCSI reservation was.

use std::path::Path;

use anyhow::Result;
use parking_lot::Mutex;

use super::{Durability, Handle, Peer};
use crate::block::{Block, FIRST};

/// All blocks, behind one lock.
pub struct Whole(Mutex<Box<[Block]>>);

impl Peer for Whole {
    const NAME: &'static str = "one Mutex for all";
    const USE: &'static str = "parking_lot 0.13: one Mutex around all blocks";
    const SURVIVES: &'static str = "nothing: it is the memory of one process";
    type Handle<'p> = &'p Self;

    fn create(_folder: &Path, blocks: u64, _durability: Durability) -> Result<Self> {
        Ok(Self(Mutex::new(vec![FIRST; blocks as usize].into())))
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Handle for &Whole {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        *out = self.0.lock()[block as usize];
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        super::compare_and_write_here(&mut self.0.lock()[block as usize], known, new)
    }
}
