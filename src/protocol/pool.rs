//! The pool of free frames: those whose tag is 0.
//!
//! A new store is all zeros, so all its frames are free and creating it costs no pass over them.

use super::Fault;
use super::memory::Memory;
use super::slot::{named, tag_of};
use crate::sync::Ordering::{AcqRel, Relaxed, Release};

/// Takes a free frame into the reserve of `writer`'s slot: the one at `start` if it is free, else the next after it.
///
/// Most first writes find the block's own number free, which puts block `n` in frame `n`. A pool with few free frames
/// costs a pass over the tags, two bytes each.
pub(super) fn take<const W: usize>(mem: &impl Memory<W>, writer: u16, start: u64) -> Result<u64, Fault> {
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    let frames = mem.frames();
    let start = if start < frames { start } else { start % frames };
    for frame in (start..frames).chain(0..start) {
        let tag = mem.tag(frame).expect("below the number of frames");
        if tag.load(Relaxed) != 0 {
            continue;
        }
        // The reserve is named before the tag is taken: whoever adopts this slot after our death finds the frame by
        // the one and knows by the other whether we had it.
        slot.reserve.store(named(frame), Release);
        // ORDERING [frame-freed]: pairs with the Release store in `give_back`.
        // - We took the frame: the exchange that displaced it happened before, so a reader that still copies it and
        //   sees one of our bytes will also see that its cell moved.
        // - Another took it: we go on to the next.
        if tag.compare_exchange(0, tag_of(writer), AcqRel, Relaxed).is_ok() {
            return Ok(frame);
        }
    }
    slot.reserve.store(0, Release);
    Err(Fault::NoSpace)
}

/// Gives the frame in the reserve of `writer`'s slot back to the pool.
///
/// The tag goes first: a death between the two leaves a reserve whose frame is not tagged for this writer, which
/// means that it is not its own.
pub(super) fn give_back<const W: usize>(mem: &impl Memory<W>, writer: u16, frame: u64) -> Result<(), Fault> {
    let slot = mem.slot(writer).ok_or(Fault::DamagedSlot { writer })?;
    let tag = mem.tag(frame).ok_or(Fault::DamagedSlot { writer })?;
    // ORDERING [frame-freed]: pairs with the exchange in `take`, which tells what it brings about.
    tag.store(0, Release);
    slot.reserve.store(0, Release);
    Ok(())
}
