//! The flight recorder: a store's last events, in its file.
//!
//! An operation that goes well does not come here. What is recorded often is sampled: by one word in the file that says
//! when the next of its kind may be, exchanged by whoever passes it.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, EventKind, WORDS_OF_RECORD};
use super::geometry::{Geometry, Layout};
use super::log::log;
use super::mapping::{Section, with_memory};
use super::{Shared, Store};
use crate::error::Error;
use crate::protocol::Fault;
use crate::protocol::durable::Counter;
use crate::protocol::events::{self, Found, Record, Ring};
use crate::protocol::memory::Memory;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, now_unix_ms};

/// What comes before the records: each number alone on two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    /// The number of the next event.
    head: Counter,
    /// For each kind that is sampled, when the next may be recorded: milliseconds since 1970.
    next_unix_ms: [Counter; SAMPLED],
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Header>() == 512);
    assert!(offset_of!(Header, head) == 0);
    assert!(offset_of!(Header, next_unix_ms) == 128);
    assert!(size_of::<Record<WORDS_OF_RECORD>>() == 64);
};

/// What may happen too often to record each time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sampled {
    Miscompare,
    Corruption,
    SyncFailed,
}

const SAMPLED: usize = 3;

/// At least so much time is between two recorded events of a kind that is sampled.
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MS: u64 = INTERVAL.as_millis() as u64;

/// A store's recorder, as one handle has it.
#[derive(Debug)]
pub(super) struct Recorder {
    header: Section<Header>,
    records: Section<Record<WORDS_OF_RECORD>>,
    capacity: u64,
}

/// What a handle met with of each kind that is sampled.
#[derive(Debug)]
pub(super) struct Samples {
    /// How often since it was last told of. Miscompares are counted in their slots.
    untold: [AtomicU64; SAMPLED],
    /// When the next may be told of by a handle that may not record, and so cannot ask the file.
    next_unix_ms: [AtomicU64; SAMPLED],
}

impl Default for Samples {
    fn default() -> Self {
        let zeros = || [const { AtomicU64::new(0) }; SAMPLED];
        Self { untold: zeros(), next_unix_ms: zeros() }
    }
}

/// Whether a kind of event may be told of at this time; then nobody else's may, for a while. `next` says when it may be.
fn passes(next: &AtomicU64, now_unix_ms: u64) -> bool {
    let at = next.load(Relaxed);
    // A time that is further ahead than anybody sets it is damage, or the clock was set back.
    let waits = at > now_unix_ms && at - now_unix_ms <= INTERVAL_MS;
    !waits && next.compare_exchange(at, now_unix_ms + INTERVAL_MS, Relaxed, Relaxed).is_ok()
}

impl Ring<WORDS_OF_RECORD> for Recorder {
    fn head(&self) -> &AtomicU64 {
        &self.header().head.0
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn record(&self, index: u64) -> Option<&Record<WORDS_OF_RECORD>> {
        self.records.get(index)
    }
}

impl Recorder {
    /// The recorder of a store that is mapped at `base`; `None` if it has none.
    ///
    /// # Safety
    /// As for [`Engine::new`](super::mapping::Engine::new).
    pub unsafe fn new(base: NonNull<u8>, geometry: &Geometry, layout: &Layout) -> Option<Self> {
        let capacity = u64::from(geometry.event_count());
        let records = layout.events + size_of::<Header>() as u64;
        (capacity > 0).then(|| Self {
            // SAFETY: the caller's promise; `layout` was made for `geometry`, so the section has a header.
            header: unsafe { Section::new(base, layout.events, 1) },
            // SAFETY: as above, and as many records behind it.
            records: unsafe { Section::new(base, records, capacity) },
            capacity,
        })
    }

    fn header(&self) -> &Header {
        self.header.get(0).expect("a recorder has a header")
    }

    /// Whether an event of this kind may be recorded at this time; then nobody else's may, for a while.
    pub fn passes(&self, kind: Sampled, now_unix_ms: u64) -> bool {
        passes(&self.header().next_unix_ms[kind as usize].0, now_unix_ms)
    }

