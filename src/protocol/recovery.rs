//! Recovery after a cut of the power: for each block, the newest frame that proves itself.
//!
//! Only stamps and frames are believed; cells, tags and slots are made anew from them. So a cut in the middle of a
//! recovery does no harm: the next finds the same frames, which this one does not touch, and fewer stamps of others.

use super::cell::Cell;
use super::copy::BlockCopy;
use super::memory::Memory;
use super::slot::tag_of;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// What a recovery found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Found {
    /// Blocks that hold an update.
    pub blocks: u64,
    /// Blocks of which a cell told of a newer update than survived whole.
    pub blocks_rolled_back: u64,
    /// Those updates.
    pub updates_discarded: u64,
    /// Frames with a committed stamp that they do not match.
    pub frames_discarded: u64,
}

/// Makes a store of durability `power` whole. Only while nobody else is at work.
///
/// Calls `progress` now and then with the number of frames looked at; there are as many as [`Memory::frames`] says, and
/// each is looked at twice. Needs eight bytes of memory a block.
pub fn recover<const W: usize>(mem: &impl Memory<W>, mut progress: impl FnMut(u64)) -> Found {
    let mut found = Found::default();
    let newest = newest_of_blocks(mem, &mut found, &mut progress);
    for frame in 0..mem.frames() {
        let (Some(stamp), Some(tag)) = (mem.stamp(frame), mem.tag(frame)) else { continue };
        let chosen = stamp.committed().is_some_and(|(block, sequence)| {
            let cell = usize::try_from(block).ok().and_then(|block| newest.get(block));
            cell.is_some_and(|cell| !cell.is_unwritten() && *cell == mem.layout().cell(sequence, frame))
        });
        if chosen {
            store_if_other(&stamp.epoch, 0);
        } else {
            // Its bytes may become those of its stamp again one day, when the block has moved on.
            stamp.clear();
        }
        // The frame of a block may carry any writer's tag.
        let wanted = if chosen { tag_of(0) } else { 0 };
        if tag.load(Relaxed) != wanted {
            tag.store(wanted, Relaxed);
        }
        report(frame + mem.frames(), &mut progress);
    }
    for (block, &chosen) in (0u64..).zip(&newest) {
        let cell = mem.cell(block).expect("below the number of blocks");
        let known = Cell::from_bits(cell.load(Relaxed));
        let (known_sequence, sequence) = (mem.layout().sequence(known), mem.layout().sequence(chosen));
        found.blocks += u64::from(!chosen.is_unwritten());
        if mem.layout().frame(known) < mem.frames() && known_sequence > sequence {
            found.blocks_rolled_back += 1;
            found.updates_discarded = found.updates_discarded.saturating_add(known_sequence - sequence);
        }
        store_if_other(cell, chosen.bits());
    }
    for writer in 0..mem.writers() {
        if let Some(slot) = mem.slot(writer) {
            for field in [&slot.spare, &slot.reserve, &slot.intent_block, &slot.intent_cell] {
                store_if_other(field, 0);
            }
        }
    }
    found
}

/// The cell that each block is to have.
fn newest_of_blocks<const W: usize>(
    mem: &impl Memory<W>,
    found: &mut Found,
    progress: &mut impl FnMut(u64),
) -> Vec<Cell> {
    let blocks = usize::try_from(mem.blocks()).expect("blocks fit in memory");
    let mut newest = vec![Cell::UNWRITTEN; blocks];
    let mut bytes = vec![0; 8 * W];
    for number in 0..mem.frames() {
        report(number, progress);
        let (Some(stamp), Some(frame)) = (mem.stamp(number), mem.frame(number)) else { continue };
        let Some((block, sequence)) = stamp.committed() else { continue };
        let cell = mem.layout().cell(sequence, number);
        // What no writer stamps may stand in a damaged file.
        let Some(best) = usize::try_from(block).ok().and_then(|block| newest.get_mut(block)) else { continue };
        if mem.layout().sequence(cell) != sequence || sequence <= mem.layout().sequence(*best) {
            continue;
        }
        mem.copies().load(frame, &mut bytes);
        if stamp.proves(block, sequence, number, &bytes) {
            *best = cell;
        } else {
            found.frames_discarded += 1;
        }
    }
    newest
}

/// Pages that are as they should be are left clean.
fn store_if_other(field: &AtomicU64, value: u64) {
    if field.load(Relaxed) != value {
        field.store(value, Relaxed);
    }
}

fn report(frames: u64, progress: &mut impl FnMut(u64)) {
    if frames.is_multiple_of(1 << 16) {
        progress(frames);
    }
}
