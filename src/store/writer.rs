//! Writers: those a program owns, and those a store keeps for whoever calls it.

use std::cell::UnsafeCell;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::event::{Event, EventKind};
use super::mapping::{Engine, with_memory};
use super::recorder::Sampled;
use super::{Shared, fault};
use crate::error::{Error, Miscompare};
use crate::protocol::memory::Memory;
use crate::protocol::{self, Fault, Outcome, block};
use crate::sync::Ordering::{AcqRel, Relaxed, Release};
use crate::sync::{AtomicU8, now_unix_ms};

/// The right to update blocks of a store, from one thread at a time: the fast way to do it.
///
/// A writer owns one of the store's writer slots and one spare frame, until it is dropped. [`Store`](crate::Store)
/// itself has the same operations for any thread; each of those borrows a writer for the moment.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::{Geometry, Store};
///
/// let store = Store::in_memory(Geometry::blocks(8))?;
/// let mut writer = store.writer()?;
/// let (old, new) = ([0; 512], [1; 512]);
/// writer.compare_and_write(7, &old, &new)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    state: WriterState,
    /// Keeps the mapping alive for `state`; last, so that it goes last.
    shared: Arc<Shared>,
}

/// What [`Writer::compare_and_write_or_load`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Comparison {
    /// The block held what was expected and now holds the new contents.
    Written,
    /// The block held something else, and was left alone.
    Miscompare {
        /// Offset in the block, in bytes, of the first byte that differs.
        offset: usize,
    },
}

impl Writer {
    pub(super) fn claim(shared: &Arc<Shared>) -> Result<Self, Error> {
        let (_, state) = shared.writers.claim(shared)?;
        Ok(Self { state, shared: Arc::clone(shared) })
    }

    /// As [`Store::compare_and_write`](crate::Store::compare_and_write).
    pub fn compare_and_write(&mut self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), Error> {
        self.shared.check_writable()?;
        self.state.compare_and_write(&self.shared, lba, expected, new)
    }

    /// As [`compare_and_write`](Self::compare_and_write), but without an allocation on a miscompare: `expected`
    /// receives what the block holds instead, ready for the next attempt.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use casblock::{Comparison, Geometry, Store};
    /// # let store = Store::in_memory(Geometry::blocks(8))?;
    /// let mut writer = store.writer()?;
    /// let mut current = [0; 512];
    /// loop {
    ///     let mut wanted = current;
    ///     wanted[0] += 1;
    ///     match writer.compare_and_write_or_load(7, &mut current, &wanted)? {
    ///         Comparison::Written => break,
    ///         Comparison::Miscompare { .. } => {} // `current` is what the block holds
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_and_write_or_load(
        &mut self,
        lba: u64,
        expected: &mut [u8],
        new: &[u8],
    ) -> Result<Comparison, Error> {
        self.shared.check_writable()?;
        match self.state.attempt(&self.shared, lba, expected, new)? {
            Outcome::Written => Ok(Comparison::Written),
            Outcome::Miscompare { offset } => {
                self.state.count_miscompare(&self.shared, lba, offset, expected);
                expected.copy_from_slice(&self.state.found);
                Ok(Comparison::Miscompare { offset })
            }
        }
    }

    /// As [`Store::write`](crate::Store::write).
    pub fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), Error> {
        self.shared.check_writable()?;
        self.state.write(&self.shared, lba, data)
    }

    /// As [`Store::read`](crate::Store::read).
    #[inline]
    pub fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), Error> {
        self.shared.read(lba, out)
    }

    /// As [`Store::durable`](crate::Store::durable): updates that return once they are on the disk.
    ///
    /// # Errors
    /// [`Error::NotPower`].
    pub fn durable(&mut self) -> Result<DurableWriter<'_>, Error> {
        self.shared.check_power()?;
        Ok(DurableWriter { writer: self })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.shared.is_elsewhere() {
            // The slot is that of the process this one was forked from.
            return;
        }
        self.shared.writers.release(&self.shared, &mut self.state);
    }
}

