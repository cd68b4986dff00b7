//! Atomics that show each of their operations to whoever watches the thread: what the power-cut simulator runs.
//!
//! A simulator learns in this way what is stored in a mapping and in which order, decides which thread goes on at each
//! step, and takes the place of the disk. A thread that nobody watches runs as with core's atomics, but syncs nothing.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::{LockResult, PoisonError, TryLockError};
use std::time::Duration;

pub use core::sync::atomic::Ordering;
use core::sync::atomic::Ordering::Relaxed;

/// Who watches a thread.
pub trait Watch {
    /// The thread is about to do an atomic operation or a fence.
    fn step(&self);
    /// It has stored something.
    fn stored(&self, stored: Stored);
    /// It wants what was stored in a file to be on the disk, and goes on when it is.
    fn flush(&self, file: &File) -> io::Result<()>;
    /// It cannot go on before another thread does.
    fn wait(&self);
}

/// A store, or an exchange that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Where.
    pub address: usize,
    /// How many bytes: 1, 2 or 8.
    pub bytes: u8,
    /// What was there before.
    pub old: u64,
    /// What is there now; perhaps the same.
    pub new: u64,
    /// Whether it was an exchange or another operation that reads as well.
    pub exchanged: bool,
}

thread_local! {
    static WATCH: RefCell<Option<Rc<dyn Watch>>> = const { RefCell::new(None) };
}

/// Runs `f` while `watch` watches this thread.
pub fn watched<T>(watch: Rc<dyn Watch>, f: impl FnOnce() -> T) -> T {
    struct Unwatch;
    impl Drop for Unwatch {
        fn drop(&mut self) {
            WATCH.take();
        }
    }
    let before = WATCH.replace(Some(watch));
    assert!(before.is_none(), "the thread is watched already");
    let _unwatch = Unwatch;
    f()
}

/// Tells the thread's watcher; `None` if there is none.
fn tell<T>(what: impl FnOnce(&dyn Watch) -> T) -> Option<T> {
    // A thread that ends may close a store when its watcher is gone.
    WATCH.try_with(|watch| watch.borrow().as_deref().map(what)).ok().flatten()
}

fn step() {
    tell(|watch| watch.step());
}

/// A fence, as a step.
pub fn fence(order: Ordering) {
    step();
    core::sync::atomic::fence(order);
}

/// In place of fdatasync(2).
pub(crate) fn fdatasync(file: &File) -> io::Result<()> {
    tell(|watch| watch.flush(file)).unwrap_or(Ok(()))
}

/// It is always the same time: a run is the same whenever it has the same seed.
pub(crate) fn now_unix_ms() -> u64 {
    1_000_000_000_000
}

macro_rules! shown {
    ($name:ident, $int:ty) => {
        /// Core's atomic of the same name; each operation is a step.
        #[derive(Default, Debug)]
        #[repr(transparent)]
        pub struct $name(core::sync::atomic::$name);

        #[allow(dead_code, reason = "not every operation is used on every type")]
        impl $name {
            /// A new atomic; not a step.
            pub const fn new(value: $int) -> Self {
                Self(core::sync::atomic::$name::new(value))
            }

            fn show(&self, old: $int, new: $int, exchanged: bool) {
                let (address, bytes) = (std::ptr::from_ref(self).addr(), size_of::<$int>() as u8);
                let (old, new) = (u64::from(old), u64::from(new));
                tell(|watch| watch.stored(Stored { address, bytes, old, new, exchanged }));
            }

            /// Loads the value.
            pub fn load(&self, order: Ordering) -> $int {
                step();
                self.0.load(order)
            }

            /// Stores a value.
            pub fn store(&self, value: $int, order: Ordering) {
                step();
                let old = self.0.load(Relaxed);
                self.0.store(value, order);
                self.show(old, value, false);
            }

            /// Exchanges the value if it is `current`.
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.0.compare_exchange(current, new, success, failure).inspect(|old| self.show(*old, new, true))
            }

            /// Replaces the value; gives the one before.
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                step();
                let old = self.0.swap(value, order);
                self.show(old, value, true);
                old
            }

            /// Adds to the value; gives the one before.
            pub fn fetch_add(&self, addend: $int, order: Ordering) -> $int {
                step();
                let old = self.0.fetch_add(addend, order);
                self.show(old, old.wrapping_add(addend), true);
                old
            }

            /// Takes from the value; gives the one before.
            pub fn fetch_sub(&self, subtrahend: $int, order: Ordering) -> $int {
                step();
                let old = self.0.fetch_sub(subtrahend, order);
                self.show(old, old.wrapping_sub(subtrahend), true);
                old
            }

            /// Raises the value to at least `least`; gives the one before.
            pub fn fetch_max(&self, least: $int, order: Ordering) -> $int {
                step();
                let old = self.0.fetch_max(least, order);
                self.show(old, old.max(least), true);
                old
            }
        }
    };
}

shown!(AtomicU8, u8);
shown!(AtomicU16, u16);
shown!(AtomicU64, u64);

/// The standard library's mutex. A watched thread that finds it taken lets the others go on until it is free.
#[derive(Default, Debug)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

/// What a locked [`Mutex`] gives access to.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: std::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// A new one.
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Locks it.
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        loop {
            let guard = match self.0.try_lock() {
                Ok(guard) => return Ok(MutexGuard { mutex: self, guard }),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    wait();
                    continue;
                }
            };
            return Err(PoisonError::new(MutexGuard { mutex: self, guard }));
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition variable every one of whose waits ends by itself when others have gone on, which the standard library's
/// may do as well.
#[derive(Default, Debug)]
pub(crate) struct Condvar;

impl Condvar {
    /// One for which nobody waits.
    pub(crate) fn new() -> Self {
        Self
    }

    /// Unlocks the mutex, lets others go on, and locks it again.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { mutex, guard } = guard;
        drop(guard);
        wait();
        mutex.lock()
    }

    /// As [`wait`](Self::wait), again while `condition` says so, but only for a while: as long as a few others take.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        for _ in 0..4 {
            if !condition(&mut guard) {
                break;
            }
            guard = match self.wait(guard) {
                Ok(guard) => guard,
                Err(poisoned) => return Err(PoisonError::new((poisoned.into_inner(), ()))),
            };
        }
        Ok((guard, ()))
    }

    /// Whoever waits looks by itself.
    pub(crate) fn notify_one(&self) {}

    /// Whoever waits looks by itself.
    pub(crate) fn notify_all(&self) {}
}

/// Lets other threads go on.
fn wait() {
    if tell(|watch| watch.wait()).is_none() {
        std::thread::yield_now();
    }
}

/// How long to wait for another process: as often as others were let go on, whatever time that takes.
#[derive(Debug)]
pub(crate) struct Patience(u32);

impl Patience {
    /// The time is not a simulator's.
    pub(crate) fn new(_time: Duration) -> Self {
        Self(100)
    }

    /// Waits a moment; `false` if that was long enough.
    pub(crate) fn wait(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        wait();
        self.0 > 0
    }
}
