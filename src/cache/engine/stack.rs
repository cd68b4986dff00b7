//! A stack of numbers, for what is free: Treiber's, with a count in its head.

use crossbeam_utils::CachePadded;

use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// Numbers that are free. Where the next one lies beneath a number, the caller keeps: in the thing itself, which is free.
#[derive(Debug)]
pub struct Stack {
    /// How often it was changed `<< 32`, or'ed with the number on top plus one, or with 0 if there is none. A number that was
    /// taken and put back meanwhile is so told from one that was never away.
    top: CachePadded<AtomicU64>,
}

/// One with nothing in it.
impl Default for Stack {
    fn default() -> Self {
        Self { top: CachePadded::new(AtomicU64::new(0)) }
    }
}

impl Stack {
    fn changed(top: u64, number: u32) -> u64 {
        ((top >> 32).wrapping_add(1) << 32) | u64::from(number)
    }

    /// Puts a number on it. `store_below` keeps with that number what it is given, for `load_below`.
    pub fn push(&self, number: u32, store_below: impl Fn(u32)) {
        let mut top = self.top.load(Relaxed);
        loop {
            store_below(top as u32);
            // ORDERING [free]: pairs with the loads in `pop`: whoever takes it sees what is beneath, and comes after all that was
            // done with it before; also when others were pushed and taken meanwhile, since an exchange passes on what the earlier
            // ones have released.
            match self.top.compare_exchange(top, Self::changed(top, number + 1), Release, Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Takes the number on top.
    pub fn pop(&self, load_below: impl Fn(u32) -> u32) -> Option<u32> {
        // ORDERING [free]: pairs with the exchange in `push`, as above.
        let mut top = self.top.load(Acquire);
        loop {
            let number = (top as u32).checked_sub(1)?;
            // If somebody has taken it meanwhile, this means nothing; the exchange finds out.
            let below = load_below(number);
            // ORDERING [free]: pairs with the exchange in `push`, where this finds another number than the load did.
            match self.top.compare_exchange(top, Self::changed(top, below), Relaxed, Acquire) {
                Ok(_) => return Some(number),
                Err(now) => top = now,
            }
        }
    }
}
