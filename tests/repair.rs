//! Checking a store that others use, and putting right what a check finds wrong.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use casblock::{Durability, Error, Geometry, Repair, Store};

const BLOCKS: u64 = 8;
const WRITERS: u64 = 4;

/// Where the sections of the stores made here start.
struct Sections {
    writers: u64,
    tags: u64,
    cells: u64,
    stamps: u64,
    frames: u64,
}

fn sections(durability: Durability) -> Sections {
    let words = if durability == Durability::Power { 8192 } else { 4096 };
    let (writers, tags, cells) = (words + 4096, words + 8192, words + 3 * 4096);
    let stamps = cells + 4096;
    Sections {
        writers,
        tags,
        cells,
        stamps,
        frames: if durability == Durability::Power { stamps + 4096 } else { stamps },
    }
}

fn geometry(durability: Durability) -> Geometry {
    Geometry::blocks(BLOCKS).words(4).writers(WRITERS as u16).frames(24).durability(durability)
}

/// A closed store whose block `n` holds `n + 1` in all bytes, and was twice updated before.
fn store(folder: &Path, durability: Durability) -> PathBuf {
    let path = folder.join("store");
    let store = Store::create(&path, geometry(durability)).unwrap();
    for round in [100, 50, 1] {
        (0..BLOCKS).for_each(|lba| store.write(lba, &[round + lba as u8; 512]).unwrap());
        store.sync().unwrap();
    }
    path
}

fn put(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn cell(path: &Path, durability: Durability, block: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(path).unwrap().read_exact_at(&mut bytes, sections(durability).cells + 8 * block).unwrap();
    u64::from_le_bytes(bytes)
}

/// The frame that the cell of a block names: 24 frames take five bits.
fn frame(path: &Path, durability: Durability, block: u64) -> u64 {
    cell(path, durability, block) & 31
}

fn read(store: &Store, lba: u64) -> Option<u8> {
    let mut out = [0; 512];
    store.read(lba, &mut out).ok()?;
    assert!(out.iter().all(|byte| *byte == out[0]), "torn");
    Some(out[0])
}

/// Repairs the store twice; what the first did, each block, and whether it is clean.
fn repair(path: &Path) -> (Vec<Repair>, Vec<Option<u8>>, bool) {
    let store = Store::open_exclusive(path).unwrap();
    let mut repairs = Vec::new();
    let check = store.repair(|repair| repairs.push(repair)).unwrap();
    assert!(check.exclusive);
    let unmended: Vec<_> = repairs.iter().filter(|repair| !repair.is_mended()).copied().collect();
    assert_eq!(check.is_clean(), unmended.is_empty(), "{repairs:?}: {check:?}");
    let blocks = (0..BLOCKS).map(|lba| read(&store, lba)).collect();
    let mut again = Vec::new();
    assert_eq!(store.repair(|repair| again.push(repair)).unwrap(), check);
    assert_eq!(again, unmended, "a second repair finds what could not be mended, and nothing else");
    assert_eq!((0..BLOCKS).map(|lba| read(&store, lba)).collect::<Vec<_>>(), blocks);
    (repairs, blocks, check.is_clean())
}

const BOTH: [Durability; 2] = [Durability::Process, Durability::Power];

fn as_written() -> Vec<Option<u8>> {
    (0..BLOCKS).map(|lba| Some(1 + lba as u8)).collect()
}

#[test]
fn a_store_that_is_well_is_left_alone() {
    for durability in BOTH {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(repair(&store(folder.path(), durability)), (vec![], as_written(), true));
    }
}

#[test]
fn a_repair_wants_the_store_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), Durability::Process);
    let shared = Store::open(&path).unwrap();
    assert!(matches!(shared.repair(|_| ()), Err(Error::NotExclusive)));
    drop(shared);
    let alone = Store::open_exclusive(&path).unwrap();
    let writer = alone.writer().unwrap();
    assert!(matches!(alone.repair(|_| ()), Err(Error::NotExclusive)), "a writer is claimed");
    drop(writer);
    alone.write(0, &[1; 512]).unwrap();
    alone.repair(|_| ()).unwrap();
}

#[test]
fn a_lost_frame_is_given_back() {
    for durability in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let path = store(folder.path(), durability);
        put(&path, sections(durability).tags + 2 * 23, &7u16.to_le_bytes());
        assert_eq!(repair(&path), (vec![Repair::FrameFreed { frame: 23 }], as_written(), true));
    }
}