/// Updates of a [`Store`](crate::Store) that return once they are on the disk.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use casblock::{Durability, Geometry, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("cluster.casb");
/// let store = Store::create(&path, Geometry::blocks(8).durability(Durability::Power))?;
/// store.durable()?.compare_and_write(7, &[0; 512], &[1; 512])?; // survives a cut of the power from here on
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Durable<'a> {
    pub(super) shared: &'a Arc<Shared>,
}

impl Durable<'_> {
    /// As [`Store::compare_and_write`](crate::Store::compare_and_write), and syncs it. A miscompare is not an update: the
    /// block that was found may not be on the disk yet.
    ///
    /// # Errors
    /// As there; [`Error::NotSynced`].
    pub fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), Error> {
        self.update(|writer| writer.compare_and_write(self.shared, lba, expected, new))
    }

    /// As [`Store::write`](crate::Store::write), and syncs it.
    ///
    /// # Errors
    /// As there; [`Error::NotSynced`].
    pub fn write(&self, lba: u64, data: &[u8]) -> Result<(), Error> {
        if data.is_empty() {
            return self.shared.check_writable();
        }
        self.update(|writer| writer.write(self.shared, lba, data))
    }

    fn update(&self, operate: impl FnOnce(&mut WriterState) -> Result<(), Error>) -> Result<(), Error> {
        self.shared.check_writable()?;
        let epoch = self.shared.writers.with(self.shared, |writer| {
            operate(writer)?;
            Ok(writer.updated())
        })?;
        // Without the writer: others may use it while this waits for the disk.
        self.shared.sync_update(epoch)
    }
}

/// Updates by a [`Writer`] that return once they are on the disk.
#[derive(Debug)]
pub struct DurableWriter<'a> {
    writer: &'a mut Writer,
}

impl DurableWriter<'_> {
    /// As [`Durable::compare_and_write`].
    pub fn compare_and_write(&mut self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), Error> {
        self.writer.compare_and_write(lba, expected, new)?;
        self.writer.shared.sync_update(self.writer.state.updated())
    }

    /// As [`Durable::write`].
    pub fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), Error> {
        self.writer.write(lba, data)?;
        self.writer.shared.sync_update(self.writer.state.updated())
    }
}

/// A claimed slot, ready to work.
#[derive(Debug)]
pub(super) struct WriterState {
    /// A copy of the store's, so that an operation finds all it needs here.
    engine: Engine,
    /// `None` once released.
    protocol: Option<block::Writer>,
    /// Where a miscompare leaves the block.
    found: Box<[u8]>,
    /// The slot's count of miscompares when one was last recorded.
    recorded: u64,
}

impl WriterState {
    #[inline(always)]
    fn attempt(&mut self, shared: &Shared, lba: u64, expected: &[u8], new: &[u8]) -> Result<Outcome, Error> {
        let block_bytes = self.found.len();
        if expected.len() != block_bytes || new.len() != block_bytes {
            let wrong = if expected.len() == block_bytes { new.len() } else { expected.len() };
            return Err(Error::BufferLength { bytes: wrong, expected: "one block", block_size: block_bytes });
        }
        let writer = self.protocol.as_mut().expect("released only by drop");
        let mut room = Room::default();
        loop {
            let attempt = with_memory!(&self.engine, memory => {
                writer.compare_and_write(memory, lba, expected, new, &mut self.found)
            });
            match attempt {
                Ok(outcome) => return Ok(outcome),
                Err(it) => room.make(shared, it, lba)?,
            }
        }
    }

    #[inline(always)]
    pub fn compare_and_write(&mut self, shared: &Shared, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), Error> {
        match self.attempt(shared, lba, expected, new)? {
            Outcome::Written => Ok(()),
            Outcome::Miscompare { offset } => Err(self.miscompare(shared, lba, offset, expected)),
        }
    }

