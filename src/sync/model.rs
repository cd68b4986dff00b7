//! Loom's atomics behind a step counter, so that a model can kill a thread at each of its atomic steps in turn.
//!
//! A process that dies by SIGKILL stops between two instructions and never runs another. To the others that is a
//! thread that stops between two atomic operations: [`kill_this_thread_after`] arms that for one thread, every
//! operation counts as one step, and the step past the last one unwinds with [`Killed`] to [`run_until_killed`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use loom::sync::atomic::Ordering;

/// What a thread unwinds with when its steps are used up.
#[derive(Debug)]
pub struct Killed;

loom::thread_local! {
    /// Steps that this thread may still take; `None` where nobody is to be killed.
    static STEPS_LEFT: Cell<Option<usize>> = Cell::new(None);
    /// Steps that this thread has taken.
    static STEPS_TAKEN: Cell<usize> = Cell::new(0);
}

/// Lets the calling thread take `steps` more atomic steps, then unwinds it with [`Killed`].
pub fn kill_this_thread_after(steps: usize) {
    STEPS_LEFT.with(|left| left.set(Some(steps)));
}

/// The number of atomic steps the calling thread has taken so far.
pub fn steps_taken() -> usize {
    STEPS_TAKEN.with(Cell::get)
}

/// Runs `f`; `Err(Killed)` if the thread's steps were used up in it. Any other panic goes on.
pub fn run_until_killed<T>(f: impl FnOnce() -> T) -> Result<T, Killed> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| match payload.downcast::<Killed>() {
        Ok(killed) => *killed,
        Err(other) => resume_unwind(other),
    })
}

fn step() {
    // A thread that ends has lost its locals before the last that it does: what it still drops is not counted.
    let _ = STEPS_TAKEN.try_with(|taken| taken.set(taken.get() + 1));
    let used_up = STEPS_LEFT.try_with(|left| match left.get() {
        Some(0) => true,
        Some(n) => {
            left.set(Some(n - 1));
            false
        }
        None => false,
    });
    if used_up.unwrap_or(false) {
        // Not a panic: no hook prints it.
        resume_unwind(Box::new(Killed));
    }
}

/// A fence, as a step.
pub fn fence(order: Ordering) {
    step();
    loom::sync::atomic::fence(order);
}

macro_rules! stepped {
    ($name:ident, $int:ty) => {
        /// Loom's atomic of the same name; each operation is a step.
        #[derive(Debug)]
        pub struct $name(loom::sync::atomic::$name);

        #[allow(dead_code, reason = "not every operation is used on every type")]
        impl $name {
            /// A new atomic; not a step.
            pub fn new(value: $int) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            /// Loads the value.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $int {
                step();
                self.0.load(order)
            }

            /// Stores a value.
            #[track_caller]
            pub fn store(&self, value: $int, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            /// Exchanges the value if it is `current`.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }

            /// Replaces the value; gives the one before.
            #[track_caller]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.swap(value, order)
            }

            /// Adds to the value; gives the one before.
            #[track_caller]
            pub fn fetch_add(&self, addend: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_add(addend, order)
            }

            /// Subtracts from the value; gives the one before.
            #[track_caller]
            pub fn fetch_sub(&self, subtrahend: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_sub(subtrahend, order)
            }

            /// Raises the value to at least `least`; gives the one before.
            #[track_caller]
            pub fn fetch_max(&self, least: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_max(least, order)
            }
        }
    };
}

stepped!(AtomicU16, u16);
#[cfg(crossbeam_loom)]
stepped!(AtomicU32, u32);
stepped!(AtomicU64, u64);
