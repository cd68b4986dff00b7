//! `casblock events`: what a store's flight recorder shows, also when all who wrote to it are dead.

mod common;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command};

use casblock::{Error, Event, EventKind, Store};
use common::{CASBLOCK, Folder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The objects that a command printed.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compares and writes block 5 in vain so often.
fn miscompare(store: &Store, times: usize) {
    let mut expected = [0; 512];
    expected[17] = 9;
    for _ in 0..times {
        assert!(matches!(store.compare_and_write(5, &expected, &[1; 512]), Err(Error::Miscompare(_))));
    }
}

#[test]
fn a_miscompare_is_shown_with_its_bytes_and_all_are_counted() {
    let folder = Folder::new();
    let store = Store::open(folder.store("a.casb")).unwrap();
    miscompare(&store, 3);
    let shown = objects(&folder.casblock("events a.casb --json").succeeds().text());
    let [event, summary] = &shown[..] else { panic!("{shown:?}") };
    let expected = serde_json::json!({
        "number": 0, "at": event["at"], "at_unix_ms": event["at_unix_ms"], "kind": "miscompare",
        "process": std::process::id(), "writer": 0, "lba": 5, "offset": 17,
        "expected": "0009000000000000", "found": "0000000000000000", "count": 1,
    });
    assert_eq!(*event, expected);
    assert_eq!(*summary, serde_json::json!({ "miscompares": 3, "events_recorded": 1, "events_max": 4096 }));

    let text = folder.casblock("events a.casb").succeeds().text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("  miscompare      block 5, byte 17  ["), "{text}");
    assert_eq!(lines[1], "    found 0000000000000000, expected 0009000000000000");
    assert_eq!(lines[2], "miscompares        3 since the store was made");
    assert_eq!(lines[3], "events             1 recorded, the last 4,096 are kept");
    assert_eq!(folder.casblock("info a.casb --json").succeeds().json()["miscompares"], 3);

    folder.casblock("caw a.casb 5 --expect hex:01 --new hex:02");
    assert_eq!(folder.casblock("info a.casb --json").succeeds().json()["miscompares"], 4);
    assert_eq!(objects(&folder.casblock("events a.casb --json --kind recovered").succeeds().text()).len(), 1);
}

#[test]
fn a_store_without_a_recorder_says_so() {
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 8 --events 0").succeeds();
    folder.casblock("events a.casb").fails(&["a.casb: has no flight recorder"]);
    let info = folder.casblock("info a.casb --json").succeeds().json();
    assert_eq!((&info["events"], &info["miscompares"]), (&0.into(), &Value::Null));
    folder.casblock("create b.casb --blocks 8 --events 64").succeeds();
    assert_eq!(folder.casblock("info b.casb --json").succeeds().json()["events"], 64);
    let text = folder.casblock("info b.casb").succeeds().text();
    assert!(text.contains("events kept        64\nmiscompares        0 since it was made\n"), "{text}");
    assert_eq!(folder.casblock("events b.casb --kind nonsense").status, 2);
}

/// Names the store that a child of these tests is to work on.
const WORK: &str = "CASBLOCK_TEST_EVENTS_STORE";

/// Starts a process that meets with miscompares and has a writer of its own; it has said so, and works no more.
fn start_worker(path: &Path) -> (Child, u64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["worker", "--exact", "--ignored", "--nocapture"]).env(WORK, path);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let done = lines.by_ref().find_map(|line| line.unwrap().split_once("met with ")?.1.parse().ok());
    (child, done.expect("it says how many"))
}

#[test]
#[ignore = "a process of its own, for the tests here"]
fn worker() {
    let Ok(path) = std::env::var(WORK) else { return };
    let store = Store::open(path).unwrap();
    let mut writer = store.writer().unwrap();
    (1..=3).for_each(|byte| writer.write(7, &[byte; 512]).unwrap());
    miscompare(&store, 1234);
    println!("met with 1234");
    std::thread::sleep(std::time::Duration::from_secs(600));
}

