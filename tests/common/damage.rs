//! Damage to a store's file, by the byte map: superblock, state, words, writers, tags, cells, stamps, frames, events, each
//! at a multiple of 4,096 bytes, all numbers little-endian.
#![allow(dead_code, reason = "each test uses its part of the byte map")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use casblock::{Durability, Geometry, Store};

/// Fields of the superblock, by their offsets.
pub const VERSION: usize = 8;
pub const BLOCK_SIZE: usize = 12;
pub const BLOCKS: usize = 16;
pub const FRAMES: usize = 24;
pub const WORDS: usize = 32;
pub const WRITERS: usize = 40;
pub const DURABILITY: usize = 44;
pub const LENGTH_BYTES: usize = 48;
pub const EVENTS: usize = 72;
pub const CHECKSUM: usize = 124;
pub const SUPERBLOCK_BYTES: usize = 128;

/// Fields of the state page of a store of durability `power`, by their offsets in it.
pub const STARTED: u64 = 0;
pub const COMPLETED: u64 = 128;
pub const FAILED: u64 = 256;
pub const MADE_GOOD: u64 = 384;
pub const FLUSHING: u64 = 512;
pub const PHASE: u64 = 640;
/// Who has it in use: this and the four numbers that follow.
pub const BOOT: u64 = 648;
pub const LAST_RECOVERY: u64 = 688;

/// Fields of a writer's slot, by their offsets.
pub const SPARE: u64 = 0;
pub const RESERVE: u64 = 8;
pub const INTENT_BLOCK: u64 = 16;
pub const INTENT_CELL: u64 = 24;
pub const FREED: u64 = 32;
pub const MISCOMPARES: u64 = 40;
pub const SLOT_BYTES: u64 = 128;

/// Fields of a stamp, by their offsets.
pub const UPDATE: u64 = 0;
pub const CHECK: u64 = 8;
pub const EPOCH: u64 = 16;
pub const STAMP_BYTES: u64 = 24;

/// Fields of the flight recorder's header, by their offsets, and where its records begin.
pub const HEAD: u64 = 0;
pub const NEXT: u64 = 128;
pub const RECORDS: u64 = 512;
pub const RECORD_BYTES: u64 = 64;

/// Where each section of a store's file starts.
#[derive(Clone, Copy, Debug)]
pub struct Sections {
    /// Empty but with durability `power`.
    pub state: u64,
    pub words: u64,
    pub writers: u64,
    pub tags: u64,
    pub cells: u64,
    /// Empty but with durability `power`.
    pub stamps: u64,
    pub frames: u64,
    /// Empty unless there is a flight recorder.
    pub events: u64,
    pub end: u64,
}

impl Sections {
    pub fn of(geometry: &Geometry) -> Self {
        let after = |start: u64, bytes: u64| (start + bytes).next_multiple_of(4096);
        let power = u64::from(geometry.durability_class() == Durability::Power);
        let state = 4096;
        let words = after(state, 4096 * power);
        let writers = after(words, 128 * geometry.word_count());
        let tags = after(writers, SLOT_BYTES * u64::from(geometry.writer_count()));
        let cells = after(tags, 2 * geometry.frame_count());
        let stamps = after(cells, 8 * geometry.block_count());
        let frames = after(stamps, STAMP_BYTES * geometry.frame_count() * power);
        let events = after(frames, geometry.frame_count() * geometry.size_of_block().bytes() as u64);
        let recorder = match geometry.event_count() {
            0 => 0,
            events => RECORDS + RECORD_BYTES * u64::from(events),
        };
        let end = after(events, recorder);
        Self { state, words, writers, tags, cells, stamps, frames, events, end }
    }

    /// The sections by name, each with its start, in the order of the file; the last is its end.
    pub fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("superblock", 0),
            ("state", self.state),
            ("words", self.words),
            ("writers", self.writers),
            ("tags", self.tags),
            ("cells", self.cells),
            ("stamps", self.stamps),
            ("frames", self.frames),
            ("events", self.events),
            ("end", self.end),
        ]
    }

    /// Names the place of an offset.
    pub fn place(&self, offset: u64) -> String {
        let (name, start) = *self.named().iter().rev().find(|(_, start)| *start <= offset).expect("one starts at 0");
        format!("{name} + {}", offset - start)
    }
}

