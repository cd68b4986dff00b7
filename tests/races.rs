//! Races that ordinary programs and damaged files can bring about: replaced files, frames with two owners.

use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::Duration;

use casblock::{BlockSize, CreateOptions, Durability, Error, Geometry, OpenError, Store};

/// A frame's bytes change under a cell that stays: a foreign program writes to the file.
#[test]
fn a_frame_that_changes_under_its_cell_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let geometry = Geometry::blocks(1).frames(2).words(1).writers(1).block_size(BlockSize::B4096).events(0);
    let store = Store::create(&path, geometry).unwrap();
    store.write(0, &[1; 4096]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let frame = store.region_bytes() - 2 * 4096; // the first write of block 0 took frame 0
    std::thread::scope(|scope| {
        let scribbling = scope.spawn(|| {
            for round in 0..100_000u32 {
                file.write_all_at(&[1 + (round % 2) as u8; 4096], frame).unwrap();
            }
        });
        while !scribbling.is_finished() {
            if store.compare_and_write(0, &[2; 4096], &[2; 4096]).is_ok() {
                // The block is in the other frame now: bring it back to the one that is scribbled on.
                store.write(0, &[1; 4096]).unwrap();
            }
        }
    });
}

/// Two cells name one frame, as in a damaged store: what one writer stages shows in the other's block.
#[test]
fn a_frame_with_two_owners_gives_blocks_or_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let geometry = Geometry::blocks(2).frames(8).words(1).writers(4).block_size(BlockSize::B4096);
    for _ in 0..100 {
        let store = CreateOptions::new(geometry).replace(true).create(&path).unwrap();
        store.write(0, &[1; 8192]).unwrap();
        // Superblock, words, writers and tags take a page each; then come the cells.
        let (cells, mut cell) = (4 * 4096, [0; 8]);
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        file.read_exact_at(&mut cell, cells).unwrap();
        file.write_all_at(&cell, cells + 8).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = store.writer().unwrap();
                for round in 0..1000u32 {
                    writer.write(0, &[1 + (round % 4) as u8; 4096]).unwrap();
                }
            });
            scope.spawn(|| {
                let mut writer = store.writer().unwrap();
                for expected in [9, 2].into_iter().cycle().take(2000) {
                    let (mut expected, new) = ([expected; 4096], [expected; 4096]);
                    let _ = writer.compare_and_write_or_load(1, &mut expected, &new).unwrap();
                }
            });
        });
        assert!(!store.check().is_clean(), "the damage was not seen");
    }
}

/// Whoever has a store open has the one of that name: it is not replaced meanwhile, nor was it before.
#[test]
fn an_open_store_is_the_one_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let replace = CreateOptions::new(Geometry::blocks(1)).replace(true);
    drop(replace.create(&path).unwrap());
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for _ in 0..3000 {
                match replace.create(&path) {
                    Ok(_) | Err(OpenError::InUse { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut opened = 0;
        while !replacing.is_finished() {
            let Ok(first) = Store::open(&path) else { continue };
            opened += 1;
            if let Ok(second) = Store::open(&path) {
                assert_eq!(first.uuid(), second.uuid(), "an open store was replaced, or a replaced one opened");
            }
        }
        assert!(opened > 0);
    });
}

#[test]
fn two_who_replace_a_store_leave_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let replace = CreateOptions::new(Geometry::blocks(1)).replace(true);
    drop(replace.create(&path).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    match replace.create(&path) {
                        Ok(_) | Err(OpenError::InUse { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

/// Two make a store by force where there was none: both cannot have the one of that name.
#[test]
fn two_who_make_a_store_by_force_do_not_both_have_it() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..500 {
        let path = folder.path().join(round.to_string());
        let start = std::sync::Barrier::new(2);
        let made = std::thread::scope(|scope| {
            let makers = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    CreateOptions::new(Geometry::blocks(1)).replace(true).create(&path)
                })
            });
            makers.map(|maker| maker.join().unwrap())
        });
        let held = made.iter().filter(|made| made.is_ok()).count();
        assert_eq!(held, 1, "{made:?}");
    }
}

/// A process died with frames in slots that nobody has claimed since; they are there for whoever needs them.
#[test]
fn the_frames_of_the_dead_are_there_when_no_other_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, Geometry::blocks(4).frames(6).words(1).writers(8)).unwrap();
    // Slots 5 and 6 as their writers left them: each with a spare. Superblock and words take a page each, then come
    // the writers, 128 bytes each, then, on a page of their own, the tags.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for (slot, frame) in [(5u16, 4u64), (6, 5)] {
        file.write_all_at(&(frame + 1).to_le_bytes(), 8192 + 128 * u64::from(slot)).unwrap();
        file.write_all_at(&(slot + 1).to_le_bytes(), 12288 + 2 * frame).unwrap();
    }
    assert!(store.check().is_clean());
    let mut writer = store.writer().unwrap();
    for lba in 0..4 {
        writer.write(lba, &[1; 512]).unwrap();
    }
    assert!(store.check().is_clean());
}

/// What one slot cannot have, for want of a frame, no other can: that is said after one look at each, not one at all for
/// each.
#[test]
fn a_full_store_of_many_writers_says_so_and_does_not_hang() {
    let (send, heard) = mpsc::channel();
    let asking = std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        for durability in [Durability::Process, Durability::Power] {
            let path = folder.path().join(format!("{durability:?}"));
            let store =
                Store::create(path, Geometry::blocks(4).frames(2).writers(65_534).durability(durability)).unwrap();
            store.write(0, &[1; 512]).unwrap();
            // The writer that the store keeps has the other frame.
            let _writer = store.writer().unwrap();
            for result in [store.writer().map(drop), store.write(0, &[2; 512]), store.write(1, &[2; 512])] {
                assert!(matches!(result, Err(Error::NoSpace { frames: 2 })), "{result:?}");
            }
        }
        // The test has given up, if it is not there.
        let _ = send.send(());
    });
    match heard.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => asking.join().unwrap(),
    }
}
