//! redb.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Durability, Handle, Peer};
use crate::block::{BLOCK, Block, FIRST};

const BLOCKS: TableDefinition<'_, u64, &[u8; BLOCK]> = TableDefinition::new("blocks");

/// A database with one table.
pub struct Redb {
    database: Database,
    durability: redb::Durability,
}

impl Peer for Redb {
    const NAME: &'static str = "redb";
    const USE: &'static str = "redb 4.6: a transaction for each operation; Durability::None where nothing is flushed";
    const SURVIVES: &'static str = "what was committed with a flush, whole";
    type Handle<'p> = &'p Self;

    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        let database = Database::create(folder.join("redb"))?;
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(BLOCKS)?;
            (0..blocks).try_for_each(|block| table.insert(block, &FIRST).map(drop))?;
        }
        transaction.commit()?;
        let durability = match durability {
            // Such commits reuse what earlier ones of them have freed: the file stops growing without one that flushes.
            Durability::Process => redb::Durability::None,
            Durability::Power => redb::Durability::Immediate,
        };
        Ok(Self { database, durability })
    }

    fn handle(&self) -> Result<&Self> {
        Ok(self)
    }
}

impl Redb {
    fn try_read(&self, block: u64, out: &mut Block) -> Result<(), redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(BLOCKS)?;
        *out = *table.get(block)?.expect("in range").value();
        Ok(())
    }

    fn try_compare_and_write(&self, block: u64, known: &mut Block, new: &Block) -> Result<bool, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        let mut table = transaction.open_table(BLOCKS)?;
        let found = table.get(block)?.expect("in range");
        if found.value() != known {
            *known = *found.value();
            drop(found);
            drop(table);
            transaction.abort()?;
            return Ok(false);
        }
        drop(found);
        table.insert(block, new)?;
        drop(table);
        transaction.commit()?;
        Ok(true)
    }
}

impl Handle for &Redb {
    fn read(&mut self, block: u64, out: &mut Block) {
        self.try_read(block, out).expect("no error");
    }

    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        self.try_compare_and_write(block, known, new).expect("no error")
    }
}
