//! Reading a block that the cache does not have: once, for all who want it.

use std::sync::Arc;

use crossbeam_epoch as epoch;

use super::flight::{Flight, Landed};
use super::frames::Stamp;
use super::guard::{BlockGuard, Buffer};
use super::state::State;
use super::{Engine, Stale, Ticket};

/// What to do about a block that the cache did not have as it is wanted.
#[derive(Debug)]
pub enum Begun<'c, E> {
    /// Nothing: meanwhile it has.
    Fresh(BlockGuard<'c>),
    /// Wait for somebody who reads it.
    Join(Arc<Flight<E>>),
    /// Read it, for all who wait.
    Read(Reading<'c, E>),
}

/// How a block was had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The cache had it.
    Hit,
    /// The device had it.
    Miss,
    /// The cache had it, but not as it was wanted.
    Stale,
}

/// A read that others may wait for. If it is dropped before its end, they read themselves.
#[derive(Debug)]
#[must_use = "others wait for it"]
pub struct Reading<'c, E> {
    engine: &'c Engine<E>,
    /// Taken when it ends.
    ticket: Option<Ticket>,
}

impl<'c, E> Reading<'c, E> {
    /// Ends it with what `fetch` gives, which is called with the block's buffer and gives the stamp.
    ///
    /// # Errors
    /// That of `fetch`; all who wait have the same.
    pub fn fetch(mut self, fetch: impl FnOnce(&mut [u8]) -> Result<u64, E>) -> Result<BlockGuard<'c>, Arc<E>> {
        let mut buffer = self.engine.buffer();
        match fetch(&mut buffer) {
            Ok(stamp) => Ok(self.end(buffer, stamp)),
            Err(error) => {
                let error = Arc::new(error);
                self.give_up(Landed::Failed(Arc::clone(&error)));
                Err(error)
            }
        }
    }

    /// What this is, in the counts.
    pub fn how(&self) -> How {
        self.ticket.as_ref().map_or(How::Miss, Ticket::how)
    }

    /// Ends it with these bytes.
    pub fn fill(mut self, bytes: &[u8], stamp: u64) {
        let mut buffer = self.engine.buffer();
        buffer.copy_from_slice(bytes);
        self.end(buffer, stamp);
    }

    /// Ends it with an error.
    pub fn fail(mut self, error: &Arc<E>) {
        self.give_up(Landed::Failed(Arc::clone(error)));
    }

    fn end(&mut self, buffer: Buffer<'c>, stamp: u64) -> BlockGuard<'c> {
        let ticket = self.ticket.take().expect("it ends once");
        let contents = self.engine.end(&ticket, buffer, stamp);
        self.engine.land(&ticket, Landed::Read);
        contents
    }

    /// Nothing was learnt of the block: what the cache has of it stays.
    fn give_up(&mut self, how: Landed<E>) {
        let Some(ticket) = self.ticket.take() else { return };
        self.engine.stop(&ticket);
        self.engine.land(&ticket, how);
    }
}

impl<E> Drop for Reading<'_, E> {
    fn drop(&mut self) {
        self.give_up(Landed::Lost);
    }
}

/// How often one who wants a block waits for others to read it. If it was changed while they did, another read is needed; all who
/// waited may wait for that once more, and so have it done once.
#[cfg(not(loom))]
const WAITS_MAX: u32 = 2;
/// In a model once: it would be explored for hours, and what follows is the same.
#[cfg(loom)]
const WAITS_MAX: u32 = 1;

/// What became of the attempt to begin a read.
enum Start<E> {
    Begun(State),
    Join(Arc<Flight<E>>),
    Fresh,
    /// The entry is dead, or a read of it has just ended.
    Changed,
}

