//! What happened in a run: every store to the file, every flush, and what the library promised when.

use casblock::Stored;

use crate::mappings::Place;

/// A store to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The step.
    pub time: u64,
    /// Offset in the file.
    pub offset: u32,
    /// How many bytes.
    pub bytes: u8,
    /// Whether it was an exchange.
    pub exchanged: bool,
    /// Which thread.
    pub thread: u8,
    /// What was there.
    pub old: u64,
    /// What is there now.
    pub new: u64,
}

impl Change {
    /// The bytes of the file that changed.
    pub fn range(&self) -> std::ops::Range<usize> {
        let start = self.offset as usize;
        start..start + usize::from(self.bytes)
    }

    /// Makes the change.
    pub fn apply(&self, image: &mut [u8]) {
        image[self.range()].copy_from_slice(&self.new.to_le_bytes()[..usize::from(self.bytes)]);
    }

    /// Takes it back.
    pub fn undo(&self, image: &mut [u8]) {
        let now = &mut image[self.range()];
        assert_eq!(now, &self.new.to_le_bytes()[..now.len()], "a store was not recorded: {self:?}");
        now.copy_from_slice(&self.old.to_le_bytes()[..usize::from(self.bytes)]);
    }
}

/// What a flush came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All is on the disk.
    Done,
    /// An error: something was not written, and the kernel takes it for written.
    Lost,
    /// An error: that of another flush.
    Told,
}

/// A flush of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// The step at which it began.
    pub begin: u64,
    /// The step at which it ended.
    pub end: u64,
    /// The file.
    pub inode: u64,
    /// What it came to.
    pub outcome: Outcome,
    /// Whose it was.
    pub process: usize,
}

/// What the library says is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Covers {
    /// All that took effect up to this step.
    All(u64),
    /// Of this block, what this thread exchanged last up to this step.
    Block(u64, u64),
}

/// A call that returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    /// The step after which it stands.
    pub since: u64,
    /// What is on the disk from then on.
    pub covers: Covers,
    /// The thread that was told so.
    pub thread: usize,
}

/// What happened in a run.
#[derive(Default, Debug)]
pub struct Log {
    /// Steps so far.
    pub time: u64,
    /// Stores to files, each with the file's inode.
    pub stores: Vec<(u64, Change)>,
    /// Flushes that ended.
    pub flushes: Vec<Flush>,
    /// What was promised.
    pub promises: Vec<Promise>,
    /// The step at which the store was first open.
    pub entered: Option<u64>,
    /// When the store was recovered though nobody had cut the power: from when to when.
    pub recoveries: Vec<(u64, u64)>,
    /// Processes that ended before their time: when, which, and whether it was killed.
    pub deaths: Vec<(u64, usize, bool)>,
    /// The file as it was at the end.
    pub last: Vec<u8>,
    /// What went wrong in the run itself.
    pub troubles: Vec<String>,
    /// Operations that were done, and those that the library refused.
    pub operations: [u64; 2],
}

impl Log {
    /// Notes a store.
    pub fn store(&mut self, place: Place, stored: Stored, thread: usize) {
        let Stored { bytes, old, new, exchanged, .. } = stored;
        let offset = u32::try_from(place.offset).expect("a small file");
        let change = Change { time: self.time, offset, bytes, exchanged, thread: thread as u8, old, new };
        self.stores.push((place.inode, change));
    }
}
