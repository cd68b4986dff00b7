//! Processes that fork while they have a store open.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casblock::{Error, Geometry, OpenError, Store, Writer};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

#[path = "common/children.rs"]
mod children;
use children::Child;

/// How long to wait for what must come before that is called a hang.
const PATIENCE: Duration = Duration::from_secs(120);

fn open(folder: &Path) -> Store {
    Store::open(folder.join("store")).unwrap()
}

fn image(counter: u64) -> Vec<u8> {
    counter.to_le_bytes().repeat(64)
}

fn read_counter(store: &Store, lba: u64) -> u64 {
    let mut block = [0; 512];
    store.read(lba, &mut block).unwrap();
    assert!(block.chunks(8).all(|word| *word == block[..8]), "torn: {block:?}");
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

/// Adds one to a block's counter, which nobody else does meanwhile.
fn increment_by_store(store: &Store, lba: u64) {
    let counter = read_counter(store, lba);
    store.compare_and_write(lba, &image(counter), &image(counter + 1)).unwrap();
}

fn increment_by_writer(writer: &mut Writer, lba: u64) {
    let mut block = vec![0; 512];
    writer.read(lba, &mut block).unwrap();
    let counter = u64::from_le_bytes(block[..8].try_into().unwrap());
    writer.compare_and_write(lba, &block, &image(counter + 1)).unwrap();
}

/// Forks this process, which is a test's child.
fn fork_here() -> ForkResult {
    // SAFETY: the only other thread of this process is the harness's, which waits for this one: it holds no lock that
    // the child would find taken.
    unsafe { fork() }.unwrap()
}

/// In a forked child: does its work, and ends.
fn end_with(work: impl FnOnce()) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::process::exit(i32::from(result.is_err()))
}

fn wait_until_it_ended_well(child: Pid) {
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)), "a forked child: see its output above");
}

#[test]
fn a_forked_child_reads_but_updates_nothing_and_takes_nothing_from_its_parent() {
    let _alone = children::alone();
    let folder = tempfile::tempdir().unwrap();
    drop(Store::create(folder.path().join("store"), Geometry::blocks(4).writers(3)).unwrap());
    let child = Child::start("child_forks", &[("ROLE", "")], folder.path());
    assert_eq!(child.finish(), ["done"]);
    let store = Store::open_exclusive(folder.path().join("store")).unwrap();
    let check = store.check();
    assert!(check.is_clean() && check.frames_in_use == check.blocks_written, "{check:?}");
}

/// Has two of three writer slots and forks.
#[test]
#[ignore = "a child of the tests here"]
fn child_forks() {
    let Some((folder, _)) = children::settings("ROLE") else { return };
    let store = open(&folder);
    let mut writer = store.writer().unwrap();
    writer.write(1, &image(7)).unwrap();
    store.write(2, &image(8)).unwrap();
    assert_two_slots_and_the_store_are_in_use(&folder);
    for round in 1..=3 {
        match fork_here() {
            ForkResult::Child => end_with(|| use_inherited(store, writer, &folder)),
            ForkResult::Parent { child } => wait_until_it_ended_well(child),
        }
        assert_two_slots_and_the_store_are_in_use(&folder);
        assert_eq!(read_counter(&store, 3), 2 * round, "the child's updates of a store that it opened itself");
        increment_by_writer(&mut writer, 1);
        increment_by_store(&store, 2);
    }
    assert_eq!((read_counter(&store, 1), read_counter(&store, 2)), (10, 11));
    drop((writer, store));
    children::say("done");
}

fn assert_two_slots_and_the_store_are_in_use(folder: &Path) {
    assert!(matches!(Store::open_exclusive(folder.join("store")), Err(OpenError::InUse { .. })));
    let other = open(folder);
    let third = other.writer().unwrap();
    assert!(matches!(other.writer(), Err(Error::TooManyWriters { .. })));
    drop(third);
}

