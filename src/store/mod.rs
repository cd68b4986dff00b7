//! The store: blocks and heartbeat words in a mapped file, or in memory.

mod geometry;
mod mapping;
mod writer;

#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod file;
#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod superblock;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

pub use geometry::{BlockSize, Geometry};
pub use writer::{Comparison, Writer};

use crate::error::{Error, OpenError};
pub use crate::protocol::audit::Check;
use crate::protocol::memory::Memory;
use crate::protocol::{self, Fault, block};
use geometry::Layout;
use mapping::{Engine, Section, with_memory};
use writer::Writers;

/// A block store: compare-and-write on blocks, compare-and-swap on heartbeat words.
///
/// It is shared: by clones of this handle, by threads, and, if it is a file, by processes that open it. Any of them may
/// be killed at any instruction without harm to the others; none ever waits for another.
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
    geometry: Geometry,
    writers: Writers,
    layout: Layout,
    uuid: [u8; 16],
    file: Option<(PathBuf, File)>,
    writable: bool,
    /// What `engine` and `words` point into.
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
        self.writers.release_all(self);
        self.unlock_file();
    }
}

/// What the protocol says, as this library says it.
#[cold]
#[inline(never)]
fn fault(shared: &Shared, fault: Fault, lba: u64) -> Error {
    match fault {
        Fault::NoSuchBlock => Error::LbaOutOfRange { lba, count: 1, blocks: shared.geometry.block_count() },
        Fault::NoSpace => Error::NoSpace { frames: shared.geometry.frame_count() },
        Fault::DamagedCell { block, bits } => {
            Error::Corrupt { what: format!("the cell of block {block} holds {bits:#018x}, which names no frame") }
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
        Self {
            // SAFETY: the mapping has `layout.end` bytes, is page-aligned, and lives as long as `self`, which holds
            // it; writers hold `self`; this crate accesses it only as atomics; `writable` guards every store.
            engine: unsafe { Engine::new(base, &geometry, &layout) },
            // SAFETY: as above.
            words: unsafe { Section::new(base, layout.words, geometry.word_count()) },
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

    #[inline(always)]
    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        with_memory!(&self.engine, memory => self.read_from(memory, lba, out))
    }

    /// One function a kind of memory, so that each saves only the registers it needs; one block, which is the common
    /// case, goes straight to the protocol.
    #[inline(never)]
    fn read_from<const W: usize>(&self, memory: &impl Memory<W>, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        if out.len() != 8 * W {
            return self.read_many(memory, lba, out);
        }
        match block::read(memory, lba, out) {
            Ok(()) => Ok(()),
            Err(it) => Err(fault(self, it, lba)),
        }
    }

    #[inline(never)]
    fn read_many<const W: usize>(&self, memory: &impl Memory<W>, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        self.check_range(lba, out.len(), 8 * W)?;
        for (lba, out) in (lba..).zip(out.chunks_exact_mut(8 * W)) {
            block::read(memory, lba, out).map_err(|it| fault(self, it, lba))?;
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Error> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly) }
    }

    /// Locks a writer slot against other processes; `false` if one has it. In memory there are none.
    fn lock_slot(&self, index: u16) -> Result<bool, Error> {
        self.set_slot_lock(index, true)
    }

    fn unlock_slot(&self, index: u16) {
        // Dropping a lock fails only for a descriptor that is not open; this one is.
        let _ = self.set_slot_lock(index, false);
    }

    /// Drops the lock on the file at once: a child process between fork and exec may hold the descriptor for longer.
    fn unlock_file(&self) {
        #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
        if let Some((_, file)) = &self.file {
            // As in `unlock_slot`.
            let _ = file::try_lock(file, 0, file::Lock::Unlock);
        }
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
    pub fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        self.shared.read(lba, out)
    }

    /// Replaces blocks, whatever they hold, from block `lba` on: as many as `data` is long. Each block changes at
    /// once; several do so one after the other, in order.
    ///
    /// # Errors
    /// [`Error::BufferLength`] unless `data` is a whole number of blocks; [`Error::LbaOutOfRange`];
    /// [`Error::ReadOnly`]; [`Error::NoSpace`]; [`Error::TooManyWriters`]; [`Error::Corrupt`]. After the first two
    /// nothing was changed; after another the blocks before the one it names, or before some block, were.
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
    /// [`Error::TooManyWriters`]; [`Error::Corrupt`]. After each of them nothing was changed.
    pub fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), Error> {
        self.shared.check_writable()?;
        self.shared.writers.with(&self.shared, |writer| writer.compare_and_write(&self.shared, lba, expected, new))
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

    /// Verifies the invariants of the store: see [`Check`]. The figures are exact only while nobody updates it; for a
    /// file, [`Store::open_exclusive`] sees to that.
    pub fn check(&self) -> Check {
        self.check_with(|_| {})
    }

    /// As [`check`](Self::check); calls `progress` now and then with the number of blocks looked at.
    pub fn check_with(&self, progress: impl FnMut(u64)) -> Check {
        with_memory!(&self.shared.engine, memory => protocol::audit::check(memory, progress))
    }
}

#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
mod on_file {
    use super::*;
    use file::{Access, NewFile, OpenFile};

    impl Store {
        /// Makes a store in a new file, for its owner alone (mode 0600), all its space allocated.
        /// [`CreateOptions`] has other ways.
        ///
        /// # Errors
        /// See [`OpenError`]; no file is left behind.
        pub fn create(path: impl AsRef<Path>, geometry: Geometry) -> Result<Self, OpenError> {
            CreateOptions::new(geometry).create(path)
        }

        /// Opens a store, beside others who may have it open. Costs the same whatever its size.
        ///
        /// # Errors
        /// See [`OpenError`].
        pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
            Self::open_as(path.as_ref(), Access::Shared)
        }

        /// As [`open`](Self::open), but never writes to the file; needs no permission to.
        ///
        /// # Errors
        /// See [`OpenError`].
        pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
            Self::open_as(path.as_ref(), Access::ReadOnly)
        }

        /// Opens a store that nobody else, in this process or another, has open: nobody can open it until this handle
        /// is gone. For checking it.
        ///
        /// # Errors
        /// [`OpenError::InUse`]; see [`OpenError`] for others.
        pub fn open_exclusive(path: impl AsRef<Path>) -> Result<Self, OpenError> {
            Self::open_as(path.as_ref(), Access::Exclusive)
        }

        fn open_as(path: &Path, access: Access) -> Result<Self, OpenError> {
            Self::map(file::open(path, access)?, path, access != Access::ReadOnly)
        }

        fn map(open: OpenFile, path: &Path, writable: bool) -> Result<Self, OpenError> {
            let OpenFile { file, geometry, layout, uuid } = open;
            let mut options = MmapOptions::new();
            options.len(layout.end as usize);
            let map = if writable { options.map_raw(&file) } else { options.map_raw_read_only(&file) };
            let map = map.map_err(|source| OpenError::Io { path: path.into(), doing: "mapping it", source })?;
            let file = Some((path.to_path_buf(), file));
            Ok(Self { shared: Arc::new(Shared::new(map, geometry, layout, uuid, file, writable)) })
        }
    }

    /// How to make a store's file, where [`Store::create`] is not enough.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use casblock::{CreateOptions, Geometry};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("cluster.casb");
    /// let store = CreateOptions::new(Geometry::blocks(1 << 20)).sparse(true).mode(0o660).create(path)?;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Clone, Copy, Debug)]
    pub struct CreateOptions {
        geometry: Geometry,
        sparse: bool,
        replace: bool,
        mode: u32,
    }

    impl CreateOptions {
        /// As [`Store::create`].
        pub const fn new(geometry: Geometry) -> Self {
            Self { geometry, sparse: false, replace: false, mode: 0o600 }
        }

        /// Whether space is taken only as blocks are written. A full disk is then no error but a SIGBUS, which kills
        /// the process that writes.
        #[must_use]
        pub const fn sparse(mut self, sparse: bool) -> Self {
            self.sparse = sparse;
            self
        }

        /// Whether a file of that name is replaced, unless somebody has it open as a store.
        #[must_use]
        pub const fn replace(mut self, replace: bool) -> Self {
            self.replace = replace;
            self
        }

        /// The file's permissions, from which the process's umask is taken away: 0o600 unless set.
        #[must_use]
        pub const fn mode(mut self, mode: u32) -> Self {
            self.mode = mode;
            self
        }

        /// Makes the store.
        ///
        /// # Errors
        /// See [`OpenError`]; no file is left behind.
        pub fn create(&self, path: impl AsRef<Path>) -> Result<Store, OpenError> {
            self.create_filled(path, |_| Ok(()))
        }

        /// Makes the store, lets `fill` write to it, and only then gives it its name: whoever finds the file finds it
        /// filled. If `fill` fails, or the process is killed meanwhile, no file is left behind (a kill leaves a hidden
        /// one on file systems without unnamed files, O_TMPFILE, or if it falls between the two steps of replacing).
        ///
        /// # Errors
        /// What `fill` gives, or an [`OpenError`].
        pub fn create_filled<E: From<OpenError>>(
            &self,
            path: impl AsRef<Path>,
            fill: impl FnOnce(&Store) -> Result<(), E>,
        ) -> Result<Store, E> {
            let path = path.as_ref();
            // Both are decided when the file gets its name; but whoever fills a store wants to know before.
            if self.replace {
                file::lock_old(path)?;
            } else if path.symlink_metadata().is_ok() {
                return Err(OpenError::Exists { path: path.into() }.into());
            }
            let new = NewFile::create(path, &self.geometry, self.sparse, self.mode)?;
            let OpenFile { file, geometry, layout, uuid } = &new.open;
            let file = file.try_clone().map_err(|source| OpenError::Io {
                path: path.into(),
                doing: "duplicating its descriptor",
                source,
            })?;
            let open = OpenFile { file, geometry: *geometry, layout: *layout, uuid: *uuid };
            let store = Store::map(open, path, true)?;
            fill(&store)?;
            new.publish(self.replace)?;
            Ok(store)
        }
    }
}

#[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
pub use on_file::CreateOptions;

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