    /// Records an event of this time.
    fn record_at(&self, now_unix_ms: u64, event: Event) {
        let event = Event { at_unix_ms: now_unix_ms, process: std::process::id(), ..event };
        // One that is lapped twice is two laps old.
        let _ = events::record(self, |number| event.pack(number));
    }

    /// Records an event.
    fn record_now(&self, event: Event) {
        self.record_at(now_unix_ms(), event);
    }

    /// Sees that what is recorded from now on goes behind all that was. Only while nobody else is at work.
    pub fn raise_head(&self) {
        events::raise_head(self, |number, parts| Event::unpack(number, parts).is_some());
    }

    /// Stores to every page what it holds.
    pub fn touch(&self, touch: impl Fn(&AtomicU64)) {
        touch(self.head());
        (0..self.capacity).filter_map(|index| self.records.get(index)).for_each(|record| touch(&record.0[0]));
    }
}

impl Shared {
    /// The recorder, if this handle may record.
    fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref().filter(|_| self.writable && !self.is_elsewhere())
    }

    /// Logs an event, and records it.
    #[cold]
    pub(super) fn tell(&self, event: Event) {
        log(self, &event);
        self.note(event);
    }

    /// Logs and records an event of a kind that is sampled, if it is time to: for all handles of the store together where
    /// this one may record, else for this one.
    fn tell_sample(&self, kind: Sampled, event: Event) {
        let untold = &self.samples.untold[kind as usize];
        untold.fetch_add(1, Relaxed);
        let now = now_unix_ms();
        let is_time = match self.recorder() {
            Some(recorder) => recorder.passes(kind, now),
            None => passes(&self.samples.next_unix_ms[kind as usize], now),
        };
        if is_time {
            let count = u32::try_from(untold.swap(0, Relaxed)).unwrap_or(u32::MAX).max(1);
            self.tell(Event { count, ..event });
        }
    }

    /// Records an event.
    #[cold]
    fn note(&self, event: Event) {
        if let Some(recorder) = self.recorder() {
            recorder.record_now(event);
        }
    }

    /// Records a miscompare. Whoever asks has made sure that it is time to.
    #[cold]
    #[inline(never)]
    pub(super) fn note_miscompare(&self, now_unix_ms: u64, event: Event) {
        if let Some(recorder) = self.recorder() {
            recorder.record_at(now_unix_ms, event);
        }
    }

    /// Tells, if it is time to, that an operation met with damage.
    pub(super) fn note_damage(&self, fault: Fault) {
        let event = Event::new(EventKind::Corruption);
        let event = match fault {
            Fault::NoSuchBlock | Fault::NoSpace | Fault::AllInLimbo => return,
            Fault::DamagedCell { block, bits } => Event { lba: Some(block), found: bits, ..event },
            Fault::DamagedStamp { block, frame } => Event { lba: Some(block), offset: 1, found: frame, ..event },
            Fault::DamagedSlot { writer } => Event { writer: Some(writer), ..event },
        };
        self.tell_sample(Sampled::Corruption, event);
    }

    /// Tells, if it is time to, that writing to the disk failed.
    #[cold]
    pub(super) fn note_failed_sync(&self, error: &std::io::Error) {
        let found = error.raw_os_error().map_or(0, |number| number as u64);
        self.tell_sample(Sampled::SyncFailed, Event { found, ..Event::new(EventKind::SyncFailed) });
    }

    /// How many miscompares the users of a slot have met with.
    pub(super) fn miscompares_of(&self, writer: u16) -> u64 {
        let slot = with_memory!(&self.engine, memory => memory.slot(writer));
        slot.map_or(0, |slot| slot.miscompares.load(Relaxed))
    }

    /// What the last user of a slot, which is dead, left there, as an event; `None` if nothing.
    pub(super) fn adoption(&self, writer: u16) -> Option<Event> {
        let lba = with_memory!(&self.engine, memory => crate::protocol::slot::left_behind(memory, writer))?;
        Some(Event { writer: Some(writer), lba, ..Event::new(EventKind::WriterAdopted) })
    }
}

