//! The pool of free frames: those whose tag is 0, and with durability `power` those in limbo that no sync needs any more.
//!
//! A new store is all zeros, so all its frames are free and creating it costs no pass over them. Frames leave limbo by
//! themselves: one number, that of the last sync that is done, frees all that it can.

use super::Fault;
use super::memory::Memory;
use super::slot::{Slot, named, tag_of};
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// The tag of a frame in limbo, in a store of durability `power`; such a store has one writer less.
pub const LIMBO: u16 = u16::MAX;

/// What a pass over the tags came to.
enum Pass {
    Took(u64),
    /// None was free, but some will be after a sync.
    NoneButInLimbo,
    None,
}

/// Takes a free frame into the reserve of `writer`'s slot: the one at `start` if it is free, else the next after it.
///
/// Most first writes find the block's own number free, which puts block `n` in frame `n`. A pool with few free frames
/// costs a pass over the tags, two bytes each. That there is none is said only if there was a moment without any: a
/// pass that finds none while a frame was given back behind its eyes is made again.
pub(super) fn take<const W: usize>(mem: &impl Memory<W>, writer: u16, start: u64) -> Result<u64, Fault> {
    let mut before = None;
    loop {
        let pass = scan(mem, writer, start)?;
        if let Pass::Took(frame) = pass {
            return Ok(frame);
        }
        let after = given_back(mem);
        if before == Some(after) || matches!(pass, Pass::NoneButInLimbo) {
            mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?.reserve.store(0, Relaxed);
            return Err(if let Pass::None = pass { Fault::NoSpace } else { Fault::AllInLimbo });
        }
        before = Some(after);
    }
}

/// One pass over the tags.
fn scan<const W: usize>(mem: &impl Memory<W>, writer: u16, start: u64) -> Result<Pass, Fault> {
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    let frames = mem.frames();
    let start = if start < frames { start } else { start % frames };
    let mut fruitless = Pass::None;
    for frame in (start..frames).chain(0..start) {
        let tag = mem.tag(frame).expect("below the number of frames");
        // ORDERING [pool-pass]: pairs with the exchange below.
        // - We saw a frame taken: we see what its taker gave back before, in its tags or in the counts.
        // - We saw it free: the exchange below decides.
        let found = tag.load(Acquire);
        if found != 0 && !(found == LIMBO && mem.epochs().is_some()) {
            continue;
        }
        if found == LIMBO && !has_left_limbo(mem, frame) {
            fruitless = Pass::NoneButInLimbo;
            continue;
        }
        // ORDERING [death]: stands before the exchange of the tag, for whoever adopts this slot after our death: it
        // finds the frame by the one, and knows by the other whether we had it.
        slot.reserve.store(named(frame), Release);
        // ORDERING [frame-freed]: pairs with the Release stores of the tag in `give_back` and `put_in_limbo`; [pool-pass]
        // with the loads of tags above.
        // - We took the frame: the exchange that displaced it happened before, so a reader that still copies it and
        //   sees one of our bytes will also see that its cell moved.
        // - Another took it: we go on to the next.
        if tag.compare_exchange(found, tag_of(writer), AcqRel, Acquire).is_err() {
            continue;
        }
        if found == LIMBO && !has_left_limbo(mem, frame) {
            // It was taken and came back between our look and the exchange.
            // ORDERING [frame-freed]: as in `put_in_limbo`.
            tag.store(LIMBO, Release);
            // Another's pass may have gone by meanwhile.
            count_given_back(slot);
            fruitless = Pass::NoneButInLimbo;
            continue;
        }
        return Ok(Pass::Took(frame));
    }
    Ok(fruitless)
}

/// Whether no sync needs the frame any more, which is in limbo.
pub(super) fn has_left_limbo<const W: usize>(mem: &impl Memory<W>, frame: u64) -> bool {
    match (mem.epochs(), mem.stamp(frame)) {
        (Some(epochs), Some(stamp)) => epochs.is_past(stamp.epoch.load(Relaxed)),
        _ => false,
    }
}

/// How many frames have ever been given back.
fn given_back<const W: usize>(mem: &impl Memory<W>) -> u64 {
    // ORDERING [pool-pass]: pairs with the Release store of the count in `give_back`.
    // - We saw the count: the frame's tag is 0 for the pass that follows, or another has taken it.
    // - We did not: giving it back is not done yet, and comes after us.
    let counts = (0..mem.writers()).filter_map(|writer| mem.slot(writer)).map(|slot| slot.freed.load(Acquire));
    counts.fold(0, u64::wrapping_add)
}

/// Gives the frame in the reserve of `writer`'s slot back to the pool.
pub(super) fn give_back<const W: usize>(mem: &impl Memory<W>, writer: u16, frame: u64) -> Result<(), Fault> {
    put(mem, writer, frame, 0)
}

/// Puts the frame in the reserve of `writer`'s slot into limbo: it was replaced before `epoch` was read.
pub(super) fn put_in_limbo<const W: usize>(
    mem: &impl Memory<W>,
    writer: u16,
    frame: u64,
    epoch: u64,
) -> Result<(), Fault> {
    mem.stamp(frame).ok_or(Fault::DamagedSlot { writer })?.epoch.store(epoch, Relaxed);
    put(mem, writer, frame, LIMBO)
}

/// Lets go of the frame in the reserve of `writer`'s slot; its tag tells where it is.
fn put<const W: usize>(mem: &impl Memory<W>, writer: u16, frame: u64, place: u16) -> Result<(), Fault> {
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    let tag = mem.tag(frame).ok_or(Fault::DamagedSlot { writer })?;
    // ORDERING [frame-freed]: pairs with the exchange in `scan`, which tells what it brings about.
    tag.store(place, Release);
    // ORDERING [death]: stands after the store of the tag. A death between the two leaves a reserve whose frame is not
    // tagged for this writer, which means that it is not its own.
    slot.reserve.store(0, Release);
    count_given_back(slot);
    Ok(())
}

/// Counts a frame that was given back through this slot.
pub(super) fn count_given_back(slot: &Slot) {
    // ORDERING [pool-pass]: pairs with the load in `given_back`, which tells what it brings about.
    slot.freed.store(slot.freed.load(Relaxed).wrapping_add(1), Release);
}
