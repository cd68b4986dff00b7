//! casblock itself.

use std::path::Path;

use anyhow::Result;
use casblock::{Comparison, Error, Geometry, Store, Writer};

use super::{Durability, Handle, Peer, SharedPeer};
use crate::block::{Block, FIRST};

/// A store in a file.
pub struct Casblock {
    store: Store,
    durability: Durability,
}

/// One writer for each of so many threads.
const WRITERS: u16 = 1024;

/// The store's file.
const FILE: &str = "blocks.casb";

impl Peer for Casblock {
    const NAME: &'static str = "casblock";
    const USE: &'static str = "a store in a file; a writer for each thread";
    const SURVIVES: &'static str = "yes, whole; after a cut of the power too with durability power";
    type Handle<'p> = CasblockHandle;

    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        let class = match durability {
            Durability::Process => casblock::Durability::Process,
            Durability::Power => casblock::Durability::Power,
        };
        let geometry = Geometry::blocks(blocks).writers(WRITERS).durability(class);
        let store = Store::create(folder.join(FILE), geometry)?;
        let mut writer = store.writer()?;
        for block in 0..blocks {
            writer.write(block, &FIRST)?;
        }
        drop(writer);
        Ok(Self { store, durability })
    }

    fn handle(&self) -> Result<CasblockHandle> {
        Ok(CasblockHandle { writer: self.store.writer()?, durability: self.durability })
    }
}

impl SharedPeer for Casblock {
    fn open(folder: &Path, _blocks: u64, durability: Durability) -> Result<Self> {
        Ok(Self { store: Store::open(folder.join(FILE))?, durability })
    }
}

/// A writer of a thread's own.
pub struct CasblockHandle {
    writer: Writer,
    durability: Durability,
}

impl Handle for CasblockHandle {
    #[inline]
    fn read(&mut self, block: u64, out: &mut Block) {
        self.writer.read(block, out).expect("in range");
    }

    #[inline]
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        match self.durability {
            Durability::Process => {
                let comparison = self.writer.compare_and_write_or_load(block, known, new).expect("in range");
                comparison == Comparison::Written
            }
            Durability::Power => {
                let mut durable = self.writer.durable().expect("a store of durability power");
                match durable.compare_and_write(block, known, new) {
                    Ok(()) => true,
                    Err(Error::Miscompare(miscompare)) => {
                        known.copy_from_slice(&miscompare.found);
                        false
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}
