//! The ledger: what each child did, in memory shared with the parent, so that a kill loses none of it.
//!
//! It is plain shared memory and knows nothing of casblock, so that it can judge casblock. One **row** for each thread
//! of each child; a child that replaces a killed one goes on in its predecessor's rows. In a row, one **column** for
//! each counter (the blocks, then the heartbeat words): `increments done << 1 | one is under way`. Only the row's
//! thread stores to it, and the parent once that thread is dead.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, compiler_fence};

use memmap2::{MmapOptions, MmapRaw};

use super::latency::{BUCKETS, bucket};

/// What the parent tells its children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Header {
    /// Tells a ledger from other files.
    Magic,
    /// 1 once the children are to end.
    Stop,
    /// The parent's process id.
    Parent,
    /// Child processes.
    Processes,
    /// Threads of each.
    Threads,
    /// Blocks counted in.
    Blocks,
    /// Heartbeat words counted in.
    Words,
    /// What every random choice comes from.
    Seed,
    /// The planted fault: see `Plant`.
    Plant,
    /// How many milliseconds a thread may wait for a slot or a frame.
    PatienceMs,
    /// 1 if the store has slots for a writer of each thread and as many again.
    Roomy,
    /// How many there are, not one of them.
    Count,
}

/// What a thread notes about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Note {
    /// 0 not begun, 1 at work, 2 ended as told.
    State,
    /// Grows with everything it gets done.
    Progress,
    /// Compare-and-writes that did not write.
    Miscompares,
    /// Plain reads of a block.
    Reads,
    /// Writers claimed.
    Claims,
    /// Blocks and words found that no increment makes.
    Torn,
    /// Times the store had no slot or no frame left, and the thread tried again.
    Refused,
    /// The longest compare-and-write.
    LongestNs,
    /// How many there are, not one of them.
    Count,
}

/// A thread's state in its row.
pub const AT_WORK: u64 = 1;
/// A thread's state in its row.
pub const ENDED: u64 = 2;

const MAGIC: u64 = u64::from_le_bytes(*b"torture1");
const HEADER_WORDS: usize = 16;
const NOTE_WORDS: usize = 16;
const _: () = assert!(Header::Count as usize <= HEADER_WORDS && Note::Count as usize <= NOTE_WORDS);

/// How many rows of how many columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Child processes.
    pub processes: usize,
    /// Threads of each.
    pub threads: usize,
    /// Blocks counted in.
    pub blocks: usize,
    /// Heartbeat words counted in.
    pub words: usize,
}

impl Shape {
    /// Columns of a row.
    pub fn counters(&self) -> usize {
        self.blocks + self.words
    }

    /// Whole pairs of cache lines, so that no two threads share one.
    fn row_words(&self) -> usize {
        (NOTE_WORDS + BUCKETS + self.counters()).next_multiple_of(16)
    }

    fn bytes(&self) -> usize {
        8 * (HEADER_WORDS + self.processes * self.threads * self.row_words())
    }
}

/// The ledger, mapped.
#[derive(Debug)]
pub struct Ledger {
    map: MmapRaw,
    shape: Shape,
}

impl Ledger {
    /// Lays a ledger out in an empty file.
    pub fn create(file: &File, shape: Shape) -> io::Result<Self> {
        file.set_len(shape.bytes() as u64)?;
        let ledger = Self { map: MmapOptions::new().len(shape.bytes()).map_raw(file)?, shape };
        for (header, value) in [
            (Header::Magic, MAGIC),
            (Header::Parent, std::process::id().into()),
            (Header::Processes, shape.processes as u64),
            (Header::Threads, shape.threads as u64),
            (Header::Blocks, shape.blocks as u64),
            (Header::Words, shape.words as u64),
        ] {
            ledger.set(header, value);
        }
        Ok(ledger)
    }

    /// Maps a ledger that the parent laid out.
    pub fn open(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let no_ledger = || io::Error::other("standard input is no torture's ledger");
        if length < 8 * HEADER_WORDS {
            return Err(no_ledger());
        }
        let shape = Shape { processes: 0, threads: 0, blocks: 0, words: 0 };
        let mut ledger = Self { map: MmapOptions::new().len(length).map_raw(file)?, shape };
        let read = |header| usize::try_from(ledger.get(header)).map_err(io::Error::other);
        let shape = Shape {
            processes: read(Header::Processes)?,
            threads: read(Header::Threads)?,
            blocks: read(Header::Blocks)?,
            words: read(Header::Words)?,
        };
        if ledger.get(Header::Magic) != MAGIC || shape.bytes() != length {
            return Err(no_ledger());
        }
        ledger.shape = shape;
        Ok(ledger)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.map.len() / 8, "word {index} is in the ledger");
        let word = self.map.as_mut_ptr().cast::<u64>().wrapping_add(index);
        // SAFETY: the mapping starts at a page and has this word; it lives as long as `self`; everybody accesses it
        // only as atomics.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// How many rows of how many columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What the parent tells.
    pub fn get(&self, header: Header) -> u64 {
        self.word(header as usize).load(Relaxed)
    }

