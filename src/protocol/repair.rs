//! Repair: putting right what a check finds wrong, as far as that needs no invention.
//!
//! Everything is done so that a death in the middle leaves what the next repair finds: a frame is noted as taken before a
//! cell names it, and as free only when nothing names it.

use std::collections::BTreeMap;
use std::fmt;

use super::Fault;
use super::audit::{Proof, prove};
use super::cell::Cell;
use super::copy::BlockCopy;
use super::memory::Memory;
use super::pool::LIMBO;
use super::slot::{Holding, resolve, settle, tag_of};
use crate::sync::Ordering::Relaxed;

/// What a repair changed, or found and could not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Repair {
    /// A writer slot named what does not exist, or a frame that is elsewhere, and was emptied.
    SlotEmptied {
        /// The slot.
        writer: u16,
    },
    /// A frame was taken, but was nobody's, and was given back.
    FrameFreed {
        /// The frame.
        frame: u64,
    },
    /// A frame held a block, but was noted as free, and is so no more.
    FrameTaken {
        /// The frame.
        frame: u64,
        /// The block.
        block: u64,
    },
    /// A block that named no frame, or another block's, now has the newest frame that a stamp proves to be its own.
    BlockRebuilt {
        /// The block.
        block: u64,
        /// Its frame.
        frame: u64,
        /// The number of the update that it holds.
        sequence: u64,
    },
    /// Two blocks named one frame; this one now has a copy of it, and reads as before. Which of them those bytes were
    /// written to cannot be told.
    BlockCopied {
        /// The block that has the copy.
        block: u64,
        /// The block that keeps the frame.
        other: u64,
    },
    /// Two blocks name one frame, and there is none free for a copy, or its stamp is neither's. Not mended.
    BlockShared {
        /// One block.
        block: u64,
        /// The other.
        other: u64,
    },
    /// A block names no frame, and no stamp tells which was its own: reading it is an error. Not mended.
    BlockLost {
        /// The block.
        block: u64,
    },
    /// A block's frame is stamped as holding something else, and nothing better is known. Not mended.
    BlockMisstamped {
        /// The block.
        block: u64,
    },
    /// A block's bytes do not match their checksum. Not mended: it may be the checksum that is wrong.
    BlockDamaged {
        /// The block.
        block: u64,
    },
}

impl Repair {
    /// A short name, which stays the same from version to version.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SlotEmptied { .. } => "slot-emptied",
            Self::FrameFreed { .. } => "frame-freed",
            Self::FrameTaken { .. } => "frame-taken",
            Self::BlockRebuilt { .. } => "block-rebuilt",
            Self::BlockCopied { .. } => "block-copied",
            Self::BlockShared { .. } => "block-shared",
            Self::BlockLost { .. } => "block-lost",
            Self::BlockMisstamped { .. } => "block-misstamped",
            Self::BlockDamaged { .. } => "block-damaged",
        }
    }

    /// The block it is about, if any.
    pub const fn block(&self) -> Option<u64> {
        match self {
            Self::SlotEmptied { .. } | Self::FrameFreed { .. } => None,
            Self::FrameTaken { block, .. }
            | Self::BlockRebuilt { block, .. }
            | Self::BlockCopied { block, .. }
            | Self::BlockShared { block, .. }
            | Self::BlockLost { block }
            | Self::BlockMisstamped { block }
            | Self::BlockDamaged { block } => Some(*block),
        }
    }

    /// Whether what was wrong is right now.
    pub const fn is_mended(&self) -> bool {
        !matches!(
            self,
            Self::BlockShared { .. }
                | Self::BlockLost { .. }
                | Self::BlockMisstamped { .. }
                | Self::BlockDamaged { .. }
        )
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotEmptied { writer } => {
                write!(f, "writer slot {writer} named what is not its own, and was emptied")
            }
            Self::FrameFreed { frame } => write!(f, "frame {frame} was lost, and was given back"),
            Self::FrameTaken { frame, block } => {
                write!(f, "frame {frame} holds block {block}, but was noted as free; it is so no more")
            }
            Self::BlockRebuilt { block, frame, sequence } => {
                write!(f, "block {block} was rebuilt from frame {frame}, which holds its update {sequence}")
            }
            Self::BlockCopied { block, other } => {
                write!(f, "block {block} named the frame of block {other}; it has a copy now, and reads as before")
            }
            Self::BlockShared { block, other } => {
                write!(f, "block {block} names the frame of block {other}, and has no other: not mended")
            }
            Self::BlockLost { block } => {
                write!(f, "block {block} names no frame, and no stamp tells which was its own: not mended")
            }
            Self::BlockMisstamped { block } => {
                write!(f, "block {block} has a frame that is stamped as holding something else: not mended")
            }
            Self::BlockDamaged { block } => {
                write!(f, "block {block} does not match its checksum: not mended")
            }
        }
    }
}