#[test]
fn a_frame_that_holds_a_block_is_not_free() {
    for durability in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let path = store(folder.path(), durability);
        let frame = frame(&path, durability, 3);
        put(&path, sections(durability).tags + 2 * frame, &[0; 2]);
        assert_eq!(repair(&path), (vec![Repair::FrameTaken { frame, block: 3 }], as_written(), true));
    }
}

#[test]
fn a_slot_that_names_nonsense_is_emptied() {
    for durability in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let path = store(folder.path(), durability);
        let frame = frame(&path, durability, 3);
        // Of writers 1 to 3: a frame that does not exist, a block's frame, a block that does not exist.
        for (writer, field, value) in [(1, 0, u64::MAX), (2, 0, frame + 1), (3, 16, 1 << 32 | 99)] {
            put(&path, sections(durability).writers + 128 * writer + field, &value.to_le_bytes());
        }
        let (repairs, blocks, clean) = repair(&path);
        assert!(repairs.contains(&Repair::SlotEmptied { writer: 1 }), "{repairs:?}");
        assert!(repairs.contains(&Repair::SlotEmptied { writer: 2 }), "{repairs:?}");
        assert_eq!((blocks, clean), (as_written(), true), "{repairs:?}");
        let store = Store::open(&path).unwrap();
        let writers: Vec<_> = (0..WRITERS).map(|_| store.writer().unwrap()).collect();
        drop(writers);
    }
}

#[test]
fn a_cell_that_names_no_frame_is_rebuilt_from_stamps_and_else_left() {
    for durability in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let path = store(folder.path(), durability);
        let frame = frame(&path, durability, 3);
        put(&path, sections(durability).cells + 8 * 3, &(cell(&path, durability, 3) | 31).to_le_bytes());
        let (repairs, blocks, clean) = repair(&path);
        if durability == Durability::Power {
            let rebuilt = Repair::BlockRebuilt { block: 3, frame, sequence: 3 };
            assert_eq!((repairs, blocks, clean), (vec![rebuilt], as_written(), true));
        } else {
            assert_eq!(repairs, [Repair::BlockLost { block: 3 }, Repair::FrameFreed { frame }]);
            let mut expected = as_written();
            expected[3] = None;
            assert_eq!((blocks, clean), (expected, false));
        }
    }
}

#[test]
fn two_blocks_with_one_frame_are_told_apart() {
    for durability in BOTH {
        for (damaged, other) in [(3, 5), (5, 3)] {
            let folder = tempfile::tempdir().unwrap();
            let path = store(folder.path(), durability);
            let own = frame(&path, durability, damaged);
            let bits = cell(&path, durability, damaged) & !31 | frame(&path, durability, other);
            put(&path, sections(durability).cells + 8 * damaged, &bits.to_le_bytes());
            let (repairs, blocks, clean) = repair(&path);
            assert!(clean, "{repairs:?}");
            if durability == Durability::Power {
                let rebuilt = Repair::BlockRebuilt { block: damaged, frame: own, sequence: 3 };
                assert_eq!((repairs, blocks), (vec![rebuilt], as_written()));
            } else {
                // Whose bytes they are cannot be told, but both read as before, and no longer depend on each other.
                let copied = Repair::BlockCopied { block: 5, other: 3 };
                assert_eq!(repairs, [copied, Repair::FrameFreed { frame: own }]);
                assert_eq!(blocks[damaged as usize], Some(1 + other as u8));
                let store = Store::open(&path).unwrap();
                store.write(3, &[99; 512]).unwrap();
                assert_eq!(read(&store, 5), Some(1 + other as u8));
            }
        }
    }
}

#[test]
fn bytes_that_do_not_match_their_checksum_are_told_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), Durability::Power);
    let frame = frame(&path, Durability::Power, 3);
    put(&path, sections(Durability::Power).frames + 512 * frame, &[99; 512]);
    let (repairs, blocks, clean) = repair(&path);
    assert_eq!((repairs, blocks[3], clean), (vec![Repair::BlockDamaged { block: 3 }], Some(99), false));
    let check = Store::open_exclusive(&path).unwrap().check();
    assert_eq!((check.blocks_damaged, check.blocks_misstamped), (1, 0));
}

