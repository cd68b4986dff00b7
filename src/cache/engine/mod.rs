//! What makes the cache right, without a device: entries, frames, and who may put what where.
//!
//! An **entry** stands for a block; its [`State`] names the frame that has the block's contents. Reading takes no lock: who is
//! pinned ([`crossbeam_epoch`]) finds the entry, loads its state, and has the frame until unpinned.
//!
//! # Versions in order
//! The device knows the order of a block's contents; this cache only knows when somebody asked it and when the answer came. So:
//!
//! > Whoever asks the device about a block **begins**, which makes the entry's state a new version, and **ends**: by publishing
//! > what was learnt, if the state is still that version, so that nobody else has begun or ended in between; or else by emptying
//! > the entry, which is a new version as well.
//!
//! Then nobody sees a block's contents go back. Let X learn contents, and let somebody find in the cache, after X's end, what Y had
//! learnt. X's end replaced or removed what was published before, so Y published after it. If Y had begun before X's end, that end
//! would have made Y's version an old one. So Y began after X's end, and the device answered Y after it answered X.
//!
//! A block may have no entry, for want of room; then who asks ends by looking for one, and empties it. If there was none, whoever
//! links one later begins later.
//!
//! An old fill never replaces a newer block: its version is old.

mod counters;
mod flight;
mod frames;
mod ghost;
mod guard;
mod index;
mod limbo;
mod policy;
mod queue;
mod read;
mod stack;
mod state;

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch::{self as epoch, Guard};
use crossbeam_utils::CachePadded;

use flight::Flights;
use frames::{Frames, Own};
use index::Index;
use limbo::Limbo;
use policy::Policy;
use state::State;

use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{AtomicU64, fence};

/// What has models of its own, and what they need.
#[cfg(loom)]
pub mod parts {
    pub use crossbeam_epoch::pin;

    pub use super::index::Index;
    pub use super::limbo::{Limbo, Retired};
    pub use super::queue::Queue;
    pub use super::stack::Stack;
}

pub use counters::{Counted, Counters};
pub use flight::Flight;
pub use frames::Stamp;
pub use guard::{BlockGuard, Buffer};
pub use read::{Begun, How, Reading};

/// Most blocks that a cache may keep: entries and frames are numbered in 31 bits, with some to spare.
pub const CAPACITY_MAX: u32 = 1 << 30;

/// The memory of a cache, and what is in it. `E` is what a device says when it fails.
#[derive(Debug)]
pub struct Engine<E> {
    pool: Arc<Pool>,
    policy: Policy,
    flights: Flights<E>,
    capacity: u64,
    frame_bytes: usize,
    /// How many entries are linked, or about to be.
    linked: CachePadded<AtomicU64>,
}

/// What is used again and again. What was taken out of the cache comes back here when nobody can see it any more, unless the cache is
/// gone by then.
#[derive(Debug)]
struct Pool {
    index: Index,
    frames: Frames,
    /// The most that there may be in limbo before nothing is evicted any more.
    reserve: u64,
    limbo: Limbo,
    counters: Counters,
}

/// One who asks the device about a block.
#[derive(Debug)]
#[must_use = "what was begun must be ended"]
pub struct Ticket {
    lba: u64,
    /// The block's entry, and the version of it that began with this; `None` if there was no room for one.
    at: Option<(u32, State)>,
}

impl Ticket {
    /// What a read that begins with it is: stale, if the cache has contents, which did not please.
    pub fn how(&self) -> How {
        let has_contents = self.at.is_some_and(|(_, state)| state.frame().is_some());
        if has_contents { How::Stale } else { How::Miss }
    }
}

/// How much room there is for what is in limbo and for what is being read: 12 bytes a block, and at least so many.
const RESERVE_BYTES_PER_BLOCK: u64 = 12;
#[cfg(not(loom))]
const RESERVE_MIN: u64 = 128;
#[cfg(loom)]
const RESERVE_MIN: u64 = 2;

