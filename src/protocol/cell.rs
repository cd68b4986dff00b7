//! The cell: one 8-byte word a block, naming the frame that holds its contents.

/// A cell's value: `sequence | reserved bit | frame index`, or 0 for a block that was never written.
///
/// The sequence grows by one with every update, so a cell that holds the same value at two moments was not changed
/// in between: a reader's proof that what it copied is one block's contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell(u64);

impl Cell {
    /// The cell of a block that was never written.
    pub const UNWRITTEN: Self = Self(0);

    /// The cell with these bits, as loaded from memory: untrusted until [`CellLayout::frame`] has been checked.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits to store.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the block was never written: it reads as zeros and has no frame.
    #[inline(always)]
    pub const fn is_unwritten(self) -> bool {
        self.0 == 0
    }
}

/// How a cell's 64 bits are divided: as many index bits as the store's frames need, one reserved bit, the sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellLayout {
    /// The index bits and the reserved bit, all set.
    low: u64,
}

impl CellLayout {
    /// Most frames a store may have: leaves 32 bits to the sequence.
    pub const FRAMES_MAX: u64 = 1 << 31;

    /// The layout for `frames` frames, which is at least 1 and at most [`FRAMES_MAX`](Self::FRAMES_MAX).
    pub const fn for_frames(frames: u64) -> Self {
        assert!(frames >= 1 && frames <= Self::FRAMES_MAX, "frames out of range");
        let index_bits = u64::BITS - (frames - 1).leading_zeros();
        Self { low: (2 << index_bits) - 1 }
    }

    /// Bits left to the sequence: it wraps after two to this power updates of one block.
    #[cfg(all(test, not(loom)))]
    const fn sequence_bits(self) -> u32 {
        self.low.leading_zeros()
    }

    /// The frame the cell names. A set reserved bit gives an index that is out of range in every store, so that one
    /// bounds check covers both.
    #[inline(always)]
    pub const fn frame(self, cell: Cell) -> u64 {
        cell.0 & self.low
    }

    /// The number of the update that made the cell.
    pub const fn sequence(self, cell: Cell) -> u64 {
        cell.0 >> self.low.count_ones()
    }

    /// The cell that names `frame` after update number `sequence`, both of which are in range.
    pub const fn cell(self, sequence: u64, frame: u64) -> Cell {
        Cell(sequence << self.low.count_ones() | frame)
    }

    /// A cell of the same sequence that names no frame.
    pub const fn none(self, cell: Cell) -> Cell {
        Cell(cell.0 | self.low)
    }

    /// The cell after an update of `cell` that puts `frame` in place. The sequence after its last value is 1, not 0,
    /// so that no update makes a cell look unwritten.
    #[inline(always)]
    pub const fn successor(self, cell: Cell, frame: u64) -> Cell {
        let next = (cell.0 | self.low).wrapping_add(1);
        Cell((if next == 0 { self.low + 1 } else { next }) | frame)
    }

    /// Whether `later` has the sequence that follows `cell`'s, whatever its frame.
    pub const fn follows(self, later: Cell, cell: Cell) -> bool {
        self.successor(cell, 0).0 == later.0 & !self.low
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn index_takes_what_the_geometry_needs_and_the_sequence_the_rest() {
        for (frames, sequence_bits) in [(1, 63), (2, 62), (3, 61), (4, 61), (5, 60), (1 << 20, 43), (1 << 31, 32)] {
            assert_eq!(CellLayout::for_frames(frames).sequence_bits(), sequence_bits, "{frames} frames");
        }
    }

    #[test]
    fn successor_counts_up_names_the_frame_and_never_looks_unwritten() {
        for frames in [1, 2, 1000, CellLayout::FRAMES_MAX] {
            let layout = CellLayout::for_frames(frames);
            let first = layout.successor(Cell::UNWRITTEN, 0);
            assert!(!first.is_unwritten());
            assert!(layout.follows(first, Cell::UNWRITTEN));
            let second = layout.successor(first, frames - 1);
            assert_eq!(layout.frame(second), frames - 1);
            assert!(layout.follows(second, first) && !layout.follows(first, second));

            let last = Cell::from_bits(!layout.low | (frames - 1));
            let wrapped = layout.successor(last, 0);
            assert_eq!(wrapped, first, "the sequence wraps to 1");
            assert!(layout.follows(wrapped, last));
        }
    }

    #[test]
    fn a_cell_is_its_sequence_and_its_frame() {
        for frames in [1, 2, 1000, CellLayout::FRAMES_MAX] {
            let layout = CellLayout::for_frames(frames);
            let mut cell = Cell::UNWRITTEN;
            for sequence in 1..=3 {
                cell = layout.successor(cell, frames - 1);
                assert_eq!((layout.sequence(cell), layout.frame(cell)), (sequence, frames - 1));
                assert_eq!(layout.cell(sequence, frames - 1), cell);
            }
        }
    }

    #[test]
    fn a_reserved_bit_reads_as_a_frame_out_of_range() {
        for frames in [1, 2, 3, 1000, CellLayout::FRAMES_MAX] {
            let layout = CellLayout::for_frames(frames);
            let reserved = layout.low.div_ceil(2);
            let damaged = Cell::from_bits(layout.successor(Cell::UNWRITTEN, 0).bits() | reserved);
            assert!(layout.frame(damaged) >= frames);
        }
    }
}
