//! The operations on blocks: read, write, compare-and-write.
//!
//! Each repeats only because another operation on the same block succeeded in between. A success takes effect at the
//! exchange of the cell; a read or a miscompare at the load of the cell that validates the copy.

use super::cell::Cell;
use super::copy::BlockCopy;
use super::durable::Progress;
use super::memory::Memory;
use super::slot::{Slot, named, names_block, next_intent_block, settle, tag_of};
use super::{Fault, Outcome, pool, prefetch};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::fence;

/// Loads a cell, before its frame is looked at.
#[inline(always)]
pub(super) fn load(cell: &AtomicU64) -> Cell {
    // ORDERING [publish]: pairs with the exchange in `Writer::exchange`.
    // - We saw a cell: all that was staged in its frame before is visible, so a copy of the frame has no older bytes.
    // - We saw an older cell: its frame held the block's contents when it was current; if that has changed since, the
    //   validation finds out.
    Cell::from_bits(cell.load(Acquire))
}

/// Whether the cell still is `current`, now that its frame has been copied or compared.
#[inline(always)]
fn validate(cell: &AtomicU64, current: Cell) -> bool {
    // ORDERING [frame-recycled]: pairs with the Release fence in `Writer::stage`.
    // - The copy has a byte that was staged for a later use of the frame: this load sees that the cell has moved.
    // - It has none: it is the frame's contents under `current`; and if the cell still is `current`, the block's.
    fence(Acquire);
    cell.load(Relaxed) == current.bits()
}

/// The contents of a block that was never written. Out of the way of those that were.
#[cold]
#[inline(never)]
fn zero(out: &mut [u8]) {
    out.fill(0);
}

/// Copies a block to `out`, which is as long as a block.
#[inline(always)]
pub fn read<const W: usize>(mem: &impl Memory<W>, block: u64, out: &mut [u8]) -> Result<(), Fault> {
    read_version(mem, block, out).map(drop)
}

/// The bits of a block's cell. As long as they are the same, so are the block's contents.
#[inline]
pub fn version<const W: usize>(mem: &impl Memory<W>, block: u64) -> Option<u64> {
    Some(load(mem.cell(block)?).bits())
}

/// As [`read`]; gives the [`version`] that it copied.
#[inline(always)]
pub fn read_version<const W: usize>(mem: &impl Memory<W>, block: u64, out: &mut [u8]) -> Result<u64, Fault> {
    let cell = mem.cell(block).ok_or(Fault::NoSuchBlock)?;
    loop {
        let current = load(cell);
        if current.is_unwritten() {
            zero(out);
            return Ok(current.bits());
        }
        let bits = current.bits();
        let frame = mem.frame(mem.layout().frame(current)).ok_or(Fault::DamagedCell { block, bits })?;
        mem.copies().load(frame, out);
        if validate(cell, current) {
            return Ok(bits);
        }
    }
}

/// Whether the block was ever written. One that was not reads as zeros and takes no frame.
pub fn is_written<const W: usize>(mem: &impl Memory<W>, block: u64) -> Result<bool, Fault> {
    Ok(!load(mem.cell(block).ok_or(Fault::NoSuchBlock)?).is_unwritten())
}

/// Offset of the first byte in which two blocks differ, if they do. Eight bytes at a time: it may be the last.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let word = a.chunks_exact(8).zip(b.chunks_exact(8)).position(|(a, b)| a != b)?;
    let (a, b) = (&a[8 * word..][..8], &b[8 * word..][..8]);
    a.iter().zip(b).position(|(a, b)| a != b).map(|byte| 8 * word + byte)
}

/// Offset of the first byte that is not zero, if there is one. Eight bytes at a time, as above.
fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let word = bytes.chunks_exact(8).position(|word| *word != [0; 8])?;
    bytes[8 * word..].iter().position(|&byte| byte != 0).map(|byte| 8 * word + byte)
}

/// A writer: the right to update blocks, one operation at a time, and the frames that go with it.
///
/// It is the private side of a slot. Whoever makes one must be the only one to use that slot, and follow the last one
/// who did: a lock's business, not the protocol's.
#[derive(Debug)]
pub struct Writer {
    pub(super) index: u16,
    /// The frame to stage in. In no cell; nobody else writes it. With durability `power` there may be none for a while.
    pub(super) spare: Option<u64>,
    /// What the slot's `intent_block` holds.
    intent_block: u64,
    /// Used with durability `power`.
    pub(super) progress: Progress,
}

