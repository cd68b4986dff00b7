//! Counting without a place where all threads meet: each thread has a line of its own.

use std::cell::Cell;

use crossbeam_utils::CachePadded;

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Mutex};

/// Threads that have a line each; those beyond them share one.
const LINES: usize = 64;

/// `N` counters.
#[derive(Debug)]
pub struct Counters<const N: usize> {
    lines: Box<[CachePadded<[AtomicU64; N]>]>,
}

impl<const N: usize> Counters<N> {
    /// All zero.
    pub fn new() -> Self {
        let line = || CachePadded::new([const { AtomicU64::new(0) }; N]);
        Self { lines: (0..=LINES).map(|_| line()).collect() }
    }

    /// Adds to one of them.
    #[inline]
    pub fn add(&self, counter: usize, addend: u64) {
        let line = line();
        let counter = &self.lines[line][counter];
        if line < LINES {
            // Nobody else stores to it.
            counter.store(counter.load(Relaxed).wrapping_add(addend), Relaxed);
        } else {
            counter.fetch_add(addend, Relaxed);
        }
    }

    /// The sums over all threads.
    pub fn sums(&self) -> [u64; N] {
        std::array::from_fn(|counter| {
            self.lines.iter().map(|line| line[counter].load(Relaxed)).fold(0, u64::wrapping_add)
        })
    }
}

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
fn line() -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_with_more_threads_than_lines() {
        let counters = Counters::<2>::new();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..LINES + 20 {
                    scope.spawn(|| (0..1000).for_each(|_| counters.add(1, 3)));
                }
            });
        }
        assert_eq!(counters.sums(), [0, 3 * (LINES as u64 + 20) * 3000]);
    }
}
