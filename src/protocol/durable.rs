//! Durability `power`: what makes a store survive a cut of the power.
//!
//! After a cut the file holds, for each of its sectors, any of the contents the sector had since the last sync: the
//! kernel writes back what it likes, when it likes. Two things make that enough to recover from.
//!
//! - A frame's **stamp** says what it holds: the block, the sequence, a CRC-32C over both and the bytes. A writer
//!   prepares it with the frame and **commits** it once its exchange has succeeded. So a stamp that is committed, and
//!   whose CRC is right, proves that the frame holds one complete update that took place. Whoever replaces a frame sees
//!   to it first that its stamp is committed: only the newest update of a block may not be.
//! - A frame that was replaced is in **limbo** until a sync that began afterwards is done. Before that it may be the only
//!   one on the disk that holds its block.
//!
//! Recovery takes for each block the newest frame that proves itself.
//!
//! Syncs are numbered as they begin: that is the **epoch**. A frame in a cell has the epoch from before it was staged in
//! its stamp, one in limbo the epoch from after it was replaced.
//!
//! > No sync relies on a frame that was put in place and replaced in the same epoch. One that began before relies on the
//! > frame that was there when it began, or on a later one that is in limbo as well: it was committed before it was
//! > replaced, and the sync, which saw it replaced or in place, wrote that. One that begins after finds a newer frame.
//!
//! So a block that is updated again and again between two syncs takes one frame of limbo, not one an update.

use super::Fault;
use super::block::{Target, Writer, load};
use super::cell::Cell;
use super::memory::Memory;
use super::slot::{self, named};
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicU64, fence};

/// What a frame holds. Only the frame's owner stores to it; anybody may commit it.
#[derive(Debug)]
#[repr(C)]
pub struct Stamp {
    /// Block `<< 32 |` the sequence's low 31 bits `<< 1 |` whether it is committed.
    pub update: AtomicU64,
    /// CRC-32C `<< 32 |` the sequence's other bits.
    pub check: AtomicU64,
    /// The epoch: from before the frame was staged while it is in a cell, from after it was replaced in limbo.
    pub epoch: AtomicU64,
}

/// A number that many read and few write, alone on two cache lines.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Counter(pub AtomicU64);

/// Which syncs there have been.
#[derive(Debug)]
#[repr(C)]
pub struct Epochs {
    /// How many syncs have begun: the epoch.
    pub started: Counter,
    /// The greatest number of a sync that is done.
    pub completed: Counter,
}

impl Epochs {
    /// The epoch now, or one not long ago.
    fn current(&self) -> u64 {
        self.started.0.load(Relaxed)
    }

    /// The epoch after all that the caller did and saw. Once a later sync is done, that is on the disk.
    pub fn after_updates(&self) -> u64 {
        // ORDERING [epoch]: pairs with the fence in `begin`.
        // - The load sees that a sync has begun: a later one will do.
        // - It does not: that sync finds what we did and saw before this fence, and all its writers announced.
        fence(SeqCst);
        self.started.0.load(Relaxed)
    }

    /// Begins a sync; gives its number.
    pub fn begin(&self) -> u64 {
        let number = self.started.0.fetch_add(1, Relaxed).wrapping_add(1);
        // ORDERING [epoch]: pairs with the fence in `after_updates`, which tells what it brings about.
        fence(SeqCst);
        number
    }

    /// Notes that a sync is done: all that it found is on the disk.
    pub fn complete(&self, number: u64) {
        // ORDERING [completed]: pairs with the load in `is_past`.
        // - Whoever sees it may stage in frames that this sync no longer needs.
        // - Whoever does not leaves them alone.
        self.completed.0.fetch_max(number, Release);
    }

    /// Whether a sync that began after `epoch` is done.
    pub fn is_past(&self, epoch: u64) -> bool {
        // ORDERING [completed]: pairs with the exchange in `complete`, which tells what it brings about.
        self.completed.0.load(Acquire) > epoch
    }
}

/// The lowest bit of [`Stamp::update`].
const COMMITTED: u64 = 1;

/// Bits of the sequence in [`Stamp::update`].
const LOW_BITS: u32 = 31;

/// The [`Stamp::update`] of an update that is not committed.
const fn update_bits(block: u64, sequence: u64) -> u64 {
    block << 32 | (sequence & ((1 << LOW_BITS) - 1)) << 1
}

/// The checksum of a frame that holds `sequence` of `block`, given that of its bytes.
fn checksum(bytes_checksum: u32, block: u64, sequence: u64, frame: u64) -> u32 {
    let mut head = [0; 24];
    for (field, number) in head.chunks_exact_mut(8).zip([block, sequence, frame]) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    crc32c::crc32c_append(bytes_checksum, &head)
}