/// A block and its cell.
#[derive(Clone, Copy)]
pub(super) struct Target<'m> {
    pub block: u64,
    pub cell: &'m AtomicU64,
}

impl Writer {
    /// Makes a writer of a slot: settles what its last user may have left behind, and sees that it has a spare.
    pub fn claim<const W: usize>(mem: &impl Memory<W>, index: u16) -> Result<Self, Fault> {
        let spare = settle(mem, index)?;
        let mut writer = Self::of_heir(mem, index, spare)?;
        if spare.is_none() {
            // Spares come from above the frames that are the blocks' own, where there are such.
            writer.take_spare(mem, mem.blocks() + u64::from(index))?;
        }
        Ok(writer)
    }

    /// The writer of a slot that has been settled.
    fn of_heir<const W: usize>(mem: &impl Memory<W>, index: u16, spare: Option<u64>) -> Result<Self, Fault> {
        let slot = mem.slot(index).ok_or(Fault::DamagedSlot { writer: index })?;
        Ok(Self { index, spare, intent_block: slot.intent_block.load(Relaxed), progress: Progress::of_heir(mem) })
    }

    /// Takes a frame from the pool, the one at `start` or after it, as the spare.
    pub(super) fn take_spare<const W: usize>(&mut self, mem: &impl Memory<W>, start: u64) -> Result<u64, Fault> {
        let frame = pool::take(mem, self.index, start)?;
        let slot = self.slot(mem)?;
        // ORDERING [death]: in this order, a death between the two leaves the frame in the slot.
        slot.spare.store(named(frame), Release);
        slot.reserve.store(0, Release);
        self.spare = Some(frame);
        self.progress.took(frame);
        Ok(frame)
    }

    /// Gives the spare back and leaves the slot empty.
    pub fn release<const W: usize>(mut self, mem: &impl Memory<W>) -> Result<(), Fault> {
        self.put_spare_back(mem)
    }

    /// Gives the spare back, if there is one: to the pool, or into limbo.
    pub(super) fn put_spare_back<const W: usize>(&mut self, mem: &impl Memory<W>) -> Result<(), Fault> {
        let slot = self.slot(mem)?;
        let Some(spare) = self.spare else {
            self.forget_intent(slot);
            return Ok(());
        };
        self.tag_spare(mem)?;
        self.forget_intent(slot);
        // ORDERING [death]: in this order, a death between any two leaves the frame in the slot, or where it goes.
        slot.reserve.store(named(spare), Release);
        slot.spare.store(0, Release);
        self.spare = None;
        match self.progress.waits_for() {
            None => pool::give_back(mem, self.index, spare),
            Some(epoch) => pool::put_in_limbo(mem, self.index, spare, epoch),
        }
    }

    /// Gives back what the last user of a slot left there: as claiming and releasing it, but without the need for a frame.
    /// Whether there was any.
    pub fn clear<const W: usize>(mem: &impl Memory<W>, index: u16) -> Result<bool, Fault> {
        let spare = settle(mem, index)?;
        if spare.is_some() {
            Self::of_heir(mem, index, spare)?.release(mem)?;
        }
        Ok(spare.is_some())
    }

    /// Counts a miscompare in the slot; gives how many its writers have met with.
    pub fn count_miscompare<const W: usize>(&self, mem: &impl Memory<W>) -> u64 {
        let Some(slot) = mem.slot(self.index) else { return 0 };
        let count = slot.miscompares.load(Relaxed).wrapping_add(1);
        slot.miscompares.store(count, Relaxed);
        count
    }

