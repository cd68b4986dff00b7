//! The superblock: the first bytes of a store's file. Written once, when the store is made.

use std::path::Path;

use bytemuck::{Pod, Zeroable};

use super::geometry::{BlockSize, Durability, Geometry, Layout};
use crate::error::OpenError;

/// The first eight bytes of every store.
const MAGIC: [u8; 8] = *b"casblock";

/// The newest version of the format that this library reads.
const NEWEST_VERSION: u32 = 3;

/// The version of the format of a store of this durability, with or without a flight recorder, and the number that says the
/// durability in the superblock.
const fn version_and_number(durability: Durability, events: u32) -> (u32, u32) {
    match (durability, events) {
        (Durability::Process, 0) => (1, 0),
        (Durability::Power, 0) => (2, 1),
        (Durability::Process, _) => (3, 0),
        (Durability::Power, _) => (3, 1),
    }
}

/// The superblock as it lies in the file; all numbers are little-endian.
#[derive(Clone, Copy, Pod, Zeroable, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Superblock {
    magic: [u8; 8],
    version: u32,
    block_size: u32,
    blocks: u64,
    frames: u64,
    words: u64,
    writers: u32,
    durability: u32,
    length_bytes: u64,
    uuid: [u8; 16],
    /// How many events the flight recorder keeps; 0 in versions 1 and 2.
    events: u32,
    /// Zero.
    reserved: [u32; 12],
    /// CRC-32C of all bytes before it.
    checksum: u32,
}

/// Bytes of a superblock.
pub(super) const SUPERBLOCK_BYTES: usize = size_of::<Superblock>();

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Superblock>() == 128);
    assert!(offset_of!(Superblock, version) == 8);
    assert!(offset_of!(Superblock, block_size) == 12);
    assert!(offset_of!(Superblock, blocks) == 16);
    assert!(offset_of!(Superblock, frames) == 24);
    assert!(offset_of!(Superblock, words) == 32);
    assert!(offset_of!(Superblock, writers) == 40);
    assert!(offset_of!(Superblock, durability) == 44);
    assert!(offset_of!(Superblock, length_bytes) == 48);
    assert!(offset_of!(Superblock, uuid) == 56);
    assert!(offset_of!(Superblock, events) == 72);
    assert!(offset_of!(Superblock, checksum) == 124);
};

impl Superblock {
    /// The superblock of a new store.
    pub fn new(geometry: &Geometry, uuid: [u8; 16]) -> Self {
        let (version, durability) = version_and_number(geometry.durability_class(), geometry.event_count());
        let mut superblock = Self {
            magic: MAGIC,
            version,
            block_size: geometry.size_of_block().bytes() as u32,
            blocks: geometry.block_count(),
            frames: geometry.frame_count(),
            words: geometry.word_count(),
            writers: geometry.writer_count().into(),
            durability,
            length_bytes: geometry.length(),
            uuid,
            events: geometry.event_count(),
            reserved: [0; 12],
            checksum: 0,
        };
        superblock.checksum = superblock.expected_checksum();
        superblock
    }

    /// The bytes to write.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    fn expected_checksum(&self) -> u32 {
        crc32c::crc32c(&self.bytes()[..std::mem::offset_of!(Self, checksum)])
    }

    /// Checks the first bytes of a file of `file_bytes` bytes, and gives what they say.
    pub fn parse(
        bytes: &[u8; SUPERBLOCK_BYTES],
        file_bytes: u64,
        path: &Path,
    ) -> Result<(Geometry, Layout, [u8; 16]), OpenError> {
        let superblock: Self = bytemuck::pod_read_unaligned(bytes);
        let damaged = |reason: String| OpenError::Superblock { path: path.into(), reason };
        if superblock.magic != MAGIC {
            let reason = "it does not begin with the magic bytes";
            return Err(OpenError::NotAStore { path: path.into(), reason });
        }
        if superblock.version > NEWEST_VERSION {
            let (found, supported) = (superblock.version, NEWEST_VERSION);
            return Err(OpenError::NewerVersion { path: path.into(), found, supported });
        }
        let expected = superblock.expected_checksum();
        if superblock.checksum != expected {
            let found = superblock.checksum;
            return Err(damaged(format!("checksum {found:08x}, but its bytes give {expected:08x}")));
        }
        // From here on only a superblock that was made to look so can be wrong; it is not trusted all the same.
        let said = (superblock.version, superblock.durability);
        let durability = [Durability::Process, Durability::Power]
            .into_iter()
            .find(|durability| version_and_number(*durability, superblock.events) == said)
            .ok_or_else(|| {
                let events = superblock.events;
                damaged(format!("format version {} with durability {} and {events} events", said.0, said.1))
            })?;
        if superblock.reserved != [0; 12] {
            return Err(damaged("reserved bytes that are not zero".into()));
        }
        let block_size = BlockSize::from_bytes(superblock.block_size.into())
            .ok_or_else(|| damaged(format!("block size {}", superblock.block_size)))?;
        let writers = superblock.writers.try_into().map_err(|_| damaged(format!("{} writers", superblock.writers)))?;
        let geometry = Geometry::blocks(superblock.blocks)
            .block_size(block_size)
            .frames(superblock.frames)
            .words(superblock.words)
            .writers(writers)
            .length_bytes(superblock.length_bytes)
            .durability(durability)
            .events(superblock.events);
        let layout = Layout::of(&geometry).map_err(|error| damaged(error.to_string()))?;
        if file_bytes < layout.end {
            return Err(OpenError::Truncated { path: path.into(), bytes: file_bytes, needed: layout.end });
        }
        Ok((geometry, layout, superblock.uuid))
    }
}