    /// The epoch from after the last update.
    fn updated(&self) -> u64 {
        self.protocol.as_ref().expect("released only by drop").updated()
    }

    #[cold]
    #[inline(never)]
    fn miscompare(&mut self, shared: &Shared, lba: u64, offset: usize, expected: &[u8]) -> Error {
        self.count_miscompare(shared, lba, offset, expected);
        Error::Miscompare(Box::new(Miscompare { lba, offset, found: self.found.clone() }))
    }

    /// Counts a miscompare, and records it if it is time to.
    #[cold]
    #[inline(never)]
    fn count_miscompare(&mut self, shared: &Shared, lba: u64, offset: usize, expected: &[u8]) {
        let Some(recorder) = &shared.recorder else { return };
        let writer = self.protocol.as_ref().expect("released only by drop");
        let count = with_memory!(&self.engine, memory => writer.count_miscompare(memory));
        let now = now_unix_ms();
        if !recorder.passes(Sampled::Miscompare, now) {
            return;
        }
        let since_last = count.wrapping_sub(std::mem::replace(&mut self.recorded, count));
        let word = |block: &[u8]| {
            let at = offset & !7;
            block.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
        };
        let mut event = Event::new(EventKind::Miscompare);
        (event.lba, event.writer) = (Some(lba), Some(writer.index()));
        event.offset = u16::try_from(offset).unwrap_or(u16::MAX);
        (event.expected, event.found) = (word(expected), word(&self.found));
        event.count = u32::try_from(since_last).unwrap_or(u32::MAX).max(1);
        shared.note_miscompare(now, event);
    }

    #[inline(always)]
    pub fn write(&mut self, shared: &Shared, lba: u64, data: &[u8]) -> Result<(), Error> {
        let writer = self.protocol.as_mut().expect("released only by drop");
        with_memory!(&self.engine, memory => write_to(writer, memory, shared, lba, data))
    }
}

#[inline(always)]
fn write_to<const W: usize>(
    writer: &mut block::Writer,
    memory: &impl Memory<W>,
    shared: &Shared,
    lba: u64,
    data: &[u8],
) -> Result<(), Error> {
    shared.check_range(lba, data.len(), 8 * W)?;
    for (lba, data) in (lba..).zip(data.chunks_exact(8 * W)) {
        let mut room = Room::default();
        while let Err(it) = writer.write(memory, lba, data) {
            room.make(shared, it, lba)?;
        }
    }
    Ok(())
}

/// What was done so that an operation finds a free frame.
#[derive(Default)]
struct Room {
    syncs: u32,
}

impl Room {
    /// Others may be faster and take the frames that a sync frees. Who met with that so often has no room.
    const SYNCS_MAX: u32 = 100;

    /// After `it`, sees that trying again may do better; gives the error if not.
    #[cold]
    #[inline(never)]
    fn make(&mut self, shared: &Shared, it: Fault, lba: u64) -> Result<(), Error> {
        match (it, shared.state()) {
            (Fault::NoSpace, _) if shared.writers.clear_dead(shared)? => Ok(()),
            (Fault::AllInLimbo, Some(state)) if self.syncs < Self::SYNCS_MAX => {
                self.syncs += 1;
                shared.sync_past(state.epochs.after_updates())
            }
            _ => Err(fault(shared, it, lba)),
        }
    }
}

/// Nobody in this process has the slot.
const UNCLAIMED: u8 = 0;
/// Somebody in this process has the slot.
const BUSY: u8 = 1;
/// This process has claimed the slot, and nobody is using it at the moment.
const IDLE: u8 = 2;

/// One slot as this process knows it.
#[derive(Debug)]
struct Place {
    state: AtomicU8,
    /// The idle writer; whoever made `state` BUSY may touch it.
    idle: UnsafeCell<Option<WriterState>>,
}

