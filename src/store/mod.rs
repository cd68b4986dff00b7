//! The store: blocks and heartbeat words in a mapped file, or in memory.

mod check;
mod event;
mod flush;
mod geometry;
mod log;
mod mapping;
mod recorder;
mod state;
mod writer;

#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod file;
#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod fork;
#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod open;
#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod superblock;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

pub use event::{Event, EventKind};
pub use geometry::{BlockSize, Durability, Geometry};
#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
pub use open::{CreateOptions, OpenOptions};
pub use recorder::{EventBatch, EventReader};
pub use state::Recovery;
pub use writer::{Comparison, Durable, DurableWriter, Writer};

use crate::error::{Error, OpenError};
pub use crate::protocol::audit::Check;
use crate::protocol::memory::Memory;
pub use crate::protocol::repair::Repair;
use crate::protocol::{self, Fault, block};
use flush::Syncs;
use geometry::Layout;
use mapping::{Engine, Section, with_memory};
use recorder::{Recorder, Samples};
use state::State;
use writer::Writers;

/// A block store: compare-and-write on blocks, compare-and-swap on heartbeat words.
///
/// It is shared: by clones of this handle, by threads, and, if it is a file, by processes that open it. Any of them may
/// be killed at any instruction without harm to the others; none ever waits for another, but for the disk where
/// [`Durability::Power`] makes an update sync first.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::{Error, Geometry, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("cluster.casb");
/// let store = Store::create(&path, Geometry::blocks(1 << 10))?;
/// let mut current = [0; 512];
/// store.read(7, &mut current)?;
/// let mut wanted = current;
/// wanted[0] += 1;
/// match store.compare_and_write(7, &current, &wanted) {
///     Ok(()) => {}
///     Err(Error::Miscompare(m)) => println!("byte {} differs; found {:?}", m.offset, m.found),
///     Err(e) => return Err(e.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What all clones of a store share, and its writers.
struct Shared {
    engine: Engine,
    words: Section<protocol::word::Word>,
    /// Empty unless the durability is `power`.
    state: Section<State>,
    /// None if the store has no flight recorder.
    recorder: Option<Recorder>,
    samples: Samples,
    geometry: Geometry,
    writers: Writers,
    syncs: Syncs,
    layout: Layout,
    uuid: [u8; 16],
    file: Option<(PathBuf, File)>,
    writable: bool,
    #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
    origin: fork::Origin,
    /// Whether it was opened so that nobody else can open it.
    exclusive: bool,
    /// Whether opening it came to its end, so that it is whole and noted as in use: with durability `power`.
    entered: bool,
    /// What opening it recovered.
    recovery: Option<Recovery>,
    /// What `engine`, `words` and the like point into.
    _map: MmapRaw,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file.as_ref().map(|(path, _)| path);
        f.debug_struct("Store").field("path", &path).field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A child of the process that opened it shares its locks: they are not the child's to drop.
        if self.is_elsewhere() {
            return;
        }
        self.writers.release_all(self);
        #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
        self.close();
    }
}

/// Reads one block, if `out` is as long as one; whether it did. A function for each kind of memory, so that each saves only
/// the registers it needs.
#[inline(never)]
fn read_one<const W: usize>(memory: &impl Memory<W>, lba: u64, out: &mut [u8]) -> bool {
    out.len() == 8 * W && block::read(memory, lba, out).is_ok()
}

/// What the protocol says, as this library says it. Damage is recorded.
#[cold]
#[inline(never)]
fn fault(shared: &Shared, fault: Fault, lba: u64) -> Error {
    shared.note_damage(fault);
    match fault {
        Fault::NoSuchBlock => Error::LbaOutOfRange { lba, count: 1, blocks: shared.geometry.block_count() },
        Fault::NoSpace | Fault::AllInLimbo => Error::NoSpace { frames: shared.geometry.frame_count() },
        Fault::DamagedCell { block, bits } => {
            Error::Corrupt { what: format!("the cell of block {block} holds {bits:#018x}, which names no frame") }
        }
        Fault::DamagedStamp { block, frame } => {
            Error::Corrupt { what: format!("the stamp of frame {frame}, which holds block {block}, is another's") }
        }
        Fault::DamagedSlot { writer } => {
            Error::Corrupt { what: format!("the slot of writer {writer} names what does not exist") }
        }
    }
}

