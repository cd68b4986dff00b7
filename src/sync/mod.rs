//! The only door to atomics: `core::sync::atomic`, or loom's when the crate is built to be model-checked.
//!
//! Nothing else in the crate names an atomic type (`clippy.toml` forbids it), so what loom explores is the code that
//! ships.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicU8;

#[cfg(loom)]
mod model;

#[cfg(loom)]
pub use model::{AtomicU16, AtomicU64, Killed, Ordering, fence, kill_this_thread_after, run_until_killed, steps_taken};

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
