//! Files that are no stores, or were, or were damaged: an error that says what is wrong, and never a panic, a hang or
//! a success that is none.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use casblock::{Check, Durability, Error, Geometry, OpenError, Store};

#[path = "common/damage.rs"]
mod damage;
use damage::{INTENT_BLOCK, INTENT_CELL, RESERVE, SPARE, SUPERBLOCK_BYTES, Victim};

/// Runs what might hang.
fn within<T: Send + 'static>(patience: Duration, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || send.send(catch_unwind(AssertUnwindSafe(run))));
    let result = receive.recv_timeout(patience).expect("it hangs");
    thread.join().unwrap().unwrap();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

type Open = fn(&Path) -> Result<Store, OpenError>;

/// Every way to open a store.
const OPENS: [Open; 3] =
    [|path| Store::open(path), |path| Store::open_read_only(path), |path| Store::open_exclusive(path)];

/// The error, which is the same however the file is opened, and names the file.
fn refused(path: &Path) -> OpenError {
    let errors = OPENS.map(|open| open(path).expect_err("opened what is no sound store"));
    assert!(errors.iter().all(|it| it.to_string() == errors[0].to_string()), "{errors:?}");
    assert!(errors[0].to_string().contains(path.to_str().unwrap()), "{errors:?}");
    let [error, ..] = errors;
    error
}

/// Blocks 0 to 5 of 8 written, block `n` in frame `n`, each full of its number plus one.
fn victim() -> Victim {
    victim_of(Durability::Process)
}

fn victim_of(durability: Durability) -> Victim {
    victim_with(durability, 0)
}

fn victim_with(durability: Durability, events: u32) -> Victim {
    let victim = Victim::new(
        Geometry::blocks(8).frames(12).words(4).writers(3).durability(durability).events(events),
        |store| {
            for block in 0..6 {
                store.write(block, &[block as u8 + 1; 512]).unwrap();
            }
        },
    );
    assert_eq!((0..6).map(|block| victim.cell(block) % 16).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    victim
}

#[test]
fn what_is_not_a_store_is_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for contents in [&b""[..], b"casblock", &[0; SUPERBLOCK_BYTES - 1], &[0; 4096], &[b'x'; 1 << 16], b"#!/bin/sh\n"] {
        std::fs::write(&path, contents).unwrap();
        assert!(matches!(refused(&path), OpenError::NotAStore { .. }), "{:?}", refused(&path));
        assert_eq!(std::fs::read(&path).unwrap(), contents, "nothing changed");
    }
}

#[test]
fn missing_files_and_links_that_lead_nowhere_are_told_from_stores() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let (dangling, circular) = (folder.path().join("dangling"), folder.path().join("circular"));
    std::os::unix::fs::symlink(&missing, &dangling).unwrap();
    std::os::unix::fs::symlink(&circular, &circular).unwrap();
    for path in [&missing, &dangling, &circular, &missing.join("below")] {
        assert!(matches!(refused(path), OpenError::Io { .. }), "{:?}", refused(path));
    }
    for path in [&dangling, &circular] {
        let made = Store::create(path, Geometry::blocks(1));
        assert!(matches!(made, Err(OpenError::Exists { .. })), "{made:?}");
    }
    let below = Store::create(missing.join("below"), Geometry::blocks(1));
    assert!(matches!(below, Err(OpenError::Io { .. })), "{below:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing was made");
}

#[test]
fn a_link_to_a_store_opens_it() {
    let victim = victim();
    let link = victim.folder().join("link");
    std::os::unix::fs::symlink(&victim.path, &link).unwrap();
    for open in OPENS {
        assert_eq!(open(&link).unwrap().check().blocks_written, 6);
    }
}

#[test]
fn folders_fifos_and_devices_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let paths = [folder.path().to_path_buf(), fifo, "/dev/null".into(), "/dev/zero".into()];
    for path in paths.clone() {
        within(Duration::from_secs(60), move || {
            for open in OPENS {
                let error = open(&path).expect_err("opened what is no file");
                let expected = matches!(error, OpenError::NotAStore { .. } | OpenError::Io { .. });
                assert!(expected && error.to_string().contains(path.to_str().unwrap()), "{error:?}");
            }
        });
    }
    let replace = casblock::CreateOptions::new(Geometry::blocks(1)).replace(true);
    for path in &paths[..2] {
        let path = path.clone();
        within(Duration::from_secs(60), move || replace.create(path).expect_err("replaced what is no file"));
    }
}