/// Who has a frame: a block's number plus one, a slot, or nobody.
type Owner = u32;
const NOBODY: Owner = 0;
/// More than any block's number plus one.
const A_SLOT: Owner = u32::MAX;

/// Repairs a store. Only while nobody else is at work. Needs four bytes of memory a frame.
pub fn repair<const W: usize>(mem: &impl Memory<W>, mut report: impl FnMut(Repair)) -> Result<(), Fault> {
    let frames = usize::try_from(mem.frames()).expect("frames fit in memory");
    let mut at_work = AtWork { mem, owners: vec![NOBODY; frames], bytes: vec![0; 8 * W] };
    at_work.settle_slots(&mut report)?;
    let mut wrong = at_work.own_by_blocks();
    for (block, cell) in at_work.newest_proven(&wrong) {
        wrong.remove(&block);
        report(at_work.rebuild(block, cell)?);
    }
    // First those whose checksum says that the frame is theirs, whatever else its stamp says.
    wrong.retain(|block, wrong| !(at_work.has_own_checksum(*block) && at_work.is_sole_claim(*block, wrong)));
    let mut unproven = BTreeMap::new();
    wrong.retain(|block, wrong| {
        let is_sole = at_work.is_sole_claim(*block, wrong);
        if is_sole {
            unproven.insert(at_work.mem.layout().frame(at_work.cell(*block)), *block);
        }
        !is_sole
    });
    at_work.own_by_slots(&mut report)?;
    for (&block, &wrong) in &wrong {
        let frame = at_work.mem.layout().frame(at_work.cell(block));
        match (wrong, unproven.get(&frame)) {
            // It may be the one as well as the other.
            (Wrong::Misstamped, Some(&other)) => report(Repair::BlockShared { block, other }),
            _ => report(at_work.mend(block, wrong)?),
        }
    }
    at_work.report_damage(&mut report);
    at_work.set_tags(&mut report);
    Ok(())
}

/// What is wrong with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    /// Its cell names no frame.
    NoFrame,
    /// It names the frame of this other block.
    FrameOf(u64),
    /// Its frame is stamped as holding something else.
    Misstamped,
}

struct AtWork<'m, const W: usize, M> {
    mem: &'m M,
    owners: Vec<Owner>,
    bytes: Vec<u8>,
}

