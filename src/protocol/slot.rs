//! A writer's slot: what it owns, what it is about to exchange, and how its heir finds out whether it did.
//!
//! A writer owns one **spare** frame and, during a first write, one **reserve** frame. Before each exchange it notes
//! its **intent**: the block, and the cell it expects there. If it dies, whoever adopts the slot must know whether the
//! exchange happened: the spare is then either the frame that was staged or the one that was displaced, and to guess
//! wrong gives one frame two owners. While the cell holds what the dead writer would have left, or found, that is
//! plain. If others have updated the block since, this settles it:
//!
//! > Let the dead writer have staged frame `s` for sequence `k` of block `b`, and let `b` be past `k` by now. If the
//! > exchange happened, somebody displaced `(k, s)` from the cell of `b`. Before that exchange it announced just that
//! > intent in its own slot; and it lets go of the intent only after `s` carries its tag (invariant 5). So either a
//! > slot announces `(b, k, s)`, or `s` is no longer tagged for the dead writer: it happened. Or neither: it did not.
//!
//! Sequences never come back, so a slot that announces `(b, k, s)` has seen it in the cell, however long ago.

use super::cell::Cell;
use super::memory::Memory;
use super::{Fault, durable, pool};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// A writer's slot, alone on two cache lines. Only its writer stores to it; a frame is noted as its number plus one.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Slot {
    /// The frame this writer may stage in: number + 1, or 0 for none.
    pub spare: AtomicU64,
    /// A frame this writer is taking from the pool: number + 1, or 0 for none. Its own only if tagged for it.
    pub reserve: AtomicU64,
    /// The block whose cell it is about to exchange: count of stores `<< 32 |` number + 1, or `| 0` for none.
    pub intent_block: AtomicU64,
    /// The value it expects in that cell.
    pub intent_cell: AtomicU64,
    /// How many frames this slot's writers have given back to the pool.
    pub freed: AtomicU64,
    /// How many miscompares its writers have met with, where there is a flight recorder.
    pub miscompares: AtomicU64,
}

/// The part of [`Slot::intent_block`] that is a block's number plus one.
const NUMBER: u64 = u32::MAX as u64;

/// Most blocks a store may have, so that a number and a count share one word.
pub const BLOCKS_MAX: u64 = NUMBER - 1;

/// The [`Slot::intent_block`] that follows `before` and names `block`, or none.
#[inline(always)]
pub(super) const fn next_intent_block(before: u64, block: Option<u64>) -> u64 {
    let number = match block {
        Some(block) => block + 1,
        None => 0,
    };
    ((before | NUMBER).wrapping_add(1)) | number
}

/// Whether an [`Slot::intent_block`] names `block`.
#[inline(always)]
pub(super) const fn names_block(intent_block: u64, block: u64) -> bool {
    intent_block & NUMBER == block + 1
}

/// The tag of a frame that `writer` last took or staged into.
#[inline(always)]
pub const fn tag_of(writer: u16) -> u16 {
    writer + 1
}

/// How a slot notes a frame.
#[inline(always)]
pub const fn named(frame: u64) -> u64 {
    frame + 1
}

/// The frames that a slot's writer owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Frame it may stage in.
    pub spare: Option<u64>,
    /// Frame it took from the pool for a first write.
    pub reserve: Option<u64>,
}

/// An intent as another thread reads it: the block, and the cell expected there.
fn intent(slot: &Slot) -> Option<(u64, Cell)> {
    // ORDERING [intent]: pairs with the Release stores in `Writer::announce`.
    // - One of the three loads saw a store that came after the intent we look for: the tag that was stored before it
    //   is visible to whoever looks at the tag next.
    // - None did: what we give is that intent, or an older one if it has not been announced.
    // The block is the same before and after (it counts its stores), so the cell between belongs to it.
    let before = slot.intent_block.load(Acquire);
    let cell = slot.intent_cell.load(Acquire);
    let after = slot.intent_block.load(Acquire);
    let number = before & NUMBER;
    (before == after && number != 0).then(|| (number - 1, Cell::from_bits(cell)))
}

/// The block whose cell the slot's writer is about to exchange, or has: while its update may not be committed, this names it.
pub(super) fn block_announced(slot: &Slot) -> Option<u64> {
    // ORDERING [intent]: pairs with the Release stores in `Writer::announce`.
    // - We saw a store that came after the intent we look for: its update has been committed, and we see that.
    // - We did not: we see the block.
    (slot.intent_block.load(Acquire) & NUMBER).checked_sub(1)
}

/// Whether the last user of this slot, which is dead, left something there; if it may have been exchanging a block's cell, or
/// noting that it had, that block. An intent whose exchange is booked outlasts it, and says nothing of that.
pub fn left_behind<const W: usize>(mem: &impl Memory<W>, writer: u16) -> Option<Option<u64>> {
    let slot = mem.slot(writer)?;
    let spare = slot.spare.load(Relaxed);
    let intent = intent(slot);
    let is_booked = |expected: Cell| !expected.is_unwritten() && spare == named(mem.layout().frame(expected));
    let at_work = intent.filter(|&(_, expected)| !is_booked(expected)).map(|(block, _)| block);
    (spare != 0 || slot.reserve.load(Relaxed) != 0 || intent.is_some()).then_some(at_work)
}