    /// The index of the writer's slot.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Replaces the block by `new` if it holds `expected`. On a miscompare `found` receives what it holds instead.
    ///
    /// The three buffers are as long as a block.
    #[inline(always)]
    pub fn compare_and_write<const W: usize>(
        &mut self,
        mem: &impl Memory<W>,
        block: u64,
        expected: &[u8],
        new: &[u8],
        found: &mut [u8],
    ) -> Result<Outcome, Fault> {
        let cell = mem.cell(block).ok_or(Fault::NoSuchBlock)?;
        self.prefetch(mem, cell);
        let mut staged = None;
        let mut current = load(cell);
        loop {
            if current.is_unwritten() {
                if let Some(offset) = first_nonzero(expected) {
                    found.fill(0);
                    return Ok(Outcome::Miscompare { offset });
                }
            } else {
                let bits = current.bits();
                let frame = mem.frame(mem.layout().frame(current)).ok_or(Fault::DamagedCell { block, bits })?;
                if !mem.copies().equals(frame, expected) {
                    mem.copies().load(frame, found);
                    // No difference in what was copied after one was seen: the frame has changed, with its cell or
                    // (in a damaged store) without. Either way it is looked at again.
                    if validate(cell, current)
                        && let Some(offset) = first_difference(expected, found)
                    {
                        return Ok(Outcome::Miscompare { offset });
                    }
                    current = load(cell);
                    continue;
                }
            }
            match self.exchange(mem, block, cell, current, new, &mut staged)? {
                Ok(()) => return Ok(Outcome::Written),
                Err(seen) => current = seen,
            }
        }
    }

    /// Asks for what an update will write: the cell, and the spare with its tag.
    #[inline(always)]
    fn prefetch<const W: usize>(&self, mem: &impl Memory<W>, cell: &AtomicU64) {
        prefetch::for_write(cell);
        let Some(spare) = self.spare else { return };
        if let (Some(frame), Some(tag)) = (mem.frame(spare), mem.tag(spare)) {
            prefetch::for_write(frame);
            prefetch::for_write(tag);
        }
    }

    /// Replaces the block by `new`, whatever it holds.
    #[inline(always)]
    pub fn write<const W: usize>(&mut self, mem: &impl Memory<W>, block: u64, new: &[u8]) -> Result<(), Fault> {
        let cell = mem.cell(block).ok_or(Fault::NoSuchBlock)?;
        self.prefetch(mem, cell);
        let mut staged = None;
        let mut current = load(cell);
        loop {
            match self.exchange(mem, block, cell, current, new, &mut staged)? {
                Ok(()) => return Ok(()),
                Err(seen) => current = seen,
            }
        }
    }

    /// Stages `new` (once an operation, as `staged` tells) and exchanges the cell, or gives what it holds now.
    #[inline(always)]
    fn exchange<const W: usize>(
        &mut self,
        mem: &impl Memory<W>,
        block: u64,
        cell: &AtomicU64,
        current: Cell,
        new: &[u8],
        staged: &mut Option<u32>,
    ) -> Result<Result<(), Cell>, Fault> {
        if current.is_unwritten() {
            return self.first_write(mem, block, cell, new);
        }
        if mem.epochs().is_some() {
            return self.exchange_durably(mem, Target { block, cell }, current, new, staged);
        }
        let slot = self.slot(mem)?;
        let spare = self.spare.ok_or(Fault::DamagedSlot { writer: self.index })?;
        let layout = mem.layout();
        let displaced = layout.frame(current);
        if displaced >= mem.frames() {
            return Err(Fault::DamagedCell { block, bits: current.bits() });
        }
        if staged.is_none() {
            self.tag_spare(mem)?;
            self.stage(mem, spare, new)?;
            *staged = Some(0);
        }
        self.announce(slot, block, current);
        let next = layout.successor(current, spare);
        match Self::exchange_cell(cell, current, next) {
            Ok(()) => {
                slot.spare.store(named(displaced), Relaxed);
                self.spare = Some(displaced);
                Ok(Ok(()))
            }
            Err(seen) => Ok(Err(seen)),
        }
    }

    /// As [`exchange`](Self::exchange), for a block that has no frame yet: it gets one from the pool.
    #[cold]
    #[inline(never)]
    fn first_write<const W: usize>(
        &mut self,
        mem: &impl Memory<W>,
        block: u64,
        cell: &AtomicU64,
        new: &[u8],
    ) -> Result<Result<(), Cell>, Fault> {
        let slot = self.slot(mem)?;
        let frame = pool::take(mem, self.index, block)?;
        let next = mem.layout().successor(Cell::UNWRITTEN, frame);
        if mem.epochs().is_some() {
            let bytes_checksum = self.stage_durably(mem, frame, new)?;
            self.stamp(mem, block, next, bytes_checksum)?;
        } else {
            self.stage(mem, frame, new)?;
        }
        // Invariant 5: what the last intent displaced is our spare; it must carry our tag before that intent goes.
        self.tag_spare(mem)?;
        self.announce(slot, block, Cell::UNWRITTEN);
        let exchanged = Self::exchange_cell(cell, Cell::UNWRITTEN, next);
        if exchanged.is_ok() && mem.epochs().is_some() {
            self.commit_own(mem, block, next)?;
        }
        match exchanged {
            // ORDERING [death]: stands after the exchange and before the intent goes: with both there, an heir knows
            // that the frame is the block's.
            Ok(()) => slot.reserve.store(0, Release),
            Err(_) => pool::give_back(mem, self.index, frame)?,
        }
        self.forget_intent(slot);
        Ok(exchanged)
    }