    /// Tells it.
    pub fn set(&self, header: Header, value: u64) {
        self.word(header as usize).store(value, Relaxed);
    }

    /// Whether the children are to end.
    pub fn stopped(&self) -> bool {
        self.get(Header::Stop) != 0
    }

    /// The row of one thread.
    pub fn row(&self, process: usize, thread: usize) -> Row<'_> {
        assert!(process < self.shape.processes && thread < self.shape.threads);
        let index = process * self.shape.threads + thread;
        Row { ledger: self, start: HEADER_WORDS + index * self.shape.row_words() }
    }

    /// The rows of one child.
    pub fn rows_of(&self, process: usize) -> impl Iterator<Item = Row<'_>> {
        (0..self.shape.threads).map(move |thread| self.row(process, thread))
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.shape.processes).flat_map(|process| self.rows_of(process))
    }

    /// What all threads noted, added up.
    pub fn total(&self, note: Note) -> u64 {
        self.rows().map(|row| row.get(note)).sum()
    }

    /// Increments of a counter that were done and noted.
    pub fn confirmed(&self, counter: usize) -> u64 {
        self.rows().map(|row| row.column(counter).load(Relaxed) >> 1).sum()
    }

    /// How many compare-and-writes fell into each bucket of latency.
    pub fn latencies(&self) -> impl Iterator<Item = u64> {
        (0..BUCKETS).map(|bucket| self.rows().map(|row| row.bucket(bucket).load(Relaxed)).sum())
    }
}

/// One thread's row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    ledger: &'a Ledger,
    start: usize,
}

impl<'a> Row<'a> {
    fn column(&self, counter: usize) -> &'a AtomicU64 {
        self.ledger.word(self.start + NOTE_WORDS + BUCKETS + counter)
    }

    fn bucket(&self, bucket: usize) -> &'a AtomicU64 {
        self.ledger.word(self.start + NOTE_WORDS + bucket)
    }

    /// What the thread noted.
    pub fn get(&self, note: Note) -> u64 {
        self.ledger.word(self.start + note as usize).load(Relaxed)
    }

    /// Notes it.
    pub fn set(&self, note: Note, value: u64) {
        self.ledger.word(self.start + note as usize).store(value, Relaxed);
    }

    /// Notes one more.
    pub fn add(&self, note: Note) {
        self.set(note, self.get(note) + 1);
    }

    /// Notes how long a compare-and-write took.
    pub fn took(&self, ns: u64) {
        let bucket = self.bucket(bucket(ns));
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        if ns > self.get(Note::LongestNs) {
            self.set(Note::LongestNs, ns);
        }
    }

    /// Notes that an increment is under way. What the compiler may not move across the note, the processor will not
    /// for this purpose: a process dies between two of its instructions, and what stands before them has happened.
    pub fn begin(&self, counter: usize) {
        let column = self.column(counter);
        column.store(column.load(Relaxed) | 1, Relaxed);
        compiler_fence(SeqCst);
    }

    /// Notes how the increment ended, in one store.
    pub fn end(&self, counter: usize, done: bool) {
        compiler_fence(SeqCst);
        let column = self.column(counter);
        column.store(((column.load(Relaxed) >> 1) + u64::from(done)) << 1, Relaxed);
    }

    /// For the parent, once the thread is dead: the counter whose increment it died in, if it did. Forgets it.
    pub fn take_unresolved(&self) -> Option<usize> {
        let under_way = |counter: &usize| self.column(*counter).load(Relaxed) & 1 != 0;
        let counter = (0..self.ledger.shape.counters()).find(under_way)?;
        self.end(counter, false);
        Some(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { processes: 2, threads: 3, blocks: 5, words: 2 };

    #[test]
    fn what_one_maps_and_notes_another_reads() {
        let file = tempfile::tempfile().unwrap();
        let ours = Ledger::create(&file, SHAPE).unwrap();
        let theirs = Ledger::open(&file).unwrap();
        assert_eq!(theirs.shape(), SHAPE);
        for row in theirs.rows() {
            row.begin(6);
            row.end(6, true);
            row.add(Note::Reads);
            row.took(1000);
        }
        assert_eq!((ours.confirmed(6), ours.confirmed(5), ours.total(Note::Reads)), (6, 0, 6));
        assert_eq!(ours.latencies().sum::<u64>(), 6);
    }

    #[test]
    fn an_increment_cut_off_is_found_once_and_not_counted() {
        let file = tempfile::tempfile().unwrap();
        let ledger = Ledger::create(&file, SHAPE).unwrap();
        let row = ledger.row(1, 2);
        row.begin(4);
        row.end(4, true);
        row.begin(4);
        assert_eq!((row.take_unresolved(), row.take_unresolved()), (Some(4), None));
        row.begin(4);
        row.end(4, false);
        assert_eq!((ledger.confirmed(4), row.take_unresolved()), (1, None));
    }

    #[test]
    fn another_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Ledger::open(&file).is_err());
        file.set_len(1 << 16).unwrap();
        assert!(Ledger::open(&file).is_err());
    }
}