/// What the writer of this slot owns, provided it is dead or idle and stays so: changes nothing.
pub fn resolve<const W: usize>(mem: &impl Memory<W>, writer: u16) -> Result<Holding, Fault> {
    let damaged = Fault::DamagedSlot { writer };
    let slot = mem.slot(writer).ok_or(damaged)?;
    let frame_named = |bits: u64| match bits {
        0 => Ok(None),
        bits if bits <= mem.frames() => Ok(Some(bits - 1)),
        _ => Err(damaged),
    };
    let spare = frame_named(slot.spare.load(Relaxed))?;
    let reserve = frame_named(slot.reserve.load(Relaxed))?;
    let tagged = |frame: &u64| mem.tag(*frame).is_some_and(|tag| tag.load(Relaxed) == tag_of(writer));
    // A reserve that became the spare, or was never taken, is not owned as a reserve.
    let settled = Holding { spare, reserve: reserve.filter(tagged).filter(|&frame| Some(frame) != spare) };

    let Some((block, expected)) = intent(slot) else { return Ok(settled) };
    let (staged, displaced) = if expected.is_unwritten() {
        (settled.reserve, None)
    } else {
        let displaced = mem.layout().frame(expected);
        mem.frame(displaced).ok_or(damaged)?;
        // The exchange was made and booked, if it is the displaced frame that is the spare.
        (spare.filter(|&spare| spare != displaced), Some(displaced))
    };
    let Some(staged) = staged else { return Ok(settled) };
    if !exchanged(mem, writer, block, expected, staged)? {
        return Ok(settled);
    }
    Ok(match displaced {
        // In a damaged slot the two may be one frame.
        Some(displaced) => {
            Holding { spare: Some(displaced), reserve: settled.reserve.filter(|&frame| frame != displaced) }
        }
        None => Holding { reserve: None, ..settled },
    })
}

/// Whether `writer`, which is dead or idle, made the exchange of `expected` for `staged` in the cell of `block`.
fn exchanged<const W: usize>(
    mem: &impl Memory<W>,
    writer: u16,
    block: u64,
    expected: Cell,
    staged: u64,
) -> Result<bool, Fault> {
    let layout = mem.layout();
    let made = layout.successor(expected, staged);
    let cell = mem.cell(block).ok_or(Fault::DamagedSlot { writer })?;
    // ORDERING [publish]: pairs with the exchange in `Writer::exchange`.
    // - We saw an exchange later than the one that displaced `made`: we see the intent that announced that one.
    // - We saw none: the comparisons below settle it.
    let current = Cell::from_bits(cell.load(Acquire));
    if current == made {
        return Ok(true);
    }
    // The cell as it was, or after another's exchange of the same sequence: this one cannot have been made.
    if current == expected || layout.follows(current, expected) {
        return Ok(false);
    }
    let announced = (0..mem.writers())
        .filter(|&other| other != writer)
        .filter_map(|other| mem.slot(other))
        .any(|slot| intent(slot) == Some((block, made)));
    let tag = mem.tag(staged).ok_or(Fault::DamagedSlot { writer })?;
    Ok(announced || tag.load(Relaxed) != tag_of(writer))
}

/// Makes a dead or idle writer's slot clean: notes what it owned as its spare, no reserve, no intent. Gives the spare.
///
/// It may be interrupted by death at any step and be done again: each step leaves what [`resolve`] finds unchanged.
pub(super) fn settle<const W: usize>(mem: &impl Memory<W>, writer: u16) -> Result<Option<u64>, Fault> {
    let holding = resolve(mem, writer)?;
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    if let (Some(_), Some(block)) = (mem.epochs(), block_announced(slot)) {
        // A sync finds an update that is not committed by the intent that goes below.
        durable::commit(mem, block)
            .map_err(|it| if it == Fault::NoSuchBlock { Fault::DamagedSlot { writer } } else { it })?;
    }
    // ORDERING [death]: each store below stands after those before it, so that a death between any two leaves a slot
    // that `resolve` reads as it did before.
    if let Some(spare) = holding.spare {
        // Invariant 5: the spare carries our tag before the intent that proves its origin goes. An heir of another
        // writer that sees the intent gone sees the tag ([intent], as in `Writer::announce`).
        mem.tag(spare).ok_or(Fault::DamagedSlot { writer })?.store(tag_of(writer), Relaxed);
        slot.spare.store(named(spare), Release);
    }
    // With the intent gone, the reserve is judged by its tag alone; where it is in a cell, it must go first.
    if holding.reserve.is_none() {
        if slot.reserve.load(Relaxed) != 0 {
            // It may have been given back by one who died before counting it.
            pool::count_given_back(slot);
        }
        slot.reserve.store(0, Release);
    }
    slot.intent_block.store(next_intent_block(slot.intent_block.load(Relaxed), None), Release);
    match (holding.spare, holding.reserve) {
        (Some(spare), Some(reserve)) => {
            match mem.epochs() {
                None => pool::give_back(mem, writer, reserve)?,
                // Nobody knows whether it was replaced only now.
                Some(epochs) => pool::put_in_limbo(mem, writer, reserve, epochs.after_updates())?,
            }
            Ok(Some(spare))
        }
        (None, Some(reserve)) => {
            slot.spare.store(named(reserve), Release);
            slot.reserve.store(0, Release);
            Ok(Some(reserve))
        }
        (spare, None) => Ok(spare),
    }
}
