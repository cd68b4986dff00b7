//! The mechanisms of the protocol with their guard taken away, for the models' twins: each must make its model fail.
//!
//! They are written against the same memory as the protocol, step for step, without the one step that they are about.
//! Weaker orderings are not here: `cargo xtask weaken` makes those out of the shipped source.

use std::collections::VecDeque;

use casblock::protocol::cell::Cell;
use casblock::protocol::copy::{BlockCopy, Words};
use casblock::protocol::events::{PART_BITS, Ring};
use casblock::protocol::memory::Memory;
use casblock::protocol::pool::LIMBO;
use casblock::protocol::slot::{named, tag_of};
use casblock::protocol::word::Word;
use casblock::{Ordering, fence};

use crate::disk::{History, checksum, epochs};
use crate::heap::{Block, Heap, WORDS, all};

/// A read that does not look at the cell again after its copy.
pub fn read_without_validation(heap: &Heap, block: u64) -> Block {
    let mut out = all(0);
    let cell = Cell::from_bits(heap.cell(block).expect("in range").load(Ordering::Acquire));
    if !cell.is_unwritten() {
        let frame = heap.frame(heap.layout().frame(cell)).expect("in range");
        Words.load(frame, &mut out);
    }
    out
}

/// A comparison that reports a difference without looking at the cell again. `None` is equal.
pub fn miscompare_without_validation(heap: &Heap, block: u64, expected: u8) -> Option<Block> {
    let found = read_without_validation(heap, block);
    (found != all(expected)).then_some(found)
}

/// An update that stores the cell instead of exchanging it.
pub fn write_without_exchange(heap: &Heap, block: u64, spare: u64, value: u8) {
    let cell = heap.cell(block).expect("in range");
    let current = Cell::from_bits(cell.load(Ordering::Acquire));
    fence(Ordering::Release);
    Words.store(heap.frame(spare).expect("in range"), &all(value));
    cell.store(heap.layout().successor(current, spare).bits(), Ordering::Release);
}

/// An update in place: the bytes of the frame that the cell names are overwritten.
pub fn write_in_place(heap: &Heap, block: u64, value: u8) {
    let cell = Cell::from_bits(heap.cell(block).expect("in range").load(Ordering::Acquire));
    Words.store(heap.frame(heap.layout().frame(cell)).expect("in range"), &all(value));
}

/// Takes a free frame by a look and a store instead of an exchange.
pub fn take_without_exchange(heap: &Heap, writer: u16) -> Option<u64> {
    let free = (0..heap.frames()).find(|&frame| heap.tag(frame).expect("in range").load(Ordering::Acquire) == 0)?;
    heap.tag(free).expect("in range").store(tag_of(writer), Ordering::Release);
    heap.slot(writer).expect("in range").reserve.store(named(free), Ordering::Release);
    Some(free)
}