impl Store {
    /// Records an event in the store's flight recorder, for all to see who open the store later. Its `number`, `at_unix_ms`
    /// and `process` are filled in. A store without a recorder keeps nothing.
    ///
    /// Takes well under a microsecond, and waits for nobody; but it is for what is rare. The recorder keeps the last
    /// 4,096 events, or as many as [`Geometry::events`] said.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use casblock::{Event, EventKind, Geometry, Store};
    ///
    /// let store = Store::in_memory(Geometry::blocks(8))?;
    /// let mut event = Event::new(EventKind::LeaseBroken);
    /// (event.lba, event.expected, event.found) = (Some(3), 41, 42);
    /// store.record_event(&event)?;
    /// assert_eq!(store.events()[0].found, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::Forked`].
    pub fn record_event(&self, event: &Event) -> Result<(), Error> {
        self.shared.check_writable()?;
        self.shared.note(*event);
        Ok(())
    }

    /// The events that the flight recorder has, oldest first: those of all processes, also of dead ones. None if the store
    /// was made without a recorder. Works on a store opened read-only, too.
    pub fn events(&self) -> Vec<Event> {
        self.event_reader().read().events
    }

    /// Reads events as they are recorded, beginning with the oldest that the flight recorder has.
    pub fn event_reader(&self) -> EventReader {
        EventReader { shared: Arc::clone(&self.shared), next: 0, unfinished: Vec::new(), started: false }
    }

    /// How many events were ever recorded; those of a number below may be gone. `None` if the store has no recorder.
    pub fn events_recorded(&self) -> Option<u64> {
        self.shared.recorder.as_ref().map(|recorder| recorder.head().load(Relaxed))
    }

    /// How many miscompares there have been since the store was made, exactly: of all processes, also of dead ones. (A
    /// cut of the power may take some away.) `None` if the store has no recorder.
    pub fn miscompares(&self) -> Option<u64> {
        self.shared.recorder.as_ref()?;
        let counts = (0..self.shared.geometry.writer_count()).map(|writer| self.shared.miscompares_of(writer));
        Some(counts.fold(0, u64::wrapping_add))
    }
}

/// Reads a store's events, from one on, as they are recorded.
///
/// It never waits. An event whose recorder is stopped in the middle is passed over, and comes when it is there.
#[derive(Debug)]
pub struct EventReader {
    shared: Arc<Shared>,
    /// The number of the next event that was not looked at.
    next: u64,
    /// The numbers of those before that were not whole.
    unfinished: Vec<u64>,
    /// Whether the first event to be read is known.
    started: bool,
}

/// What an [`EventReader`] found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct EventBatch {
    /// Events that were not read before, by their numbers.
    pub events: Vec<Event>,
    /// How many there were that were overwritten before they were read, were never whole since their process died, or are
    /// damaged.
    pub missed: u64,
}

impl EventReader {
    /// Goes on with the event of this number, or with the oldest there is if that one is gone.
    #[must_use]
    pub fn starting_at(mut self, number: u64) -> Self {
        (self.next, self.started) = (number, true);
        self.unfinished.clear();
        self
    }

    /// The events recorded since the last call: at the first, all that there are.
    pub fn read(&mut self) -> EventBatch {
        let mut batch = EventBatch::default();
        let Some(recorder) = &self.shared.recorder else { return batch };
        let extent = events::extent(recorder);
        if !self.started {
            (self.next, self.started) = (extent.start, true);
        }
        let overwritten = extent.start.saturating_sub(self.next);
        batch.missed = batch.missed.saturating_add(overwritten);
        // A head that went back is damage: it goes on from there.
        let new = self.next.clamp(extent.start, extent.end)..extent.end;
        self.next = extent.end;
        for number in std::mem::take(&mut self.unfinished).into_iter().chain(new) {
            match events::read(recorder, number) {
                Found::Whole(parts) => match Event::unpack(number, parts) {
                    Some(event) => batch.events.push(event),
                    None => batch.missed = batch.missed.saturating_add(1),
                },
                Found::Overwritten => batch.missed = batch.missed.saturating_add(1),
                Found::Unfinished if number < extent.start => batch.missed = batch.missed.saturating_add(1),
                Found::Unfinished => self.unfinished.push(number),
            }
        }
        batch
    }
}
