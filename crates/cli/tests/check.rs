//! `casblock check`: clean stores, and one of each fault.

mod common;

use std::path::PathBuf;

use common::{Folder, bytes_at, patch};

/// Where the sections of `Folder::store` begin: see docs/format.md.
const SLOTS: u64 = 4096 + 256 * 128;
const TAGS: u64 = SLOTS + 128 * 128;
const CELLS: u64 = TAGS + 4096;

#[test]
fn a_used_store_is_clean() {
    let folder = Folder::new();
    folder.store("a.casb");
    folder.casblock_reading(&[1; 5 * 512], "write a.casb 3").succeeds();
    let report = folder.casblock("check a.casb --exclusive --json").succeeds().json();
    let expected = serde_json::json!({
        "blocks_written": 5, "frames_in_use": 5, "frames_leaked": 0, "frames_doubly_owned": 0,
        "cells_out_of_range": 0, "slots_damaged": 0, "blocks_misstamped": 0, "blocks_damaged": 0,
        "frames_in_limbo": 0, "exclusive": true, "clean": true,
    });
    assert_eq!(report, expected);
    let text = folder.casblock("check a.casb --exclusive").succeeds().text();
    assert!(text.starts_with("blocks written       5 of 64\n") && text.ends_with("clean: every invariant holds\n"));
    let text = folder.casblock("check a.casb").succeeds().text();
    assert!(
        text.ends_with("clean, as far as one can tell while others may use it; --exclusive makes sure\n"),
        "{text}"
    );
}

/// Damages a store whose block 0 is written by putting bytes at an offset, and expects one fault of this name.
#[track_caller]
fn one_fault(name: &str, meaning: &str, offset: u64, bytes: impl FnOnce(&PathBuf) -> Vec<u8>) {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    folder.casblock_reading(&[1; 512], "write a.casb 0").succeeds();
    patch(&path, offset, &bytes(&path));
    let done = folder.casblock("check a.casb --exclusive --json");
    assert_eq!((done.status, done.stderr.as_str()), (1, ""));
    let report = done.json();
    assert_eq!((&report[name], &report["clean"]), (&1.into(), &false.into()), "{report}");
    let done = folder.casblock("check a.casb --exclusive");
    assert_eq!((done.status, done.stderr.as_str()), (1, ""));
    assert!(done.text().contains(meaning) && done.text().ends_with("NOT clean\n"), "{}", done.text());
}

#[test]
fn each_fault_is_counted_and_explained() {
    let all_ones = |_: &PathBuf| u64::MAX.to_le_bytes().to_vec();
    one_fault("frames_leaked", "room is lost, contents are not", TAGS + 2 * 50, |_| vec![1, 0]);
    one_fault("frames_doubly_owned", "a write of one block may change another", CELLS + 8, |path| {
        bytes_at::<8>(path, CELLS).to_vec()
    });
    one_fault("cells_out_of_range", "their contents cannot be read", CELLS + 8, all_ones);
    one_fault("slots_damaged", "a writer that gets one is refused", SLOTS + 5 * 128, all_ones);
}

#[test]
fn a_damaged_cell_is_an_error_for_its_block_alone() {
    let folder = Folder::new();
    patch(&folder.store("a.casb"), CELLS + 8, &u64::MAX.to_le_bytes());
    folder.casblock("read a.casb 1").fails(&["a.casb: the store is damaged", "block 1", "casblock check"]);
    folder.casblock_reading(&[1; 512], "write a.casb 1").fails(&["a.casb: writing block 1", "the store is damaged"]);
    folder.casblock("read a.casb 0").succeeds();
}

#[test]
fn a_repair_tells_what_it_does_and_leaves_what_it_cannot() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    folder.casblock_reading(&[1; 512], "write a.casb 0").succeeds();
    patch(&path, TAGS + 2 * 50, &[1, 0]);
    let text = folder.casblock("check a.casb --exclusive --repair").succeeds().text();
    assert!(text.starts_with("frame 50 was lost, and was given back\n"), "{text}");
    assert!(text.ends_with("clean: every invariant holds\n"), "{text}");
    assert!(!folder.casblock("check a.casb --exclusive --repair").succeeds().text().contains("frame 50"));

    patch(&path, CELLS + 8, &u64::MAX.to_le_bytes());
    let done = folder.casblock("check a.casb --exclusive --repair --json");
    assert_eq!(done.status, 1);
    let text = done.text();
    let mut lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let (repair, report) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!((&repair["repair"], &repair["mended"]), (&"block-lost".into(), &false.into()));
    assert_eq!((&report["cells_out_of_range"], &report["clean"]), (&1.into(), &false.into()));
}
