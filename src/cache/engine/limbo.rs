//! Limbo: what was taken out of the cache, and may still be seen by those who were pinned then.
//!
//! What is retired comes to a **pile** that all threads share. Whoever fills it takes all that is there, and leaves it to
//! crossbeam-epoch, in one call to be made when all who are pinned are gone. If each left its own, a thread that retires nothing more
//! would keep what the collector had not been given yet; and giving it each by itself is slow.

use std::sync::{Arc, Weak};

use crossbeam_epoch::Guard;
use crossbeam_utils::CachePadded;

use super::{Counted, Engine, Pool};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// Places of a pile.
#[cfg(not(loom))]
const PLACES: usize = 32;
#[cfg(loom)]
const PLACES: usize = 1;

/// How often what is in limbo is asked for at once.
const RECLAIM_ROUNDS: u32 = 4;
/// After that was in vain, it is asked for once in so many times.
#[cfg(not(loom))]
const RECLAIM_EVERY: u64 = 16;
#[cfg(loom)]
const RECLAIM_EVERY: u64 = 1;

/// An entry and a frame, or one of them, each as its number plus one or 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retired(u64);

impl Retired {
    /// These.
    pub fn new(entry: Option<u32>, frame: Option<u32>) -> Self {
        let half = |number: Option<u32>| number.map_or(0, |number| u64::from(number) + 1);
        Self(half(entry) << 32 | half(frame))
    }

    fn entry(self) -> Option<u32> {
        ((self.0 >> 32) as u32).checked_sub(1)
    }

    /// The frame, if there is one.
    pub fn frame(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

/// What is in limbo.
#[derive(Debug)]
pub struct Limbo {
    /// What nobody has given to the collector yet; 0 where there is nothing.
    pile: CachePadded<[AtomicU64; PLACES]>,
    /// How many times something was put there.
    put: CachePadded<AtomicU64>,
    /// How much there is, in the pile and with the collector.
    count: CachePadded<AtomicU64>,
    /// How often in a row it was asked for in vain.
    in_vain: CachePadded<AtomicU64>,
}

/// Nothing.
impl Default for Limbo {
    fn default() -> Self {
        let zero = || CachePadded::new(AtomicU64::new(0));
        let pile = CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { pile, put: zero(), count: zero(), in_vain: zero() }
    }
}

impl Limbo {
    /// Puts something on the pile. If that was full, gives all that was there.
    pub fn put(&self, retired: Retired) -> Option<[Retired; PLACES + 1]> {
        self.count.fetch_add(1, Relaxed);
        #[cfg_attr(loom, expect(clippy::modulo_one, reason = "a model's pile has one place"))]
        let place = self.put.fetch_add(1, Relaxed) as usize % PLACES;
        // ORDERING [retired]: pairs with the exchange in `take`: who gives it to the collector comes after all that we did to take it out
        // of the cache, and so counts those as pinned who can still see it. What was there before comes with the exchange of this place
        // in `take`, since an exchange passes on what the earlier ones have released.
        let before = Retired(self.pile[place].swap(retired.0, Release));
        (place + 1 == PLACES || !before.is_nothing()).then(|| self.take(before))
    }

    /// Takes all that is on the pile, and this besides.
    pub fn take(&self, before: Retired) -> [Retired; PLACES + 1] {
        let mut all = [before; PLACES + 1];
        for (place, taken) in self.pile.iter().zip(&mut all) {
            // ORDERING [retired]: pairs with the exchange in `put`, as it says there.
            *taken = Retired(place.swap(0, Acquire));
        }
        all
    }
}

impl Pool {
    /// Takes back what nobody sees any more.
    fn take_back(&self, all: &[Retired]) {
        let mut count = 0;
        for retired in all.iter().filter(|retired| !retired.is_nothing()) {
            if let Some(frame) = retired.frame() {
                self.frames.put_back(frame);
                self.counters.add(Counted::Reclaimed, 1);
            }
            if let Some(entry) = retired.entry() {
                self.index.put_back(entry);
            }
            count += 1;
        }
        self.limbo.count.fetch_sub(count, Relaxed);
    }
}

impl<E> Engine<E> {
    /// Takes back what was taken out of the cache, once all who are pinned now are gone.
    pub fn retire(&self, entry: Option<u32>, frame: Option<u32>, pin: &Guard) {
        let retired = Retired::new(entry, frame);
        if !retired.is_nothing()
            && let Some(all) = self.pool.limbo.put(retired)
        {
            self.defer(all, pin);
        }
    }

    fn defer(&self, all: [Retired; PLACES + 1], pin: &Guard) {
        if all.iter().all(|retired| retired.is_nothing()) {
            return;
        }
        // Guards borrow the cache: when it is gone, nobody needs anything back.
        let pool = Arc::downgrade(&self.pool);
        pin.defer(move || {
            if let Some(pool) = Weak::upgrade(&pool) {
                pool.take_back(&all);
            }
        });
        // Or the thread would keep it until it has more.
        pin.flush();
    }

    /// How many times something was taken out of the cache that may still be seen.
    pub fn in_limbo(&self) -> u64 {
        self.pool.limbo.count.load(Relaxed)
    }

    /// Sees that what is in limbo comes back, as far as nobody is in the way. Most often that is a thread that the scheduler stopped
    /// while it was pinned, so others are let run. If it is one that holds contents for long, all this is in vain: then it is not
    /// tried each time.
    pub fn reclaim(&self, pin: &mut Guard) {
        let limbo = &self.pool.limbo;
        if !limbo.in_vain.fetch_add(1, Relaxed).is_multiple_of(RECLAIM_EVERY) {
            return;
        }
        let before = self.in_limbo();
        self.defer(limbo.take(Retired::new(None, None)), pin);
        // An epoch ends when all who are pinned are in it; what was retired in one may be used two later.
        for _ in 0..RECLAIM_ROUNDS {
            pin.repin();
            pin.flush();
            if self.in_limbo() <= before / 2 {
                return limbo.in_vain.store(0, Relaxed);
            }
            #[cfg(not(loom))]
            std::thread::yield_now();
        }
    }
}
