//! Several processes on one file, some of them killed in the middle of what they do.
#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use casblock::{Comparison, CreateOptions, Error, Geometry, OpenError, Store, Writer};

#[path = "common/children.rs"]
mod children;
use children::Child;

/// How long a test waits for what must come before it calls that a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store in a temporary folder, where children find it.
fn folder_with_store(geometry: Geometry) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Store::create(folder.path().join("store"), geometry).unwrap();
    folder
}

fn open(folder: &Path) -> Result<Store, OpenError> {
    Store::open(folder.join("store"))
}

/// Kills a child. `false` if that was not what ended it.
fn kill_child(mut child: Child) -> bool {
    child.process.kill().unwrap();
    child.process.wait().unwrap().signal() == Some(9)
}

/// The counter in a block, which is the same all through the block.
fn counter(block: &[u8]) -> u64 {
    assert!(block.chunks(8).all(|word| *word == block[..8]), "torn: {block:?}");
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

fn image(counter: u64) -> Vec<u8> {
    counter.to_le_bytes().repeat(64)
}

fn read_counter(store: &Store, lba: u64) -> u64 {
    let mut block = [0; 512];
    store.read(lba, &mut block).unwrap();
    counter(&block)
}

/// Adds one to a block's counter by compare-and-write through the store's own writers.
fn increment_by_store(store: &Store, lba: u64) {
    let mut current = read_counter(store, lba);
    loop {
        match store.compare_and_write(lba, &image(current), &image(current + 1)) {
            Ok(()) => return,
            Err(Error::Miscompare(miscompare)) => current = counter(&miscompare.found),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Adds one to a block's counter by compare-and-write through a writer, starting from a guess.
fn increment_by_writer(writer: &mut Writer, lba: u64, guess: &mut [u8]) {
    loop {
        let wanted = image(counter(guess) + 1);
        match writer.compare_and_write_or_load(lba, guess, &wanted).unwrap() {
            Comparison::Written => return guess.copy_from_slice(&wanted),
            Comparison::Miscompare { .. } => {}
        }
    }
}

#[test]
fn processes_and_threads_increment_one_block_without_loss() {
    let _alone = children::alone();
    const PROCESSES: u64 = 3;
    let folder = folder_with_store(Geometry::blocks(4).frames(4 + 8).writers(16));
    let start = |_| Child::start("child_increments_and_ends", &[("ROLE", "")], folder.path());
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    for child in children {
        assert_eq!(child.finish(), ["done"], "the child ran what it was to run");
    }
    let store = Store::open_exclusive(folder.path().join("store")).unwrap();
    assert_eq!(read_counter(&store, 2), PROCESSES * THREADS * INCREMENTS);
    let check = store.check();
    assert!(check.is_clean(), "{check:?}");
    assert_eq!((check.blocks_written, check.frames_in_use), (1, 1), "all writers gave their frames back");
}

const THREADS: u64 = 2;
const INCREMENTS: u64 = 5000;

#[test]
#[ignore = "a child of the tests here"]
fn child_increments_and_ends() {
    let Some((folder, _)) = children::settings("ROLE") else { return };
    let store = open(&folder).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..INCREMENTS).for_each(|_| increment_by_store(&store, 2)));
        scope.spawn(|| {
            let mut writer = store.writer().unwrap();
            let mut guess = image(0);
            (0..INCREMENTS).for_each(|_| increment_by_writer(&mut writer, 2, &mut guess));
        });
    });
    drop(store);
    children::say("done");
}

const KILLS: u64 = 200;
const VICTIMS: u64 = 3;
const BLOCKS: u64 = 6;

