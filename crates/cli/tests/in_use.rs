//! The command on a store that this process has open.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use casblock::Store;
use common::Folder;

/// One test at a time: a child that one of them starts has, until its exec, the locks of a store that another one
/// closes at this moment.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn an_existing_file_is_replaced_only_when_told_to_and_not_in_use() {
    let _alone = alone();
    let folder = Folder::new();
    let path = folder.file("a.casb", b"precious");
    folder.casblock("create a.casb --blocks 8").fails(&["a.casb: exists", "--force"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    folder.casblock("create a.casb --blocks 8 --force").succeeds();
    let store = Store::open(&path).unwrap();
    folder.casblock("create a.casb --blocks 9 --force").fails(&["a.casb: in use"]);
    drop(store);
    folder.casblock("create a.casb --blocks 9 --force").succeeds();
    assert_eq!(folder.casblock("info a.casb --json").json()["blocks"], 9);
    assert_eq!(folder.names(), ["a.casb"]);
}

#[test]
fn a_store_that_is_being_checked_is_refused() {
    let _alone = alone();
    let folder = Folder::new();
    let exclusive = Store::open_exclusive(folder.store("a.casb")).unwrap();
    folder.casblock("read a.casb 0").fails(&["a.casb: is being checked"]);
    drop(exclusive);
    let shared = Store::open(folder.path("a.casb")).unwrap();
    folder.casblock("check a.casb --exclusive").fails(&["a.casb: in use"]);
    folder.casblock("check a.casb").succeeds();
    drop(shared);
    folder.casblock("check a.casb --exclusive").succeeds();
}

/// What a user sees after a cut of the power: here a copy of a store in use, which is recovered like one.
#[test]
fn a_store_that_was_in_use_is_recovered_and_says_so() {
    let _alone = alone();
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 8 --durability power").succeeds();
    let store = Store::open(folder.path("a.casb")).unwrap();
    store.write(3, &[7; 512]).unwrap();
    std::fs::copy(folder.path("a.casb"), folder.path("b.casb")).unwrap();
    folder.casblock("read b.casb 3").fails(&["b.casb: was not closed before the machine went down"]);
    let done = folder.casblock("sync b.casb --json");
    assert_eq!((done.status, &done.json()["synced"]), (0, &true.into()));
    done.complains(&["b.casb: recovered 1 blocks in 0.0 s; 0 updates of 0 blocks had not been synced"]);
    assert_eq!(folder.casblock("read b.casb 3 --output -").succeeds().stdout, [7; 512]);
    let info = folder.casblock("info b.casb --json").succeeds().json();
    assert_eq!((&info["durability"], &info["last_recovery"]["blocks"]), (&"power".into(), &1.into()));
    let text = folder.casblock("info b.casb").succeeds().text();
    assert!(text.contains("\nlast recovery      ") && text.lines().all(|line| line.len() <= 80), "{text}");
    folder.casblock("check a.casb --exclusive --recover").fails(&["a.casb: in use"]);
    folder.casblock("check b.casb --exclusive --recover").complains(&["recovered 1 blocks"]);
}

#[test]
fn a_writer_slot_that_others_have_is_waited_for_by_nobody() {
    let _alone = alone();
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 8 --writers 1").succeeds();
    let store = Store::open(folder.path("a.casb")).unwrap();
    let writer = store.writer().unwrap();
    let words = ["a.casb: all 1 writer slots", "in use"];
    folder.casblock_reading(&[1; 512], "write a.casb 0").fails(&words);
    folder.casblock("caw a.casb 0 --expect zero --new hex:01").fails(&words);
    drop(writer);
    folder.casblock("caw a.casb 0 --expect zero --new hex:01").succeeds();
}

#[test]
fn what_takes_only_stores_says_so_of_a_disk() {
    let folder = Folder::new();
    for arguments in ["events scsi:/dev/sdx", "torture scsi:/dev/sdx", "create scsi:/dev/sdx --blocks 8"] {
        let done = folder.casblock(arguments);
        assert_eq!(done.status, 2, "{}", done.stderr);
        assert!(done.stderr.contains("this is for stores: a file is needed, not a disk"), "{}", done.stderr);
    }
    for arguments in ["check scsi:/dev/sdx", "word get scsi:/dev/sdx 0"] {
        folder.casblock(arguments).fails(&["scsi:/dev/sdx: a disk has no", "a store's file is needed"]);
    }
}

#[test]
fn a_disk_is_replayed_on_only_with_consent() {
    let folder = Folder::new();
    folder.file("a.csv", b"op,lba,length_bytes\nw,0,512\n");
    folder
        .casblock("replay a.csv scsi:/dev/sdx")
        .fails(&["scsi:/dev/sdx: the disk's blocks would be overwritten", "--i-know-what-is-on-it"]);
    // With it, it is looked for.
    folder.casblock("replay a.csv scsi:/dev/sdx --i-know-what-is-on-it").fails(&["scsi:/dev/sdx", "No such file"]);
}
