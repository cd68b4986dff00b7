//! Syncs: putting on the disk what was updated, once for all who ask at the same time.

use std::sync::PoisonError;
use std::time::{Duration, Instant};
use std::{io, mem};

use super::mapping::with_memory;
use super::state::State;
use super::{Shared, fault};
use crate::error::Error;
use crate::protocol::durable;
use crate::protocol::memory::Memory;
use crate::sync::Ordering::Relaxed;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Lets one thread at a time sync for all those of this handle that wait for it.
///
/// Threads wait for each other here, and only here: for the disk they would wait in any case.
#[derive(Default, Debug)]
pub(super) struct Syncs {
    queue: Mutex<Queue>,
    /// A thread has come to wait.
    come: Condvar,
    /// A sync is done, or has failed.
    done: Condvar,
}

/// Who waits for a sync.
#[derive(Default, Debug)]
struct Queue {
    /// Some thread leads.
    leading: bool,
    /// Threads that the next sync will be for.
    waiting: u32,
    /// As many as there were a sync ago: those it was for, and those who came meanwhile.
    regulars: u32,
    /// How long the last sync took.
    duration: Duration,
}

/// The longest that a leader waits for others to join: a disk that stalled once is not waited for again.
const PATIENCE_MAX: Duration = Duration::from_millis(2);

impl Syncs {
    /// A thread that panics here has changed nothing that another could misunderstand.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a little for those whom the last sync served, and who may be back at once: one sync for all is twice as good
    /// as two for half of them each.
    fn gather(&self, queue: MutexGuard<'_, Queue>) {
        let patience = (queue.duration / 4).min(PATIENCE_MAX);
        let regulars = queue.regulars;
        let waited = self.come.wait_timeout_while(queue, patience, |queue| queue.waiting < regulars);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.regulars = mem::take(&mut queue.waiting);
    }
}

/// Ends a thread's lead, also when it panics.
struct Lead<'a> {
    syncs: &'a Syncs,
    since: Instant,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut queue = self.syncs.queue();
        queue.leading = false;
        queue.regulars += queue.waiting;
        queue.duration = self.since.elapsed();
        drop(queue);
        self.syncs.done.notify_all();
    }
}

impl Shared {
    /// Returns once a sync that began after `epoch` is done.
    ///
    /// Whoever finds nobody syncing leads; the others wait. When the leader is done, those who came after it had begun
    /// are served by one of them, all together.
    pub(super) fn sync_past(&self, epoch: u64) -> Result<(), Error> {
        let Some(state) = self.state() else { return self.flush().map_err(|source| Error::Sync { source }) };
        if state.epochs.is_past(epoch) {
            return Ok(());
        }
        let mut queue = self.syncs.queue();
        queue.waiting += 1;
        self.syncs.come.notify_one();
        while queue.leading {
            queue = self.syncs.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
            if state.epochs.is_past(epoch) {
                return Ok(());
            }
        }
        queue.leading = true;
        self.syncs.gather(queue);
        let _lead = Lead { syncs: &self.syncs, since: Instant::now() };
        // It begins after `epoch` was read.
        self.sync_now()
    }

    /// As [`sync_past`](Self::sync_past), for an update that has been made.
    pub(super) fn sync_update(&self, epoch: u64) -> Result<(), Error> {
        self.sync_past(epoch).map_err(|error| match error {
            Error::Sync { source } => Error::NotSynced { source },
            other => other,
        })
    }

    /// Puts on the disk all that took effect before.
    fn sync_now(&self) -> Result<(), Error> {
        let Some(state) = self.state() else { return Ok(()) };
        let number = state.epochs.begin();
        with_memory!(&self.engine, memory => durable::commit_all(memory)).map_err(|it| fault(self, it, 0))?;
        self.flush_all(state).map_err(|source| Error::Sync { source })?;
        state.epochs.complete(number);
        Ok(())
    }

    /// Writes to the disk what has been changed, and all that may have failed to get there before.
    pub(super) fn flush_all(&self, state: &State) -> io::Result<()> {
        let failed = state.not_made_good();
        if failed.is_some() {
            self.make_dirty();
        }
        state.flush(|| self.flush())?;
        if let Some(failed) = failed {
            state.note_made_good(failed);
        }
        Ok(())
    }

    /// Writes the file's changed pages to the disk; in memory there is none.
    fn flush(&self) -> io::Result<()> {
        match &self.file {
            Some((_, file)) => crate::sync::fdatasync(file).inspect_err(|error| self.note_failed_sync(error)),
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
        if let Some(recorder) = &self.recorder {
            recorder.touch(touch);
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
            // A frame that never held anything may be a hole in the file.
            if !stamp.is_clear() {
                touch(&frame.0[0]);
            }
        }
    }
    // The state page changes with every sync.
}
