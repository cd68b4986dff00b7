//! A block store whose one primitive is **compare-and-write**: if this block still holds what I expect, replace it,
//! else show me what is there. SCSI calls it COMPARE AND WRITE, VMware calls it ATS.
//!
//! In a memory-mapped file it works in nanoseconds, without locks, among threads and processes that may be killed at
//! any instruction. [`Store`] is where to begin.

mod sync;

#[cfg(not(loom))]
mod protocol;
#[cfg(loom)]
pub mod protocol;
#[cfg(loom)]
pub use sync::{AtomicU16, AtomicU64, Killed, Ordering, fence, kill_this_thread_after, run_until_killed, steps_taken};

#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod store;

#[cfg(not(loom))]
pub use error::{Error, Miscompare, OpenError};
#[cfg(all(not(loom), target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
pub use store::CreateOptions;
#[cfg(not(loom))]
pub use store::{BlockSize, Check, Comparison, Geometry, Store, Word, Writer};