impl Stamp {
    /// Prepares the stamp of a frame whose bytes have the checksum `bytes_checksum`.
    pub(super) fn prepare(&self, block: u64, sequence: u64, frame: u64, bytes_checksum: u32) {
        let sum = checksum(bytes_checksum, block, sequence, frame);
        self.check.store(u64::from(sum) << 32 | sequence >> LOW_BITS, Relaxed);
        self.update.store(update_bits(block, sequence), Relaxed);
    }

    /// Commits the stamp, if it still is that of this update. Otherwise the frame has been replaced, and taken again.
    pub(super) fn commit(&self, block: u64, sequence: u64) -> Result<(), u64> {
        let (uncommitted, committed) = (update_bits(block, sequence), update_bits(block, sequence) | COMMITTED);
        if self.update.load(Relaxed) == committed {
            return Ok(());
        }
        // ORDERING [frame-recycled]: pairs with the Release fence in `Writer::stage`.
        // - We found the stamp of a later use of the frame: the cell that named it is seen to have moved.
        // - We found this one's: whether it is committed by us or another is all the same.
        match self.update.compare_exchange(uncommitted, committed, Relaxed, Acquire) {
            Err(found) if found != committed => Err(found),
            _ => Ok(()),
        }
    }

    /// The block and the sequence, if the stamp is committed. Only while nobody else is at work.
    pub fn committed(&self) -> Option<(u64, u64)> {
        let (update, check) = (self.update.load(Relaxed), self.check.load(Relaxed));
        let sequence = (check & u64::from(u32::MAX)) << LOW_BITS | (update & u64::from(u32::MAX)) >> 1;
        (update & COMMITTED != 0).then_some((update >> 32, sequence))
    }

    /// Whether the stamp is that of this update, committed or not.
    pub fn is_of(&self, block: u64, sequence: u64) -> bool {
        self.update.load(Relaxed) & !COMMITTED == update_bits(block, sequence)
            && self.check.load(Relaxed) & u64::from(u32::MAX) == sequence >> LOW_BITS
    }

    /// Whether the stamp's checksum is that of a frame with these bytes.
    pub fn proves(&self, block: u64, sequence: u64, frame: u64, bytes: &[u8]) -> bool {
        u64::from(checksum(crc32c::crc32c(bytes), block, sequence, frame)) == self.check.load(Relaxed) >> 32
    }

    /// Whether the stamp is that of a frame that holds nothing, and never did since the stamp was cleared.
    pub fn is_clear(&self) -> bool {
        [&self.update, &self.check, &self.epoch].iter().all(|field| field.load(Relaxed) == 0)
    }

    /// Makes the stamp that of a frame that holds nothing. Only while nobody else is at work.
    pub fn clear(&self) {
        for field in [&self.update, &self.check, &self.epoch] {
            if field.load(Relaxed) != 0 {
                field.store(0, Relaxed);
            }
        }
    }
}

/// Sees that the stamp of a block's frame is committed, on behalf of whoever has just put it in place.
pub fn commit<const W: usize>(mem: &impl Memory<W>, block: u64) -> Result<(), Fault> {
    let cell = mem.cell(block).ok_or(Fault::NoSuchBlock)?;
    loop {
        let current = load(cell);
        if current.is_unwritten() {
            return Ok(());
        }
        let frame = mem.layout().frame(current);
        let stamp = mem.stamp(frame).ok_or(Fault::DamagedCell { block, bits: current.bits() })?;
        match stamp.commit(block, mem.layout().sequence(current)) {
            Ok(()) => return Ok(()),
            Err(_) if load(cell) != current => {}
            Err(_) => return Err(Fault::DamagedStamp { block, frame }),
        }
    }
}

/// Sees that all updates which took effect before the sync that has just [begun](Epochs::begin) are committed.
///
/// An update that is not was announced by a writer who has not got round to it, or died before: in all slots, whether
/// anybody uses them or not, an intent stays until the update is committed.
pub fn commit_all<const W: usize>(mem: &impl Memory<W>) -> Result<(), Fault> {
    for writer in 0..mem.writers() {
        let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
        if let Some(block) = slot::block_announced(slot) {
            match commit(mem, block) {
                Err(Fault::NoSuchBlock) => return Err(Fault::DamagedSlot { writer }),
                committed => committed?,
            }
        }
    }
    Ok(())
}

/// What a writer to a store of durability `power` knows besides.
#[derive(Default, Debug)]
pub(super) struct Progress {
    /// The spare is one that was replaced, and this is the epoch from after that: it waits for a later sync.
    replaced: Option<u64>,
    /// The epoch from after the last update.
    updated: u64,
    /// The frame it took last, from which it looks for the next.
    taken: u64,
}

impl Progress {
    /// That of a writer whose spare is of unknown origin: a dead writer's may be a frame that was replaced just now.
    pub fn of_heir<const W: usize>(mem: &impl Memory<W>) -> Self {
        let Some(epochs) = mem.epochs() else { return Self::default() };
        let now = epochs.after_updates();
        Self { replaced: Some(now), updated: now, taken: mem.blocks() }
    }