impl Shared {
    fn new(
        map: MmapRaw,
        geometry: Geometry,
        layout: Layout,
        uuid: [u8; 16],
        file: Option<(PathBuf, File)>,
        writable: bool,
    ) -> Self {
        assert!(map.len() as u64 >= layout.end, "the mapping is as long as the layout");
        let base = NonNull::new(map.as_mut_ptr()).expect("a mapping is not at address 0");
        let file_is_none = file.is_none();
        // SAFETY: the mapping has `layout.end` bytes, is page-aligned, and lives as long as `self`, which holds
        // it; writers hold `self`; this crate accesses it only as atomics; `writable` guards every store.
        let engine = unsafe { Engine::new(base, &geometry, &layout) };
        Self {
            engine,
            // SAFETY: as above.
            words: unsafe { Section::new(base, layout.words, geometry.word_count()) },
            // SAFETY: as above.
            state: unsafe {
                Section::new(base, layout.state, (geometry.durability_class() == Durability::Power).into())
            },
            // SAFETY: as above.
            recorder: unsafe { Recorder::new(base, &geometry, &layout) },
            samples: Samples::default(),
            syncs: Syncs::default(),
            #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
            origin: fork::Origin::here(),
            exclusive: file_is_none,
            entered: false,
            recovery: None,
            writers: Writers::new(if writable { geometry.writer_count() } else { 0 }),
            geometry,
            layout,
            uuid,
            file,
            writable,
            _map: map,
        }
    }

    /// Checks that a buffer is whole blocks of `block_size` bytes, and that they are all in the store. Callers know the
    /// block size at compile time, so this divides by a constant.
    #[inline(always)]
    fn check_range(&self, lba: u64, bytes: usize, block_size: usize) -> Result<(), Error> {
        let (count, blocks) = ((bytes / block_size) as u64, self.geometry.block_count());
        let whole = bytes.is_multiple_of(block_size);
        if whole && lba < blocks && count <= blocks - lba {
            return Ok(());
        }
        Err(if !whole {
            Error::BufferLength { bytes, expected: "a whole number of blocks", block_size }
        } else if count == 0 {
            return Ok(());
        } else {
            Error::LbaOutOfRange { lba, count, blocks }
        })
    }

    /// Inlined where it is called: a read that finds nothing amiss takes one call, and its answer fits a register.
    #[inline(always)]
    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        if with_memory!(&self.engine, memory => read_one(memory, lba, out)) {
            Ok(())
        } else {
            self.read_again(lba, out)
        }
    }

    /// What tells a block's contents from all others it had before: see [`block::version`].
    #[inline]
    fn version(&self, lba: u64) -> Option<u64> {
        with_memory!(&self.engine, memory => block::version(memory, lba))
    }

    /// Reads one block, and gives the version that was read.
    fn read_version(&self, lba: u64, out: &mut [u8]) -> Result<u64, Error> {
        with_memory!(&self.engine, memory => self.read_version_of(memory, lba, out))
    }

    fn read_version_of<const W: usize>(&self, memory: &impl Memory<W>, lba: u64, out: &mut [u8]) -> Result<u64, Error> {
        self.check_range(lba, out.len(), 8 * W)?;
        block::read_version(memory, lba, out).map_err(|it| fault(self, it, lba))
    }

    /// Reads what is not one block, or says why a block cannot be read.
    #[cold]
    #[inline(never)]
    fn read_again(&self, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        with_memory!(&self.engine, memory => self.read_many(memory, lba, out))
    }

    #[inline(never)]
    fn read_many<const W: usize>(&self, memory: &impl Memory<W>, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        self.check_range(lba, out.len(), 8 * W)?;
        for (lba, out) in (lba..).zip(out.chunks_exact_mut(8 * W)) {
            block::read(memory, lba, out).map_err(|it| fault(self, it, lba))?;
        }
        Ok(())
    }

    /// Whether this process may update blocks through this handle.
    #[inline(always)]
    fn check_writable(&self) -> Result<(), Error> {
        if self.writable && !self.is_elsewhere() { Ok(()) } else { Err(self.not_writable()) }
    }

    #[cold]
    fn not_writable(&self) -> Error {
        if self.writable { Error::Forked } else { Error::ReadOnly }
    }

    /// Whether this is a child of the process that opened the store.
    #[inline(always)]
    fn is_elsewhere(&self) -> bool {
        #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
        return self.origin.is_elsewhere();
        #[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
        return false;
    }

    /// The state page, with durability `power`.
    fn state(&self) -> Option<&State> {
        self.state.get(0)
    }

    fn check_power(&self) -> Result<(), Error> {
        if self.state().is_some() { Ok(()) } else { Err(Error::NotPower) }
    }

    /// Locks a writer slot against other processes; `false` if one has it. In memory there are none.
    fn lock_slot(&self, index: u16) -> Result<bool, Error> {
        self.set_slot_lock(index, true)
    }

    fn unlock_slot(&self, index: u16) {
        // Dropping a lock fails only for a descriptor that is not open; this one is.
        let _ = self.set_slot_lock(index, false);
    }

    #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
    fn set_slot_lock(&self, index: u16, lock: bool) -> Result<bool, Error> {
        let Some((_, file)) = &self.file else { return Ok(true) };
        let offset = self.layout.writers + u64::from(index) * size_of::<protocol::slot::Slot>() as u64;
        let lock = if lock { file::Lock::Exclusive } else { file::Lock::Unlock };
        file::try_lock(file, offset, lock).map_err(|source| Error::Lock { source })
    }

    #[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
    fn set_slot_lock(&self, _index: u16, _lock: bool) -> Result<bool, Error> {
        Ok(true)
    }
}

