//! Making, opening and closing a store's file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use memmap2::MmapOptions;

use super::event::{Event, EventKind};
use super::file::{self, Access, Lock, NewFile, OpenFile};
use super::geometry::Geometry;
use super::mapping::with_memory;
use super::state::{Left, Recovery, State};
use super::{Shared, Store};
use crate::error::OpenError;
use crate::protocol::recovery;

impl Store {
    /// Makes a store in a new file, for its owner alone (mode 0600), all its space allocated.
    /// [`CreateOptions`] has other ways.
    ///
    /// # Errors
    /// See [`OpenError`]; no file is left behind.
    pub fn create(path: impl AsRef<Path>, geometry: Geometry) -> Result<Self, OpenError> {
        CreateOptions::new(geometry).create(path)
    }

    /// Opens a store, beside others who may have it open. Costs the same whatever its size, unless it must be recovered:
    /// that takes a pass over its frames. [`OpenOptions`] has other ways.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        OpenOptions::new().open(path)
    }

    /// As [`open`](Self::open), but never writes to the file; needs no permission to.
    ///
    /// # Errors
    /// [`OpenError::NeedsRecovery`]; see [`OpenError`] for others.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        OpenOptions::new().read_only().open(path)
    }

    /// Opens a store that nobody else, in this process or another, has open: nobody can open it until this handle
    /// is gone. For checking it.
    ///
    /// # Errors
    /// [`OpenError::InUse`]; see [`OpenError`] for others.
    pub fn open_exclusive(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        OpenOptions::new().exclusive().open(path)
    }

    fn map(open: OpenFile, path: &Path, writable: bool) -> Result<Shared, OpenError> {
        let OpenFile { file, geometry, layout, uuid } = open;
        let mut options = MmapOptions::new();
        options.len(layout.end as usize);
        let map = if writable { options.map_raw(&file) } else { options.map_raw_read_only(&file) };
        let map = map.map_err(|source| OpenError::Io { path: path.into(), doing: "mapping it", source })?;
        let file = Some((path.to_path_buf(), file));
        Ok(Shared::new(map, geometry, layout, uuid, file, writable))
    }
}

/// How to open a store's file, where [`Store::open`] is not enough.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::{Durability, Geometry, OpenOptions, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("cluster.casb");
/// # drop(Store::create(&path, Geometry::blocks(1 << 10).durability(Durability::Power))?);
/// let store = OpenOptions::new().open_with_progress(&path, |done, all| println!("recovering: {done} of {all}"))?;
/// if let Some(recovery) = store.recovery() {
///     println!("{} updates were not on the disk", recovery.updates_discarded);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    access: Access,
    recover: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// As [`Store::open`].
    pub const fn new() -> Self {
        Self { access: Access::Shared, recover: false }
    }

    /// As [`Store::open_read_only`]. Of this and the two below the last that is called counts.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        (self.access, self.recover) = (Access::ReadOnly, false);
        self
    }

    /// As [`Store::open_exclusive`].
    #[must_use]
    pub const fn exclusive(mut self) -> Self {
        (self.access, self.recover) = (Access::Exclusive, false);
        self
    }

    /// Opens it exclusively, and recovers it even if it does not look as if it needed to be: after a disk was pulled out,
    /// or the file system was shut down by an error, while the machine went on; or after a copy that was made while the
    /// store was in use was written back over its file. Means nothing where the durability is
    /// [`Durability::Process`](crate::Durability::Process).
    #[must_use]
    pub const fn recover(mut self) -> Self {
        (self.access, self.recover) = (Access::Exclusive, true);
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store, OpenError> {
        self.open_with_progress(path, |_, _| {})
    }

    /// Opens the store; if it must be recovered, calls `progress` now and then with how much has been done, and how much
    /// that is in all.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with_progress(
        &self,
        path: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Store, OpenError> {
        let path = path.as_ref();
        let (open, transition) = file::open(path, self.access)?;
        let mut shared = Store::map(open, path, self.access != Access::ReadOnly)?;
        shared.exclusive = self.access == Access::Exclusive;
        shared.enter(*self, progress)?;
        drop(transition);
        Ok(Store { shared: Arc::new(shared) })
    }
}

/// How far ahead of a recovery the kernel is asked to read: as long as a disk takes to read that much, the checksums of
/// what comes before it are computed.
const READ_AHEAD_BYTES: u64 = 64 << 20;

