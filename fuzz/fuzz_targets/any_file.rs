//! A file of any bytes, and every operation there is: errors or data, and nothing else.
//!
//! An input is 64 bytes of choices, then the file. Its superblock is given a right checksum, and the file the length that
//! its geometry needs, if the first choice says so: few inputs would come that far by themselves.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use casblock::{Durability, Error, Geometry, OpenOptions, Store};
use libfuzzer_sys::fuzz_target;

mod common;
#[path = "../../tests/common/damage.rs"]
mod damage;
#[path = "../../tests/common/dice.rs"]
mod dice;

use damage::{CHECKSUM, DURABILITY, SUPERBLOCK_BYTES, VERSION, Victim};
use dice::Dice;

const CHOICES: usize = 64;

/// The longest file that an input is made into.
const FILE_BYTES_MAX: u64 = 1 << 20;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in(damage::quick_folder()).unwrap());

fn path() -> PathBuf {
    FOLDER.path().join("store")
}

/// Real stores, as small as they can be, with choices that leave them as they are or not.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for durability in [Durability::Process, Durability::Power] {
        let geometry = Geometry::blocks(4).frames(8).words(0).writers(2).durability(durability);
        let victim = Victim::in_memory(geometry, |store| (0..3).for_each(|lba| store.write(lba, &[7; 512]).unwrap()));
        for more in 0..8u8 {
            let choices = (0..CHOICES as u8).map(|index| index.wrapping_mul(31).wrapping_add(more));
            seeds.push(choices.chain(victim.sound().iter().copied()).collect());
        }
    }
    seeds
}

fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    let mut number = [0; 8];
    number[..length].copy_from_slice(&bytes[offset..][..length]);
    u64::from_le_bytes(number)
}

/// Makes a file one that may well be opened, whatever its geometry.
fn seal(file: &mut Vec<u8>) {
    file.resize(file.len().max(SUPERBLOCK_BYTES), 0);
    file[..8].copy_from_slice(b"casblock");
    let power = file[DURABILITY] % 2;
    file[VERSION..][..4].copy_from_slice(&[power + 1, 0, 0, 0]);
    file[DURABILITY..][..4].copy_from_slice(&[power, 0, 0, 0]);
    file[72..CHECKSUM].fill(0);
    let checksum = crc32c::crc32c(&file[..CHECKSUM]);
    file[CHECKSUM..SUPERBLOCK_BYTES].copy_from_slice(&checksum.to_le_bytes());
    let [blocks, frames, words] = [damage::BLOCKS, damage::FRAMES, damage::WORDS].map(|field| number(file, field, 8));
    if [blocks, frames, words].iter().any(|count| *count > FILE_BYTES_MAX) {
        return;
    }
    let durability = if power == 1 { Durability::Power } else { Durability::Process };
    let writers = number(file, damage::WRITERS, 2) as u16;
    let geometry = Geometry::blocks(blocks).frames(frames).words(words).writers(writers).durability(durability);
    // For the smaller block size; of the other it is too short, which is an error like any.
    let needed = damage::Sections::of(&geometry).end;
    if needed <= FILE_BYTES_MAX {
        file.resize(file.len().max(needed as usize), 0);
    }
}

fn note<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(it) => Some(it),
        Err(Error::Sync { .. } | Error::NotSynced { .. } | Error::Lock { .. } | Error::Forked) => panic!("the system"),
        Err(_) => None,
    }
}

/// As [`note`], of what there is nothing to do with.
fn done<T>(result: Result<T, Error>) {
    note(result);
}

fn operate(store: &Store, dice: &mut Dice<'_>) {
    let geometry = *store.geometry();
    let block_bytes = geometry.size_of_block().bytes();
    let mut writers = Vec::new();
    let mut buffer = vec![0; 3 * block_bytes];
    for _ in 0..CHOICES {
        let lba = dice.below(geometry.block_count().min(255) + 1);
        let (old, new) = (vec![dice.below(4) as u8; block_bytes], vec![dice.below(4) as u8; block_bytes]);
        match (dice.below(14), writers.last_mut()) {
            (0, _) => done(store.read(lba, &mut buffer)),
            (1, _) => done(store.is_written(lba)),
            (2, _) => done(store.write(lba, &new)),
            (3, _) => done(store.write(lba, &[&*new, &*old].concat())),
            (4, _) => done(store.compare_and_write(lba, &old, &new)),
            (5, _) => writers.extend(note(store.writer())),
            (6, _) => drop(writers.pop()),
            (7, Some(writer)) => done(writer.write(lba, &new)),
            (8, Some(writer)) => done(writer.compare_and_write(lba, &old, &new)),
            (9, _) => done(store.sync()),
            (10, _) => done(store.durable().and_then(|durable| durable.write(lba, &new))),
            (11, _) => done(store.word(lba).map(|word| word.compare_exchange(0, 1))),
            (12, _) => assert!(store.check().blocks_written <= geometry.block_count()),
            _ => done(store.read(lba, &mut buffer[..block_bytes])),
        }
    }
    done(store.read(0, &mut buffer[..block_bytes]));
}

fuzz_target!(init: common::start(seeds), |input: &[u8]| {
    common::planted();
    let (choices, file) = input.split_at(CHOICES.min(input.len()));
    let (mut dice, mut file) = (Dice::fed(choices), file.to_vec());
    if dice.below(8) > 0 {
        seal(&mut file);
    }
    std::fs::write(path(), &file).unwrap();
    let options = OpenOptions::new();
    let options = [options, options.read_only(), options.exclusive(), options.recover()][dice.below(4) as usize];
    if let Ok(store) = options.open(path()) {
        operate(&store, &mut dice);
        assert!(store.recovery().is_none() || store.check().is_clean());
        drop(store);
        drop(Store::open(path()).map(|store| store.check()));
    }
});