/// Children count in heartbeat words what they did, one word a thread, after they did it. A kill can so hide one
/// operation of each of its threads, and no more.
#[test]
fn kills_lose_no_update_no_frame_and_no_slot() {
    let _alone = children::alone();
    let writers = 2 * VICTIMS * THREADS;
    // Every block may be in its first write when a kill comes, with a reserve beside the spare.
    let geometry = Geometry::blocks(BLOCKS).writers(writers as u16).frames(BLOCKS + writers).words(VICTIMS * THREADS);
    let folder = folder_with_store(geometry);
    let store = open(folder.path()).unwrap();
    let start = |id: u64| Child::start("child_increments_for_ever", &[("ID", &id.to_string())], folder.path());
    let mut children: Vec<_> = (0..VICTIMS).map(|id| Some(start(id))).collect();
    let mut random = fastrand::Rng::new();
    for kill in 0..KILLS {
        let id = random.u64(..VICTIMS);
        let before = words_of(&store, id);
        let began = Instant::now();
        while words_of(&store, id).iter().zip(&before).any(|(now, before)| now == before) {
            assert!(began.elapsed() < PATIENCE, "kill {kill}: a thread of child {id} does nothing");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(random.u64(..1000)));
        let child = &mut children[id as usize];
        assert!(kill_child(child.take().unwrap()), "child {id} ended by itself: see its output above");
        *child = Some(start(id));
    }
    for child in children.into_iter().flatten() {
        assert!(kill_child(child), "a child ended by itself: see its output above");
    }
    drop(store);

    let store = Store::open_exclusive(folder.path().join("store")).unwrap();
    let check = store.check();
    assert!(check.is_clean(), "{check:?}");
    let counted: u64 = (0..VICTIMS * THREADS).map(|word| store.read_word(word).unwrap()).sum();
    let done: u64 = (0..BLOCKS).map(|lba| read_counter(&store, lba)).sum();
    let hidden_most = (KILLS + VICTIMS) * THREADS;
    assert!((counted..=counted + hidden_most).contains(&done), "{counted} counted, {done} done");
    println!("{KILLS} kills, {done} increments, {} hidden by kills", done - counted);

    let all: Vec<_> = (0..writers).map(|_| store.writer().unwrap()).collect();
    assert!(store.check().is_clean(), "slots of the dead, claimed again: {:?}", store.check());
    drop(all);
    let check = store.check();
    assert!(check.is_clean() && check.frames_in_use == check.blocks_written, "{check:?}");
}

/// What the threads of a child have counted.
fn words_of(store: &Store, id: u64) -> Vec<u64> {
    (0..THREADS).map(|thread| store.read_word(id * THREADS + thread).unwrap()).collect()
}

/// Increments until it is killed, or until its parent is gone.
#[test]
#[ignore = "a child of the tests here"]
fn child_increments_for_ever() {
    let Some((folder, id)) = children::settings("ID") else { return };
    let id: u64 = id.parse().unwrap();
    let parent = std::os::unix::process::parent_id();
    let store = open(&folder).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut random = fastrand::Rng::new();
                let word = store.word(id * THREADS + thread).unwrap();
                while std::os::unix::process::parent_id() == parent {
                    let lba = random.u64(..BLOCKS);
                    // Claiming and releasing slots is to be killed, too.
                    match random.u8(..4) {
                        0 => increment_by_writer(&mut store.writer().unwrap(), lba, &mut image(0)),
                        _ => increment_by_store(store, lba),
                    }
                    word.compare_exchange(word.load(), word.load() + 1).unwrap();
                }
            });
        }
    });
}

/// First writes of blocks, killed: each block is whole or unwritten, and no frame is lost. Every block has its first
/// write many times over, each time in a new store.
#[test]
fn kills_during_first_writes_leave_each_block_whole_or_unwritten() {
    let _alone = children::alone();
    const BLOCKS: u64 = 4096;
    const HALFWAY_LEAST: u64 = 10;
    let (mut rounds, mut halfway) = (0, 0);
    while halfway < HALFWAY_LEAST {
        rounds += 1;
        assert!(rounds < 300, "only {halfway} kills came before the last write");
        let folder = folder_with_store(Geometry::blocks(BLOCKS).frames(BLOCKS + 8).writers(4));
        let children: Vec<_> =
            (0..2).map(|_| Child::start("child_writes_all_blocks", &[("ROLE", "")], folder.path())).collect();
        let store = open(folder.path()).unwrap();
        let began = Instant::now();
        while !store.is_written(fastrand::u64(..BLOCKS / 8)).unwrap() {
            assert!(began.elapsed() < PATIENCE, "the children write nothing");
        }
        for mut child in children {
            child.process.kill().unwrap();
            let status = child.process.wait().unwrap();
            assert!(status.signal() == Some(9) || status.success(), "a child ended with {status}");
        }
        drop(store);
        let store = Store::open_exclusive(folder.path().join("store")).unwrap();
        let check = store.check();
        assert!(check.is_clean(), "{check:?}");
        halfway += u64::from(check.blocks_written < BLOCKS);
        for lba in 0..BLOCKS {
            assert_eq!(read_counter(&store, lba), if store.is_written(lba).unwrap() { lba + 1 } else { 0 });
        }
        let again: Vec<_> = (0..BLOCKS).flat_map(|lba| image(lba + 1)).collect();
        store.write(0, &again).unwrap();
        assert_eq!(store.check().blocks_written, BLOCKS, "no frame is lost");
        assert!(store.check().is_clean());
    }
    println!("{rounds} rounds, {halfway} of them cut short by a kill");
}

