//! LMDB, by heed.

use std::path::Path;

use anyhow::{Context, Result};
use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags};

use super::{Durability, Handle, Peer, SharedPeer};
use crate::block::{Block, FIRST};

type Blocks = Database<U64<BigEndian>, Bytes>;

/// An environment with one database.
pub struct Lmdb {
    env: Env,
    blocks: Blocks,
}

/// Threads that read at once.
const READERS: u32 = 1100;

impl Lmdb {
    fn environment(folder: &Path, blocks: u64, durability: Durability) -> Result<Env> {
        let mut options = EnvOpenOptions::new();
        // Pages of 4 KiB hold at most seven blocks; half of each may be free, and an update writes its path anew.
        options.map_size((blocks as usize * 2048).next_multiple_of(4096) + (64 << 20)).max_readers(READERS);
        if durability == Durability::Process {
            // SAFETY: without flushes a cut of the power may spoil the file, which nobody opens after one.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the file is changed by LMDB alone.
        Ok(unsafe { options.open(folder) }?)
    }
}

impl Peer for Lmdb {
    const NAME: &'static str = "LMDB";
    const USE: &'static str =
        "heed 0.22 (LMDB 0.9.70): a transaction for each operation; NOSYNC, no WRITEMAP, where nothing is flushed";
    const SURVIVES: &'static str = "yes, whole; after a cut of the power only where it flushes";
    type Handle<'p> = &'p Self;

    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        let env = Self::environment(folder, blocks, durability)?;
        let mut transaction = env.write_txn()?;
        let database: Blocks = env.create_database(&mut transaction, None)?;
        for block in 0..blocks {
            database.put_with_flags(&mut transaction, PutFlags::APPEND, &block, &FIRST)?;
        }
        transaction.commit()?;
        Ok(Self { env, blocks: database })
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl SharedPeer for Lmdb {
    fn open(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        let env = Self::environment(folder, blocks, durability)?;
        let transaction = env.read_txn()?;
        let blocks = env.open_database(&transaction, None)?.context("no database")?;
        // Keeps the handle open.
        transaction.commit()?;
        Ok(Self { env, blocks })
    }
}

impl Handle for &Lmdb {
    fn read(&mut self, block: u64, out: &mut Block) {
        let transaction = self.env.read_txn().expect("a reader's slot");
        out.copy_from_slice(self.blocks.get(&transaction, &block).expect("no error").expect("in range"));
    }

    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        let mut transaction = self.env.write_txn().expect("no error");
        let found = self.blocks.get(&transaction, &block).expect("no error").expect("in range");
        if found != known {
            known.copy_from_slice(found);
            return false;
        }
        self.blocks.put(&mut transaction, &block, new).expect("room");
        transaction.commit().expect("no error");
        true
    }
}
