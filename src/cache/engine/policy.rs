//! Which entry goes when there is no room: S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023).
//!
//! A new block comes into a small queue, a tenth of all. If it was not used twice more by the time it is at the front, it goes, and only
//! its ghost stays: most blocks are used once. If it was, it moves to the main queue, where it goes round as long as it is used.
//! A block whose ghost is there goes to the main queue at once. A hit does nothing but count, to three.

use super::ghost::Ghosts;
use super::index::{Entry, Index, hash};
use super::queue::Queue;
use crate::sync::Ordering::Relaxed;

/// The queues. An entry that is linked is in one of them, or in the hands of the one who took it out; that one alone may kill it.
#[derive(Debug)]
pub struct Policy {
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    /// How many entries the small queue is to have.
    small_entries: u64,
}

/// More uses than that are not counted.
const USES_MAX: u32 = 3;
/// So many uses show that a block is worth more than one look.
const USES_TO_STAY: u32 = 2;

impl Policy {
    /// For a cache of so many blocks, and so many entries in all; `None` if there is no memory for it.
    pub fn new(capacity: u32, entries: u32) -> Option<Self> {
        let small_entries = u64::from(capacity / 10).max(1);
        let (small, main) = (Queue::new(entries)?, Queue::new(entries)?);
        Some(Self { small, main, ghosts: Ghosts::new(capacity)?, small_entries })
    }

    /// Notes that an entry was used. Those that are used most are not written to.
    #[inline]
    pub fn used(entry: &Entry) {
        let uses = entry.uses.load(Relaxed);
        if uses < USES_MAX {
            // If another counts at once, one of the two is lost.
            entry.uses.store(uses + 1, Relaxed);
        }
    }

    /// Takes a new entry in.
    pub fn admit(&self, index: &Index, entry: u32) {
        let comes_back = self.ghosts.take(hash(index.entry(entry).lba()));
        if comes_back { &self.main } else { &self.small }.push(entry);
    }

    /// Finds an entry that `kill` kills, which it may decline to; whether there was one.
    pub fn evict(&self, index: &Index, kill: impl Fn(u32) -> bool) -> bool {
        // Each is passed over as often as it may have been used, and once because somebody is at work on it.
        let tries = (u64::from(USES_MAX) + 2) * (self.small.about_len() + self.main.about_len() + 1);
        (0..tries).any(|_| {
            if self.small.about_len() >= self.small_entries
                && let Some(candidate) = self.small.pop()
            {
                return self.judge_new(index, candidate, &kill);
            }
            match self.main.pop() {
                Some(candidate) => self.judge(index, candidate, &kill),
                None => self.small.pop().is_some_and(|candidate| self.judge_new(index, candidate, &kill)),
            }
        })
    }

    /// Whether a candidate of the small queue goes.
    fn judge_new(&self, index: &Index, candidate: u32, kill: &impl Fn(u32) -> bool) -> bool {
        let entry = index.entry(candidate);
        let (lba, is_empty) = (entry.lba(), entry.state().frame().is_none());
        let stays = entry.uses.load(Relaxed) >= USES_TO_STAY && !is_empty;
        if !stays && kill(candidate) {
            if !is_empty {
                self.ghosts.put(hash(lba));
            }
            return true;
        }
        entry.uses.store(0, Relaxed);
        self.main.push(candidate);
        false
    }

    /// Whether a candidate of the main queue goes.
    fn judge(&self, index: &Index, candidate: u32, kill: &impl Fn(u32) -> bool) -> bool {
        let entry = index.entry(candidate);
        let uses = entry.uses.load(Relaxed);
        let stays = uses > 0 && entry.state().frame().is_some();
        if !stays && kill(candidate) {
            return true;
        }
        entry.uses.store(uses.saturating_sub(1), Relaxed);
        self.main.push(candidate);
        false
    }
}
