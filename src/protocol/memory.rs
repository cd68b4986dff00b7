//! What the protocol runs on: cells, tags, frames and writer slots, wherever they lie.

use super::cell::CellLayout;
use super::copy::BlockCopy;
use super::durable::{Epochs, Stamp};
use super::slot::Slot;
use crate::sync::{AtomicU16, AtomicU64};

/// One block's bytes, as `W` racy words: 64 in a store of 512-byte blocks, 512 in one of 4,096, 2 in a loom model.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Frame<const W: usize>(pub [AtomicU64; W]);

/// Cells, tags, frames and slots: a mapping in production, the heap in a model.
///
/// Each look-up checks its index, because indices come from memory that other processes write: `None` is one that is
/// out of range. The same index always gives the same place.
pub trait Memory<const W: usize> {
    /// How blocks are copied.
    type Copies: BlockCopy<W>;

    /// How blocks are copied.
    fn copies(&self) -> Self::Copies;
    /// How cells are laid out.
    fn layout(&self) -> CellLayout;
    /// The number of blocks.
    fn blocks(&self) -> u64;
    /// The number of frames.
    fn frames(&self) -> u64;
    /// The number of writer slots.
    fn writers(&self) -> u16;
    /// The cell of a block: which frame holds it.
    fn cell(&self, block: u64) -> Option<&AtomicU64>;
    /// The tag of a frame: 0 if it is free, [`LIMBO`](super::pool::LIMBO) if it is in limbo, else 1 + the writer that last
    /// tagged it: when it took the frame, before it staged in it, or before it let go of the intent by which it got it.
    fn tag(&self, frame: u64) -> Option<&AtomicU16>;
    /// A frame.
    fn frame(&self, frame: u64) -> Option<&Frame<W>>;
    /// The stamp of a frame; there is none in a store of durability `process`.
    fn stamp(&self, frame: u64) -> Option<&Stamp>;
    /// The epochs; a store of durability `process` has none.
    fn epochs(&self) -> Option<&Epochs>;
    /// The slot of a writer.
    fn slot(&self, writer: u16) -> Option<&Slot>;
}