/// In a forked child: what its parent had open.
fn use_inherited(store: Store, mut writer: Writer, folder: &Path) {
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Forked)), "{result:?}");
    let (old, new) = (image(read_counter(&store, 1)), image(99));
    refused(store.write(1, &new));
    refused(store.write(1, &[]));
    refused(store.compare_and_write(1, &old, &new));
    refused(store.writer().map(drop));
    refused(store.word(0).map(drop));
    refused(store.sync());
    refused(store.clone().write(1, &new));
    refused(writer.write(1, &new));
    refused(writer.compare_and_write(1, &old, &new));
    refused(writer.compare_and_write_or_load(1, &mut image(99), &new).map(drop));

    let mut found = image(99);
    writer.read(1, &mut found).unwrap();
    assert_eq!(found, old);
    assert!(store.is_written(2).unwrap() && !store.is_written(0).unwrap());
    assert_eq!(store.read_word(0).unwrap(), 0);
    assert!(store.check().is_clean());

    drop((writer, store));
    assert_two_slots_and_the_store_are_in_use(folder);
    let anew = open(folder);
    increment_by_store(&anew, 3);
    match fork_here() {
        ForkResult::Child => end_with(|| refused(anew.write(3, &new))),
        ForkResult::Parent { child } => wait_until_it_ended_well(child),
    }
    increment_by_store(&anew, 3);
}

/// A forked child keeps its parent's locks for as long as it has its parent's descriptors; one that executes another
/// program has none.
#[test]
fn a_killed_parents_slot_is_free_once_no_forked_child_has_its_descriptors() {
    let _alone = children::alone();
    for (role, holds) in [("forks", true), ("executes", false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path().join("store"), Geometry::blocks(4).writers(1).frames(2)).unwrap();
        let mut child = Child::start("child_leaves_a_child", &[("ROLE", role)], folder.path());
        let said = child.hear().expect("the child's child is there");
        let grandchild = Pid::from_raw(said.parse().unwrap());
        child.process.kill().unwrap();
        child.process.wait().unwrap();
        assert_eq!(kill(grandchild, None), Ok(()), "it is still there");
        if holds {
            assert!(matches!(store.writer(), Err(Error::TooManyWriters { .. })), "{role}");
            assert_eq!(read_counter(&store, 1), 7);
            store.word(0).unwrap().compare_exchange(0, 1).unwrap();
        }
        let began = Instant::now();
        let mut writer = loop {
            match store.writer() {
                Ok(writer) => break writer,
                Err(Error::TooManyWriters { .. }) if holds && began.elapsed() < PATIENCE => {}
                Err(other) => panic!("{role}: {other}"),
            }
        };
        increment_by_writer(&mut writer, 1);
        assert!(store.check().is_clean());
        if !holds {
            kill(grandchild, Signal::SIGKILL).unwrap();
        }
    }
}

/// Has the store's only writer, and a child that outlives it.
#[test]
#[ignore = "a child of the tests here"]
fn child_leaves_a_child() {
    let Some((folder, role)) = children::settings("ROLE") else { return };
    let store = open(&folder);
    let mut writer = store.writer().unwrap();
    writer.write(1, &image(7)).unwrap();
    match &*role {
        "forks" => match fork_here() {
            ForkResult::Child => end_with(|| wait_for_word(&store)),
            ForkResult::Parent { child } => {
                children::say(&child.to_string());
                wait_for_word(&store);
                wait_until_it_ended_well(child);
            }
        },
        "executes" => {
            // Should the test fail, nobody must wait for the end of its output.
            let mut sleep = Command::new("sleep");
            let mut child = sleep.arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            children::say(&child.id().to_string());
            wait_for_word(&store);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        other => panic!("no role {other}"),
    }
}

/// Waits until the test exchanges the word.
fn wait_for_word(store: &Store) {
    let began = Instant::now();
    while store.read_word(0).unwrap() == 0 && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
}