impl Store {
    /// Makes a store that lies in this process's memory and goes with its last handle. Works on every platform.
    pub fn in_memory(geometry: Geometry) -> Result<Self, OpenError> {
        let layout = Layout::of(&geometry)?;
        let map = MmapOptions::new().len(layout.end as usize).map_anon().map_err(|source| OpenError::Io {
            path: "(memory)".into(),
            doing: "mapping memory",
            source,
        })?;
        Ok(Self { shared: Arc::new(Shared::new(map.into(), geometry, layout, [0; 16], None, true)) })
    }

    /// Copies blocks to `out`, from block `lba` on: as many as it is long. Each block is what it was at one moment
    /// during the call; several together need not be of the same moment. A block never written reads as zeros.
    ///
    /// # Errors
    /// [`Error::BufferLength`] unless `out` is a whole number of blocks; [`Error::LbaOutOfRange`];
    /// [`Error::Corrupt`]. After an error the contents of `out` mean nothing.
    #[inline]
    pub fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        self.shared.read(lba, out)
    }

    /// What tells a block's contents from all others it had before, for those who keep a copy; `None` if there is no such block.
    #[inline]
    pub(crate) fn version(&self, lba: u64) -> Option<u64> {
        self.shared.version(lba)
    }

    /// Reads one block, and gives its version.
    pub(crate) fn read_version(&self, lba: u64, out: &mut [u8]) -> Result<u64, Error> {
        self.shared.read_version(lba, out)
    }

    /// Replaces blocks, whatever they hold, from block `lba` on: as many as `data` is long. Each block changes at
    /// once; several do so one after the other, in order.
    ///
    /// # Errors
    /// [`Error::BufferLength`] unless `data` is a whole number of blocks; [`Error::LbaOutOfRange`];
    /// [`Error::ReadOnly`]; [`Error::NoSpace`]; [`Error::TooManyWriters`]; [`Error::Forked`]; [`Error::Corrupt`];
    /// [`Error::Sync`] where no frame is free until a sync is done, and it fails. After the first two nothing was
    /// changed; after another the blocks before the one it names, or before some block, were.
    pub fn write(&self, lba: u64, data: &[u8]) -> Result<(), Error> {
        self.shared.check_writable()?;
        if data.is_empty() {
            return Ok(());
        }
        self.shared.writers.with(&self.shared, |writer| writer.write(&self.shared, lba, data))
    }

    /// If block `lba` holds `expected`, replaces it by `new`; else says what it holds. Both are one block long.
    ///
    /// This is SCSI's COMPARE AND WRITE (SBC-4, 5.3) of one block. A block never written compares as zeros. It repeats
    /// by itself only where others keep changing the block in the middle of it; each time one of them has succeeded.
    ///
    /// # Errors
    /// [`Error::Miscompare`] with the offset of the first byte that differs and the block found;
    /// [`Error::BufferLength`]; [`Error::LbaOutOfRange`]; [`Error::ReadOnly`]; [`Error::NoSpace`];
    /// [`Error::TooManyWriters`]; [`Error::Forked`]; [`Error::Corrupt`]; [`Error::Sync`] as for
    /// [`write`](Self::write). After each of them nothing was changed.
    pub fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), Error> {
        self.shared.check_writable()?;
        self.shared.writers.with(&self.shared, |writer| writer.compare_and_write(&self.shared, lba, expected, new))
    }

    /// Puts on the disk all that took effect before it was called, by whomever. Calls at the same time share one
    /// `fdatasync`.
    ///
    /// With [`Durability::Power`] that survives a cut of the power, whatever is updated afterwards. With
    /// [`Durability::Process`] it does so only if nothing is. In memory there is no disk, and nothing to do.
    ///
    /// # Errors
    /// [`Error::Sync`]: what is on the disk is not known. With [`Durability::Power`] the next sync that succeeds puts all of it
    /// there; with [`Durability::Process`] the kernel may have given some of it up.
    /// [`Error::ReadOnly`]; [`Error::Forked`]; [`Error::Corrupt`].
    pub fn sync(&self) -> Result<(), Error> {
        self.shared.check_writable()?;
        match self.shared.state() {
            Some(state) => self.shared.sync_past(state.epochs.after_updates()),
            None => self.shared.sync_past(0),
        }
    }

    /// Updates that return once they are on the disk: SCSI's FUA. Those of several threads at the same time share one
    /// `fdatasync`.
    ///
    /// # Errors
    /// [`Error::NotPower`], as the store's durability is [`Durability::Process`].
    pub fn durable(&self) -> Result<Durable<'_>, Error> {
        self.shared.check_power()?;
        Ok(Durable { shared: &self.shared })
    }

    /// What opening the store recovered, if it had not been closed before the power was cut.
    pub fn recovery(&self) -> Option<Recovery> {
        self.shared.recovery
    }

    /// What the last recovery of the store did, whoever opened it then.
    pub fn last_recovery(&self) -> Option<Recovery> {
        self.shared.state()?.last_recovery()
    }

    /// Claims a writer: for threads that update much.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::TooManyWriters`]; [`Error::NoSpace`] if no frame is left to be its spare;
    /// [`Error::Corrupt`] if what the slot's last user left there makes no sense.
    pub fn writer(&self) -> Result<Writer, Error> {
        self.shared.check_writable()?;
        Writer::claim(&self.shared)
    }

    /// Heartbeat word `index`, to change it.
    ///
    /// # Errors
    /// [`Error::WordOutOfRange`]; [`Error::ReadOnly`].
    pub fn word(&self, index: u64) -> Result<Word<'_>, Error> {
        self.shared.check_writable()?;
        self.find_word(index).map(|word| Word { word })
    }

    /// The value of heartbeat word `index`; 0 if it was never exchanged. Works on a store opened read-only, too.
    ///
    /// # Errors
    /// [`Error::WordOutOfRange`].
    pub fn read_word(&self, index: u64) -> Result<u64, Error> {
        self.find_word(index).map(protocol::word::Word::load)
    }

    fn find_word(&self, index: u64) -> Result<&protocol::word::Word, Error> {
        let words = self.shared.geometry.word_count();
        self.shared.words.get(index).ok_or(Error::WordOutOfRange { index, words })
    }

    /// Whether block `lba` was ever written. One that was not reads as zeros and takes no frame.
    ///
    /// # Errors
    /// [`Error::LbaOutOfRange`].
    pub fn is_written(&self, lba: u64) -> Result<bool, Error> {
        with_memory!(&self.shared.engine, memory => block::is_written(memory, lba))
            .map_err(|it| fault(&self.shared, it, lba))
    }

    /// How many of what the store has.
    pub fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    /// The length of the store in bytes: of its file, or of the memory it takes.
    pub fn region_bytes(&self) -> u64 {
        self.shared.layout.end
    }

    /// The store's UUID (RFC 9562, version 4), given when it was made; zeros for one in memory.
    pub fn uuid(&self) -> [u8; 16] {
        self.shared.uuid
    }

    /// The path the store was made or opened by; `None` for one in memory.
    pub fn path(&self) -> Option<&Path> {
        self.shared.file.as_ref().map(|(path, _)| path.as_path())
    }
}

/// A heartbeat word: 8 bytes that change by hardware compare-and-swap, and tell others that their owner lives.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use casblock::{Geometry, Store};
/// # let store = Store::in_memory(Geometry::blocks(8))?;
/// let word = store.word(3)?;
/// assert_eq!(word.compare_exchange(0, 41), Ok(()));
/// assert_eq!(word.compare_exchange(0, 42), Err(41)); // what it found
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Word<'a> {
    word: &'a protocol::word::Word,
}

impl Word<'_> {
    /// The word's value.
    pub fn load(&self) -> u64 {
        self.word.load()
    }

    /// Replaces `expected` by `new`.
    ///
    /// # Errors
    /// The value found, if it was another one. Nothing was changed then.
    pub fn compare_exchange(&self, expected: u64, new: u64) -> Result<(), u64> {
        self.word.compare_exchange(expected, new)
    }
}

impl fmt::Debug for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Word").field(&self.load()).finish()
    }
}