const DURABILITIES: [Durability; 2] = [Durability::Process, Durability::Power];

/// One of each: with and without a flight recorder.
fn victims() -> impl Iterator<Item = Victim> {
    DURABILITIES.into_iter().flat_map(|durability| [0, 8].map(|events| victim_with(durability, events)))
}

/// Every bit of the superblock counts.
#[test]
fn a_superblock_with_any_byte_changed_is_refused() {
    let mut refusals = 0;
    for victim in victims() {
        for offset in 0..SUPERBLOCK_BYTES {
            let sound = victim.sound()[offset];
            let single_bits = (0..8).map(|bit| sound ^ 1 << bit);
            let others = [0x00, 0xff, !sound, sound.wrapping_add(1), sound.wrapping_sub(1)];
            for damaged in single_bits.chain(others).filter(|damaged| *damaged != sound) {
                victim.put(offset as u64, &[damaged]);
                let error = refused(&victim.path);
                let expected = match offset {
                    0..8 => matches!(error, OpenError::NotAStore { .. }),
                    // A higher version is newer, whatever its checksum, which may be another kind there.
                    8..12 => matches!(error, OpenError::NewerVersion { .. } | OpenError::Superblock { .. }),
                    _ => matches!(error, OpenError::Superblock { .. }),
                };
                assert!(expected, "byte {offset}: {error:?}");
                refusals += 1;
            }
            victim.put(offset as u64, &[sound]);
        }
        assert_eq!(std::fs::read(&victim.path).unwrap(), victim.sound(), "nothing changed");
        Store::open(&victim.path).unwrap();
    }
    assert!(refusals >= 2 * 8 * SUPERBLOCK_BYTES);
}

/// The bytes between the superblock and the next section mean nothing, and are not looked at.
#[test]
fn what_stands_behind_the_superblock_means_nothing() {
    for victim in victims() {
        let junk: Vec<u8> = (SUPERBLOCK_BYTES..4096).map(|offset| offset as u8 | 1).collect();
        victim.put(SUPERBLOCK_BYTES as u64, &junk);
        for open in OPENS {
            let (store, mut block) = (open(&victim.path).unwrap(), [0; 512]);
            store.read(5, &mut block).unwrap();
            assert_eq!((block, store.recovery()), ([6; 512], None));
        }
    }
}

#[test]
fn a_newer_version_is_named() {
    let victim = victim();
    for newer in [4, 5, u32::MAX] {
        victim.reseal_with(damage::VERSION, &newer.to_le_bytes());
        let OpenError::NewerVersion { found, supported: 3, .. } = refused(&victim.path) else {
            panic!("{:?}", refused(&victim.path));
        };
        assert_eq!(found, newer);
    }
}

