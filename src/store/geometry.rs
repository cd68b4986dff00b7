//! How many of what a store has, and where in the file each lies.

use super::event::WORDS_OF_RECORD;
use super::recorder::Header;
use crate::error::OpenError;
use crate::protocol::cell::CellLayout;
use crate::protocol::durable::Stamp;
use crate::protocol::events::Record;
use crate::protocol::slot::{BLOCKS_MAX, Slot};
use crate::protocol::word::Word;

/// The size of a block. Each is read, written and compared whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum BlockSize {
    /// 512 bytes: a disk's logical block, an ATS block of VMFS.
    #[default]
    B512,
    /// 4,096 bytes: a 4K-native disk's block.
    B4096,
}

impl BlockSize {
    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }

    /// The block size of so many bytes: 512 or 4,096.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }
}

/// What a store survives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The death of any process at any instruction. No flush, no checksum: the fastest.
    #[default]
    Process,
    /// A cut of the power, or a crash of the kernel, as well: what was in place when [`Store::sync`](crate::Store::sync)
    /// was called is on the disk when it returns; after a cut each block holds that, or a complete later update.
    Power,
}

/// How many blocks, frames, words and writers a store has, and what it survives: fixed when it is made.
///
/// ```
/// use casblock::{BlockSize, Geometry};
///
/// let geometry = Geometry::blocks(1 << 20).block_size(BlockSize::B4096).writers(16);
/// assert_eq!(geometry.frame_count(), (1 << 20) + 2 * 16);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    block_size: BlockSize,
    blocks: u64,
    frames: Option<u64>,
    words: u64,
    writers: u16,
    length_bytes: Option<u64>,
    durability: Durability,
    events: u32,
}

/// Most events that a store may keep.
const EVENTS_MAX: u32 = 1 << 20;

impl Geometry {
    /// A store of `blocks` blocks (1 to 2³² − 2) of 512 bytes, a frame for each, 256 words, 128 writers, and room for 4,096
    /// events.
    pub const fn blocks(blocks: u64) -> Self {
        Self {
            block_size: BlockSize::B512,
            blocks,
            frames: None,
            words: 256,
            writers: 128,
            length_bytes: None,
            durability: Durability::Process,
            events: 4096,
        }
    }

    /// Sets the block size.
    #[must_use]
    pub const fn block_size(mut self, block_size: BlockSize) -> Self {
        self.block_size = block_size;
        self
    }

    /// Sets the number of frames (2 to 2³¹): one for each block that will ever be written, and two for each writer at
    /// work, which has one as its spare and takes another while it writes a new block. With fewer, writes of new blocks
    /// end in [`NoSpace`](crate::Error::NoSpace). The default is one for each block and two for each writer, so that
    /// this never happens.
    ///
    /// With [`Durability::Power`] a block that is updated for the first time since a sync takes a frame until the next. The
    /// more there are, the more blocks can be updated before an update must sync by itself; the default is one more for
    /// every 128 blocks, and four, not two, for each writer.
    #[must_use]
    pub const fn frames(mut self, frames: u64) -> Self {
        self.frames = Some(frames);
        self
    }

    /// Sets the number of heartbeat words (0 to 2²⁴).
    #[must_use]
    pub const fn words(mut self, words: u64) -> Self {
        self.words = words;
        self
    }

    /// Sets the number of writer slots (1 to 65,535): how many threads, of all processes together, may update at the
    /// same time. A process keeps the slots that updates by [`Store`](crate::Store) itself took, as many as did so at the
    /// same time, until its handles are dropped; a [`Writer`](crate::Writer) gives its slot back when it is dropped.
    #[must_use]
    pub const fn writers(mut self, writers: u16) -> Self {
        self.writers = writers;
        self
    }

    /// Sets the length of what the store holds, in bytes, where it does not fill the last block: that of a disk image,
    /// for instance. The store only keeps it.
    #[must_use]
    pub const fn length_bytes(mut self, length_bytes: u64) -> Self {
        self.length_bytes = Some(length_bytes);
        self
    }

    /// Sets what the store survives: [`Durability::Process`] unless set. One in memory goes with its process.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets how many events the store's flight recorder keeps: a power of two up to 2²⁰, or 0 for none. Each takes 64 bytes.
    /// Few are for tests: a process that is stopped while it records, and goes on when 32,768 times as many have been
    /// recorded since, may spoil one.
    ///
    /// A store without can be used by the first versions of this library, which had no recorder.
    #[must_use]
    pub const fn events(mut self, events: u32) -> Self {
        self.events = events;
        self
    }

    /// What the store survives.
    pub const fn durability_class(&self) -> Durability {
        self.durability
    }

    /// The block size.
    pub const fn size_of_block(&self) -> BlockSize {
        self.block_size
    }

    /// The number of blocks.
    pub const fn block_count(&self) -> u64 {
        self.blocks
    }

    /// The number of frames.
    pub const fn frame_count(&self) -> u64 {
        let writers = self.writers as u64;
        match (self.frames, self.durability) {
            (Some(frames), _) => frames,
            (None, Durability::Process) => self.blocks.saturating_add(2 * writers),
            (None, Durability::Power) => self.blocks.saturating_add(4 * writers + self.blocks / 128),
        }
    }

    /// The number of heartbeat words.
    pub const fn word_count(&self) -> u64 {
        self.words
    }

