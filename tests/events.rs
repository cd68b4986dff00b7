//! The flight recorder: what is recorded, by whom, and what of it is there to read.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use casblock::{Comparison, Durability, Error, Event, EventKind, Geometry, OpenOptions, Store};

#[path = "common/damage.rs"]
mod damage;
use damage::{CHECKSUM, INTENT_CELL, SUPERBLOCK_BYTES, Sections};

const DURABILITIES: [(Durability, u32); 2] = [(Durability::Process, 1), (Durability::Power, 2)];

/// A store as those made it who knew of no events: by the byte map of versions 1 and 2.
fn old_file(path: &std::path::Path, durability: Durability, version: u32) -> Vec<u8> {
    let geometry = Geometry::blocks(8).frames(24).words(4).writers(3).durability(durability).events(0);
    let mut bytes = vec![0; Sections::of(&geometry).end as usize];
    let fields: [(usize, &[u8]); 10] = [
        (0, b"casblock"),
        (8, &version.to_le_bytes()),
        (12, &512u32.to_le_bytes()),
        (16, &8u64.to_le_bytes()),
        (24, &24u64.to_le_bytes()),
        (32, &4u64.to_le_bytes()),
        (40, &3u32.to_le_bytes()),
        (44, &(version - 1).to_le_bytes()),
        (48, &4096u64.to_le_bytes()),
        (56, b"0123456\x4089\x80bcdef"),
    ];
    for (offset, field) in fields {
        bytes[offset..offset + field.len()].copy_from_slice(field);
    }
    let checksum = crc32c::crc32c(&bytes[..CHECKSUM]);
    bytes[CHECKSUM..SUPERBLOCK_BYTES].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn stores_of_the_first_versions_work_and_stay_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    for (durability, version) in DURABILITIES {
        let path = folder.path().join(format!("{version}"));
        let old = old_file(&path, durability, version);
        let store = Store::open(&path).unwrap();
        assert_eq!((store.geometry().event_count(), store.geometry().durability_class()), (0, durability));
        for block in 0..8 {
            store.write(block, &[block as u8 + 1; 512]).unwrap();
        }
        assert!(matches!(store.compare_and_write(3, &[0; 512], &[9; 512]), Err(Error::Miscompare(_))));
        store.record_event(&Event::new(EventKind::HostFenced)).unwrap();
        assert_eq!((store.events(), store.miscompares(), store.events_recorded()), (vec![], None, None));
        drop(store);
        let file = std::fs::read(&path).unwrap();
        assert_eq!(file.len(), old.len());
        assert_eq!(file[..4096], old[..4096], "the superblock is as it was");
        let writers = 4096 + (version as usize - 1) * 4096 + 4096;
        let counts = (0..3).map(|slot| &file[writers + 128 * slot + 40..][..88]);
        assert!(counts.flatten().all(|byte| *byte == 0), "what was unused is not used");
        let store = OpenOptions::new().exclusive().open(&path).unwrap();
        assert!(store.check().is_clean());
    }
}

/// A store that is made without a recorder is, but for its UUID, what the first versions made.
#[test]
fn a_store_without_a_recorder_is_of_the_first_versions() {
    let folder = tempfile::tempdir().unwrap();
    for (durability, version) in DURABILITIES {
        let (new, old) = (folder.path().join(format!("new{version}")), folder.path().join(format!("old{version}")));
        let geometry = Geometry::blocks(8).frames(24).words(4).writers(3).durability(durability).events(0);
        drop(Store::create(&new, geometry).unwrap());
        let mut expected = old_file(&old, durability, version);
        let mut made = std::fs::read(&new).unwrap();
        for bytes in [&mut made, &mut expected] {
            bytes[56..72].fill(0);
            bytes[CHECKSUM..SUPERBLOCK_BYTES].fill(0);
            if durability == Durability::Power {
                // Who had it open, and how many syncs there were.
                bytes[4096..8192].fill(0);
            }
        }
        assert!(made == expected);
    }
}

fn sum_of_counts(events: &[Event]) -> u64 {
    let miscompares = events.iter().filter(|event| event.kind == EventKind::Miscompare);
    miscompares.map(|event| u64::from(event.count)).sum()
}

