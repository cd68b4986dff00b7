//! The pool of free frames: those whose tag is 0.
//!
//! A new store is all zeros, so all its frames are free and creating it costs no pass over them.

use super::Fault;
use super::memory::Memory;
use super::slot::{Slot, named, tag_of};
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Takes a free frame into the reserve of `writer`'s slot: the one at `start` if it is free, else the next after it.
///
/// Most first writes find the block's own number free, which puts block `n` in frame `n`. A pool with few free frames
/// costs a pass over the tags, two bytes each. That there is none is said only if there was a moment without any: a
/// pass that finds none while a frame was given back behind its eyes is made again.
pub(super) fn take<const W: usize>(mem: &impl Memory<W>, writer: u16, start: u64) -> Result<u64, Fault> {
    if let Some(frame) = scan(mem, writer, start)? {
        return Ok(frame);
    }
    loop {
        let before = given_back(mem);
        if let Some(frame) = scan(mem, writer, start)? {
            return Ok(frame);
        }
        if given_back(mem) == before {
            mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?.reserve.store(0, Relaxed);
            return Err(Fault::NoSpace);
        }
    }
}

/// One pass over the tags.
fn scan<const W: usize>(mem: &impl Memory<W>, writer: u16, start: u64) -> Result<Option<u64>, Fault> {
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    let frames = mem.frames();
    let start = if start < frames { start } else { start % frames };
    for frame in (start..frames).chain(0..start) {
        let tag = mem.tag(frame).expect("below the number of frames");
        // ORDERING [pool-pass]: pairs with the exchange below.
        // - We saw a frame taken: we see what its taker gave back before, in its tags or in the counts.
        // - We saw it free: the exchange below decides.
        if tag.load(Acquire) != 0 {
            continue;
        }
        // ORDERING [death]: stands before the exchange of the tag, for whoever adopts this slot after our death: it
        // finds the frame by the one, and knows by the other whether we had it.
        slot.reserve.store(named(frame), Release);
        // ORDERING [frame-freed]: pairs with the Release store of the tag in `give_back`; [pool-pass] with the loads of
        // tags above.
        // - We took the frame: the exchange that displaced it happened before, so a reader that still copies it and
        //   sees one of our bytes will also see that its cell moved.
        // - Another took it: we go on to the next.
        if tag.compare_exchange(0, tag_of(writer), AcqRel, Acquire).is_ok() {
            return Ok(Some(frame));
        }
    }
    Ok(None)
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
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    let tag = mem.tag(frame).ok_or(Fault::DamagedSlot { writer })?;
    // ORDERING [frame-freed]: pairs with the exchange in `take`, which tells what it brings about.
    tag.store(0, Release);
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
