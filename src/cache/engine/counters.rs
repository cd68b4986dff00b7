//! Counting without a place where all threads meet: each thread has a line of its own.

use crossbeam_utils::CachePadded;

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

#[cfg(loom)]
use modelled::{LINES, line};
#[cfg(not(loom))]
use threads::{LINES, line};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// Reads that the cache answered.
    Hit,
    /// Reads that it did not.
    Miss,
    /// Misses of what it had, but not as it was wanted.
    Stale,
    /// Blocks that went to make room.
    Evicted,
    /// Frames that came back into use.
    Reclaimed,
}

const COUNTERS: usize = 5;

/// A counter for each.
#[derive(Debug)]
pub struct Counters {
    lines: Box<[CachePadded<[AtomicU64; COUNTERS]>]>,
}

/// All zero.
impl Default for Counters {
    fn default() -> Self {
        let line = || CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { lines: (0..=LINES).map(|_| line()).collect() }
    }
}

impl Counters {
    /// Adds to one of them.
    #[inline]
    pub fn add(&self, counted: Counted, addend: u64) {
        let line = line();
        let counter = &self.lines[line][counted as usize];
        if line == LINES {
            counter.fetch_add(addend, Relaxed);
        } else {
            // Nobody else stores to it.
            counter.store(counter.load(Relaxed).wrapping_add(addend), Relaxed);
        }
    }

    /// The sum over all threads.
    pub fn sum(&self, counted: Counted) -> u64 {
        self.lines.iter().map(|line| line[counted as usize].load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// In a model all threads share one line.
#[cfg(loom)]
mod modelled {
    pub const LINES: usize = 0;

    pub fn line() -> usize {
        LINES
    }
}

/// Which line is whose.
#[cfg(not(loom))]
mod threads {
    use std::cell::Cell;

    use crate::sync::Mutex;

    /// Threads that have a line each; those beyond them share one.
    pub const LINES: usize = 64;

    /// Lines that no thread has.
    static FREE: Mutex<Free> = Mutex::new(Free { returned: Vec::new(), fresh: 0 });

    struct Free {
        returned: Vec<usize>,
        /// This and all above were never taken.
        fresh: usize,
    }

    /// A thread's line, which goes back when the thread ends.
    struct Line(usize);

    impl Line {
        fn take() -> Self {
            let mut free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let line = free.returned.pop().unwrap_or_else(|| {
                let fresh = free.fresh.min(LINES);
                free.fresh = fresh + 1;
                fresh
            });
            Self(line)
        }
    }

    impl Drop for Line {
        fn drop(&mut self) {
            // What the thread still counts when its locals are gone goes where all may.
            let _ = NUMBER.try_with(|number| number.set(LINES));
            if self.0 < LINES {
                // The lock orders this thread's last store before the next owner's first load.
                FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).returned.push(self.0);
            }
        }
    }

    const UNKNOWN: usize = usize::MAX;

    thread_local! {
        /// The number of this thread's line: cheap to ask for, as it has nothing to drop.
        static NUMBER: Cell<usize> = const { Cell::new(UNKNOWN) };
        static LINE: Line = Line::take();
    }

    #[inline]
    pub fn line() -> usize {
        match NUMBER.try_with(Cell::get) {
            Ok(UNKNOWN) => first(),
            Ok(number) => number,
            Err(_) => LINES,
        }
    }

    #[cold]
    fn first() -> usize {
        let number = LINE.try_with(|line| line.0).unwrap_or(LINES);
        let _ = NUMBER.try_with(|own| own.set(number));
        number
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_with_more_threads_than_lines() {
        let counters = Counters::default();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..LINES + 20 {
                    scope.spawn(|| (0..1000).for_each(|_| counters.add(Counted::Miss, 3)));
                }
            });
        }
        let sums = [Counted::Hit, Counted::Miss, Counted::Stale].map(|counted| counters.sum(counted));
        assert_eq!(sums, [0, 3 * (LINES as u64 + 20) * 3000, 0]);
    }
}
