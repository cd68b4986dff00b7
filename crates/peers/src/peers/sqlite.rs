//! SQLite, which is what people really do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Durability, Handle, Peer, SharedPeer};
use crate::block::{BLOCK, Block, FIRST};

/// A database with one table.
pub struct Sqlite {
    path: PathBuf,
    durability: Durability,
}

impl Sqlite {
    fn connect(&self) -> Result<SqliteHandle> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(Duration::from_secs(60))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = if self.durability == Durability::Power { "FULL" } else { "OFF" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        Ok(SqliteHandle(connection))
    }
}

impl Peer for Sqlite {
    const NAME: &'static str = "SQLite";
    const USE: &'static str =
        "rusqlite 0.43: WAL, UPDATE … WHERE id = ? AND data = ?, immediate; synchronous FULL, or OFF without flushes";
    const SURVIVES: &'static str = "yes, whole; after a cut of the power only where it flushes";
    type Handle<'p> = SqliteHandle;

    fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
        let this = Self { path: folder.join("sqlite"), durability };
        let mut connection = this.connect()?.0;
        connection.execute("CREATE TABLE blocks (id INTEGER PRIMARY KEY, data BLOB NOT NULL)", [])?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO blocks VALUES (?1, ?2)")?;
            (0..blocks).try_for_each(|block| insert.execute(params![block as i64, FIRST]).map(drop))?;
        }
        transaction.commit()?;
        Ok(this)
    }

    fn handle(&self) -> Result<SqliteHandle> {
        self.connect()
    }
}

impl SharedPeer for Sqlite {
    fn open(folder: &Path, _blocks: u64, durability: Durability) -> Result<Self> {
        Ok(Self { path: folder.join("sqlite"), durability })
    }
}

/// A connection of a thread's own.
pub struct SqliteHandle(Connection);

fn select(connection: &Connection, block: u64, out: &mut Block) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached("SELECT data FROM blocks WHERE id = ?1")?;
    select.query_row(params![block as i64], |row| {
        let data = row.get_ref(0)?.as_blob()?;
        *out = *data.first_chunk::<BLOCK>().expect("a whole block");
        Ok(())
    })
}

impl SqliteHandle {
    fn try_compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> rusqlite::Result<bool> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = {
            let mut update = transaction.prepare_cached("UPDATE blocks SET data = ?2 WHERE id = ?1 AND data = ?3")?;
            update.execute(params![block as i64, &new[..], &known[..]])?
        };
        if changed == 0 {
            select(&transaction, block, known)?;
        }
        transaction.commit()?;
        Ok(changed == 1)
    }
}

impl Handle for SqliteHandle {
    fn read(&mut self, block: u64, out: &mut Block) {
        select(&self.0, block, out).expect("no error");
    }

    fn compare_and_write(&mut self, block: u64, known: &mut Block, new: &Block) -> bool {
        self.try_compare_and_write(block, known, new).expect("no error")
    }
}