    /// The number of writer slots.
    pub const fn writer_count(&self) -> u16 {
        self.writers
    }

    /// How many events the store's flight recorder keeps; 0 if there is none.
    pub const fn event_count(&self) -> u32 {
        self.events
    }

    /// The length in bytes of what the store holds: all blocks, unless set.
    pub const fn length(&self) -> u64 {
        match self.length_bytes {
            Some(length_bytes) => length_bytes,
            None => self.blocks.saturating_mul(self.block_size.bytes() as u64),
        }
    }
}

/// Sections start at multiples of this many bytes.
pub(super) const SECTION_ALIGN: u64 = 4096;

/// Where each section of a store lies, in bytes from its start. Only a geometry that is possible has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// With durability `power` only; else it is empty.
    pub state: u64,
    pub words: u64,
    pub writers: u64,
    pub tags: u64,
    pub cells: u64,
    /// With durability `power` only; else it is empty.
    pub stamps: u64,
    pub frames: u64,
    /// Where there is a flight recorder; else it is empty.
    pub events: u64,
    /// The end of the last section: the file's length.
    pub end: u64,
}

impl Layout {
    /// Lays the sections out one after the other, the superblock before them.
    pub fn of(geometry: &Geometry) -> Result<Self, OpenError> {
        let bounds = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(OpenError::Geometry { reason: format!("{value} {name}; {least} to {most} are possible") })
        };
        bounds("blocks", geometry.blocks, 1, BLOCKS_MAX)?;
        bounds("frames", geometry.frame_count(), 2, CellLayout::FRAMES_MAX)?;
        bounds("words", geometry.words, 0, 1 << 24)?;
        let power = geometry.durability == Durability::Power;
        // One tag is that of limbo.
        bounds("writers", geometry.writers.into(), 1, (u16::MAX - u16::from(power)).into())?;
        let block_bytes = geometry.block_size.bytes() as u64;
        bounds("bytes of contents", geometry.length(), 0, geometry.blocks * block_bytes)?;

        if geometry.events > EVENTS_MAX || !(geometry.events == 0 || geometry.events.is_power_of_two()) {
            let reason = format!("{} events; 0 or a power of two up to {EVENTS_MAX} is possible", geometry.events);
            return Err(OpenError::Geometry { reason });
        }

        // With these bounds no sum below comes near 2⁶⁴.
        let mut end = SECTION_ALIGN;
        let mut section = |count: u64, bytes: u64| {
            let start = end;
            end = (start + count * bytes).next_multiple_of(SECTION_ALIGN);
            start
        };
        let state = section(power.into(), SECTION_ALIGN);
        let words = section(geometry.words, size_of::<Word>() as u64);
        let writers = section(geometry.writers.into(), size_of::<Slot>() as u64);
        let tags = section(geometry.frame_count(), size_of::<u16>() as u64);
        let cells = section(geometry.blocks, size_of::<u64>() as u64);
        let stamps = section(if power { geometry.frame_count() } else { 0 }, size_of::<Stamp>() as u64);
        let frames = section(geometry.frame_count(), block_bytes);
        let records = u64::from(geometry.events) * size_of::<Record<WORDS_OF_RECORD>>() as u64;
        let events = section((geometry.events > 0).into(), size_of::<Header>() as u64 + records);
        if usize::try_from(end).is_err() || i64::try_from(end).is_err() {
            return Err(OpenError::Geometry { reason: format!("{end} bytes cannot be mapped on this machine") });
        }
        Ok(Self { state, words, writers, tags, cells, stamps, frames, events, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_aligned_ordered_and_cost_what_is_promised() {
        for (durability, percent) in [(Durability::Process, 3), (Durability::Power, 8)] {
            let geometry = Geometry::blocks(1 << 20).durability(durability);
            let at = Layout::of(&geometry).unwrap();
            let starts = [at.state, at.words, at.writers, at.tags, at.cells, at.stamps, at.frames, at.events, at.end];
            assert!(starts.is_sorted());
            assert!(starts.iter().all(|start| start.is_multiple_of(SECTION_ALIGN)));
            let beside = at.end - (1 << 20) * 512;
            assert!(beside * 100 <= percent * (1 << 20) * 512, "{beside} bytes beside the blocks: over {percent} %");
        }
    }

    #[test]
    fn impossible_geometries_are_refused_with_the_bounds() {
        let with = |geometry: Geometry| match Layout::of(&geometry) {
            Err(OpenError::Geometry { reason }) => reason,
            other => panic!("{geometry:?}: {other:?}"),
        };
        assert_eq!(with(Geometry::blocks(0)), "0 blocks; 1 to 4294967294 are possible");
        with(Geometry::blocks(u64::MAX));
        with(Geometry::blocks(1 << 31)); // one frame a block and two a writer: too many
        with(Geometry::blocks(8).frames(1));
        with(Geometry::blocks(8).writers(0));
        with(Geometry::blocks(8).words((1 << 24) + 1));
        assert_eq!(with(Geometry::blocks(8).events(100)), "100 events; 0 or a power of two up to 1048576 is possible");
        with(Geometry::blocks(8).events(1 << 21));
        assert_eq!(with(Geometry::blocks(8).length_bytes(4097)), "4097 bytes of contents; 0 to 4096 are possible");
    }
}
