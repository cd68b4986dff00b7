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
    folder.casblock("check a.casb").fails(&["a.casb: in use"]);
    drop(shared);
    folder.casblock("check a.casb").succeeds();
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