    /// Notes that the spare is a frame that was free.
    pub fn took(&mut self, frame: u64) {
        (self.replaced, self.taken) = (None, frame);
    }

    /// The epoch after which a sync must be done before anybody may stage in the spare.
    pub fn waits_for(&self) -> Option<u64> {
        self.replaced
    }
}

impl Writer {
    /// The epoch from after the last update: once a later sync is done, it is on the disk.
    pub fn updated(&self) -> u64 {
        self.progress.updated
    }

    /// Sees that there is a spare that may be staged in.
    fn find_spare<const W: usize>(&mut self, mem: &impl Memory<W>) -> Result<u64, Fault> {
        let epochs = mem.epochs().expect("called only where there are epochs");
        match (self.spare, self.progress.replaced) {
            (Some(spare), None) => return Ok(spare),
            (Some(spare), Some(epoch)) if epochs.is_past(epoch) => {
                self.progress.replaced = None;
                return Ok(spare);
            }
            (Some(_), Some(_)) => self.put_spare_back(mem)?,
            (None, _) => {}
        }
        self.take_spare(mem, self.progress.taken.wrapping_add(1))
    }

    /// As [`exchange`](Self::exchange), in a store of durability `power`. `staged` is the checksum of what is staged.
    #[inline(never)]
    pub(super) fn exchange_durably<const W: usize>(
        &mut self,
        mem: &impl Memory<W>,
        target: Target<'_>,
        current: Cell,
        new: &[u8],
        staged: &mut Option<u32>,
    ) -> Result<Result<(), Cell>, Fault> {
        let Target { block, cell } = target;
        let slot = self.slot(mem)?;
        let displaced = mem.layout().frame(current);
        let displaced_stamp = mem.stamp(displaced).ok_or(Fault::DamagedCell { block, bits: current.bits() })?;
        let spare = self.find_spare(mem)?;
        // Before it is replaced: afterwards nobody would look for it, whom a death or a stop kept from doing so.
        if displaced_stamp.commit(block, mem.layout().sequence(current)).is_err() {
            let seen = load(cell);
            return if seen == current { Err(Fault::DamagedStamp { block, frame: displaced }) } else { Ok(Err(seen)) };
        }
        let bytes_checksum = match *staged {
            Some(checksum) => checksum,
            None => {
                self.tag_spare(mem)?;
                self.stage_durably(mem, spare, new)?
            }
        };
        *staged = Some(bytes_checksum);
        let next = mem.layout().successor(current, spare);
        self.stamp(mem, block, next, bytes_checksum)?;
        self.announce(slot, block, current);
        if let Err(seen) = Self::exchange_cell(cell, current, next) {
            return Ok(Err(seen));
        }
        self.commit_own(mem, block, next)?;
        slot.spare.store(named(displaced), Relaxed);
        self.spare = Some(displaced);
        let now = self.progress.updated;
        // Put in place and replaced in one epoch: no sync relies on it.
        self.progress.replaced = (displaced_stamp.epoch.load(Relaxed) != now).then_some(now);
        Ok(Ok(()))
    }

    /// Copies `new` to a frame that this writer owns, and notes the epoch from before; gives the checksum of the bytes.
    pub(super) fn stage_durably<const W: usize>(
        &self,
        mem: &impl Memory<W>,
        frame: u64,
        new: &[u8],
    ) -> Result<u32, Fault> {
        let damaged = Fault::DamagedSlot { writer: self.index };
        let (stamp, epochs) = (mem.stamp(frame).ok_or(damaged)?, mem.epochs().ok_or(damaged)?);
        stamp.epoch.store(epochs.current(), Relaxed);
        self.stage(mem, frame, new)?;
        Ok(crc32c::crc32c(new))
    }

    /// Stamps the frame that was staged for `next`.
    pub(super) fn stamp<const W: usize>(
        &self,
        mem: &impl Memory<W>,
        block: u64,
        next: Cell,
        bytes_checksum: u32,
    ) -> Result<(), Fault> {
        let frame = mem.layout().frame(next);
        let stamp = mem.stamp(frame).ok_or(Fault::DamagedSlot { writer: self.index })?;
        stamp.prepare(block, mem.layout().sequence(next), frame, bytes_checksum);
        Ok(())
    }

    /// Commits the stamp of the frame that this writer has just put in place, and notes the epoch from after that.
    pub(super) fn commit_own<const W: usize>(
        &mut self,
        mem: &impl Memory<W>,
        block: u64,
        next: Cell,
    ) -> Result<(), Fault> {
        let damaged = Fault::DamagedSlot { writer: self.index };
        let (frame, sequence) = (mem.layout().frame(next), mem.layout().sequence(next));
        // If it is another's stamp by now, the frame was replaced and the sync after that found a newer one.
        let _ = mem.stamp(frame).ok_or(damaged)?.commit(block, sequence);
        self.progress.updated = mem.epochs().ok_or(damaged)?.after_updates();
        Ok(())
    }
}