/// A store's file that nobody has open, in a folder of its own.
pub struct Victim {
    pub path: PathBuf,
    pub geometry: Geometry,
    pub sections: Sections,
    folder: tempfile::TempDir,
    sound: Vec<u8>,
}

impl Victim {
    /// Makes a store, lets `fill` use it, and closes it.
    pub fn new(geometry: Geometry, fill: impl FnOnce(&Store)) -> Self {
        Self::made_in(&std::env::temp_dir(), geometry, fill)
    }

    /// As [`new`](Self::new), in memory where the system has a folder for that: where files are made by the thousand.
    pub fn in_memory(geometry: Geometry, fill: impl FnOnce(&Store)) -> Self {
        Self::made_in(&quick_folder(), geometry, fill)
    }

    fn made_in(folder: &Path, geometry: Geometry, fill: impl FnOnce(&Store)) -> Self {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let path = folder.path().join("store");
        let store = Store::create(&path, geometry).unwrap();
        fill(&store);
        let sections = Sections::of(&geometry);
        assert_eq!(sections.end, store.region_bytes(), "this byte map is the library's");
        drop(store);
        let sound = std::fs::read(&path).unwrap();
        Self { path, geometry, sections, folder, sound }
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
        self.become_bytes(&self.sound);
    }

    /// Makes these the contents of the file, which stays the same file.
    pub fn become_bytes(&self, bytes: &[u8]) {
        let file = self.file();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    pub fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    pub fn put(&self, offset: u64, bytes: &[u8]) {
        self.file().write_all_at(bytes, offset).unwrap();
    }

    pub fn number(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file().read_exact_at(&mut bytes, offset).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub fn put_tag(&self, frame: u64, tag: u16) {
        self.put(self.sections.tags + 2 * frame, &tag.to_le_bytes());
    }

    pub fn put_cell(&self, block: u64, bits: u64) {
        self.put(self.sections.cells + 8 * block, &bits.to_le_bytes());
    }

    pub fn cell(&self, block: u64) -> u64 {
        self.number(self.sections.cells + 8 * block)
    }

    pub fn put_slot(&self, writer: u64, field: u64, value: u64) {
        self.put(self.sections.writers + SLOT_BYTES * writer + field, &value.to_le_bytes());
    }

    pub fn put_state(&self, field: u64, value: u64) {
        self.put(self.sections.state + field, &value.to_le_bytes());
    }

    pub fn state(&self, field: u64) -> u64 {
        self.number(self.sections.state + field)
    }

    /// Changes a field of the superblock, and seals it so that its checksum is right.
    pub fn reseal_with(&self, field: usize, value: &[u8]) {
        self.reseal_with_all(&[(field, value)]);
    }

    /// As [`reseal_with`](Self::reseal_with), several fields.
    pub fn reseal_with_all(&self, fields: &[(usize, &[u8])]) {
        let mut superblock = self.sound[..SUPERBLOCK_BYTES].to_vec();
        for (field, value) in fields {
            superblock[*field..][..value.len()].copy_from_slice(value);
        }
        let checksum = crc32c::crc32c(&superblock[..CHECKSUM]);
        superblock[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        self.put(0, &superblock);
    }
}

/// Names the folder for files that are made by the thousand, where it is not to be chosen here.
pub const QUICK_FOLDER: &str = "CASBLOCK_TEST_QUICK_FOLDER";

/// A folder whose files are in memory, if there is one, else that for temporary files.
pub fn quick_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match std::env::var_os(QUICK_FOLDER) {
        Some(folder) => folder.into(),
        None if tempfile::tempfile_in(memory).is_ok() => memory.into(),
        None => std::env::temp_dir(),
    }
}
