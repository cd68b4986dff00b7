//! The mechanisms of the protocol with their guard taken away, for the models' twins: each must make its model fail.
//!
//! They are written against the same memory as the protocol, step for step, without the one step that they are about.
//! Weaker orderings are not here: `cargo xtask weaken` makes those out of the shipped source.

use casblock::protocol::cell::Cell;
use casblock::protocol::copy::{BlockCopy, Words};
use casblock::protocol::memory::Memory;
use casblock::protocol::slot::{named, tag_of};
use casblock::protocol::word::Word;
use casblock::{Ordering, fence};

use crate::heap::{Block, Heap, all};

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
