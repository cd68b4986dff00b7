//! Ghosts: blocks that were evicted lately, by a few bits each. One that comes back was evicted too early.

use super::allocated;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64};

/// The blocks last evicted. It may take one block for another, once in 60,000 questions; and two who change it at once may lose a
/// ghost. A policy can bear both.
#[derive(Debug)]
pub struct Ghosts {
    /// In sets of [`WAYS`]: 20 bits of the block's hash `<< 12`, or'ed with when; 0 for none.
    places: Box<[AtomicU32]>,
    /// How many were ever put in.
    count: AtomicU64,
    /// For so many more a ghost stays.
    life: u64,
}

const WAYS: usize = 8;
/// Bits of a place that say when: in units of which there are [`LIFE`] in a ghost's life.
const WHEN_BITS: u32 = 12;
const WHEN: u32 = (1 << WHEN_BITS) - 1;
const LIFE: u64 = 1024;

impl Ghosts {
    /// For so many. As some sets have more than their share, there are places for half as many again.
    pub fn new(ghosts: u32) -> Option<Self> {
        let life = u64::from(ghosts).max(WAYS as u64);
        let places = (life + life / 2).next_multiple_of(WAYS as u64);
        Some(Self { places: allocated(places as usize, |_| AtomicU32::new(0))?, count: AtomicU64::new(0), life })
    }

    fn set(&self, hash: u64) -> &[AtomicU32] {
        let sets = self.places.len() / WAYS;
        let set = ((u128::from(hash) * sets as u128) >> 64) as usize;
        &self.places[set * WAYS..][..WAYS]
    }

    fn print(hash: u64) -> u32 {
        // The upper bits have chosen the set. None is 0.
        ((hash as u32) << WHEN_BITS) | 1 << WHEN_BITS
    }

    /// The time now: the count, in units.
    fn when(&self, count: u64) -> u32 {
        (u128::from(count) * u128::from(LIFE) / u128::from(self.life)) as u32 & WHEN
    }

    fn age(place: u32, now: u32) -> u64 {
        u64::from(now.wrapping_sub(place) & WHEN)
    }

    /// Puts a block in, by its hash: instead of the oldest, if there is no room.
    pub fn put(&self, hash: u64) {
        let now = self.when(self.count.fetch_add(1, Relaxed));
        let age = |place: &&AtomicU32| match place.load(Relaxed) {
            0 => u64::MAX,
            place => Self::age(place, now),
        };
        if let Some(place) = self.set(hash).iter().max_by_key(age) {
            place.store(Self::print(hash) | now, Relaxed);
        }
    }

    /// Whether a block is in it; then it is not any more.
    pub fn take(&self, hash: u64) -> bool {
        let now = self.when(self.count.load(Relaxed));
        let is_it = |place: &&AtomicU32| {
            let place = place.load(Relaxed);
            place & !WHEN == Self::print(hash) && Self::age(place, now) <= LIFE
        };
        self.set(hash).iter().find(is_it).map(|place| place.store(0, Relaxed)).is_some()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::index::hash;
    use super::*;

    #[test]
    fn the_last_are_there_and_the_old_are_gone() {
        let ghosts = Ghosts::new(1000).expect("memory");
        (0..10_000).for_each(|block| ghosts.put(hash(block)));
        let there = |blocks: std::ops::Range<u64>| blocks.filter(|block| ghosts.take(hash(*block))).count();
        // A set may have had more than its share.
        assert!(there(9500..10_000) > 450);
        assert!(there(0..8900) < 10);
        assert_eq!(there(9500..10_000), 0, "taken once");
        assert_eq!(there(20_000..30_000), 0);
    }
}