impl<E> Engine<E> {
    /// A cache of so many blocks; `None` if there is no memory for it.
    pub fn new(capacity: u32, frame_bytes: usize) -> Option<Self> {
        assert!((1..=CAPACITY_MAX).contains(&capacity) && frame_bytes > 0, "the caller has checked it");
        let blocks = u64::from(capacity);
        let reserve = (blocks * RESERVE_BYTES_PER_BLOCK / frame_bytes as u64).max(RESERVE_MIN);
        let entries = capacity + u32::try_from(reserve).ok()?;
        let pool = Pool {
            // The most first: if there is no memory, this fails.
            frames: Frames::new(entries, frame_bytes)?,
            index: Index::new(capacity, entries)?,
            reserve,
            limbo: Limbo::default(),
            counters: Counters::default(),
        };
        Some(Self {
            pool: Arc::new(pool),
            policy: Policy::new(capacity, entries)?,
            flights: Flights::new(),
            capacity: blocks,
            frame_bytes,
            linked: CachePadded::new(AtomicU64::new(0)),
        })
    }

    /// How many blocks it keeps at most.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many blocks, or places for blocks, it has now.
    pub fn occupied(&self) -> u64 {
        self.linked.load(Relaxed).min(self.capacity)
    }

    /// What it did so far; hits, misses and what was stale, only the caller knows.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.pool.counters
    }

    /// The block's contents, if the cache has them; and those that do not please `is_fresh`, which looks at the stamp, as `Err`.
    #[inline]
    pub fn look(&self, lba: u64, is_fresh: impl Fn(Stamp<'_>) -> bool) -> Option<Result<BlockGuard<'_>, Stale>> {
        let pin = epoch::pin();
        let entry = self.pool.index.entry(self.pool.index.find(lba)?);
        let frame = entry.state().frame()?;
        if !is_fresh(self.pool.frames.stamp(frame)) {
            return Some(Err(Stale));
        }
        Policy::used(entry);
        // SAFETY: pinned before the state was loaded, and the contents keep the guard.
        Some(Ok(unsafe { BlockGuard::published(&self.pool.frames, frame, pin) }))
    }

    /// Before the device is asked about a block.
    pub fn begin(&self, lba: u64) -> Ticket {
        let mut pin = epoch::pin();
        let mut at = None;
        while let Some(entry) = self.entry_of(lba, &mut pin) {
            at = self.change(entry, |state| state.begun(false)).map(|(_, begun)| (entry, begun));
            if at.is_some() {
                break;
            }
        }
        Self::begun();
        Ticket { lba, at }
    }

    /// Comes between the beginning and the question to the device.
    fn begun() {
        // ORDERING [late-entry]: pairs with the fence in `empty`, which comes after the device has answered another. (And of two who have
        // exchanged the same state, the later asks after all that the device did for the one before.)
        // - That one finds the entry that we have linked, and makes our version an old one.
        // - It does not: then the device answers us after it answered that one.
        fence(SeqCst);
    }

    /// Changes an entry's state, unless it is dead: what it was, and what it is.
    fn change(&self, entry: u32, how: impl Fn(State) -> State) -> Option<(State, State)> {
        let slot = self.pool.index.entry(entry);
        let mut state = slot.state();
        while !state.is_dead() {
            let changed = how(state);
            match slot.exchange(state, changed) {
                Ok(()) => return Some((state, changed)),
                Err(now) => state = now,
            }
        }
        None
    }

    /// After the device has told what the block holds: publishes it, if nobody else has begun or ended since, and gives it back as
    /// the cache has it; else empties the entry, and gives it back as it is.
    pub fn publish<'c>(&'c self, ticket: &Ticket, own: Own<'c>, stamp: u64) -> BlockGuard<'c> {
        let pin = epoch::pin();
        let frame = own.into_frame(stamp);
        if let Some((entry, begun)) = ticket.at
            && self.pool.index.entry(entry).exchange(begun, begun.holding(Some(frame))).is_ok()
        {
            self.retire(None, begun.frame(), &pin);
            // SAFETY: pinned before it was published, and the contents keep the guard.
            return unsafe { BlockGuard::published(&self.pool.frames, frame, pin) };
        }
        self.empty(ticket.lba, &pin);
        // SAFETY: we let go of it above, and it was not published.
        let own = unsafe { self.pool.frames.take_back(frame) };
        BlockGuard::boxed(own.to_vec().into())
    }

    /// Forgets a block; also what is being learnt of it.
    pub fn invalidate(&self, lba: u64) {
        self.empty(lba, &epoch::pin());
    }

    /// Forgets all blocks of a range, as [`invalidate`](Self::invalidate) does one: by looking through all that there are, where these
    /// are fewer.
    pub fn invalidate_all(&self, range: Range<u64>) {
        if range.end.saturating_sub(range.start) <= self.capacity {
            return range.for_each(|lba| self.invalidate(lba));
        }
        // ORDERING [late-entry]: pairs with the fence in `begun`, as it says there: an entry that is not found was linked later.
        fence(SeqCst);
        for chain in 0..self.pool.index.chains() {
            // For each anew: who is pinned for long is in the way of all.
            let pin = epoch::pin();
            self.pool.index.for_each(chain, |entry| {
                if range.contains(&self.pool.index.entry(entry).lba()) {
                    self.forget(entry, &pin);
                }
            });
        }
    }

    fn empty(&self, lba: u64, pin: &Guard) {
        // ORDERING [late-entry]: pairs with the fence in `begun`, as it says there.
        fence(SeqCst);
        if let Some(entry) = self.pool.index.find(lba) {
            self.forget(entry, pin);
        }
    }

    /// Empties an entry that was found after the fence.
    fn forget(&self, entry: u32, pin: &Guard) {
        // If it is dead, its successor was linked after we looked, and so after the device answered.
        if let Some((state, _)) = self.change(entry, |state| state.holding(None)) {
            self.retire(None, state.frame(), pin);
        }
    }

    /// Memory for one block: a frame that can be published, if there is one.
    pub fn buffer(&self) -> Buffer<'_> {
        match self.pool.frames.take() {
            Some(own) => Buffer::Own(own),
            None => {
                self.reclaim(&mut epoch::pin());
                let own = self.pool.frames.take();
                own.map_or_else(|| Buffer::Boxed(vec![0; self.frame_bytes].into()), Buffer::Own)
            }
        }
    }

    /// The block's entry, a new one if it had none; `None` if there is no room for one.
    fn entry_of(&self, lba: u64, pin: &mut Guard) -> Option<u32> {
        let index = &self.pool.index;
        if let Some(entry) = index.find(lba).filter(|entry| !index.entry(*entry).state().is_dead()) {
            return Some(entry);
        }
        let entry = self.make_room(pin)?;
        match index.link(entry, lba) {
            Ok(()) => {
                self.policy.admit(index, entry);
                Some(entry)
            }
            Err(other) => {
                index.put_back(entry);
                self.linked.fetch_sub(1, Relaxed);
                Some(other)
            }
        }
    }

    /// Takes a free entry, which counts as linked; evicts another if there are as many as there may be.
    fn make_room(&self, pin: &mut Guard) -> Option<u32> {
        if self.in_limbo() >= self.pool.reserve {
            self.reclaim(pin);
        }
        if self.linked.fetch_add(1, Relaxed) < self.capacity || self.evict(pin) {
            let entry = self.pool.index.take();
            if entry.is_some() {
                return entry;
            }
        }
        self.linked.fetch_sub(1, Relaxed);
        None
    }

    /// Evicts a block, unless so much is in limbo that it would bring nothing: then somebody holds contents for long.
    fn evict(&self, pin: &Guard) -> bool {
        self.in_limbo() < self.pool.reserve && self.policy.evict(&self.pool.index, |entry| self.kill(entry, pin))
    }

    /// Takes an entry out of the index, unless somebody reads its block for those who wait. The caller took it out of its queue.
    fn kill(&self, entry: u32, pin: &Guard) -> bool {
        let slot = self.pool.index.entry(entry);
        let state = slot.state();
        if state.is_reading() || slot.exchange(state, state.dead()).is_err() {
            return false;
        }
        self.pool.index.unlink(entry);
        self.linked.fetch_sub(1, Relaxed);
        self.counters().add(Counted::Evicted, 1);
        self.retire(Some(entry), state.frame(), pin);
        true
    }
}

/// So many of something, unless there is no memory for them.
fn allocated<T>(count: usize, make: impl FnMut(usize) -> T) -> Option<Box<[T]>> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).ok()?;
    all.extend((0..count).map(make));
    Some(all.into())
}

/// What the cache has does not please.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stale;