#[test]
fn a_block_with_another_stamp_gets_its_own_frame_or_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = store(folder.path(), Durability::Power);
    // A cell with the frame of an older update of the same block: in limbo, or free by now.
    let stamp_of_3 = sections(Durability::Power).stamps + 24 * frame(&path, Durability::Power, 3);
    put(&path, stamp_of_3, &[0; 24]);
    let check = Store::open_exclusive(&path).unwrap().check();
    assert_eq!(check.blocks_misstamped, 1);
    let (repairs, blocks, _) = repair(&path);
    // What is proven is an older update; the store told for certain which.
    let rebuilt = repairs.iter().any(|repair| matches!(repair, Repair::BlockRebuilt { block: 3, .. }));
    assert!(rebuilt || repairs.contains(&Repair::BlockMisstamped { block: 3 }), "{repairs:?}");
    assert!([Some(4), Some(53), Some(103)].contains(&blocks[3]), "{blocks:?}");
}

/// Damage of all kinds at once, by chance: blocks whose cell and frame were spared read as before.
#[test]
fn random_damage_is_repaired_without_touching_what_is_well() {
    let mut random = fastrand::Rng::with_seed(11);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    for durability in BOTH {
        let sound = store(folder.path(), durability);
        for round in 0..300 {
            std::fs::copy(&sound, &path).unwrap();
            let at = sections(durability);
            let mut spared = [true; BLOCKS as usize];
            let named: Vec<u64> = (0..BLOCKS).map(|block| frame(&path, durability, block)).collect();
            for _ in 0..random.u8(1..6) {
                match random.u8(..4) {
                    0 => put(
                        &path,
                        at.tags + 2 * random.u64(..24),
                        &random.choice([0, 1, 3, 65535u16]).unwrap().to_le_bytes(),
                    ),
                    1 => {
                        let values = [0, random.u64(..40), random.u64(..), 1 << 32 | random.u64(..12)];
                        let value = random.choice(values).unwrap();
                        put(
                            &path,
                            at.writers + 128 * random.u64(..WRITERS) + 8 * random.u64(..4),
                            &value.to_le_bytes(),
                        );
                    }
                    2 => {
                        let block = random.u64(..BLOCKS);
                        spared[block as usize] = false;
                        let bits = cell(&path, durability, block) & !31 | random.u64(..32);
                        put(&path, at.cells + 8 * block, &bits.to_le_bytes());
                    }
                    _ if durability == Durability::Power => {
                        let frame = random.u64(..24);
                        if let Some(block) = named.iter().position(|named| *named == frame) {
                            spared[block] = false;
                        }
                        put(&path, at.stamps + 24 * frame + 8 * random.u64(..3), &random.u64(..).to_le_bytes());
                    }
                    _ => {}
                }
            }
            let (repairs, blocks, _) = repair(&path);
            for (block, spared) in spared.iter().enumerate() {
                assert!(!spared || blocks[block] == Some(1 + block as u8), "round {round}: {repairs:?}: {blocks:?}");
            }
        }
        std::fs::remove_file(sound).unwrap();
    }
}

/// A check beside others who work finds nothing where nothing is wrong, and what is.
#[test]
fn a_check_beside_others_tells_what_is_wrong_from_what_moves() {
    for durability in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let geometry = Geometry::blocks(2000).writers(8).durability(durability);
        let store = Store::create(&path, geometry).unwrap();
        (0..2000).for_each(|lba| store.write(lba, &[1; 512]).unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    while !done.load(Ordering::Relaxed) {
                        store.write(random.u64(..2000), &[random.u8(..); 512]).unwrap();
                        if random.u8(..) == 0 {
                            store.sync().unwrap();
                        }
                    }
                });
            }
            let other = Store::open_read_only(&path).unwrap();
            for _ in 0..20 {
                let check = other.check();
                assert!(check.is_clean() && !check.exclusive, "{check:?}");
            }
            // The last frame has been nobody's all the time.
            let tags = File::options().read(true).write(true).open(&path).unwrap();
            let start = if durability == Durability::Power { 8192 } else { 4096 } + 256 * 128 + 4096;
            let last = start + 2 * (geometry.frame_count() - 1);
            let mut tag = [0; 2];
            tags.read_exact_at(&mut tag, last).unwrap();
            if tag == [0; 2] {
                tags.write_all_at(&[99, 0], last).unwrap();
                assert_eq!(other.check().frames_leaked, 1);
                tags.write_all_at(&[0, 0], last).unwrap();
            } else {
                assert_eq!(durability, Durability::Power, "a frame more than can be in use");
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
