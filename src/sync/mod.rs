//! The only door to atomics: `core::sync::atomic`, or loom's when the crate is built to be model-checked.
//!
//! Nothing else in the crate names an atomic type (`clippy.toml` forbids it), so what loom explores is the code that
//! ships.

#[cfg(not(any(loom, power_cuts)))]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

// A thread waits for another in these ways alone, so that a simulator that runs one at a time knows of it.
#[cfg(not(any(loom, power_cuts)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
mod model;

#[cfg(crossbeam_loom)]
pub use model::AtomicU32;
#[cfg(loom)]
pub use model::{AtomicU16, AtomicU64, Killed, Ordering, fence, kill_this_thread_after, run_until_killed, steps_taken};

#[cfg(crossbeam_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

#[cfg(power_cuts)]
mod recorded;

// What lies on the heap is no store, and nobody looks.
#[cfg(power_cuts)]
pub(crate) use core::sync::atomic::AtomicU32;

#[cfg(power_cuts)]
pub(crate) use recorded::{
    AtomicU8, AtomicU16, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, Patience, fdatasync, fence, now_unix_ms,
};
#[cfg(power_cuts)]
pub use recorded::{Stored, Watch, watched};

/// How long to wait for another process.
#[cfg(not(any(loom, power_cuts)))]
#[derive(Debug)]
pub(crate) struct Patience(std::time::Instant);

#[cfg(not(any(loom, power_cuts)))]
impl Patience {
    /// To wait for so long.
    pub(crate) fn new(time: std::time::Duration) -> Self {
        Self(std::time::Instant::now() + time)
    }

    /// Waits a moment; `false` if that was long enough.
    pub(crate) fn wait(&mut self) -> bool {
        std::thread::sleep(std::time::Duration::from_millis(1));
        std::time::Instant::now() < self.0
    }
}

/// Writes a file's changed pages to the disk, those changed through a mapping as well.
#[cfg(all(not(loom), not(power_cuts), target_os = "linux"))]
pub(crate) fn fdatasync(file: &std::fs::File) -> std::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::fdatasync(file)).map_err(Into::into)
}

/// As above.
#[cfg(all(not(loom), not(power_cuts), not(target_os = "linux")))]
pub(crate) fn fdatasync(file: &std::fs::File) -> std::io::Result<()> {
    file.sync_data()
}

/// The time, in milliseconds since 1970-01-01 00:00 UTC: by a clock that is cheap to ask, and a few of them late.
#[cfg(all(not(loom), not(power_cuts), target_os = "linux"))]
pub(crate) fn now_unix_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// As above.
#[cfg(all(not(loom), not(power_cuts), not(target_os = "linux")))]
pub(crate) fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}
