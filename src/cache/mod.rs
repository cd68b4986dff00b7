//! A cache of blocks in front of any device: reads that hit take no lock and copy nothing.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use casblock::cache::{BlockCache, Config};
//! use casblock::{Geometry, Store};
//!
//! let device = Store::in_memory(Geometry::blocks(1000))?;
//! let cache = BlockCache::new(device, Config::blocks(100))?;
//! cache.write(7, &[1; 512])?;
//! let block = cache.get(7)?; // the block's bytes, in the cache
//! assert_eq!(block[0], 1);
//! drop(block); // what is held keeps its place
//!
//! cache.get(8)?; // from the device
//! cache.get(8)?; // from the cache
//! assert_eq!(cache.statistics().misses, 1);
//! # Ok(())
//! # }
//! ```
//!
//! What is cached is a **hint**; compare-and-write is the truth. A lost race costs one miscompare, which brings the block as it is
//! now, and the cache has it then. Who needs more than a hint says so: [`Consistency`]. Whatever is chosen, no thread sees a block's
//! contents go back to what they were before something it has seen.
//!
//! `docs/cache.md` tells which one you need, and how it works.

mod batch;
mod device;
mod engine;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engine::{Counted, Engine, How, Stale, Stamp};

use crate::device::{BlockDevice, DeviceError};
use crate::environment::{Environment, System};

pub use engine::{BlockGuard, CAPACITY_MAX};

/// How current a read must be.
///
/// Over a [`Store`](crate::Store) that nothing stands before, this means nothing: whether a block has changed is seen in one load, so all
/// reads are current.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Consistency {
    /// As current as the last that this process has seen of the block, through this cache. Another host's update is seen when the
    /// block is evicted, invalidated, or compared.
    #[default]
    Hint,
    /// As [`Hint`](Self::Hint), but what the device was asked for longer ago is asked for again: another host's update is seen after that time.
    MaxAge(Duration),
    /// The device is asked each time: another host's update is seen at once. Reads are linearizable, if the device is.
    Current,
}

/// How large a cache is, and what its reads promise.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    capacity_blocks: u32,
    consistency: Consistency,
}

impl Config {
    /// A cache of so many blocks, 1 to [`CAPACITY_MAX`]. It takes, for each, a block and at most 64 bytes; and the same for
    /// 128 blocks besides, and 20 KiB.
    pub const fn blocks(capacity_blocks: u32) -> Self {
        Self { capacity_blocks, consistency: Consistency::Hint }
    }

    /// What reads promise that do not say otherwise.
    #[must_use]
    pub const fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }
}

/// Why a cache could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It was to have no blocks, or too many.
    #[error("a cache of {blocks} blocks; 1 to {CAPACITY_MAX} are possible")]
    Capacity {
        /// How many it was to have.
        blocks: u32,
    },
    /// There is no memory for it.
    #[error("no memory for a cache of {blocks} blocks of {block_bytes} bytes")]
    OutOfMemory {
        /// How many it was to have.
        blocks: u32,
        /// Bytes of a block.
        block_bytes: usize,
    },
}

/// What a cache did so far. Blocks are counted, not calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Reads that the cache answered.
    pub hits: u64,
    /// Reads that it asked the device for, or waited for another who did.
    pub misses: u64,
    /// Misses of blocks that it had, but not as they were wanted: too old, or changed.
    pub stale: u64,
    /// Blocks that went to make room.
    pub evictions: u64,
    /// Blocks that it has, or has a place for.
    pub len: u64,
    /// Frames that came back into use after nobody could see them any more.
    pub reclaimed: u64,
}

/// A cache in front of a device, for any number of threads. It is a [`BlockDevice`] itself.
pub struct BlockCache<D, E = System> {
    device: D,
    engine: Engine<DeviceError>,
    consistency: Consistency,
    /// Whether the device is a store, and nothing stands between.
    is_over_store: bool,
    environment: E,
}

impl<D: BlockDevice> BlockCache<D> {
    /// In front of this device.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn new(device: D, config: Config) -> Result<Self, CacheError> {
        Self::in_environment(device, config, System)
    }
}

impl<D: BlockDevice, E: Environment> BlockCache<D, E> {
    /// As [`new`](BlockCache::new), with this clock.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn in_environment(device: D, config: Config, environment: E) -> Result<Self, CacheError> {
        let (blocks, block_bytes) = (config.capacity_blocks, device.block_bytes());
        if !(1..=CAPACITY_MAX).contains(&blocks) {
            return Err(CacheError::Capacity { blocks });
        }
        let engine = Engine::new(blocks, block_bytes).ok_or(CacheError::OutOfMemory { blocks, block_bytes })?;
        let is_over_store = device.as_store().is_some();
        let consistency = config.consistency;
        Ok(Self { device, engine, consistency, is_over_store, environment })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// How many blocks it keeps at most.
    pub fn capacity(&self) -> u64 {
        self.engine.capacity()
    }