#[test]
fn events_and_exact_counts_outlive_those_who_were_killed() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    for round in 1..=3 {
        let (mut child, times) = start_worker(&path);
        assert_eq!(times, 1234);
        child.kill().unwrap();
        child.wait().unwrap();
        let shown = objects(&folder.casblock("events a.casb --json").succeeds().text());
        assert_eq!(shown.last().unwrap()["miscompares"], 1234 * round);
        let of_dead = shown.iter().any(|it| it["process"] == child.id() && it["kind"] == "miscompare");
        assert!(of_dead || round > 1, "{shown:?}");
    }
    // The slots of the dead are taken over by others, who tell.
    let adopted = objects(&folder.casblock("events a.casb --json --kind writer-adopted").succeeds().text());
    assert!(adopted.len() >= 3, "two rounds found slots that the one before had left: {adopted:?}");
    assert!(adopted.iter().take(adopted.len() - 1).all(|it| it["writer"].is_u64()), "{adopted:?}");
    assert!(adopted.iter().all(|it| it["lba"].is_null()), "they were idle: {adopted:?}");
    let text = folder.casblock("events a.casb --kind writer-adopted").succeeds().text();
    assert!(text.contains("writer 0  [") && text.contains("    its last user died"), "{text}");
}

#[test]
fn who_follows_sees_what_is_recorded_until_it_is_interrupted() {
    let folder = Folder::new();
    let path = folder.path("a.casb");
    folder.casblock("create a.casb --blocks 8 --events 16").succeeds();
    let store = Store::open(&path).unwrap();
    let record = |found: u64| {
        let mut event = Event::new(EventKind::LeaseBroken);
        (event.lba, event.expected, event.found) = (Some(3), found - 1, found);
        store.record_event(&event).unwrap();
    };
    record(1);
    let mut child = folder.command(CASBLOCK).args(["events", "a.casb", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    assert_eq!(next()["found"], 1);
    for found in 2..6 {
        record(found);
        let shown = next();
        assert_eq!((&shown["number"], &shown["found"]), (&(found - 1).into(), &found.into()));
    }
    // More than there is room for, while it is stopped.
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    (6..106).for_each(record);
    kill_process(pid, Signal::CONT).unwrap();
    let missed = next();
    assert_eq!(missed["missed"], 100 - 16, "{missed}");
    for found in 90..106 {
        assert_eq!(next()["found"], found);
    }
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(next()["events_recorded"], 105);
    assert_eq!(lines.next(), None);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn what_is_damaged_is_counted() {
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 8 --events 16").succeeds();
    let path = folder.path("a.casb");
    let store = Store::open(&path).unwrap();
    (0..3).for_each(|_| store.record_event(&Event::new(EventKind::HostFenced)).unwrap());
    // A bit of the second event: the ring is the file's last section.
    let at = std::fs::metadata(&path).unwrap().len() - 4096 + 512 + 64;
    let mut byte = [0];
    File::open(&path).unwrap().read_exact_at(&mut byte, at).unwrap();
    common::patch(&path, at, &[byte[0] ^ 1]);
    let shown = objects(&folder.casblock("events a.casb --json").succeeds().text());
    assert_eq!(shown[0]["missed"], 1, "{shown:?}");
    assert_eq!((&shown[1]["number"], &shown[2]["number"]), (&0.into(), &2.into()));
}

#[test]
fn who_reads_no_more_ends_it() {
    let folder = Folder::new();
    let store = Store::open(folder.store("a.casb")).unwrap();
    let mut child = folder.command(CASBLOCK).args(["events", "a.casb", "--follow"]).spawn().unwrap();
    drop(child.stdout.take());
    let done = loop {
        store.record_event(&Event::new(EventKind::HostFenced)).unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(done.success());
}

#[test]
fn damage_and_its_repair_are_recorded() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    folder.casblock_reading(&[1; 512], "write a.casb 0").succeeds();
    // The cell of block 1, and the tag of a frame: see docs/format.md.
    let tags = 4096 + 256 * 128 + 128 * 128;
    common::patch(&path, tags + 4096 + 8, &u64::MAX.to_le_bytes());
    common::patch(&path, tags + 2 * 50, &[1, 0]);
    folder.casblock_reading(&[1; 512], "write a.casb 1").fails(&["the store is damaged"]);
    assert_eq!(folder.casblock("check a.casb --exclusive --repair").status, 1);
    let shown = objects(&folder.casblock("events a.casb --json").succeeds().text());
    let kinds: Vec<_> = shown.iter().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, ["corruption", "repaired"]);
    assert_eq!((&shown[0]["lba"], &shown[0]["found"]), (&1.into(), &u64::MAX.into()));
    assert_eq!((&shown[1]["count"], &shown[1]["found"]), (&1.into(), &1.into()));
    let text = folder.casblock("events a.casb").succeeds().text();
    assert!(text.contains("its cell holds 0xffffffffffffffff, which names no frame\n"), "{text}");
    assert!(text.contains("    1 mended, 1 could not be\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