impl Shared {
    /// Sees to it that the store is whole and noted as in use. Whoever calls it holds off those who open or close it.
    fn enter(&mut self, options: OpenOptions, progress: impl FnMut(u64, u64)) -> Result<(), OpenError> {
        let (Some(state), Some((path, file))) = (self.state(), &self.file) else { return Ok(()) };
        let failed = |doing| move |source| OpenError::Io { path: path.clone(), doing, source };
        let now = file::incarnation(file).map_err(failed("asking for the boot id (/proc must be mounted)"))?;
        let left = state.left(&now);
        if !self.writable {
            return match left {
                Left::CutOff => Err(OpenError::NeedsRecovery { path: path.clone() }),
                Left::Closed | Left::InUse { .. } => Ok(()),
            };
        }
        // Others hold this lock as long as they have the store open; nobody opens it meanwhile.
        let alone = file::try_lock(file, 0, Lock::Exclusive).map_err(failed("locking"))?;
        if alone {
            state.note_killed_in_flush();
        }
        let mut recovery = None;
        if options.recover || left == Left::CutOff {
            if !alone {
                return Err(OpenError::InUseElsewhere { path: path.clone() });
            }
            // What was chosen must be on the disk before what was not is cleared.
            state.note_recovering();
            self.flush_all(state).map_err(failed("noting that it is being recovered"))?;
            recovery = Some(self.recover(state, file, progress));
            self.flush_all(state).map_err(failed("writing what was recovered"))?;
        }
        if recovery.is_some() || left != (Left::InUse { on_disk: true }) {
            state.note_entered(&now);
            self.flush_all(state).map_err(failed("noting that it is in use"))?;
            state.note_in_use();
        }
        if options.access != Access::Exclusive {
            file::try_lock(file, 0, Lock::Shared).map_err(failed("locking"))?;
        }
        (self.recovery, self.entered) = (recovery, true);
        Ok(())
    }

    fn recover(&self, state: &State, file: &File, mut progress: impl FnMut(u64, u64)) -> Recovery {
        let start = Instant::now();
        let all = 2 * self.geometry.frame_count();
        let block_bytes = self.geometry.size_of_block().bytes() as u64;
        file::will_need(file, self.layout.tags, self.layout.frames - self.layout.tags);
        let mut asked = self.layout.frames;
        let found = with_memory!(&self.engine, memory => recovery::recover(memory, |done| {
            let wanted = (self.layout.frames + done * block_bytes + READ_AHEAD_BYTES).min(self.layout.events);
            if wanted > asked {
                file::will_need(file, asked, wanted - asked);
                asked = wanted;
            }
            progress(done, all);
        }));
        state.reset_epochs();
        let recovery = Recovery {
            at_unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            blocks: found.blocks,
            blocks_rolled_back: found.blocks_rolled_back,
            updates_discarded: found.updates_discarded,
            frames_discarded: found.frames_discarded,
            duration_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        state.keep_recovery(&recovery);
        if let Some(recorder) = &self.recorder {
            recorder.raise_head();
        }
        let mut event = Event::new(EventKind::Recovered);
        (event.expected, event.found) = (recovery.blocks, recovery.updates_discarded);
        self.tell(event);
        progress(all, all);
        recovery
    }

    /// Gives the file up; the last to do so sees that all of it is on the disk, and notes that.
    pub(super) fn close(&self) {
        let Some((_, file)) = &self.file else { return };
        if let Some(state) = self.state()
            && self.entered
            // Most of the work is done here, while others may still open the store.
            && self.sync_past(state.epochs.after_updates()).is_ok()
            && let Ok(Some(held_off)) = file::hold_off_others(file, Lock::Exclusive)
        {
            // A store that is not noted as closed is recovered at the worst.
            if file::try_lock(file, 0, Lock::Exclusive).unwrap_or(false)
                && self.sync_past(state.epochs.after_updates()).is_ok()
            {
                state.note_closed();
                let _ = self.flush_all(state);
            }
            unlock(file);
            drop(held_off);
        }
        unlock(file);
    }
}

/// Drops the lock on the file at once: a child process between fork and exec may hold the descriptor for longer.
fn unlock(file: &File) {
    // Dropping a lock fails only for a descriptor that is not open; this one is.
    let _ = file::try_lock(file, 0, Lock::Unlock);
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
    /// See [`OpenError`]; no file is left behind, unless the last step failed, which with [`Durability::Power`] puts its
    /// name on the disk.
    ///
    /// [`Durability::Power`]: crate::Durability::Power
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
        let mut shared = Store::map(open, path, true)?;
        shared.enter(OpenOptions::new(), |_, _| {})?;
        let store = Store { shared: Arc::new(shared) };
        fill(&store)?;
        if let Some(state) = store.shared.state() {
            store.shared.sync_past(state.epochs.after_updates()).map_err(|error| OpenError::Io {
                path: path.into(),
                doing: "syncing it",
                source: std::io::Error::other(error),
            })?;
        }
        new.publish(self.replace)?;
        Ok(store)
    }
}
