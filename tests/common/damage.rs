//! Damage to a store's file, by the byte map: superblock, words, writers, tags, cells, frames, each at a multiple of
//! 4,096 bytes, all numbers little-endian.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use casblock::{Geometry, Store};

/// Fields of the superblock, by their offsets.
pub const VERSION: usize = 8;
pub const BLOCK_SIZE: usize = 12;
pub const BLOCKS: usize = 16;
pub const FRAMES: usize = 24;
pub const WORDS: usize = 32;
pub const WRITERS: usize = 40;
pub const DURABILITY: usize = 44;
pub const LENGTH_BYTES: usize = 48;
pub const CHECKSUM: usize = 124;
pub const SUPERBLOCK_BYTES: usize = 128;

/// Fields of a writer's slot, by their offsets.
pub const SPARE: u64 = 0;
pub const RESERVE: u64 = 8;
pub const INTENT_BLOCK: u64 = 16;
pub const INTENT_CELL: u64 = 24;

/// Where each section of a store's file starts.
#[derive(Clone, Copy, Debug)]
pub struct Sections {
    pub words: u64,
    pub writers: u64,
    pub tags: u64,
    pub cells: u64,
    pub frames: u64,
    pub end: u64,
}

impl Sections {
    pub fn of(geometry: &Geometry) -> Self {
        let after = |start: u64, bytes: u64| (start + bytes).next_multiple_of(4096);
        let words = 4096;
        let writers = after(words, 128 * geometry.word_count());
        let tags = after(writers, 128 * u64::from(geometry.writer_count()));
        let cells = after(tags, 2 * geometry.frame_count());
        let frames = after(cells, 8 * geometry.block_count());
        let end = after(frames, geometry.frame_count() * geometry.size_of_block().bytes() as u64);
        Self { words, writers, tags, cells, frames, end }
    }
}

/// A store's file that nobody has open, in a folder of its own.
pub struct Victim {
    pub path: PathBuf,
    pub sections: Sections,
    folder: tempfile::TempDir,
    sound: Vec<u8>,
}

impl Victim {
    /// Makes a store, lets `fill` use it, and closes it.
    pub fn new(geometry: Geometry, fill: impl FnOnce(&Store)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::create(&path, geometry).unwrap();
        fill(&store);
        let sections = Sections::of(&geometry);
        assert_eq!(sections.end, store.region_bytes(), "this byte map is the library's");
        drop(store);
        let sound = std::fs::read(&path).unwrap();
        Self { path, sections, folder, sound }
    }

    /// The file as it was made.
    pub fn sound(&self) -> &[u8] {
        &self.sound
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Undoes all damage.
    pub fn restore(&self) {
        std::fs::write(&self.path, &self.sound).unwrap();
    }

    pub fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    pub fn put(&self, offset: u64, bytes: &[u8]) {
        self.file().write_all_at(bytes, offset).unwrap();
    }

    pub fn put_tag(&self, frame: u64, tag: u16) {
        self.put(self.sections.tags + 2 * frame, &tag.to_le_bytes());
    }

    pub fn put_cell(&self, block: u64, bits: u64) {
        self.put(self.sections.cells + 8 * block, &bits.to_le_bytes());
    }

    pub fn cell(&self, block: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file().read_exact_at(&mut bytes, self.sections.cells + 8 * block).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub fn put_slot(&self, writer: u64, field: u64, value: u64) {
        self.put(self.sections.writers + 128 * writer + field, &value.to_le_bytes());
    }

    /// Changes a field of the superblock, and seals it so that its checksum is right.
    pub fn reseal_with(&self, field: usize, value: &[u8]) {
        let mut superblock = self.sound[..SUPERBLOCK_BYTES].to_vec();
        superblock[field..][..value.len()].copy_from_slice(value);
        let checksum = crc32c::crc32c(&superblock[..CHECKSUM]);
        superblock[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        self.put(0, &superblock);
    }
}
