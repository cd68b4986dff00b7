//! A queue of entries, in the order in which they came, or nearly: nobody waits in it for anybody.
//!
//! Who comes takes a number and puts its entry into the place of that number, or of the next that is empty. Who goes takes the
//! number at the front and what is in its place. If nothing is there yet, since who came has its number only, that place is
//! passed over; its entry is found one time round later. That is out of turn, which a policy can bear, and never lost or there
//! twice, which it could not.

use crossbeam_utils::CachePadded;

use super::allocated;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64};

/// The queue. It has a place for every entry there is, so it is never full.
#[derive(Debug)]
pub struct Queue {
    /// An entry's number plus one; 0 if it is empty.
    places: Box<[AtomicU32]>,
    front: CachePadded<AtomicU64>,
    back: CachePadded<AtomicU64>,
}

impl Queue {
    /// One for so many entries; `None` if there is no memory for it.
    pub fn new(entries: u32) -> Option<Self> {
        Some(Self {
            places: allocated(entries as usize, |_| AtomicU32::new(0))?,
            front: CachePadded::new(AtomicU64::new(0)),
            back: CachePadded::new(AtomicU64::new(0)),
        })
    }

    fn place(&self, number: u64) -> &AtomicU32 {
        &self.places[(number % self.places.len() as u64) as usize]
    }

    /// How many are in it, or nearly: others come and go.
    pub fn about_len(&self) -> u64 {
        let back = self.back.load(Relaxed);
        back.saturating_sub(self.front.load(Relaxed)).min(self.places.len() as u64)
    }

    /// Puts an entry at the back. It must not be in a queue.
    pub fn push(&self, entry: u32) {
        loop {
            let number = self.back.fetch_add(1, Relaxed);
            // ORDERING [queued]: pairs with the exchange in `take`: who has the entry next comes after all that we did with it.
            if self.place(number).compare_exchange(0, entry + 1, Release, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Takes the entry at the front: it is the caller's then.
    pub fn pop(&self) -> Option<u32> {
        loop {
            let front = self.front.load(Relaxed);
            if front >= self.back.load(Relaxed) {
                return self.places.iter().find_map(Self::take);
            }
            if self.front.compare_exchange(front, front + 1, Relaxed, Relaxed).is_ok()
                && let Some(entry) = Self::take(self.place(front))
            {
                return Some(entry);
            }
        }
    }

    fn take(place: &AtomicU32) -> Option<u32> {
        // ORDERING [queued]: pairs with the exchange in `push`, as above.
        place.swap(0, Acquire).checked_sub(1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn first_in_is_first_out() {
        let queue = Queue::new(3).expect("memory");
        for round in 0..10 {
            assert_eq!((queue.pop(), queue.about_len()), (None, 0));
            (0..3).for_each(|entry| queue.push((entry + round) % 3));
            assert_eq!(queue.about_len(), 3);
            assert_eq!([(); 3].map(|()| queue.pop()), [0, 1, 2].map(|entry| Some((entry + round) % 3)));
        }
    }

    #[test]
    fn who_comes_late_is_found_all_the_same() {
        let queue = Queue::new(3).expect("memory");
        // One took a number, and then its time.
        let late = queue.back.fetch_add(1, Relaxed);
        queue.push(1);
        assert_eq!(queue.pop(), Some(1));
        queue.place(late).store(2 + 1, Relaxed);
        assert_eq!((queue.pop(), queue.pop()), (Some(2), None));
        queue.place(late).store(2 + 1, Relaxed);
        queue.push(0);
        queue.push(1);
        let mut all = [(); 3].map(|()| queue.pop().expect("three"));
        all.sort_unstable();
        assert_eq!((all, queue.pop()), ([0, 1, 2], None));
    }

    #[test]
    fn many_at_once_lose_none_and_see_none_twice() {
        const ENTRIES: u32 = 8;
        let queue = Queue::new(ENTRIES).expect("memory");
        let owned: Vec<AtomicU32> = (0..ENTRIES).map(|_| AtomicU32::new(0)).collect();
        (0..ENTRIES).for_each(|entry| queue.push(entry));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(entry) = queue.pop() else { continue };
                        assert_eq!(owned[entry as usize].swap(1, Relaxed), 0, "it is somebody else's");
                        owned[entry as usize].store(0, Relaxed);
                        queue.push(entry);
                    }
                });
            }
        });
        let mut all: Vec<u32> = std::iter::from_fn(|| queue.pop()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..ENTRIES).collect::<Vec<_>>());
    }
}
