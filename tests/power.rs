//! Durability `power`: syncs, durable updates, closing, recovery, as a user sees them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use casblock::{CreateOptions, Durability, Error, Geometry, OpenError, OpenOptions, Store};

const STATE: u64 = 4096;
const STARTED: u64 = STATE;
const BOOT: u64 = STATE + 648;

fn power(blocks: u64) -> Geometry {
    Geometry::blocks(blocks).writers(4).words(4).durability(Durability::Power)
}

fn block(fill: u8) -> [u8; 512] {
    [fill; 512]
}

fn read(store: &Store, lba: u64) -> u8 {
    let mut out = [0; 512];
    store.read(lba, &mut out).unwrap();
    assert!(out.iter().all(|byte| *byte == out[0]), "torn");
    out[0]
}

fn number(path: &Path, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    u64::from_le_bytes(bytes)
}

/// Makes the file look as if the machine had been started anew since.
fn reboot(path: &Path) {
    let boot = number(path, BOOT);
    File::options().write(true).open(path).unwrap().write_all_at(&(!boot).to_le_bytes(), BOOT).unwrap();
}

#[test]
fn a_store_in_use_when_the_machine_went_down_is_recovered_once() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::create(&path, power(8)).unwrap();
    assert_eq!((store.recovery(), store.last_recovery()), (None, None));
    store.write(3, &block(7)).unwrap();
    store.write(3, &block(8)).unwrap();
    store.word(1).unwrap().compare_exchange(0, 99).unwrap();
    store.sync().unwrap();
    store.write(4, &block(9)).unwrap();
    std::fs::copy(&path, &copy).unwrap();
    reboot(&copy);

    assert!(matches!(Store::open_read_only(&copy), Err(OpenError::NeedsRecovery { .. })));
    let mut calls = Vec::new();
    let recovered = OpenOptions::new().open_with_progress(&copy, |done, all| calls.push((done, all))).unwrap();
    let recovery = recovered.recovery().expect("it was in use");
    assert_eq!((recovery.blocks, recovery.updates_discarded, recovery.frames_discarded), (2, 0, 0));
    assert_eq!(calls.last().map(|(done, all)| done == all), Some(true), "{calls:?}");
    assert_eq!((read(&recovered, 3), read(&recovered, 4), read(&recovered, 5)), (8, 9, 0));
    assert_eq!(recovered.read_word(1).unwrap(), 99);
    assert!(recovered.check().is_clean(), "{:?}", recovered.check());
    assert_eq!(Store::open(&copy).unwrap().recovery(), None, "another who opens it finds it in use");
    drop(recovered);

    let closed = Store::open(&copy).unwrap();
    assert_eq!((closed.recovery(), closed.last_recovery()), (None, Some(recovery)));
}

/// A recovery that is given up, here by a panic, is begun anew by the next who opens the store.
#[test]
fn a_recovery_that_does_not_end_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::create(&path, power(8)).unwrap();
    store.write(3, &block(7)).unwrap();
    store.sync().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let given_up =
        std::panic::catch_unwind(|| OpenOptions::new().open_with_progress(&copy, |_, _| panic!("given up")).map(drop));
    assert!(given_up.is_err());
    let recovered = Store::open(&copy).unwrap();
    assert_eq!((recovered.recovery().map(|it| it.blocks), read(&recovered, 3)), (Some(1), 7));
}

#[test]
fn a_closed_store_needs_no_recovery_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = Store::create(&path, power(8)).unwrap();
    let second = Store::open(&path).unwrap();
    first.write(3, &block(7)).unwrap();
    drop(first);
    reboot(&path);
    assert!(matches!(Store::open_read_only(&path), Err(OpenError::NeedsRecovery { .. })), "one still has it open");
    reboot(&path);
    drop(second);
    reboot(&path);
    let store = Store::open_read_only(&path).unwrap();
    assert_eq!((store.recovery(), read(&store, 3)), (None, 7));
}

#[test]
fn a_copy_of_a_store_in_use_is_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::create(&path, power(8)).unwrap();
    store.write(3, &block(7)).unwrap();
    std::fs::copy(&path, &copy).unwrap();
    assert!(Store::open(&copy).unwrap().recovery().is_some());
}

