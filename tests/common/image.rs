//! A store's file in memory, and what each block of it holds by the byte map alone: what tests of damage expect.
#![allow(dead_code, reason = "each test uses its part")]

use casblock::{Durability, Geometry};

use super::damage::{
    BOOT, CHECK, CHECKSUM, COMPLETED, PHASE, SLOT_BYTES, STAMP_BYTES, STARTED, SUPERBLOCK_BYTES, Sections, UPDATE,
};

/// More syncs than this there never were.
pub const EPOCH_MAX: u64 = u64::MAX / 2;

/// Version `version` of block `block`: every 8 bytes of it differ from those of any other block or version.
pub fn contents(block: u64, version: u64, block_bytes: usize) -> Vec<u8> {
    let head = block << 32 | version;
    let word = |index: u64| if index == 0 { head } else { mix(head ^ index << 56) };
    (0..block_bytes as u64 / 8).flat_map(|index| word(index).to_le_bytes()).collect()
}

/// The block and the version whose contents these are, if they are that whole.
pub fn identify(bytes: &[u8]) -> Option<(u64, u64)> {
    let head = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let (block, version) = (head >> 32, head & u64::from(u32::MAX));
    (version != 0 && contents(block, version, bytes.len()) == bytes).then_some((block, version))
}

/// A number that looks random, a different one for each (the finalizer of splitmix64).
pub fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// What a block holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held {
    /// Nothing: it was never written, and reads as zeros.
    Nothing,
    /// These bytes.
    Bytes(Vec<u8>),
    /// What no casblock makes.
    Corrupt,
}

/// What a stamp says.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub block: u64,
    pub sequence: u64,
    pub committed: bool,
    pub checksum: u32,
}

/// A store's file in memory.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub geometry: Geometry,
    pub at: Sections,
}

impl Image {
    pub fn new(bytes: Vec<u8>, geometry: Geometry) -> Self {
        Self { bytes, geometry, at: Sections::of(&geometry) }
    }

    pub fn is_power(&self) -> bool {
        self.geometry.durability_class() == Durability::Power
    }

    pub fn block_bytes(&self) -> usize {
        self.geometry.size_of_block().bytes()
    }