    /// The one place where a block changes.
    #[inline(always)]
    pub(super) fn exchange_cell(cell: &AtomicU64, current: Cell, next: Cell) -> Result<(), Cell> {
        // ORDERING [publish]: pairs with `load` and with the load in `slot::exchanged`.
        // - A reader saw `next`: it sees the bytes staged for it. An heir of a dead writer saw `next` or a later cell:
        //   it sees the intent that announced it.
        // - A reader saw an older cell: the frame it names still holds the contents it had, until it is staged again.
        // - We found another cell: the same holds for us, and we may look at its frame.
        // The exchange also keeps the bookkeeping after it behind it, in the compiled code too: a death must not find
        // the spare noted as replaced while the cell is not.
        let (success, failure) = (AcqRel, Acquire);
        match cell.compare_exchange(current.bits(), next.bits(), success, failure) {
            Ok(_) => Ok(()),
            Err(seen) => Err(Cell::from_bits(seen)),
        }
    }

    #[inline(always)]
    pub(super) fn slot<'m, const W: usize>(&self, mem: &'m impl Memory<W>) -> Result<&'m Slot, Fault> {
        mem.slot(self.index).ok_or(Fault::DamagedSlot { writer: self.index })
    }

    /// Tags the spare for this writer: with that, nobody needs the intent any more that tells where it came from.
    #[inline(always)]
    pub(super) fn tag_spare<const W: usize>(&self, mem: &impl Memory<W>) -> Result<(), Fault> {
        if let Some(spare) = self.spare {
            let tag = mem.tag(spare).ok_or(Fault::DamagedSlot { writer: self.index })?;
            tag.store(tag_of(self.index), Relaxed);
        }
        Ok(())
    }

    /// Copies `new` to a frame that this writer owns.
    #[inline(always)]
    pub(super) fn stage<const W: usize>(&self, mem: &impl Memory<W>, frame: u64, new: &[u8]) -> Result<(), Fault> {
        let frame = mem.frame(frame).ok_or(Fault::DamagedSlot { writer: self.index })?;
        // ORDERING [frame-recycled]: pairs with the Acquire fence in `validate`.
        // - A late reader, which still believes the frame to be some block's, sees one of the bytes stored below: it
        //   will see that the block's cell moved, for the exchange that displaced the frame came before this fence.
        // - It sees none of them: its copy is what the frame held for that block.
        fence(Release);
        mem.copies().store(frame, new);
        Ok(())
    }

    /// Notes in the slot which exchange comes next.
    #[inline(always)]
    pub(super) fn announce(&mut self, slot: &Slot, block: u64, expected: Cell) {
        // ORDERING [intent]: pairs with the loads in `slot::intent`.
        // - An heir saw one of these stores: it sees the tag that was stored before them, so it knows without the
        //   intent they replace.
        // - It saw none: it reads the intent they replace.
        // An heir that saw the cell also sees the block that was stored before it, and does not take it for another's.
        if names_block(self.intent_block, block) {
            slot.intent_cell.store(expected.bits(), Release);
            return;
        }
        self.forget_intent(slot);
        slot.intent_cell.store(expected.bits(), Release);
        self.intent_block = next_intent_block(self.intent_block, Some(block));
        slot.intent_block.store(self.intent_block, Release);
    }

    /// Notes in the slot that no exchange is under way.
    #[inline(always)]
    fn forget_intent(&mut self, slot: &Slot) {
        self.intent_block = next_intent_block(self.intent_block, None);
        // ORDERING [intent]: as in `announce`.
        slot.intent_block.store(self.intent_block, Release);
    }
}