#[test]
fn updates_sync_by_themselves_when_all_free_frames_are_in_limbo() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, power(8).writers(1).frames(10)).unwrap();
    (0..8).for_each(|lba| store.write(lba, &block(0)).unwrap());
    store.sync().unwrap();
    let before = number(&path, STARTED);
    for round in 1..=10 {
        for lba in 0..8 {
            store.write(lba, &block(round)).unwrap();
        }
    }
    assert!(number(&path, STARTED) > before + 10, "10 frames for 8 blocks: a sync for every update or two");
    assert!((0..8).all(|lba| read(&store, lba) == 10));
    assert!(store.check().is_clean(), "{:?}", store.check());
}

#[test]
fn a_block_updated_again_and_again_takes_one_frame_of_limbo() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, power(8).writers(1).frames(12)).unwrap();
    (0..8).for_each(|lba| store.write(lba, &block(1)).unwrap());
    store.sync().unwrap();
    let before = number(&path, STARTED);
    for round in 0..100 {
        store.write(3, &block(round)).unwrap();
        store.write(4, &block(round)).unwrap();
    }
    assert_eq!(number(&path, STARTED), before, "no update had to sync");
}

#[test]
fn durable_updates_are_synced_and_say_when_there_is_no_such_thing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, power(8)).unwrap();
    let before = number(&path, STARTED);
    store.durable().unwrap().write(3, &block(1)).unwrap();
    store.durable().unwrap().compare_and_write(3, &block(1), &block(2)).unwrap();
    let mut writer = store.writer().unwrap();
    writer.durable().unwrap().write(3, &block(3)).unwrap();
    writer.durable().unwrap().compare_and_write(3, &block(3), &block(4)).unwrap();
    assert_eq!(number(&path, STARTED), before + 4);
    let missed = writer.durable().unwrap().compare_and_write(3, &block(3), &block(4));
    assert!(matches!(missed, Err(Error::Miscompare(_))));
    store.durable().unwrap().write(3, &[]).unwrap();
    assert_eq!(number(&path, STARTED), before + 4, "nothing to sync");

    let process = Store::create(folder.path().join("process"), Geometry::blocks(8)).unwrap();
    assert!(matches!(process.durable(), Err(Error::NotPower)));
    assert!(matches!(process.writer().unwrap().durable(), Err(Error::NotPower)));
    process.sync().unwrap();
    Store::in_memory(Geometry::blocks(8)).unwrap().sync().unwrap();
}

#[test]
fn threads_that_sync_at_the_same_time_share_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, power(8).writers(16)).unwrap();
    let before = number(&path, STARTED);
    const THREADS: u64 = 8;
    const UPDATES: u64 = 50;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for update in 0..UPDATES {
                    store.durable().unwrap().write(thread, &block(update as u8)).unwrap();
                }
            });
        }
    });
    let syncs = number(&path, STARTED) - before;
    assert!(syncs <= THREADS * UPDATES, "{syncs} syncs");
    println!("{} durable updates, {syncs} syncs", THREADS * UPDATES);
    assert!(store.check().is_clean());
}

/// A recovery under one who works on would give his frames to others.
#[test]
fn a_store_in_use_by_one_who_sees_another_boot_is_not_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, power(8)).unwrap();
    store.write(3, &block(7)).unwrap();
    reboot(&path);
    assert!(matches!(Store::open(&path), Err(OpenError::InUseElsewhere { .. })));
    assert!(matches!(Store::open_read_only(&path), Err(OpenError::NeedsRecovery { .. })));
    store.write(3, &block(8)).unwrap();
    assert!(store.check().is_clean());
}

#[test]
fn recovery_can_be_forced_and_wants_the_store_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, power(8)).unwrap();
    store.write(3, &block(7)).unwrap();
    assert!(matches!(OpenOptions::new().recover().open(&path), Err(OpenError::InUse { .. })));
    drop(store);
    let store = OpenOptions::new().recover().open(&path).unwrap();
    assert_eq!((store.recovery().map(|it| it.blocks), read(&store, 3)), (Some(1), 7));
}

#[test]
fn the_format_says_what_a_store_survives() {
    let folder = tempfile::tempdir().unwrap();
    let versions = [(Durability::Process, 0, 1), (Durability::Power, 0, 2)];
    for (durability, events, version) in versions.into_iter().chain(versions.map(|it| (it.0, 16, 3))) {
        let path = folder.path().join(format!("{durability:?}{events}"));
        let geometry = Geometry::blocks(8).durability(durability).events(events);
        drop(CreateOptions::new(geometry).create(&path).unwrap());
        assert_eq!(number(&path, 8) as u32, version);
        assert_eq!(Store::open(&path).unwrap().geometry().durability_class(), durability);
        assert_eq!(Store::open(&path).unwrap().geometry().event_count(), events);
    }
}
