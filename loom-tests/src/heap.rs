//! The protocol's memory on the heap: two words a block.

use casblock::protocol::audit;
use casblock::protocol::block::{self, Writer};
use casblock::protocol::cell::CellLayout;
use casblock::protocol::copy::Words;
use casblock::protocol::durable::{Counter, Epochs, Stamp};
use casblock::protocol::memory::{Frame, Memory};
use casblock::protocol::slot::Slot;
use casblock::protocol::{Fault, Outcome};
use casblock::{AtomicU16, AtomicU64};

/// Words of a block in a model.
pub const WORDS: usize = 2;

/// A block's bytes in a model.
pub type Block = [u8; 8 * WORDS];

/// The block whose bytes are all `value`.
pub const fn all(value: u8) -> Block {
    [value; 8 * WORDS]
}

/// A store on the heap, of loom's atomics.
pub struct Heap {
    cells: Vec<AtomicU64>,
    tags: Vec<AtomicU16>,
    frames: Vec<Frame<WORDS>>,
    slots: Vec<Slot>,
    /// Empty unless the durability is `power`.
    stamps: Vec<Stamp>,
    epochs: Option<Epochs>,
}

impl Heap {
    /// A new store: nothing written, all frames free.
    pub fn new(blocks: usize, frames: usize, writers: usize) -> Self {
        let slot = || Slot {
            spare: AtomicU64::new(0),
            reserve: AtomicU64::new(0),
            intent_block: AtomicU64::new(0),
            intent_cell: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            miscompares: AtomicU64::new(0),
        };
        Self {
            cells: (0..blocks).map(|_| AtomicU64::new(0)).collect(),
            tags: (0..frames).map(|_| AtomicU16::new(0)).collect(),
            frames: (0..frames).map(|_| Frame(std::array::from_fn(|_| AtomicU64::new(0)))).collect(),
            slots: (0..writers).map(|_| slot()).collect(),
            stamps: Vec::new(),
            epochs: None,
        }
    }

    /// A new store of durability `power`.
    pub fn durable(blocks: usize, frames: usize, writers: usize) -> Self {
        let counter = || Counter(AtomicU64::new(0));
        let field = || AtomicU64::new(0);
        Self {
            stamps: (0..frames).map(|_| Stamp { update: field(), check: field(), epoch: field() }).collect(),
            epochs: Some(Epochs { started: counter(), completed: counter() }),
            ..Self::new(blocks, frames, writers)
        }
    }

    /// The writer of slot `index`.
    pub fn writer(&self, index: u16) -> Writer {
        Writer::claim(self, index).expect("a frame is free")
    }

    /// Reads a block, which must be of one piece; gives the byte it is made of.
    pub fn read(&self, block: u64) -> u8 {
        let mut out = all(0xff);
        block::read(self, block, &mut out).expect("no damage");
        piece(&out)
    }

    /// Writes a block made of one byte.
    pub fn write(&self, writer: &mut Writer, block: u64, value: u8) -> Result<(), Fault> {
        writer.write(self, block, &all(value))
    }

    /// Compares and writes a block made of one byte; `Err` has the byte it was made of instead.
    pub fn compare_and_write(
        &self,
        writer: &mut Writer,
        block: u64,
        expected: u8,
        new: u8,
    ) -> Result<Result<(), u8>, Fault> {
        let mut found = all(0xff);
        match writer.compare_and_write(self, block, &all(expected), &all(new), &mut found)? {
            Outcome::Written => Ok(Ok(())),
            Outcome::Miscompare { offset } => {
                assert_eq!(offset, 0);
                let found = piece(&found);
                assert_ne!(found, expected, "a false miscompare");
                Ok(Err(found))
            }
        }
    }

    /// Asserts that every frame is in one place.
    pub fn assert_clean(&self) {
        let check = audit::check(self, true, |_| {});
        assert!(check.is_clean(), "{check:?}");
    }
}

/// The byte that a block is made of.
pub fn piece(block: &Block) -> u8 {
    assert!(block.iter().all(|&byte| byte == block[0]), "torn: {block:?}");
    block[0]
}

impl Memory<WORDS> for Heap {
    type Copies = Words;

    fn copies(&self) -> Words {
        Words
    }

    fn layout(&self) -> CellLayout {
        CellLayout::for_frames(self.frames())
    }

    fn blocks(&self) -> u64 {
        self.cells.len() as u64
    }

    fn frames(&self) -> u64 {
        self.frames.len() as u64
    }

    fn writers(&self) -> u16 {
        self.slots.len() as u16
    }

    fn cell(&self, block: u64) -> Option<&AtomicU64> {
        self.cells.get(block as usize)
    }

    fn tag(&self, frame: u64) -> Option<&AtomicU16> {
        self.tags.get(frame as usize)
    }

    fn frame(&self, frame: u64) -> Option<&Frame<WORDS>> {
        self.frames.get(frame as usize)
    }

    fn stamp(&self, frame: u64) -> Option<&Stamp> {
        self.stamps.get(frame as usize)
    }

    fn epochs(&self) -> Option<&Epochs> {
        self.epochs.as_ref()
    }

    fn slot(&self, writer: u16) -> Option<&Slot> {
        self.slots.get(usize::from(writer))
    }
}