impl<E> Engine<E> {
    /// The block's contents: the cache's if they please `is_fresh`, which looks at their stamp; or else what `fetch` gives, or
    /// somebody else's at the same time.
    ///
    /// # Errors
    /// That of `fetch`, or of somebody else's.
    pub fn read_through(
        &self,
        lba: u64,
        is_fresh: impl Fn(Stamp<'_>) -> bool,
        fetch: impl FnOnce(&mut [u8]) -> Result<u64, E>,
    ) -> Result<(BlockGuard<'_>, How), Arc<E>> {
        let how = match self.look(lba, &is_fresh) {
            Some(Ok(contents)) => return Ok((contents, How::Hit)),
            Some(Err(Stale)) => How::Stale,
            None => How::Miss,
        };
        for _ in 0..WAITS_MAX {
            match self.begin_reading(lba, &is_fresh) {
                Begun::Fresh(contents) => return Ok((contents, How::Hit)),
                Begun::Read(reading) => return reading.fetch(fetch).map(|contents| (contents, how)),
                Begun::Join(flight) => flight.wait()?,
            }
            if let Some(Ok(contents)) = self.look(lba, &is_fresh) {
                return Ok((contents, how));
            }
        }
        // It is changed all the time, or there is no room.
        let reading = Reading { engine: self, ticket: Some(self.begin(lba)) };
        reading.fetch(fetch).map(|contents| (contents, how))
    }

    /// The block's contents as `fetch` gives them now, whatever the cache has, and for nobody else.
    ///
    /// # Errors
    /// That of `fetch`.
    pub fn read_alone(
        &self,
        lba: u64,
        fetch: impl FnOnce(&mut [u8]) -> Result<u64, E>,
    ) -> Result<(BlockGuard<'_>, How), Arc<E>> {
        let reading = Reading { engine: self, ticket: Some(self.begin(lba)) };
        let how = reading.how();
        reading.fetch(fetch).map(|block| (block, how))
    }

    /// Begins to read a block, unless somebody does or the cache has it by now.
    pub fn begin_reading(&self, lba: u64, is_fresh: impl Fn(Stamp<'_>) -> bool) -> Begun<'_, E> {
        let mut pin = epoch::pin();
        let mut at = None;
        while let Some(entry) = self.entry_of(lba, &mut pin) {
            match self.start(entry, &is_fresh) {
                Start::Begun(state) => {
                    at = Some((entry, state));
                    break;
                }
                Start::Join(flight) => return Begun::Join(flight),
                Start::Fresh => {
                    if let Some(Ok(contents)) = self.look(lba, &is_fresh) {
                        return Begun::Fresh(contents);
                    }
                }
                Start::Changed => {}
            }
        }
        Self::begun();
        Begun::Read(Reading { engine: self, ticket: Some(Ticket { lba, at }) })
    }

    /// The caller is pinned.
    fn start(&self, entry: u32, is_fresh: impl Fn(Stamp<'_>) -> bool) -> Start<E> {
        let slot = self.pool.index.entry(entry);
        loop {
            let state = slot.state();
            if state.is_dead() {
                return Start::Changed;
            }
            if state.frame().is_some_and(|frame| is_fresh(self.pool.frames.stamp(frame))) {
                return Start::Fresh;
            }
            if state.is_reading() {
                return self.flights.find(entry, state).map_or(Start::Changed, Start::Join);
            }
            let begun = state.begun(true);
            if self.flights.start(entry, begun, || slot.exchange(state, begun).is_ok()) {
                return Start::Begun(begun);
            }
        }
    }

    /// Ends what a ticket began, with what the device gave.
    pub fn end<'c>(&'c self, ticket: &Ticket, buffer: Buffer<'c>, stamp: u64) -> BlockGuard<'c> {
        match buffer {
            Buffer::Own(own) => self.publish(ticket, own, stamp),
            Buffer::Boxed(bytes) => {
                self.invalidate(ticket.lba);
                BlockGuard::boxed(bytes)
            }
        }
    }

    /// Ends what a ticket began, where nothing was learnt.
    pub fn stop(&self, ticket: &Ticket) {
        if let Some((entry, begun)) = ticket.at {
            // Whoever has changed it since has made it no read any more.
            let _ = self.pool.index.entry(entry).exchange(begun, begun.begun(false));
        }
    }

    fn land(&self, ticket: &Ticket, how: Landed<E>) {
        if let Some((entry, begun)) = ticket.at.filter(|(_, begun)| begun.is_reading()) {
            self.flights.end(entry, begun, how);
        }
    }
}
