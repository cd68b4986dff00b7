//! The contestants: casblock, and what people would use instead, each as its own documentation advises.

mod arc_swap;
mod atomic_cell;
mod casblock;
mod lmdb;
mod ofd;
mod parking_lot;
mod redb;
mod robust;
mod seqlock;
mod sqlite;
#[cfg(test)]
mod tests;
mod whole;

use std::path::Path;

use anyhow::Result;

use crate::block::Block;

pub use arc_swap::ArcSwapped;
pub use atomic_cell::AtomicCells;
pub use casblock::Casblock;
pub use lmdb::Lmdb;
pub use ofd::{Ofd, OfdWhole};
pub use parking_lot::{Mutexes, RwLocks};
pub use redb::Redb;
pub use robust::Robust;
pub use seqlock::SeqLocks;
pub use sqlite::Sqlite;
pub use whole::Whole;

/// What an update that has returned survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The death of its process, where the contestant offers that; nothing is flushed.
    Process,
    /// A cut of the power, once it has returned.
    Power,
}

/// A store of blocks.
pub trait Peer: Sync + Sized {
    /// Its name in the tables: short.
    const NAME: &'static str;
    /// How it is used: its version, its options. One line for the report.
    const USE: &'static str;
    /// What of it survives the death of a process that uses it, in a few words.
    const SURVIVES: &'static str;
    /// What a thread uses it by.
    type Handle<'p>: Handle
    where
        Self: 'p;

    /// Makes one whose blocks all hold [`FIRST`](crate::block::FIRST), in an empty folder.
    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self>;

    /// A handle for the calling thread, which must be joined before this is dropped: LMDB frees what it keeps for a
    /// thread when that ends, and the end of a scope does not wait for it.
    fn handle(&self) -> Result<Self::Handle<'_>>;
}

/// One that several processes may use.
pub trait SharedPeer: Peer {
    /// Opens what another process has created.
    fn open(folder: &Path, blocks: u64, durability: Durability) -> Result<Self>;
}

/// A thread's way to the blocks. What fails ends the run: no contestant fails in what is measured.
pub trait Handle {
    /// Reads a block, whole.
    fn read(&mut self, block: u64, out: &mut Block);

    /// Replaces a block by `new` if it holds `known`; whether it did. Else `known` is what it holds, at one moment.
    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool;
}

/// As a handle's `compare_and_write`, of a block that nobody else changes now.
#[inline]
fn compare_and_write_here(current: &mut Block, known: &mut Block, new: &Block) -> bool {
    let holds = current == known;
    if holds {
        *current = *new;
    } else {
        *known = *current;
    }
    holds
}
