//! The index: from a block's number to its entry, without locks.
//!
//! A hash table of fixed size, whose chains are lists after Harris (DISC 2001) and Michael (SPAA 2002): an entry is put in front
//! of its chain by one exchange; it goes by being **marked** first, in its own link, so that nothing is put behind it any more, and is
//! then unlinked by whoever comes by. Who is pinned may walk over entries that were unlinked meanwhile: they are not used again
//! before all who were pinned then are gone.
//!
//! At most one entry of a block is not marked: who puts one in front has seen all others behind it.

use super::allocated;
use super::stack::Stack;
use super::state::State;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64};

/// What the cache knows of one block.
#[derive(Debug)]
pub struct Entry {
    /// The block. It stays the same from when the entry is linked until nobody can see it any more.
    lba: AtomicU64,
    /// See [`State`].
    pub state: AtomicU64,
    /// The next entry of the chain; beneath it on the stack, while it is free.
    next: AtomicU32,
    /// How often it was used, for the policy.
    pub uses: AtomicU32,
}

impl Entry {
    /// The block.
    #[inline]
    pub fn lba(&self) -> u64 {
        self.lba.load(Relaxed)
    }

    /// What it holds.
    #[inline]
    pub fn state(&self) -> State {
        // ORDERING [contents]: pairs with the exchanges of states in `Engine`: who sees a frame in the state sees all its bytes.
        State::from_bits(self.state.load(Acquire))
    }

    /// Exchanges its state, if it still is `from`; else gives what it is.
    pub fn exchange(&self, from: State, to: State) -> Result<(), State> {
        // ORDERING [contents]: pairs with the load in `state`, as above. Who goes on to ask the device does so after a fence.
        let exchanged = self.state.compare_exchange(from.bits(), to.bits(), Release, Relaxed);
        exchanged.map(drop).map_err(State::from_bits)
    }
}

/// A link of a chain: an entry's number plus one, 0 at the end; the highest bit is the mark of the entry that has the link.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Link(u32);

const MARK: u32 = 1 << 31;

impl Link {
    fn to(index: u32) -> Self {
        Self(index + 1)
    }

    #[inline]
    fn index(self) -> Option<u32> {
        (self.0 & !MARK).checked_sub(1)
    }

    #[inline]
    fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    fn marked(self) -> Self {
        Self(self.0 | MARK)
    }

    fn unmarked(self) -> Self {
        Self(self.0 & !MARK)
    }
}

/// Most entries that an index may have.
pub const ENTRIES_MAX: u32 = MARK - 2;

/// Entries by their blocks.
#[derive(Debug)]
pub struct Index {
    heads: Box<[AtomicU32]>,
    entries: Box<[Entry]>,
    free: Stack,
}