/// A superblock with a good checksum is not trusted for that.
#[test]
fn well_sealed_nonsense_is_refused() {
    let victim = victim();
    let (small, wide) = (u32::to_le_bytes, u64::to_le_bytes);
    let fields: &[(usize, Vec<u8>)] = &[
        (damage::VERSION, small(0).into()),
        (damage::BLOCK_SIZE, small(0).into()),
        (damage::BLOCK_SIZE, small(513).into()),
        (damage::BLOCK_SIZE, small(8192).into()),
        (damage::BLOCK_SIZE, small(u32::MAX).into()),
        (damage::BLOCKS, wide(0).into()),
        (damage::BLOCKS, wide(u32::MAX.into()).into()),
        (damage::BLOCKS, wide(u64::MAX).into()),
        (damage::BLOCKS, wide(1 << 61).into()),
        (damage::FRAMES, wide(0).into()),
        (damage::FRAMES, wide(1).into()),
        (damage::FRAMES, wide((1 << 31) + 1).into()),
        (damage::FRAMES, wide(u64::MAX).into()),
        (damage::WORDS, wide((1 << 24) + 1).into()),
        (damage::WORDS, wide(u64::MAX).into()),
        (damage::WRITERS, small(0).into()),
        (damage::WRITERS, small(1 << 16).into()),
        (damage::WRITERS, small(u32::MAX).into()),
        (damage::DURABILITY, small(7).into()),
        (damage::DURABILITY, small(1).into()),
        (damage::VERSION, small(2).into()),
        (damage::VERSION, small(3).into()),
        (damage::EVENTS, small(8).into()),
        (damage::EVENTS, small(u32::MAX).into()),
        (damage::LENGTH_BYTES, wide(8 * 512 + 1).into()),
        (damage::LENGTH_BYTES, wide(u64::MAX).into()),
    ];
    for (field, value) in fields {
        victim.reseal_with(*field, value);
        let error = refused(&victim.path);
        assert!(matches!(error, OpenError::Superblock { .. }), "offset {field}, {value:?}: {error:?}");
    }
    // What is possible, but not with so short a file.
    for (field, value) in [
        (damage::BLOCKS, wide((1 << 32) - 2)),
        (damage::FRAMES, wide(1 << 31)),
        (damage::WORDS, wide(1 << 24)),
        (damage::BLOCKS, wide(1 << 20)),
    ] {
        victim.reseal_with(field, &value);
        let error = refused(&victim.path);
        assert!(matches!(error, OpenError::Truncated { .. }), "offset {field}, {value:?}: {error:?}");
    }
    // The other version, and what goes with it: a layout that needs more than there is.
    victim.reseal_with_all(&[(damage::VERSION, &small(2)), (damage::DURABILITY, &small(1))]);
    assert!(matches!(refused(&victim.path), OpenError::Truncated { .. }));
    victim.reseal_with_all(&[(damage::VERSION, &small(3)), (damage::EVENTS, &small(8))]);
    assert!(matches!(refused(&victim.path), OpenError::Truncated { .. }));
    for events in [7, 1 << 21] {
        victim.reseal_with_all(&[(damage::VERSION, &small(3)), (damage::EVENTS, &small(events))]);
        assert!(matches!(refused(&victim.path), OpenError::Superblock { .. }));
    }
    victim.reseal_with(damage::LENGTH_BYTES, &wide(17));
    assert_eq!(Store::open(&victim.path).unwrap().geometry().length(), 17, "what makes sense is taken");
}

