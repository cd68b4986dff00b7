//! Where everything lies in the file of a store of durability `power`: told from `docs/format.md`, not from the library.

use std::ops::Range;

use casblock::Geometry;

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// What the kernel notes as changed, and flushes.
pub const PAGE: usize = 4096;

/// A store's sections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Section {
    /// Written once, when the store is made.
    Superblock,
    /// Syncs, phase, boot id, the last recovery.
    State,
    /// Heartbeat words.
    Words,
    /// Writer slots.
    Writers,
    /// Tags of frames.
    Tags,
    /// Cells of blocks.
    Cells,
    /// Stamps of frames.
    Stamps,
    /// Frames.
    Frames,
    /// The flight recorder, if there is one.
    Events,
}

impl Section {
    /// All of them, in the order of the file.
    pub const ALL: [Self; 9] = [
        Self::Superblock,
        Self::State,
        Self::Words,
        Self::Writers,
        Self::Tags,
        Self::Cells,
        Self::Stamps,
        Self::Frames,
        Self::Events,
    ];
}

/// Offset of `started` in the file.
pub const STARTED: usize = PAGE;
/// Offset of `completed`.
pub const COMPLETED: usize = PAGE + 128;
/// Offset of the phase.
pub const PHASE: usize = PAGE + 640;
/// The phase of a store that was closed.
pub const CLOSED: u64 = 0;
/// Offset of the boot id: 16 bytes.
pub const BOOT: usize = PAGE + 648;
/// Offset of the file's device, its inode and when it was made: 8 bytes each.
pub const FILE: usize = PAGE + 664;
/// Offsets of the record of the last recovery, which has times in it.
pub const LAST_RECOVERY: Range<usize> = PAGE + 688..PAGE + 736;

/// Bytes of a stamp.
pub const STAMP: usize = 24;

/// Bytes of a writer's slot, and where in it the miscompares are counted.
const SLOT: usize = 128;
const MISCOMPARES: usize = 40;

/// Bytes of the flight recorder before its records.
const RECORDER_HEADER: usize = 512;

/// Where a store's sections lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The store's geometry.
    pub geometry: Geometry,
    /// Where each section starts, and at last the file's end.
    starts: [usize; 10],
}

impl Layout {
    /// The layout of a store of this geometry.
    pub fn of(geometry: Geometry) -> Self {
        let number = |count: u64| usize::try_from(count).expect("a small store");
        let frames = number(geometry.frame_count());
        let lengths = [
            PAGE,
            PAGE,
            number(geometry.word_count()) * 128,
            usize::from(geometry.writer_count()) * 128,
            frames * 2,
            number(geometry.block_count()) * 8,
            frames * STAMP,
            frames * geometry.size_of_block().bytes(),
            match number(geometry.event_count().into()) {
                0 => 0,
                events => RECORDER_HEADER + events * 64,
            },
        ];
        let mut starts = [0; 10];
        for (section, length) in lengths.into_iter().enumerate() {
            starts[section + 1] = (starts[section] + length).next_multiple_of(PAGE);
        }
        Self { geometry, starts }
    }

    /// Length of the file.
    pub fn end(&self) -> usize {
        self.starts[9]
    }

    /// Where a section starts.
    pub fn start(&self, section: Section) -> usize {
        self.starts[section as usize]
    }

    /// The section that has this byte of the file.
    pub fn section(&self, offset: usize) -> Section {
        let next = self.starts.partition_point(|start| *start <= offset);
        Section::ALL[next - 1]
    }

    /// Whether this is the flight recorder's: its section, and the counts of miscompares in the writers' slots. A cut of
    /// the power may take what it has kept since the last sync, whatever the state page says.
    pub fn is_recorder(&self, offset: usize) -> bool {
        match self.section(offset) {
            Section::Events => true,
            Section::Writers => (offset - self.start(Section::Writers)) % SLOT == MISCOMPARES,
            _ => false,
        }
    }

    /// The block whose cell this is.
    pub fn block_of_cell(&self, offset: usize) -> usize {
        (offset - self.start(Section::Cells)) / 8
    }

    /// The word this is, unless it is the space between two.
    pub fn word_at(&self, offset: usize) -> Option<usize> {
        let at = offset - self.start(Section::Words);
        at.is_multiple_of(128).then_some(at / 128)
    }

    /// Where a word lies.
    pub fn word(&self, index: usize) -> usize {
        self.start(Section::Words) + 128 * index
    }

    /// How many bits of a cell are the frame's number.
    fn index_bits(&self) -> u32 {
        u64::BITS - (self.geometry.frame_count() - 1).leading_zeros()
    }

    /// The frame that a cell names; `None` for a block never written.
    pub fn frame_of_cell(&self, cell: u64) -> Option<usize> {
        (cell != 0).then_some((cell & ((1 << self.index_bits()) - 1)) as usize)
    }

    /// The number of the update that made the cell.
    pub fn sequence_of_cell(&self, cell: u64) -> u64 {
        cell >> (self.index_bits() + 1)
    }

    /// The bytes of a frame.
    pub fn frame(&self, frame: usize) -> Range<usize> {
        let bytes = self.geometry.size_of_block().bytes();
        let start = self.start(Section::Frames) + frame * bytes;
        start..start + bytes
    }

    /// The frame that has this byte of the file.
    pub fn frame_at(&self, offset: usize) -> usize {
        (offset - self.start(Section::Frames)) / self.geometry.size_of_block().bytes()
    }

    /// Where the stamp of a frame lies.
    pub fn stamp(&self, frame: usize) -> usize {
        self.start(Section::Stamps) + frame * STAMP
    }

    /// The number of frames.
    pub fn frames(&self) -> usize {
        self.geometry.frame_count() as usize
    }

    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.geometry.block_count() as usize
    }

    /// The number of words.
    pub fn words(&self) -> usize {
        self.geometry.word_count() as usize
    }
}

/// A little-endian number of 8 bytes.
pub fn number_at(image: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(image[offset..offset + 8].try_into().expect("8 bytes"))
}

/// Puts a little-endian number of 8 bytes.
pub fn put_number(image: &mut [u8], offset: usize, value: u64) {
    image[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

/// The boot id of this machine, as the state page has it.
pub fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc is mounted");
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes = u128::from_str_radix(&digits, 16).expect("a UUID").to_be_bytes();
    [number_at(&bytes, 0), number_at(&bytes, 8)]
}
