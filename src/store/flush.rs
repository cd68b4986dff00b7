//! Syncs: putting on the disk what was updated, once for all who ask at the same time.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use super::mapping::with_memory;
use super::{Shared, fault};
use crate::error::Error;
use crate::protocol::durable;
use crate::protocol::memory::Memory;
use crate::sync::Ordering::Relaxed;

/// Lets one thread at a time sync for all those of this handle that wait for it.
///
/// Threads wait for each other here, and only here: for the disk they would wait in any case.
#[derive(Default, Debug)]
pub(super) struct Syncs {
    leading: Mutex<bool>,
    done: Condvar,
}

/// Ends a thread's lead, also when it panics.
struct Lead<'a>(&'a Syncs);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        *self.0.leading.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.done.notify_all();
    }
}

impl Shared {
    /// Returns once a sync that began after `epoch` is done.
    ///
    /// Whoever finds nobody syncing leads; the others wait. When the leader is done, those who came after it had begun
    /// are served by one of them, all together.
    pub(super) fn sync_past(&self, epoch: u64) -> Result<(), Error> {
        let Some(state) = self.state() else { return self.flush().map_err(|source| Error::Sync { source }) };
        loop {
            let mut leading = self.syncs.leading.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if state.epochs.is_past(epoch) {
                    return Ok(());
                }
                if !*leading {
                    break;
                }
                leading = self.syncs.done.wait(leading).unwrap_or_else(PoisonError::into_inner);
            }
            *leading = true;
            drop(leading);
            let lead = Lead(&self.syncs);
            self.sync_now()?;
            drop(lead);
        }
    }

    /// Puts on the disk all that took effect before.
    fn sync_now(&self) -> Result<(), Error> {
        let Some(state) = self.state() else { return Ok(()) };
        let number = state.epochs.begin();
        with_memory!(&self.engine, memory => durable::commit_all(memory)).map_err(|it| fault(self, it, 0))?;
        let failed = state.not_made_good();
        if failed.is_some() {
            self.make_dirty();
        }
        if let Err(source) = self.flush() {
            state.note_failure();
            return Err(Error::Sync { source });
        }
        if let Some(failed) = failed {
            state.note_made_good(failed);
        }
        state.epochs.complete(number);
        Ok(())
    }

    /// Writes the file's changed pages to the disk; in memory there is none.
    pub(super) fn flush(&self) -> io::Result<()> {
        match &self.file {
            Some((_, file)) => crate::sync::fdatasync(file),
            None => Ok(()),
        }
    }

    /// Makes the kernel hold every page of the store for changed. Once writing some has failed, it may hold for written
    /// what is not, and a second attempt would succeed without writing them.
    fn make_dirty(&self) {
        with_memory!(&self.engine, memory => make_dirty(memory));
        for word in (0..self.geometry.word_count()).filter_map(|index| self.words.get(index)) {
            touch(&word.0);
        }
    }
}

/// Stores a word's value to it anew.
fn touch(word: &crate::sync::AtomicU64) {
    let value = word.load(Relaxed);
    // If another changes it meanwhile, that does as well.
    let _ = word.compare_exchange(value, value, Relaxed, Relaxed);
}

fn make_dirty<const W: usize>(mem: &impl Memory<W>) {
    (0..mem.writers()).filter_map(|writer| mem.slot(writer)).for_each(|slot| touch(&slot.freed));
    (0..mem.blocks()).filter_map(|block| mem.cell(block)).for_each(touch);
    for frame in 0..mem.frames() {
        if let Some(tag) = mem.tag(frame) {
            let value = tag.load(Relaxed);
            // As in `touch`.
            let _ = tag.compare_exchange(value, value, Relaxed, Relaxed);
        }
        if let (Some(stamp), Some(frame)) = (mem.stamp(frame), mem.frame(frame)) {
            touch(&stamp.epoch);
            touch(&frame.0[0]);
        }
    }
    // The state page changes with every sync.
}