// SAFETY: `idle` is touched only between an exchange of `state` to BUSY and the store that ends it, by one thread at a
// time; what it holds may pass between threads, as the assertion below has it.
unsafe impl Sync for Place {}

const _: fn() = || {
    fn may_pass_between_threads<T: Send>() {}
    may_pass_between_threads::<WriterState>();
};

/// The slots of a store as this process knows them.
///
/// Who takes one never waits: a slot in use is passed over. A thread starts where it last found one.
#[derive(Debug)]
pub(super) struct Writers {
    places: Box<[CachePadded<Place>]>,
}

thread_local! {
    static LAST: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

impl Writers {
    pub fn new(count: u16) -> Self {
        let place = || CachePadded::new(Place { state: AtomicU8::new(UNCLAIMED), idle: UnsafeCell::new(None) });
        Self { places: (0..count).map(|_| place()).collect() }
    }

    /// Makes the place BUSY if it is `from`.
    fn try_take(place: &Place, from: u8) -> bool {
        // ORDERING [place]: pairs with the Release stores of a place's state.
        // - We took an idle place: what its last user left in it is visible.
        // - It was not `from`: we leave it alone.
        place.state.load(Relaxed) == from && place.state.compare_exchange(from, BUSY, AcqRel, Relaxed).is_ok()
    }

    /// Runs `operate` with a writer that nobody is using: an idle one, or else a new one.
    pub fn with<T>(
        &self,
        shared: &Shared,
        operate: impl FnOnce(&mut WriterState) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let count = self.places.len();
        let start = LAST.get().min(count - 1);
        for index in (start..count).chain(0..start) {
            let place = &*self.places[index];
            if !Self::try_take(place, IDLE) {
                continue;
            }
            let give_back = GiveBack(place);
            LAST.set(index);
            // SAFETY: we made the place BUSY, so nobody else touches `idle` until `give_back` is dropped.
            let idle = unsafe { &mut *place.idle.get() };
            let result = operate(idle.as_mut().expect("an idle place has a writer"));
            drop(give_back);
            return result;
        }
        let (index, mut state) = self.claim(shared)?;
        let result = operate(&mut state);
        LAST.set(index);
        let place = &*self.places[index];
        // SAFETY: `claim` left the place BUSY, for us.
        unsafe { *place.idle.get() = Some(state) };
        drop(GiveBack(place));
        result
    }

    /// Claims a slot that nobody is using: one that neither this process nor another has, or else an idle one of this
    /// process. The place stays BUSY. A slot that cannot be claimed is passed over; what was wrong with the last such is
    /// said if there is no other.
    fn claim(&self, shared: &Shared) -> Result<(usize, WriterState), Error> {
        let mut error = Error::TooManyWriters { writers: shared.geometry.writer_count() };
        for (index, place) in self.places.iter().enumerate() {
            if !Self::try_take(place, UNCLAIMED) {
                continue;
            }
            match self.claim_slot(shared, index as u16) {
                Ok(Some(state)) => return Ok((index, state)),
                not_claimed => {
                    // ORDERING [place]: pairs with the exchange in `try_take`, which tells what it brings about.
                    place.state.store(UNCLAIMED, Release);
                    error = not_claimed.err().unwrap_or(error);
                    if matches!(error, Error::NoSpace { .. } | Error::Sync { .. }) {
                        // So it is with every other slot.
                        break;
                    }
                }
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            if Self::try_take(place, IDLE) {
                // SAFETY: we made the place BUSY.
                let idle = unsafe { (*place.idle.get()).take() };
                return Ok((index, idle.expect("an idle place has a writer")));
            }
        }
        Err(error)
    }

    /// Gives the frames of writers that died, and whose slots nobody has claimed since, back to the pool. Whether there
    /// were any. For when no frame is free.
    #[cold]
    fn clear_dead(&self, shared: &Shared) -> Result<bool, Error> {
        let mut cleared = false;
        for (index, place) in self.places.iter().enumerate() {
            let index = index as u16;
            if !Self::try_take(place, UNCLAIMED) {
                continue;
            }
            let result = shared.lock_slot(index).map(|locked| {
                if locked {
                    let adoption = shared.adoption(index);
                    let it = with_memory!(&shared.engine, memory => block::Writer::clear(memory, index));
                    // A damaged slot keeps what it has: whoever claims it says so.
                    if let (Ok(_), Some(adoption)) = (it, adoption) {
                        shared.tell(adoption);
                    }
                    cleared |= it.unwrap_or(false);
                    shared.unlock_slot(index);
                }
            });
            // ORDERING [place]: pairs with the exchange in `try_take`, which tells what it brings about.
            place.state.store(UNCLAIMED, Release);
            result?;
        }
        Ok(cleared)
    }

    /// Claims the slot, unless another process has it.
    fn claim_slot(&self, shared: &Shared, index: u16) -> Result<Option<WriterState>, Error> {
        if !shared.lock_slot(index)? {
            return Ok(None);
        }
        let adoption = shared.adoption(index);
        let mut room = Room::default();
        loop {
            match with_memory!(&shared.engine, memory => block::Writer::claim(memory, index)) {
                Ok(writer) => {
                    if let Some(adoption) = adoption {
                        shared.tell(adoption);
                    }
                    return Ok(Some(WriterState {
                        engine: shared.engine,
                        protocol: Some(writer),
                        found: vec![0; shared.geometry.size_of_block().bytes()].into(),
                        recorded: shared.miscompares_of(index),
                    }));
                }
                Err(it) => room.make(shared, it, 0).inspect_err(|_| shared.unlock_slot(index))?,
            }
        }
    }

    /// Gives a claimed slot, and the frame that went with it, back to all processes.
    fn release(&self, shared: &Shared, state: &mut WriterState) {
        let Some(writer) = state.protocol.take() else { return };
        let index = writer.index();
        // A slot that has been damaged keeps its frame: the next to claim it says so.
        let _: Result<(), protocol::Fault> = with_memory!(&state.engine, memory => writer.release(memory));
        shared.unlock_slot(index);
        // ORDERING [place]: pairs with the exchange in `try_take`, which tells what it brings about.
        self.places[usize::from(index)].state.store(UNCLAIMED, Release);
    }

    /// Gives all idle slots back: the store is going.
    pub fn release_all(&self, shared: &Shared) {
        for place in &self.places {
            if Self::try_take(place, IDLE) {
                // SAFETY: we made the place BUSY.
                let idle = unsafe { (*place.idle.get()).take() };
                if let Some(mut state) = idle {
                    self.release(shared, &mut state);
                }
            }
        }
    }
}

/// Holds all slots of a store against the threads of this process.
pub(super) struct HeldAll<'a>(&'a [CachePadded<Place>]);

impl Writers {
    /// Holds all slots; `None` if somebody has claimed one. Idle ones are given back first.
    pub fn hold_all(&self, shared: &Shared) -> Option<HeldAll<'_>> {
        self.release_all(shared);
        let taken = self.places.iter().take_while(|place| Self::try_take(place, UNCLAIMED)).count();
        let held = HeldAll(&self.places[..taken]);
        (taken == self.places.len()).then_some(held)
    }
}

impl Drop for HeldAll<'_> {
    fn drop(&mut self) {
        for place in self.0 {
            // ORDERING [place]: pairs with the exchange in `try_take`, which tells what it brings about.
            place.state.store(UNCLAIMED, Release);
        }
    }
}

/// Makes a place that is BUSY for us IDLE again, also when the operation panics.
struct GiveBack<'a>(&'a Place);

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        // ORDERING [place]: pairs with the exchange in `try_take`, which tells what it brings about.
        self.0.state.store(IDLE, Release);
    }
}