impl<const W: usize, M: Memory<W>> AtWork<'_, W, M> {
    fn owner(&mut self, frame: u64) -> Option<&mut Owner> {
        self.owners.get_mut(usize::try_from(frame).ok()?)
    }

    fn cell(&self, block: u64) -> Cell {
        Cell::from_bits(self.mem.cell(block).expect("below the number of blocks").load(Relaxed))
    }

    /// Settles all slots, so that no intent depends on a cell that is changed below; empties those that make no sense.
    fn settle_slots(&mut self, report: &mut impl FnMut(Repair)) -> Result<(), Fault> {
        for writer in 0..self.mem.writers() {
            if settle(self.mem, writer).is_err() {
                self.empty_slot(writer, report)?;
            }
        }
        Ok(())
    }

    fn empty_slot(&mut self, writer: u16, report: &mut impl FnMut(Repair)) -> Result<(), Fault> {
        let slot = self.mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
        for field in [&slot.spare, &slot.reserve, &slot.intent_block, &slot.intent_cell] {
            field.store(0, Relaxed);
        }
        report(Repair::SlotEmptied { writer });
        Ok(())
    }

    /// Gives each frame that a cell names to its block; what is wrong with those that do not get one.
    fn own_by_blocks(&mut self) -> BTreeMap<u64, Wrong> {
        let mut wrong = BTreeMap::new();
        for block in 0..self.mem.blocks() {
            let cell = self.cell(block);
            if cell.is_unwritten() {
                continue;
            }
            let stamped = self.mem.epochs().is_some();
            let proof = if stamped { prove(self.mem, block, &mut self.bytes) } else { Proof::Sound };
            let Some(owner) = self.owner(self.mem.layout().frame(cell)) else {
                wrong.insert(block, Wrong::NoFrame);
                continue;
            };
            match (*owner, proof) {
                // It may be another's, whose cell does not name it.
                (_, Proof::Misstamped) => drop(wrong.insert(block, Wrong::Misstamped)),
                // Where there are stamps they name one owner, so there is no other.
                (NOBODY, _) => *owner = block as u32 + 1,
                (other, _) => drop(wrong.insert(block, Wrong::FrameOf(u64::from(other - 1)))),
            }
        }
        wrong
    }

    /// Whether the checksum of the frame that a block names is that of the block, as its cell has it.
    fn has_own_checksum(&mut self, block: u64) -> bool {
        let (layout, cell) = (self.mem.layout(), self.cell(block));
        let number = layout.frame(cell);
        let (Some(frame), Some(stamp)) = (self.mem.frame(number), self.mem.stamp(number)) else { return false };
        self.mem.copies().load(frame, &mut self.bytes);
        stamp.proves(block, layout.sequence(cell), number, &self.bytes)
    }

    /// Gives a block the frame that it names, if nobody else has that though it is stamped as holding something else. Not
    /// mended; whether it need not be looked at any more.
    fn is_sole_claim(&mut self, block: u64, wrong: &Wrong) -> bool {
        let frame = self.mem.layout().frame(self.cell(block));
        match self.owner(frame) {
            Some(owner) if *owner == NOBODY && *wrong == Wrong::Misstamped => {
                *owner = block as u32 + 1;
                true
            }
            _ => false,
        }
    }

    /// Gives slots the frames that are theirs; empties those whose frames are others'.
    fn own_by_slots(&mut self, report: &mut impl FnMut(Repair)) -> Result<(), Fault> {
        for writer in 0..self.mem.writers() {
            let Holding { spare, reserve } = resolve(self.mem, writer)?;
            let mut sound = true;
            for frame in [spare, reserve].into_iter().flatten() {
                match self.owner(frame) {
                    Some(owner) if *owner == NOBODY => *owner = A_SLOT,
                    _ => sound = false,
                }
            }
            if !sound {
                self.empty_slot(writer, report)?;
            }
        }
        Ok(())
    }

    /// Tells of blocks that are left as they are.
    fn report_damage(&mut self, report: &mut impl FnMut(Repair)) {
        for block in (0..self.mem.blocks()).filter(|_| self.mem.epochs().is_some()) {
            match prove(self.mem, block, &mut self.bytes) {
                Proof::Sound => {}
                Proof::Misstamped => report(Repair::BlockMisstamped { block }),
                Proof::Damaged => report(Repair::BlockDamaged { block }),
            }
        }
    }

    /// The newest frame that a stamp proves to be its own, and that is nobody else's, of each block that needs one, and of
    /// each that has an older one while this is lost.
    fn newest_proven(&mut self, wrong: &BTreeMap<u64, Wrong>) -> BTreeMap<u64, Cell> {
        let mut newest = BTreeMap::<u64, Cell>::new();
        if self.mem.epochs().is_none() {
            return newest;
        }
        let layout = self.mem.layout();
        for number in 0..self.mem.frames() {
            let (Some(stamp), Some(frame)) = (self.mem.stamp(number), self.mem.frame(number)) else { continue };
            let Some((block, sequence)) = stamp.committed() else { continue };
            let cell = layout.cell(sequence, number);
            let free = self.owner(number).is_some_and(|owner| *owner == NOBODY);
            if !free || block >= self.mem.blocks() || sequence == 0 || layout.sequence(cell) != sequence {
                continue;
            }
            let known = match newest.get(&block) {
                Some(best) => layout.sequence(*best),
                None if wrong.contains_key(&block) => 0,
                None if self.is_taken(number) => layout.sequence(self.cell(block)),
                None => continue,
            };
            self.mem.copies().load(frame, &mut self.bytes);
            if sequence > known && stamp.proves(block, sequence, number, &self.bytes) {
                newest.insert(block, cell);
            }
        }
        newest
    }

    /// Whether the frame's tag says that somebody has it.
    fn is_taken(&self, frame: u64) -> bool {
        self.mem.tag(frame).is_some_and(|tag| ![0, LIMBO].contains(&tag.load(Relaxed)))
    }

    /// Gives a block the newest frame that is its own.
    fn rebuild(&mut self, block: u64, proven: Cell) -> Result<Repair, Fault> {
        let layout = self.mem.layout();
        let number = block as u32 + 1;
        if let Some(owner) = self.owner(layout.frame(self.cell(block)))
            && *owner == number
        {
            *owner = NOBODY;
        }
        self.give(block, proven)?;
        Ok(Repair::BlockRebuilt { block, frame: layout.frame(proven), sequence: layout.sequence(proven) })
    }

    /// Does what can be done for a block of which nothing better is known.
    fn mend(&mut self, block: u64, wrong: Wrong) -> Result<Repair, Fault> {
        match wrong {
            Wrong::NoFrame => Ok(Repair::BlockLost { block }),
            Wrong::FrameOf(other) => self.copy(block, other),
            Wrong::Misstamped => {
                // It would read as another's data.
                let none = self.mem.layout().none(self.cell(block));
                self.mem.cell(block).ok_or(Fault::NoSuchBlock)?.store(none.bits(), Relaxed);
                Ok(Repair::BlockLost { block })
            }
        }
    }

    /// Gives a block, which names the frame of another, a copy of it. With durability `power` that is never so.
    fn copy(&mut self, block: u64, other: u64) -> Result<Repair, Fault> {
        let nobodys = (0u64..).zip(&self.owners).filter(|(_, owner)| **owner == NOBODY).map(|(frame, _)| frame);
        // One that was lost may be the block's own, though nothing tells: rather one that was free.
        let Some(free) = nobodys.min_by_key(|frame| self.is_taken(*frame)) else {
            return Ok(Repair::BlockShared { block, other });
        };
        let (layout, damaged) = (self.mem.layout(), Fault::NoSuchBlock);
        let current = self.cell(block);
        let next = layout.successor(current, free);
        let shared = self.mem.frame(layout.frame(current)).ok_or(damaged)?;
        self.mem.copies().load(shared, &mut self.bytes);
        self.mem.tag(free).ok_or(damaged)?.store(tag_of(0), Relaxed);
        self.mem.copies().store(self.mem.frame(free).ok_or(damaged)?, &self.bytes);
        self.give(block, next)?;
        Ok(Repair::BlockCopied { block, other })
    }

    /// Gives a block the frame that `cell` names.
    fn give(&mut self, block: u64, cell: Cell) -> Result<(), Fault> {
        let frame = self.mem.layout().frame(cell);
        let tag = self.mem.tag(frame).ok_or(Fault::NoSuchBlock)?;
        tag.store(tag_of(0), Relaxed);
        if let Some(owner) = self.owner(frame) {
            *owner = block as u32 + 1;
        }
        self.mem.cell(block).ok_or(Fault::NoSuchBlock)?.store(cell.bits(), Relaxed);
        Ok(())
    }

    /// Makes the tags say what is free.
    fn set_tags(&mut self, report: &mut impl FnMut(Repair)) {
        for (frame, &owner) in (0u64..).zip(&self.owners) {
            let Some(tag) = self.mem.tag(frame) else { continue };
            let found = tag.load(Relaxed);
            let epochs = self.mem.epochs();
            let free = found == 0 || (found == LIMBO && epochs.is_some());
            match owner {
                NOBODY if !free => {
                    match (epochs, self.mem.stamp(frame)) {
                        // It may be the only one on the disk that holds its block.
                        (Some(epochs), Some(stamp)) => {
                            stamp.epoch.store(epochs.after_updates(), Relaxed);
                            tag.store(LIMBO, Relaxed);
                        }
                        _ => tag.store(0, Relaxed),
                    }
                    report(Repair::FrameFreed { frame });
                }
                NOBODY | A_SLOT => {}
                block if free => {
                    tag.store(tag_of(0), Relaxed);
                    report(Repair::FrameTaken { frame, block: u64::from(block - 1) });
                }
                _ => {}
            }
        }
    }
}
