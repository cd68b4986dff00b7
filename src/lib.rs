//! A block store whose one primitive is **compare-and-write**: if this block still holds what I expect, replace it,
//! else show me what is there. SCSI calls it COMPARE AND WRITE (SBC-4, 5.3), VMware calls it ATS.
//!
//! In a memory-mapped file it works in nanoseconds, without locks, among threads and processes of one host that may be
//! killed at any instruction. [`Store`] is where to begin; [`Writer`] is the fast way; [`Word`] is for heartbeats.
//!
//! | to | use |
//! | --- | --- |
//! | make a store | [`Store::create`], [`CreateOptions`], [`Geometry`] |
//! | use one that exists | [`Store::open`], [`Store::open_read_only`], [`OpenOptions`] |
//! | survive a cut of the power | [`Durability::Power`], [`Store::sync`], [`Store::durable`] |
//! | do without a file | [`Store::in_memory`]: works on every platform |
//! | update blocks | [`Store::compare_and_write`], [`Store::write`], [`Writer`] |
//! | tell others that you live | [`Store::word`] |
//! | use any device with compare-and-write | [`device::BlockDevice`] |
//! | know what happened | [`Store::events`], [`Store::event_reader`], [`Store::miscompares`] |
//! | know for certain what came of one | [`ats::Ats`] |
//! | keep a device's blocks in memory | [`cache::BlockCache`] |
//! | use a SCSI disk | [`device::scsi::Disk`] |
//! | know who is alive, and who owns what | [`heartbeat::Host`], [`lease::Lease`] |
//! | test a device of your own | [`device::conformance`], [`device::Faulty`] |
//! | check and mend a store | [`Store::check`], [`Store::open_exclusive`], [`Store::repair`] |
//!
//! Stores in files need Linux on a 64-bit little-endian machine; elsewhere those functions do not exist. What is
//! guaranteed, and what is not, stands in `README.md`; how it works and why it is right, in `docs/design.md`.

mod sync;

#[cfg(not(loom))]
mod protocol;
#[cfg(loom)]
pub mod protocol;
#[cfg(loom)]
pub use sync::{AtomicU16, AtomicU64, Killed, Ordering, fence, kill_this_thread_after, run_until_killed, steps_taken};

#[cfg(power_cuts)]
pub use sync::{Stored, Watch, watched};

#[cfg(not(loom))]
pub mod ats;
#[cfg(loom)]
#[path = "heartbeat/beat.rs"]
pub mod beat;
#[cfg(not(loom))]
pub mod cache;
#[cfg(crossbeam_loom)]
#[path = "cache/engine/mod.rs"]
pub mod cache_engine;
#[cfg(not(loom))]
pub mod device;
#[cfg(not(loom))]
mod dice;
#[cfg(not(loom))]
pub mod environment;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod heartbeat;
#[cfg(not(loom))]
pub mod lease;
#[cfg(not(loom))]
mod store;

#[cfg(not(loom))]
pub use error::{Error, Miscompare, OpenError};
#[cfg(not(loom))]
pub use store::{
    BlockSize, Check, Comparison, Durability, Durable, DurableWriter, Event, EventBatch, EventKind, EventReader,
    Geometry, Recovery, Repair, Store, Word, Writer,
};
#[cfg(all(not(loom), target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
pub use store::{CreateOptions, OpenOptions};