#[test]
#[ignore = "a child of the tests here"]
fn child_writes_all_blocks() {
    let Some((folder, _)) = children::settings("ROLE") else { return };
    let store = open(&folder).unwrap();
    for lba in 0..store.geometry().block_count() {
        store.write(lba, &image(lba + 1)).unwrap();
    }
}

/// Does what it is told, says so, and then waits to be killed, or for its parent to go.
#[test]
#[ignore = "a child of the tests here"]
fn child_holds() {
    let Some((folder, role)) = children::settings("ROLE") else { return };
    let path = folder.join("store");
    let store = match &*role {
        "open" | "writer" => Store::open(path),
        "read only" => Store::open_read_only(path),
        "exclusive" => Store::open_exclusive(path),
        other => panic!("no role {other}"),
    };
    let store = store.unwrap();
    let mut writer = (role == "writer").then(|| store.writer().unwrap());
    if let Some(writer) = &mut writer {
        writer.write(1, &image(7)).unwrap();
    }
    children::say("ready");
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that holds something, and has it by now.
fn holder(role: &str, folder: &Path) -> Child {
    let mut child = Child::start("child_holds", &[("ROLE", role)], folder);
    assert_eq!(child.hear().as_deref(), Some("ready"));
    child
}

#[test]
fn a_killed_writers_slot_and_frame_can_be_claimed_again() {
    let _alone = children::alone();
    let folder = folder_with_store(Geometry::blocks(4).writers(1).frames(2));
    let store = open(folder.path()).unwrap();
    for round in 1..=5 {
        let child = holder("writer", folder.path());
        assert!(matches!(store.writer(), Err(Error::TooManyWriters { writers: 1 })), "round {round}");
        assert!(matches!(store.write(1, &image(1)), Err(Error::TooManyWriters { writers: 1 })), "round {round}");
        assert_eq!(read_counter(&store, 1), 7);
        assert!(kill_child(child));
        let mut writer = store.writer().unwrap();
        writer.compare_and_write(1, &image(7), &image(round)).unwrap();
        assert_eq!(store.check().frames_in_use, 2);
        assert!(store.check().is_clean());
    }
}

#[test]
fn an_open_store_is_neither_replaced_nor_opened_exclusively() {
    let _alone = children::alone();
    for role in ["open", "read only", "writer"] {
        let folder = folder_with_store(Geometry::blocks(4));
        let path = folder.path().join("store");
        let uuid = Store::open(&path).unwrap().uuid();
        let replace = CreateOptions::new(Geometry::blocks(1)).replace(true);
        let child = holder(role, folder.path());
        assert!(matches!(replace.create(&path), Err(OpenError::InUse { path: named }) if named == path), "{role}");
        assert!(matches!(Store::open_exclusive(&path), Err(OpenError::InUse { path: named }) if named == path));
        assert_eq!(Store::open(&path).unwrap().uuid(), uuid, "nothing changed");
        assert!(kill_child(child));
        drop(Store::open_exclusive(&path).unwrap());
        assert_ne!(replace.create(&path).unwrap().uuid(), uuid);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn a_store_open_exclusively_is_not_opened_at_all() {
    let _alone = children::alone();
    let folder = folder_with_store(Geometry::blocks(4));
    let path = folder.path().join("store");
    let child = holder("exclusive", folder.path());
    assert!(matches!(Store::open(&path), Err(OpenError::Locked { path: named }) if named == path));
    assert!(matches!(Store::open_read_only(&path), Err(OpenError::Locked { .. })));
    assert!(matches!(Store::open_exclusive(&path), Err(OpenError::InUse { .. })));
    let replace = CreateOptions::new(Geometry::blocks(1)).replace(true);
    assert!(matches!(replace.create(&path), Err(OpenError::InUse { .. })));
    assert!(kill_child(child));
    Store::open(&path).unwrap();
}

#[test]
fn two_handles_in_one_process_are_as_two_processes() {
    let _alone = children::alone();
    let folder = folder_with_store(Geometry::blocks(4).writers(2));
    let (a, b) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
    let (mut writer_a, mut writer_b) = (a.writer().unwrap(), b.writer().unwrap());
    assert!(matches!(a.writer(), Err(Error::TooManyWriters { writers: 2 })), "the other handle's slot counts");
    writer_a.compare_and_write(3, &image(0), &image(1)).unwrap();
    let Err(Error::Miscompare(miscompare)) = writer_b.compare_and_write(3, &image(0), &image(2)) else {
        panic!("did not see the other handle's write");
    };
    assert_eq!(counter(&miscompare.found), 1);
    writer_b.compare_and_write(3, &image(1), &image(2)).unwrap();
    assert_eq!(read_counter(&a, 3), 2);
    b.word(0).unwrap().compare_exchange(0, 9).unwrap();
    assert_eq!(a.read_word(0).unwrap(), 9);
    drop(writer_b);
    let mut more = a.writer().unwrap();
    increment_by_writer(&mut more, 3, &mut image(2));
    assert_eq!(read_counter(&b, 3), 3);
    assert!(matches!(Store::open_exclusive(folder.path().join("store")), Err(OpenError::InUse { .. })));
    drop((writer_a, more, a));
    assert!(matches!(Store::open_exclusive(folder.path().join("store")), Err(OpenError::InUse { .. })));
    drop(b);
    Store::open_exclusive(folder.path().join("store")).unwrap();
}

#[test]
fn of_many_who_create_a_store_at_once_one_succeeds() {
    let _alone = children::alone();
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Store::create(&path, Geometry::blocks(4)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let made: Vec<_> = results.iter().flatten().collect();
        assert_eq!(made.len(), 1, "{results:?}");
        assert!(results.iter().all(|it| matches!(it, Ok(_) | Err(OpenError::Exists { .. }))), "{results:?}");
        assert_eq!(Store::open(&path).unwrap().uuid(), made[0].uuid());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn closing_one_handle_of_a_process_leaves_the_locks_of_another() {
    let _alone = children::alone();
    let folder = folder_with_store(Geometry::blocks(4).writers(1));
    let (a, b) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
    let mut writer = b.writer().unwrap();
    drop(a);
    for role in ["exclusive", "writer"] {
        let mut child = Child::start("child_tries", &[("ROLE", role)], folder.path());
        assert_eq!(child.hear().as_deref(), Some("refused"), "{role}");
    }
    writer.write(1, &image(1)).unwrap();
}

/// Says whether it gets what it is told to get.
#[test]
#[ignore = "a child of the tests here"]
fn child_tries() {
    let Some((folder, role)) = children::settings("ROLE") else { return };
    let refused = match &*role {
        "exclusive" => matches!(Store::open_exclusive(folder.join("store")), Err(OpenError::InUse { .. })),
        "writer" => matches!(open(&folder).unwrap().writer(), Err(Error::TooManyWriters { .. })),
        other => panic!("no role {other}"),
    };
    children::say(if refused { "refused" } else { "granted" });
}

#[test]
fn a_thread_that_ends_or_panics_gives_its_writer_back() {
    let _alone = children::alone();
    let folder = folder_with_store(Geometry::blocks(4).writers(1).frames(2));
    let store = open(folder.path()).unwrap();
    let panics = |mut writer: Writer| {
        increment_by_writer(&mut writer, 1, &mut image(0));
        // Without the message that a panic would print.
        std::panic::resume_unwind(Box::new("on purpose"))
    };
    for round in 1..=20 {
        let writer = store.writer().unwrap();
        assert!(matches!(store.writer(), Err(Error::TooManyWriters { .. })));
        std::thread::scope(|scope| {
            let thread = match round % 2 {
                0 => scope.spawn(|| increment_by_writer(&mut { writer }, 1, &mut image(0))),
                _ => scope.spawn(|| panics(writer)),
            };
            assert_eq!(thread.join().is_err(), round % 2 != 0);
        });
        assert_eq!(read_counter(&store, 1), round);
        let check = store.check();
        assert!(check.is_clean() && check.frames_in_use == 1, "{check:?}");
    }
}

#[test]
fn the_writer_that_a_store_keeps_outlives_the_thread_that_used_it() {
    let _alone = children::alone();
    let folder = folder_with_store(Geometry::blocks(4).writers(1));
    let store = open(folder.path()).unwrap();
    for round in 1..=20 {
        std::thread::scope(|scope| scope.spawn(|| increment_by_store(&store, 1)).join().unwrap());
        assert_eq!(read_counter(&store, 1), round);
    }
}