#[test]
fn miscompares_are_counted_exactly_and_sampled_once_a_second() {
    let store = Store::in_memory(Geometry::blocks(8).writers(8)).unwrap();
    store.write(3, &[1; 512]).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let mut writer = store.writer().unwrap();
                for _ in 0..1000 {
                    let mut expected = [2; 512];
                    let compared = writer.compare_and_write_or_load(3, &mut expected, &[3; 512]).unwrap();
                    assert_eq!((compared, expected), (Comparison::Miscompare { offset: 0 }, [1; 512]));
                    if thread == 0 {
                        let result = store.compare_and_write(3, &[4; 512], &[3; 512]);
                        assert!(matches!(result, Err(Error::Miscompare(_))));
                    }
                }
            });
        }
    });
    assert_eq!(store.miscompares(), Some(5000));
    let events = store.events();
    assert!(!events.is_empty() && events.len() as u64 <= 2 + started.elapsed().as_secs(), "{events:?}");
    assert!(sum_of_counts(&events) <= 5000);

    // The next that comes after the time is up tells of all its writer met with since.
    let mut writer = store.writer().unwrap();
    let before = store.events().len();
    for round in 1.. {
        assert!(started.elapsed() < Duration::from_secs(60), "none is recorded");
        writer.compare_and_write_or_load(3, &mut [2; 512], &[3; 512]).map(drop).unwrap();
        let events = store.events();
        if let Some(event) = events.get(before) {
            assert_eq!((u64::from(event.count), event.lba, event.offset), (round, Some(3), 0));
            assert_eq!((event.expected, event.found), (0x0202_0202_0202_0202, 0x0101_0101_0101_0101));
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever follows sees each event once, or is told that it was gone.
#[test]
fn followers_miss_nothing_that_they_are_not_told_of() {
    const THREADS: u64 = 3;
    const EACH: u64 = 20_000;
    for (events, pause) in [(1, true), (16, true), (1 << 20, false)] {
        let store = Store::in_memory(Geometry::blocks(8).events(events)).unwrap();
        let record = |thread: u64| {
            for number in 0..EACH {
                let mut event = Event::new(EventKind::LeaseBroken);
                (event.lba, event.expected, event.found) = (Some(thread), number, thread << 32 | number);
                store.record_event(&event).unwrap();
                if pause && number.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        };
        let (mut seen, mut missed) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            let recorders = [0, 1, 2].map(|thread| scope.spawn(move || record(thread)));
            let mut reader = store.event_reader().starting_at(0);
            loop {
                let done = recorders.iter().all(|recorder| recorder.is_finished());
                let batch = reader.read();
                seen.extend(batch.events);
                missed += batch.missed;
                if done {
                    break;
                }
            }
        });
        let recorded = store.events_recorded().unwrap();
        assert_eq!(seen.len() as u64 + missed, recorded);
        // One that was lapped took another number.
        assert!(recorded >= THREADS * EACH);
        assert!(seen.iter().all(|it| it.found == it.lba.unwrap() << 32 | it.expected), "whole");
        let mut numbers: Vec<u64> = seen.iter().map(|event| event.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), seen.len(), "each once");
        if events == 1 << 20 {
            assert_eq!((missed, recorded), (0, THREADS * EACH));
        }
        let last = store.events();
        assert_eq!(last.len() as u64, recorded.min(events.into()), "all that there is room for is there");
        assert!(last.is_sorted_by_key(|event| event.number));
    }
}