    /// What it did so far.
    pub fn statistics(&self) -> Statistics {
        let sum = |counted| self.engine.counters().sum(counted);
        Statistics {
            hits: sum(Counted::Hit),
            misses: sum(Counted::Miss),
            stale: sum(Counted::Stale),
            evictions: sum(Counted::Evicted),
            len: self.engine.occupied(),
            reclaimed: sum(Counted::Reclaimed),
        }
    }

    /// A block, without a copy.
    ///
    /// # Errors
    /// What the device answers.
    #[inline]
    pub fn get(&self, lba: u64) -> Result<BlockGuard<'_>, DeviceError> {
        self.get_as(lba, self.consistency)
    }

    /// A block, without a copy, as current as is said here.
    ///
    /// # Errors
    /// What the device answers.
    #[inline]
    pub fn get_as(&self, lba: u64, consistency: Consistency) -> Result<BlockGuard<'_>, DeviceError> {
        if let Ok(block) = self.look(lba, consistency) {
            self.count(How::Hit);
            return Ok(block);
        }
        self.get_from_device(lba, consistency)
    }

    /// What the cache has of a block, if it is as it is wanted; or else what that makes a read of it.
    #[inline]
    fn look(&self, lba: u64, consistency: Consistency) -> Result<BlockGuard<'_>, How> {
        let found = match (self.is_over_store, consistency) {
            (false, Consistency::Hint) => self.engine.look(lba, |_| true),
            (false, Consistency::Current) => None,
            _ => self.engine.look(lba, self.freshness(lba, consistency)),
        };
        found.ok_or(How::Miss)?.map_err(|Stale| How::Stale)
    }

    #[cold]
    #[inline(never)]
    fn get_from_device(&self, lba: u64, consistency: Consistency) -> Result<BlockGuard<'_>, DeviceError> {
        if lba >= self.device.block_count() {
            // The device says what it says to that.
            let mut bytes = vec![0; self.device.block_bytes()];
            return self.device.read(lba, &mut bytes).map(|()| BlockGuard::boxed(bytes.into()));
        }
        let is_fresh = self.freshness(lba, consistency);
        let fetch = |out: &mut [u8]| self.fetch(lba, out);
        let read = match (self.is_over_store, consistency) {
            (false, Consistency::Current) => self.engine.read_alone(lba, fetch),
            _ => self.engine.read_through(lba, is_fresh, fetch),
        };
        let (block, how) = read.map_err(|error| {
            self.count(How::Miss);
            one_of_many(error)
        })?;
        self.count(how);
        Ok(block)
    }

    #[inline]
    fn count(&self, how: How) {
        let counters = self.engine.counters();
        match how {
            How::Hit => counters.add(Counted::Hit, 1),
            How::Miss => counters.add(Counted::Miss, 1),
            How::Stale => {
                counters.add(Counted::Miss, 1);
                counters.add(Counted::Stale, 1);
            }
        }
    }

    /// What decides whether a cached block will do, by its stamp.
    fn freshness(&self, lba: u64, consistency: Consistency) -> impl Fn(Stamp<'_>) -> bool + use<'_, D, E> {
        let oldest_ns = match consistency {
            _ if self.is_over_store => 0,
            Consistency::Hint => 0,
            Consistency::MaxAge(age) => self.now_ns().saturating_sub(nanoseconds(age)),
            Consistency::Current => u64::MAX,
        };
        let store = self.device.as_store().filter(|_| self.is_over_store);
        move |stamp| match store {
            Some(store) => store.version(lba) == Some(stamp.get()),
            None => stamp.get() >= oldest_ns,
        }
    }

    /// Reads a block from the device; its stamp.
    fn fetch(&self, lba: u64, out: &mut [u8]) -> Result<u64, DeviceError> {
        if let Some(store) = self.device.as_store().filter(|_| self.is_over_store) {
            return Ok(store.read_version(lba, out)?);
        }
        // What the device answers is no older than the question, also if it is a cache.
        let asked_ns = self.now_ns();
        self.device.read_current(lba, out).map(|()| asked_ns)
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.environment.now())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<D: BlockDevice, E> fmt::Debug for BlockCache<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.name();
        f.debug_struct("BlockCache")
            .field("device", &device)
            .field("capacity", &self.engine.capacity())
            .finish_non_exhaustive()
    }
}

/// An error that several threads have, as each of them gives it to its caller.
fn one_of_many(error: Arc<DeviceError>) -> DeviceError {
    Arc::try_unwrap(error).unwrap_or_else(|error| match &*error {
        DeviceError::Miscompare(miscompare) => DeviceError::Miscompare(miscompare.clone()),
        DeviceError::Failed { failure, .. } => DeviceError::failed(*failure, Shared(error)),
        DeviceError::OutcomeUnknown { .. } => DeviceError::unknown(Shared(error)),
    })
}

/// The source of an error, shared.
#[derive(Debug)]
struct Shared(Arc<DeviceError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            DeviceError::Failed { source, .. } | DeviceError::OutcomeUnknown { source } => source.fmt(f),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}