    pub fn number(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.bytes[offset as usize..][..8].try_into().unwrap())
    }

    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn put_number(&mut self, offset: u64, number: u64) {
        self.put(offset, &number.to_le_bytes());
    }

    pub fn cell_at(&self, block: u64) -> u64 {
        self.at.cells + 8 * block
    }

    pub fn slot_at(&self, writer: u64, field: u64) -> u64 {
        self.at.writers + SLOT_BYTES * writer + field
    }

    pub fn stamp_at(&self, frame: u64, field: u64) -> u64 {
        self.at.stamps + STAMP_BYTES * frame + field
    }

    pub fn frame_at(&self, frame: u64) -> u64 {
        self.at.frames + frame * self.block_bytes() as u64
    }

    /// Bits of a cell that are the frame's number.
    pub fn index_bits(&self) -> u32 {
        64 - (self.geometry.frame_count() - 1).leading_zeros()
    }

    /// The cell that names `frame` after update number `sequence`, as far as it fits.
    pub fn cell(&self, sequence: u64, frame: u64) -> u64 {
        sequence << (self.index_bits() + 1) | frame
    }

    /// The frame that a cell names, if there is one of that number; the reserved bit makes it one that there is not.
    fn frame_of(&self, cell: u64) -> Option<u64> {
        let index = cell & ((2 << self.index_bits()) - 1);
        (index < self.geometry.frame_count()).then_some(index)
    }

    pub fn frame(&self, frame: u64) -> &[u8] {
        &self.bytes[self.frame_at(frame) as usize..][..self.block_bytes()]
    }

    pub fn stamp(&self, frame: u64) -> Stamp {
        let (update, check) = (self.number(self.stamp_at(frame, UPDATE)), self.number(self.stamp_at(frame, CHECK)));
        Stamp {
            block: update >> 32,
            sequence: (check & u64::from(u32::MAX)) << 31 | (update & u64::from(u32::MAX)) >> 1,
            committed: update & 1 == 1,
            checksum: (check >> 32) as u32,
        }
    }

    /// How many blocks have a frame that is stamped as holding something else, and how many one whose bytes are not those
    /// that its stamp tells of.
    pub fn misstamped_and_damaged(&self) -> (u64, u64) {
        let (mut misstamped, mut damaged) = (0, 0);
        for block in (0..self.geometry.block_count()).filter(|_| self.is_power()) {
            let cell = self.number(self.cell_at(block));
            let Some(frame) = self.frame_of(cell).filter(|_| cell != 0) else { continue };
            let stamp = self.stamp(frame);
            if (stamp.block, stamp.sequence) != (block, cell >> (self.index_bits() + 1)) {
                misstamped += 1;
            } else if !self.has_right_checksum(frame) {
                damaged += 1;
            }
        }
        (misstamped, damaged)
    }

    /// What each block holds, if cells are believed.
    pub fn as_it_stands(&self) -> Vec<Held> {
        let held = |block| match (self.number(self.cell_at(block)), self.frame_of(self.number(self.cell_at(block)))) {
            (0, _) => Held::Nothing,
            (_, Some(frame)) => Held::Bytes(self.frame(frame).to_vec()),
            (_, None) => Held::Corrupt,
        };
        (0..self.geometry.block_count()).map(held).collect()
    }

    /// Whether the frame holds, whole, what its stamp says.
    fn has_right_checksum(&self, frame: u64) -> bool {
        let stamp = self.stamp(frame);
        let mut proof = self.frame(frame).to_vec();
        [stamp.block, stamp.sequence, frame].iter().for_each(|number| proof.extend(number.to_le_bytes()));
        crc32c::crc32c(&proof) == stamp.checksum
    }

    /// Whether it does, and that took place.
    fn proves_itself(&self, frame: u64) -> bool {
        let stamp = self.stamp(frame);
        let sequences = 1..1 << (63 - self.index_bits());
        stamp.committed && sequences.contains(&stamp.sequence) && self.has_right_checksum(frame)
    }

    /// The frame that recovery must choose for each block: the newest that proves itself.
    pub fn newest(&self) -> Vec<Option<u64>> {
        let mut newest: Vec<Option<(u64, u64)>> = vec![None; self.geometry.block_count() as usize];
        for frame in 0..self.geometry.frame_count() {
            let Stamp { block, sequence, .. } = self.stamp(frame);
            let Some(best) = newest.get_mut(block as usize) else { continue };
            if best.is_none_or(|(best, _)| sequence > best) && self.proves_itself(frame) {
                *best = Some((sequence, frame));
            }
        }
        newest.into_iter().map(|best| best.map(|(_, frame)| frame)).collect()
    }

    /// What each block holds after a recovery.
    pub fn recovered(&self) -> Vec<Held> {
        let held = |frame: Option<u64>| frame.map_or(Held::Nothing, |frame| Held::Bytes(self.frame(frame).to_vec()));
        self.newest().into_iter().map(held).collect()
    }

    /// A field of the state page.
    pub fn state(&self, field: u64) -> u64 {
        self.number(self.at.state + field)
    }

    /// Whether opening it recovers it: `mine` is a file of the same store as this boot of this machine leaves it.
    pub fn is_cut_off(&self, mine: &Image) -> bool {
        let used_by = |image: &Image| [0, 8, 16, 24, 32].map(|more| image.state(BOOT + more));
        self.is_power()
            && (self.state(COMPLETED) > self.state(STARTED)
                || self.state(STARTED) > EPOCH_MAX
                || match self.state(PHASE) {
                    0 => false,
                    1 | 2 => used_by(self) != used_by(mine),
                    _ => true,
                })
    }

    /// Whether the superblock is that of `sound`, and the file long enough.
    pub fn can_be_opened(&self, sound: &Image) -> bool {
        self.bytes.len() as u64 >= self.at.end && self.bytes[..SUPERBLOCK_BYTES] == sound.bytes[..SUPERBLOCK_BYTES]
    }

    /// Where this and another differ, for a person to read.
    pub fn differences(&self, sound: &Image) -> Vec<String> {
        let mut differences = Vec::new();
        if self.bytes.len() != sound.bytes.len() {
            differences.push(format!("{} bytes long, not {}", self.bytes.len(), sound.bytes.len()));
        }
        let words = self.bytes.chunks(8).zip(sound.bytes.chunks(8)).zip((0..).step_by(8));
        for ((here, there), offset) in words.filter(|((here, there), _)| here != there) {
            differences.push(format!("{}: {there:02x?} -> {here:02x?}", self.at.place(offset)));
        }
        differences
    }
}

/// This is about the expectations themselves: where they were wrong, nothing would be tested.
pub fn assert_sound(image: &Image) {
    assert_eq!(crc32c::crc32c(&image.bytes[..CHECKSUM]).to_le_bytes(), image.bytes[CHECKSUM..SUPERBLOCK_BYTES]);
    for (block, held) in (0..).zip(image.as_it_stands()) {
        match held {
            Held::Nothing => {}
            Held::Bytes(bytes) => assert_eq!(identify(&bytes).map(|(of, _)| of), Some(block)),
            Held::Corrupt => panic!("block {block} is corrupt in a sound store"),
        }
    }
    if image.is_power() {
        assert_eq!(image.as_it_stands(), image.recovered(), "cells and stamps say the same");
    }
}