#[test]
fn a_reader_begins_where_it_is_told_to() {
    let store = Store::in_memory(Geometry::blocks(8).events(4)).unwrap();
    assert_eq!(store.events(), []);
    for _ in 0..10 {
        store.record_event(&Event::new(EventKind::HostFenced)).unwrap();
    }
    let numbers = |start| {
        let batch = store.event_reader().starting_at(start).read();
        (batch.events.iter().map(|event| event.number).collect::<Vec<_>>(), batch.missed)
    };
    assert_eq!(numbers(0), (vec![6, 7, 8, 9], 6));
    assert_eq!(numbers(8), (vec![8, 9], 0));
    assert_eq!(numbers(10), (vec![], 0));
    assert_eq!(numbers(u64::MAX), (vec![], 0));
    let mut reader = store.event_reader();
    let first = reader.read();
    assert_eq!((first.events.len(), first.missed), (4, 0), "what was gone before it came is not missed");
    assert_eq!(reader.read(), Default::default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let event = first.events[0];
    assert_eq!((event.process, event.kind, event.count), (std::process::id(), EventKind::HostFenced, 1));
    assert!(event.at_unix_ms.abs_diff(now) < 60_000, "{event:?}");
}

#[test]
fn who_may_only_read_records_nothing_and_reads_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, Geometry::blocks(8)).unwrap();
    store.record_event(&Event::new(EventKind::LeaseBroken)).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    assert_eq!(reader.events(), store.events());
    assert!(matches!(reader.record_event(&Event::new(EventKind::LeaseBroken)), Err(Error::ReadOnly)));
    // Damage that it meets with it keeps to itself.
    let cells = Sections::of(store.geometry()).cells;
    File::options().write(true).open(&path).unwrap().write_all_at(&[0xff; 8], cells).unwrap();
    assert!(matches!(reader.read(0, &mut [0; 512]), Err(Error::Corrupt { .. })));
    assert_eq!(store.events_recorded(), Some(1));
    assert!(matches!(store.read(0, &mut [0; 512]), Err(Error::Corrupt { .. })));
    let last = store.events()[1];
    assert_eq!((last.kind, last.lba, last.found), (EventKind::Corruption, Some(0), u64::MAX));
    // The next time too soon.
    assert!(matches!(store.read(0, &mut [0; 512]), Err(Error::Corrupt { .. })));
    assert!(store.events_recorded().unwrap() <= 3);
}

#[test]
fn a_recovery_is_recorded_behind_all_that_was() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::create(&path, Geometry::blocks(8).durability(Durability::Power).events(16)).unwrap();
    store.write(3, &[1; 512]).unwrap();
    for _ in 0..21 {
        store.record_event(&Event::new(EventKind::HostFenced)).unwrap();
    }
    // As a cut of the power leaves it that lost the sector of the head.
    std::fs::copy(&path, &copy).unwrap();
    let file = File::options().write(true).open(&copy).unwrap();
    file.write_all_at(&7u64.to_le_bytes(), Sections::of(store.geometry()).events).unwrap();
    let recovered = Store::open(&copy).unwrap();
    assert!(recovered.recovery().is_some());
    let events = recovered.events();
    assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), (6..22).collect::<Vec<_>>());
    let last = events[15];
    assert_eq!((last.kind, last.expected, last.found), (EventKind::Recovered, 1, 0));
}

/// The slot of a writer that died is adopted with a word about it; one that was given back is not.
#[test]
fn who_takes_over_from_the_dead_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, Geometry::blocks(8).words(4).writers(4)).unwrap();
    drop(store.writer().unwrap());
    drop(store.writer().unwrap());
    assert_eq!(store.events(), []);
    // As its user left slot 2: with a spare, and about to update block 6.
    let at = Sections::of(store.geometry());
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&(5u64 + 1).to_le_bytes(), at.writers + 2 * 128).unwrap();
    file.write_all_at(&(1u64 << 32 | 7).to_le_bytes(), at.writers + 2 * 128 + 16).unwrap();
    file.write_all_at(&3u16.to_le_bytes(), at.tags + 2 * 5).unwrap();
    let _writers = [(); 4].map(|()| store.writer().unwrap());
    let events = store.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].kind, events[0].writer, events[0].lba), (EventKind::WriterAdopted, Some(2), Some(6)));
    assert!(store.check().is_clean());
}

/// Of a writer that was idle when it died, nobody says that it was updating a block; of one that may have been, they do.
#[test]
fn who_died_idle_was_updating_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, Geometry::blocks(8).words(4).writers(4)).unwrap();
    let mut writer = store.writer().unwrap();
    (1..=3).for_each(|byte| writer.write(6, &[byte; 512]).unwrap());
    let at = Sections::of(store.geometry());
    for lba in [None, Some(6)] {
        let copy = folder.path().join(format!("{lba:?}"));
        std::fs::copy(&path, &copy).unwrap();
        if lba.is_some() {
            // It had announced the next update.
            let file = File::options().read(true).write(true).open(&copy).unwrap();
            let mut cell = [0; 8];
            file.read_exact_at(&mut cell, at.cells + 8 * 6).unwrap();
            file.write_all_at(&cell, at.writers + INTENT_CELL).unwrap();
        }
        let heir = Store::open(&copy).unwrap();
        let _writers = [(); 4].map(|()| heir.writer().unwrap());
        let events = heir.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].kind, events[0].writer, events[0].lba), (EventKind::WriterAdopted, Some(0), lba));
        assert!(heir.check().is_clean());
    }
}
