//! Heartbeat words: 8 bytes changed by one hardware compare-and-swap. No frame, no retry.

use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire};

/// A heartbeat word, alone on two cache lines: adjacent-line prefetchers fetch two at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Word(pub AtomicU64);

impl Word {
    /// The word's value.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // ORDERING [word]: pairs with the exchange below.
        // - The load saw the exchanged value: it sees all that its writer did before the exchange.
        // - It saw an older value: it promises nothing about that exchange.
        self.0.load(Acquire)
    }

    /// Replaces `expected` by `new`, or gives the value found instead.
    #[inline(always)]
    pub fn compare_exchange(&self, expected: u64, new: u64) -> Result<(), u64> {
        // ORDERING [word]: pairs with the load above and with this exchange elsewhere.
        // - A reader saw `new`: it sees all that we did before. We exchanged: we see all that the writer of
        //   `expected` did before. We found another value: we see all that its writer did before.
        // - A reader saw an older value: it promises nothing.
        self.0.compare_exchange(expected, new, AcqRel, Acquire).map(|_| ())
    }
}
