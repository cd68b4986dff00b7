//! What can go wrong: [`OpenError`] in making or opening a store, [`Error`] in using one.

use std::io;
use std::path::PathBuf;

/// A block did not hold what a compare-and-write expected, and was left alone. Not a fault: a lost race looks so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Miscompare {
    /// The block.
    pub lba: u64,
    /// Offset in the block, in bytes, of the first byte that differs.
    pub offset: usize,
    /// What the block held: a whole block, which was its contents at one moment during the call.
    pub found: Box<[u8]>,
}

/// Why an operation on an open store was not done. Nothing was changed, except where [`Store::write`] says otherwise.
///
/// [`Store::write`]: crate::Store::write
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The block held something else.
    #[error("block {}: byte {} differs from what was expected", .0.lba, .0.offset)]
    Miscompare(Box<Miscompare>),
    /// The blocks asked for are not all in the store.
    #[error("{} out of range: the store has blocks 0 to {}", blocks_named(*lba, *count), blocks - 1)]
    LbaOutOfRange {
        /// The first block asked for.
        lba: u64,
        /// How many, at least 1.
        count: u64,
        /// How many the store has.
        blocks: u64,
    },
    /// There is no such heartbeat word.
    #[error("word {index} is out of range: the store has {words} words")]
    WordOutOfRange {
        /// The word asked for.
        index: u64,
        /// How many the store has.
        words: u64,
    },
    /// A buffer is not a whole number of blocks, or not one where one is meant.
    #[error("a buffer of {bytes} bytes: {expected} of {block_size} bytes needed")]
    BufferLength {
        /// The buffer's length in bytes.
        bytes: usize,
        /// `one block` or `a whole number of blocks`.
        expected: &'static str,
        /// The store's block size in bytes.
        block_size: usize,
    },
    /// The first write of a block, or a new writer, needs a frame, and all are taken.
    #[error("no space: all {frames} frames of the store are taken (blocks written, and one spare for each writer)")]
    NoSpace {
        /// How many frames the store has.
        frames: u64,
    },
    /// Every writer slot is in use, by this process or others, or was when we looked at it: they were many, and changing
    /// hands.
    #[error("all {writers} writer slots of the store are in use; create it with more, or drop a writer")]
    TooManyWriters {
        /// How many slots the store has.
        writers: u16,
    },
    /// The store was opened read-only.
    #[error("the store was opened read-only")]
    ReadOnly,
    /// Repairing a store needs it opened exclusively, with no writer claimed.
    #[error("the store can be repaired only by one who opened it exclusively, while no writer is claimed")]
    NotExclusive,
    /// The store was opened before this process was forked from its parent, whose writer slots those are.
    #[error("this process was forked while the store was open: it may read, but must open the store anew to update it")]
    Forked,
    /// The store was not made to survive a cut of the power.
    #[error("the store's durability is `process`: no update of it is made to survive a cut of the power")]
    NotPower,
    /// The disk did not take what was to be synced; nothing was changed. Also of an update that found no free frame until a
    /// sync is done. What is on the disk is not known, but with durability `power` nothing is lost that was there: the next
    /// sync that succeeds covers all.
    #[error("syncing: {source}")]
    Sync {
        /// The system's reason.
        source: io::Error,
    },
    /// The update was made, but the disk did not take it: it may be lost in a cut of the power, until a sync succeeds.
    #[error("the update was made, but syncing it failed: {source}")]
    NotSynced {
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds what no casblock writes. `casblock check` tells the extent.
    #[error("the store is damaged: {what}; `casblock check` tells the extent")]
    Corrupt {
        /// Which cell or slot holds what.
        what: String,
    },
    /// The operating system refused a lock on a writer slot.
    #[error("locking a writer slot: {source}")]
    Lock {
        /// The system's reason.
        source: io::Error,
    },
}

/// Blocks as an error names them.
fn blocks_named(lba: u64, count: u64) -> String {
    match count {
        0 | 1 => format!("block {lba} is"),
        _ => format!("blocks {lba} to {} are", lba.saturating_add(count - 1)),
    }
}

/// Why a store could not be made, opened or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The geometry cannot be laid out.
    #[error("this geometry is not possible: {reason}")]
    Geometry {
        /// Which number is out of which bounds.
        reason: String,
    },
    /// There is a file of that name.
    #[error("{}: exists; casblock replaces a file only when told to", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is no store.
    #[error("{}: not a casblock store ({reason})", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        reason: &'static str,
    },
    /// The store was made by a newer casblock.
    #[error("{}: format version {found}; this casblock reads version {supported}: use a newer one", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this library reads.
        supported: u32,
    },
    /// The superblock is damaged.
    #[error("{}: the superblock is damaged ({reason}); restore the file from a copy", path.display())]
    Superblock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is shorter than its own geometry says.
    #[error("{}: truncated: {bytes} bytes, but its geometry needs {needed}; restore the file from a copy", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length its geometry needs.
        needed: u64,
    },
    /// The file lies on a file system that other hosts may share: hardware compare-and-swap is atomic in one host only.
    #[error("{}: lies on {file_system}, which other hosts may share; compare-and-swap in a mapping is atomic in one host only, so use a local file system", path.display())]
    SharedFileSystem {
        /// The file.
        path: PathBuf,
        /// The file system.
        file_system: &'static str,
    },
    /// Somebody has the store open, and this needs it alone.
    #[error("{}: in use: another process, or this one, has the store open", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Somebody has the store for itself, to check, replace, recover or close it.
    #[error("{}: is being checked, replaced, recovered or closed; try again when that is done", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The store must be recovered, but a process has it open that does not see it so: one that sees another boot id, or
    /// another file. Some containers are given boot ids of their own.
    #[error("{}: has to be recovered, but a process has it open for which the machine, or the file, is another (a container with a boot id of its own?)", path.display())]
    InUseElsewhere {
        /// The file.
        path: PathBuf,
    },
    /// The store was not closed before the power was cut, or is a copy of one that was in use; who may only read it
    /// cannot recover it.
    #[error("{}: was not closed before the machine went down: open it once for writing, which recovers it", path.display())]
    NeedsRecovery {
        /// The file.
        path: PathBuf,
    },
    /// The file may not be written.
    #[error("{}: it may be read, but not written ({source})", path.display())]
    ReadOnlyFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file system has no room for the store.
    #[error("{}: no room for the {needed} bytes of the store ({source}); a sparse one takes room only as blocks are written", path.display())]
    DiskFull {
        /// The file that was to be made.
        path: PathBuf,
        /// Its length.
        needed: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}