#[test]
fn a_file_shorter_than_its_geometry_is_refused_wherever_it_ends() {
    let mut refusals = 0;
    for victim in victims() {
        let end = victim.sections.end;
        for (section, boundary) in victim.sections.named() {
            for more in [-512, -1, 0, 1, 512] {
                let Some(bytes) = boundary.checked_add_signed(more) else { continue };
                victim.restore();
                victim.file().set_len(bytes).unwrap();
                if bytes >= end {
                    assert_eq!(Store::open(&victim.path).unwrap().check().blocks_written, 6);
                    continue;
                }
                match refused(&victim.path) {
                    OpenError::Truncated { bytes: found, needed, .. } => assert_eq!((found, needed), (bytes, end)),
                    OpenError::NotAStore { .. } if bytes < SUPERBLOCK_BYTES as u64 => {}
                    error => panic!("{section} {more}: {error:?}"),
                }
                assert_eq!(victim.file().metadata().unwrap().len(), bytes, "nothing changed");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 2 * 5 * 6);
}

/// Files that may not be written: opened read-only they work, and otherwise the error says so. Root may write any
/// file, so the thread gives that up first.
#[test]
fn a_file_that_may_not_be_written_opens_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let victim = victim();
    std::fs::set_permissions(victim.folder(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&victim.path, PermissionsExt::from_mode(0o444)).unwrap();
    let path = victim.path.clone();
    within(Duration::from_secs(60), move || {
        // SAFETY: changes who this thread is to the file system, and touches no memory.
        unsafe { libc::setfsuid(65534) };
        if File::options().write(true).open(&path).is_ok() {
            // Not by `eprintln`, which the harness keeps to itself.
            writeln!(std::io::stderr(), "NOT TESTED: this user may write files of mode 0444").unwrap();
            return;
        }
        for result in [Store::open(&path), Store::open_exclusive(&path)] {
            assert!(matches!(result, Err(OpenError::ReadOnlyFile { .. })), "{result:?}");
        }
        let mut block = [0; 512];
        Store::open_read_only(&path).unwrap().read(2, &mut block).unwrap();
        assert_eq!(block, [3; 512]);
    });
}

fn is_corrupt<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

fn check(victim: &Victim) -> Check {
    Store::open_exclusive(&victim.path).unwrap().check()
}

#[test]
fn a_cell_that_names_no_frame_is_corrupt_to_all_who_use_it_and_harms_no_other_block() {
    // 12 frames: four bits of index, one reserved, the sequence above.
    let sound = |victim: &Victim| victim.cell(2);
    for damaged in [12, 15, 16, 16 | 2, 31] {
        for sequence in [1, 7, u64::MAX >> 5] {
            let victim = victim();
            assert_eq!(sound(&victim), 1 << 5 | 2);
            victim.put_cell(2, sequence << 5 | damaged);
            let store = Store::open(&victim.path).unwrap();
            let mut writer = store.writer().unwrap();
            let (mut block, new) = ([3; 512], [9; 512]);
            assert!(is_corrupt(store.read(2, &mut [0; 512])));
            assert!(is_corrupt(writer.read(2, &mut [0; 512])));
            assert!(is_corrupt(store.read(1, &mut [0; 3 * 512])), "as one of several");
            assert!(is_corrupt(store.write(2, &new)));
            assert!(is_corrupt(store.compare_and_write(2, &block, &new)));
            assert!(is_corrupt(writer.compare_and_write_or_load(2, &mut block, &new)));
            let text = store.read(2, &mut block).unwrap_err().to_string();
            assert!(text.contains("block 2") && text.contains("casblock check"), "{text}");
            for other in [0, 1, 3, 7] {
                store.write(other, &new).unwrap();
                store.read(other, &mut block).unwrap();
                assert_eq!(block, new);
            }
            drop((writer, store));
            let check = check(&victim);
            assert!(!check.is_clean());
            assert_eq!((check.cells_out_of_range, check.frames_leaked), (1, 1), "its frame is nowhere now: {check:?}");
            assert_eq!((check.blocks_written, check.frames_doubly_owned), (7, 0));
        }
    }
}

#[test]
fn check_counts_frames_with_two_owners_and_with_none() {
    let figures = |victim: &Victim| {
        let check = check(victim);
        assert_eq!((check.cells_out_of_range, check.slots_damaged), (0, 0));
        let counts = [check.blocks_written, check.frames_in_use, check.frames_leaked, check.frames_doubly_owned];
        assert_eq!(check.is_clean(), counts[2..] == [0, 0]);
        counts
    };
    let victim = victim();
    assert_eq!(figures(&victim), [6, 6, 0, 0]);
    victim.put_cell(4, victim.cell(3));
    assert_eq!(figures(&victim), [6, 6, 1, 1], "two cells name frame 3, none frame 4");
    victim.put_cell(5, victim.cell(3));
    assert_eq!(figures(&victim), [6, 6, 2, 1], "three cells name frame 3");
    victim.restore();
    victim.put_tag(1, 0);
    assert_eq!(figures(&victim), [6, 5, 0, 1], "a cell names a free frame");
    victim.restore();
    victim.put_tag(9, 1);
    assert_eq!(figures(&victim), [6, 7, 1, 0], "a frame is taken, but nowhere");
    victim.put_tag(10, 0xffff);
    assert_eq!(figures(&victim), [6, 8, 2, 0], "and one by a writer that cannot be");
    victim.restore();
    victim.put_cell(0, 0);
    assert_eq!(figures(&victim), [5, 6, 1, 0], "a cell was zeroed");
    victim.restore();
    victim.put_slot(2, SPARE, 3 + 1);
    assert_eq!(figures(&victim), [6, 6, 0, 1], "a writer's spare is a block's frame");
    victim.put_slot(1, SPARE, 8 + 1);
    assert_eq!(figures(&victim), [6, 6, 0, 2], "and another's is free");
    victim.restore();
    victim.put_slot(1, RESERVE, 8 + 1);
    assert_eq!(figures(&victim), [6, 6, 0, 0], "a reserve that is not tagged for its writer is not its own");
    victim.put_tag(8, 2);
    assert_eq!(figures(&victim), [6, 7, 0, 0], "one that is tagged so is");
}

/// Damage to a store's file.
type Damage<'a> = &'a dyn Fn(&Victim);

#[test]
fn a_damaged_slot_is_passed_over_told_and_counted_by_check() {
    // A spare that is sound, and an intent whose outcome somebody must find out.
    let sound_spare = |victim: &Victim| {
        victim.put_tag(8, 1);
        victim.put_slot(0, SPARE, 8 + 1);
    };
    let damages: &[(&str, Damage)] = &[
        ("the spare is the first frame out of range", &|it| it.put_slot(0, SPARE, 12 + 1)),
        ("the spare is far out of range", &|it| it.put_slot(0, SPARE, u64::MAX)),
        ("the reserve is the first frame out of range", &|it| it.put_slot(0, RESERVE, 12 + 1)),
        ("the reserve is far out of range", &|it| it.put_slot(0, RESERVE, u64::MAX)),
        ("the intent's block is out of range", &|it| {
            sound_spare(it);
            it.put_slot(0, INTENT_BLOCK, 1 << 32 | (8 + 1));
            it.put_slot(0, INTENT_CELL, 1 << 5 | 1);
        }),
        ("the intent's block is the largest number", &|it| {
            sound_spare(it);
            it.put_slot(0, INTENT_BLOCK, u64::MAX);
            it.put_slot(0, INTENT_CELL, 1 << 5 | 1);
        }),
        ("the intent's cell names a frame out of range", &|it| {
            sound_spare(it);
            it.put_slot(0, INTENT_BLOCK, 1 << 32 | (2 + 1));
            it.put_slot(0, INTENT_CELL, 1 << 5 | 12);
        }),
        ("the intent's cell has the reserved bit", &|it| {
            sound_spare(it);
            it.put_slot(0, INTENT_BLOCK, 1 << 32 | (2 + 1));
            it.put_slot(0, INTENT_CELL, 1 << 5 | 16 | 2);
        }),
    ];
    for (what, damage) in damages {
        let victim = victim();
        damage(&victim);
        let store = Store::open(&victim.path).unwrap();
        for _ in 0..2 {
            // The other two slots are sound, and are had instead; when they are taken, the damage is told.
            store.write(0, &[1; 512]).unwrap();
            let others = [store.writer().unwrap(), store.writer().unwrap()];
            assert!(is_corrupt(store.writer()), "{what}");
            assert!(is_corrupt(store.write(0, &[1; 512])), "{what}");
            assert!(is_corrupt(store.compare_and_write(0, &[1; 512], &[2; 512])), "{what}");
            let text = store.writer().unwrap_err().to_string();
            assert!(text.contains("writer 0"), "{what}: {text}");
            drop(others);
        }
        let mut block = [0; 512];
        store.read(0, &mut block).unwrap();
        assert_eq!(block, [1; 512], "{what}: what can be read is");
        drop(store);
        assert_eq!(check(&victim).slots_damaged, 1, "{what}");
    }
}

/// Intents that make sense, whose exchange was or was not made: what a dead writer leaves.
#[test]
fn an_intent_is_settled_by_what_its_cell_holds() {
    for (cell, made) in [(1 << 5 | 2, false), (2 << 5 | 8, true), (2 << 5 | 9, false)] {
        let victim = victim();
        victim.put_slot(0, SPARE, 8 + 1);
        victim.put_tag(8, 1);
        victim.put_slot(0, INTENT_BLOCK, 1 << 32 | (2 + 1));
        victim.put_slot(0, INTENT_CELL, 1 << 5 | 2);
        victim.put_cell(2, cell);
        victim.put_tag(9, if cell % 16 == 9 { 2 } else { 0 });
        let other_spare = if cell % 16 == 9 { 2 + 1 } else { 0 };
        victim.put_slot(1, SPARE, other_spare);
        assert!(check(&victim).is_clean(), "{cell:#x}: {:?}", check(&victim));
        let store = Store::open(&victim.path).unwrap();
        let mut writer = store.writer().unwrap();
        assert!(store.check().is_clean(), "{cell:#x}: {:?}", store.check());
        writer.write(0, &[5; 512]).unwrap();
        // The frame that block 0 is in now was the spare.
        assert_eq!(victim.cell(0) % 16, if made { 2 } else { 8 }, "{cell:#x}");
        assert!(store.check().is_clean());
    }
}

/// A number that is likely to hurt where `limit` is the first that is out of range.
fn nasty(random: &mut fastrand::Rng, limit: u64) -> u64 {
    match random.u8(..6) {
        0 => random.u64(..),
        1 => u64::MAX - random.u64(..3),
        2 => 1 << random.u8(..64),
        3 => limit.saturating_add(random.u64(..4)).saturating_sub(2),
        _ => random.u64(..2 * limit),
    }
}

/// Damages some numbers in cells, tags and slots.
fn scribble(victim: &Victim, random: &mut fastrand::Rng) {
    for _ in 0..random.u32(1..8) {
        match random.u8(..4) {
            0 => {
                let sequence = nasty(random, 4) << 5;
                victim.put_cell(random.u64(..8), sequence | random.u64(..32));
            }
            1 => victim.put_tag(random.u64(..12), nasty(random, 4) as u16),
            2 => {
                let writer = random.u64(..3);
                victim.put_slot(writer, SPARE, random.u64(..14));
                victim.put_slot(writer, INTENT_BLOCK, random.u64(..1 << 32) << 32 | random.u64(..10));
                victim.put_slot(writer, INTENT_CELL, random.u64(..4) << 5 | random.u64(..16));
            }
            _ => {
                let field = *random.choice([SPARE, RESERVE, INTENT_BLOCK, INTENT_CELL].iter()).unwrap();
                victim.put_slot(random.u64(..3), field, nasty(random, 13));
            }
        }
    }
}

/// Counts of operations that gave data, and of those that found the damage.
type Seen = [u64; 2];

fn note<T>(seen: &mut Seen, result: Result<T, Error>) {
    match result {
        Ok(_) | Err(Error::Miscompare(_) | Error::NoSpace { .. } | Error::TooManyWriters { .. }) => seen[0] += 1,
        Err(Error::Corrupt { .. }) => seen[1] += 1,
        Err(other) => panic!("{other:?}"),
    }
}

/// Uses a damaged store in every way.
fn use_it(store: &Store, random: &mut fastrand::Rng, seen: &mut Seen) {
    let mut writers: Vec<_> = (0..3).map(|_| store.writer()).collect();
    for step in 0..40 {
        let lba = random.u64(..8);
        let (old, new) = (vec![random.u8(..8); 512], vec![random.u8(..8); 512]);
        match writers.get_mut(random.usize(..4)) {
            Some(Ok(writer)) if random.bool() => note(seen, writer.write(lba, &new)),
            Some(Ok(writer)) => note(seen, writer.compare_and_write(lba, &old, &new)),
            Some(Err(Error::Corrupt { .. } | Error::NoSpace { .. } | Error::TooManyWriters { .. })) => seen[1] += 1,
            Some(Err(other)) => panic!("{other:?}"),
            None => note(seen, store.read(lba, &mut [0; 512])),
        }
        note(seen, store.write(lba, &new));
        note(seen, store.compare_and_write(lba, &old, &new));
        if step % 10 == 0 {
            writers.pop();
            writers.insert(0, store.writer());
        }
    }
    let _ = store.check();
}

#[test]
fn random_damage_gives_errors_or_data_and_never_a_panic_or_a_hang() {
    const SEEDS: u64 = 2000;
    let first = std::env::var("CASBLOCK_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("CASBLOCK_TEST_SEED={first}");
    let seen = within(Duration::from_secs(300), move || {
        let victim = victim();
        let mut seen = [0; 2];
        for seed in (0..SEEDS).map(|more| first.wrapping_add(more)) {
            let mut random = fastrand::Rng::with_seed(seed);
            victim.restore();
            scribble(&victim, &mut random);
            let result = catch_unwind(AssertUnwindSafe(|| {
                let _ = check(&victim);
                let store = Store::open(&victim.path).unwrap();
                match random.bool() {
                    true => use_it(&store, &mut random, &mut seen),
                    false => use_it_in_two_threads(&store, &mut random, &mut seen),
                }
                drop(store);
                let _ = check(&victim);
            }));
            if let Err(panic) = result {
                let _ = writeln!(std::io::stderr(), "it was seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
        seen
    });
    assert!(seen.iter().all(|&count| count > SEEDS), "too little of data or of errors: {seen:?}");
}

fn use_it_in_two_threads(store: &Store, random: &mut fastrand::Rng, seen: &mut Seen) {
    let (mut other_random, mut other_seen) = (random.fork(), [0; 2]);
    std::thread::scope(|scope| {
        scope.spawn(|| use_it(store, &mut other_random, &mut other_seen));
        use_it(store, random, seen);
    });
    *seen = [seen[0] + other_seen[0], seen[1] + other_seen[1]];
}