/// A well-mixed number for a block (the finalizer of SplitMix64): neighbours go to different chains.
pub fn hash(lba: u64) -> u64 {
    let z = lba.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Index {
    /// One of so many chains and free entries; `None` if there is no memory for it.
    pub fn new(chains: u32, entries: u32) -> Option<Self> {
        assert!(chains > 0 && entries <= ENTRIES_MAX, "the cache has checked its size");
        let entry = |_| Entry {
            lba: AtomicU64::new(0),
            state: AtomicU64::new(State::from_bits(0).dead().bits()),
            next: AtomicU32::new(0),
            uses: AtomicU32::new(0),
        };
        let index = Self {
            heads: allocated(chains as usize, |_| AtomicU32::new(0))?,
            entries: allocated(entries as usize, entry)?,
            free: Stack::default(),
        };
        // The first are on top.
        (0..entries).rev().for_each(|entry| index.put_back(entry));
        Some(index)
    }

    /// The entry of this number.
    #[inline]
    pub fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    #[inline]
    fn head(&self, lba: u64) -> &AtomicU32 {
        let chain = (u128::from(hash(lba)) * self.heads.len() as u128) >> 64;
        &self.heads[chain as usize]
    }

    #[inline]
    fn load(link: &AtomicU32) -> Link {
        // ORDERING [linked]: pairs with the exchange in `link`: who comes to an entry sees its block, and where its chain goes on.
        Link(link.load(Acquire))
    }

    /// The entry of a block, or `None` if it has none. The caller is pinned.
    #[inline]
    pub fn find(&self, lba: u64) -> Option<u32> {
        self.find_behind(Self::load(self.head(lba)), lba)
    }

    #[inline]
    fn find_behind(&self, mut link: Link, lba: u64) -> Option<u32> {
        while let Some(index) = link.index() {
            let entry = self.entry(index);
            let next = Self::load(&entry.next);
            if entry.lba() == lba && !next.is_marked() {
                return Some(index);
            }
            link = next;
        }
        None
    }

    /// How many chains there are.
    pub fn chains(&self) -> usize {
        self.heads.len()
    }

    /// Calls `f` with each entry of a chain. The caller is pinned.
    pub fn for_each(&self, chain: usize, f: impl Fn(u32)) {
        let mut link = Self::load(&self.heads[chain]);
        while let Some(index) = link.index() {
            link = Self::load(&self.entry(index).next);
            f(index);
        }
    }

    /// Takes a free entry, for [`link`](Self::link).
    pub fn take(&self) -> Option<u32> {
        self.free.pop(|entry| self.entry(entry).next.load(Relaxed))
    }

    /// Gives an entry back that nobody can see: not yet, or not any more.
    pub fn put_back(&self, entry: u32) {
        self.free.push(entry, |below| self.entry(entry).next.store(below, Relaxed));
    }

    /// Puts a free entry in front of a block's chain, holding nothing; or gives the one that the block has already. The caller
    /// is pinned.
    pub fn link(&self, free: u32, lba: u64) -> Result<(), u32> {
        let (head, entry) = (self.head(lba), self.entry(free));
        entry.lba.store(lba, Relaxed);
        entry.uses.store(0, Relaxed);
        let empty = State::from_bits(entry.state.load(Relaxed)).holding(None);
        entry.state.store(empty.bits(), Relaxed);
        loop {
            let first = Self::load(head);
            match self.find_behind(first, lba) {
                Some(dead) if self.entry(dead).state().is_dead() => {
                    // Whoever killed it has not come to unlink it.
                    self.unlink(dead);
                    continue;
                }
                Some(other) => return Err(other),
                None => {}
            }
            entry.next.store(first.0, Relaxed);
            // ORDERING [linked]: pairs with the loads of links: who sees the entry sees all that was stored above.
            if head.compare_exchange(first.0, Link::to(free).0, Release, Relaxed).is_ok() {
                return Ok(());
            }
        }
    }

    /// Takes a dead entry out of its chain; when this returns, nobody finds it who was not pinned before. Anybody may call it, who
    /// is pinned.
    pub fn unlink(&self, dead: u32) {
        let entry = self.entry(dead);
        let mut next = Self::load(&entry.next);
        while !next.is_marked() {
            // What is behind the entry was linked before it, and who comes over it has seen that.
            match entry.next.compare_exchange(next.0, next.marked().0, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => next = Link(now),
            }
        }
        while !self.sweep(self.head(entry.lba())) {}
    }

    /// Unlinks all that is marked in a chain; `false` if somebody came in between.
    fn sweep(&self, head: &AtomicU32) -> bool {
        let mut before = head;
        let mut link = Self::load(before);
        while let Some(index) = link.index() {
            let entry = self.entry(index);
            let next = Self::load(&entry.next);
            if next.is_marked() {
                // What is behind was linked earlier, and an exchange passes on what the earlier ones have released. If `before` was
                // marked meanwhile, this fails.
                if before.compare_exchange(link.0, next.unmarked().0, Relaxed, Relaxed).is_err() {
                    return false;
                }
                link = next.unmarked();
            } else {
                (before, link) = (&entry.next, next);
            }
        }
        true
    }
}