/// Takes frame 0 if it has left limbo, without a second look when it is taken. Whether it did.
pub fn take_from_limbo_after_one_look(heap: &Heap, writer: u16) -> bool {
    let tag = heap.tag(0).expect("in range");
    let found = tag.load(Ordering::Acquire);
    let replaced = heap.stamp(0).expect("durable").epoch.load(Ordering::Relaxed);
    found == LIMBO
        && epochs(heap).is_past(replaced)
        && tag.compare_exchange(found, tag_of(writer), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// A word's exchange by a load and a store.
pub fn word_without_exchange(word: &Word, expected: u64, new: u64) -> Result<(), u64> {
    match word.0.load(Ordering::Acquire) {
        found if found == expected => {
            word.0.store(new, Ordering::Release);
            Ok(())
        }
        found => Err(found),
    }
}

/// What a writer that died owns, by the look of its slot alone: as if its last exchange had never been made.
pub fn adopt_without_resolving(heap: &Heap, writer: u16) {
    let slot = heap.slot(writer).expect("in range");
    slot.reserve.store(0, Ordering::Release);
    slot.intent_block.store(0, Ordering::Release);
}

/// What a [`DurableWriter`] leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weakness {
    /// Nothing: with that its model must pass.
    Nothing,
    /// It prepares stamps that are committed from the first.
    CommitsAtOnce,
    /// It commits the stamp of its frame by a store, whosever that is by then.
    CommitsWithoutComparing,
    /// It does not commit what it replaces.
    LeavesReplacedUncommitted,
    /// It looks at the epoch before the exchange, not after.
    LooksAtEpochBefore,
    /// It looks at the epoch without a fence.
    LooksAtEpochWithoutFence,
    /// It stages in a frame that was replaced whenever that was.
    KnowsNoLimbo,
    /// It announces no intent.
    AnnouncesNothing,
}

/// A writer to a store of durability `power`, step for step as the protocol's, which has its frames from the start.
pub struct DurableWriter {
    /// Frames that are in no cell, and the epoch after which a sync must be done before it stages in them.
    frames: VecDeque<(u64, Option<u64>)>,
    slot: u16,
    weakness: Weakness,
}

impl DurableWriter {
    /// A writer with these frames, which nobody else has.
    pub fn new(slot: u16, frames: impl IntoIterator<Item = u64>, weakness: Weakness) -> Self {
        Self { frames: frames.into_iter().map(|frame| (frame, None)).collect(), slot, weakness }
    }

    /// Replaces a block that was written.
    pub fn write(&mut self, heap: &Heap, history: &History, block: u64, value: u8) {
        let (cell, layout) = (heap.cell(block).expect("in range"), heap.layout());
        let epochs = epochs(heap);
        let ripe = |&(_, replaced): &(u64, Option<u64>)| replaced.is_none_or(|epoch| epochs.is_past(epoch));
        let first = self.frames.iter().position(ripe).expect("a frame has left limbo");
        let (frame, _) = self.frames.remove(first).expect("found");
        let stamp = heap.stamp(frame).expect("durable");
        stamp.epoch.store(epochs.started.0.load(Ordering::Relaxed), Ordering::Relaxed);
        fence(Ordering::Release);
        Words.store(heap.frame(frame).expect("in range"), &all(value));
        let current = Cell::from_bits(cell.load(Ordering::Acquire));
        let (next, sequence) = (layout.successor(current, frame), layout.sequence(current) + 1);
        let words = [u64::from_ne_bytes([value; 8]); WORDS];
        stamp.check.store(u64::from(checksum(&words, block, sequence, frame)) << 32, Ordering::Relaxed);
        let uncommitted = block << 32 | sequence << 1;
        let at_once = u64::from(self.weakness == Weakness::CommitsAtOnce);
        stamp.update.store(uncommitted | at_once, Ordering::Relaxed);
        if self.weakness != Weakness::AnnouncesNothing {
            let slot = heap.slot(self.slot).expect("in range");
            slot.intent_cell.store(current.bits(), Ordering::Release);
            slot.intent_block.store(block + 1, Ordering::Release);
        }
        let displaced = layout.frame(current);
        if self.weakness != Weakness::LeavesReplacedUncommitted {
            commit(heap, displaced, block << 32 | layout.sequence(current) << 1);
        }
        let looks_before = self.weakness == Weakness::LooksAtEpochBefore;
        let before = looks_before.then(|| epochs.after_updates());
        cell.compare_exchange(current.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire)
            .expect("no other writer");
        match self.weakness {
            Weakness::CommitsWithoutComparing => stamp.update.store(uncommitted | 1, Ordering::Relaxed),
            _ => commit(heap, frame, uncommitted),
        }
        let now = match self.weakness {
            Weakness::LooksAtEpochWithoutFence => epochs.started.0.load(Ordering::Relaxed),
            _ => before.unwrap_or_else(|| epochs.after_updates()),
        };
        history.note_update(block, sequence, value, now);
        let in_limbo = heap.stamp(displaced).expect("durable").epoch.load(Ordering::Relaxed) != now;
        self.frames.push_front((displaced, (in_limbo && self.weakness != Weakness::KnowsNoLimbo).then_some(now)));
    }
}

/// Commits a stamp that is still this one.
fn commit(heap: &Heap, frame: u64, uncommitted: u64) {
    let update = &heap.stamp(frame).expect("durable").update;
    let _ = update.compare_exchange(uncommitted, uncommitted | 1, Ordering::Relaxed, Ordering::Relaxed);
}

/// A reader of events that looks at the tag of the first word alone. The record, if that is right.
pub fn read_event_by_its_first_word(ring: &impl Ring<2>, ticket: u64) -> Option<[u64; 2]> {
    let words = ring.record(ticket % ring.capacity())?.0.each_ref().map(|word| word.load(Ordering::Relaxed));
    let part = |word| word & ((1 << PART_BITS) - 1);
    (words[0] >> PART_BITS == ticket / ring.capacity() + 1).then(|| words.map(part))
}

/// A recorder that looks whether it was lapped, and then stores the word instead of exchanging it.
pub fn record_event_without_exchange(ring: &impl Ring<2>, parts: impl Fn(u64) -> [u64; 2]) {
    let ticket = ring.head().fetch_add(1, Ordering::Relaxed);
    let tag = ticket / ring.capacity() + 1;
    for (word, part) in ring.record(ticket % ring.capacity()).expect("in range").0.iter().zip(parts(ticket)) {
        if word.load(Ordering::Acquire) >> PART_BITS > tag {
            return;
        }
        word.store(tag << PART_BITS | part & ((1 << PART_BITS) - 1), Ordering::Release);
    }
}
