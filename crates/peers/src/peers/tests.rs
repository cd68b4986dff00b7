//! What every contestant must do, so that figures compare the same.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::block::{FIRST, number, numbered};

const BLOCKS: u64 = 2;
const THREADS: usize = 4;
const PROCESSES: u64 = 3;

/// Updates by each thread or process, of those that update in memory: so many that they overlap.
const MANY: u64 = 400_000;

/// Of those that make a few system calls for each.
const SOME: u64 = 2_000;

/// And of those that take longest.
const FEW: u64 = 300;

fn one_thread_sees_hits_and_miscompares(peer: &impl Peer) {
    let (mut handle, mut block) = (peer.handle().unwrap(), [0; 512]);
    handle.read(1, &mut block);
    assert!(block == FIRST);
    assert!(handle.compare_and_write(1, &mut block, &numbered(7)));
    assert!(block == FIRST, "a hit changes what was known");
    let mut wrong = numbered(7);
    wrong[511] ^= 1;
    assert!(!handle.compare_and_write(1, &mut wrong, &numbered(8)), "it differs in the last byte");
    assert!(wrong == numbered(7), "a miscompare gives what there is");
    handle.read(1, &mut block);
    assert!(block == numbered(7), "a miscompare changes nothing");
    handle.read(0, &mut block);
    assert!(block == FIRST, "another block stays");
}

/// The number of a block that is not torn, neither at its ends nor between them.
fn whole(block: &Block) -> u64 {
    let number = number(block).expect("not torn");
    assert!(*block == numbered(number), "torn between its ends");
    number
}

/// Adds so many to the number in a block.
fn count(handle: &mut impl Handle, block: u64, updates: u64) {
    let (mut known, mut hits) = (FIRST, 0);
    handle.read(block, &mut known);
    while hits < updates {
        let new = numbered(whole(&known) + 1);
        if handle.compare_and_write(block, &mut known, &new) {
            (known, hits) = (new, hits + 1);
        }
    }
}

fn assert_counted(peer: &impl Peer, updates: u64) {
    let mut block = FIRST;
    peer.handle().unwrap().read(0, &mut block);
    assert_eq!(whole(&block), 1 + updates, "updates were lost");
}

/// Threads count in one block, and one reads it meanwhile.
fn threads_lose_no_update<P: Peer>(peers: &[&P], updates: u64) {
    let start = &Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        let spawn = |thread: usize| {
            let peer = peers[thread % peers.len()];
            scope.spawn(move || {
                start.wait();
                count(&mut peer.handle().unwrap(), 0, updates);
            })
        };
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        start.wait();
        let (mut handle, mut block, mut last) = (peers[0].handle().unwrap(), FIRST, 0);
        while !threads.iter().all(|thread| thread.is_finished()) {
            handle.read(0, &mut block);
            let number = whole(&block);
            // A reader of LMDB 0.9.70 may get the meta page of a commit that is still being flushed, and the one before
            // that the next time. Writers do not: they hold the lock.
            assert!(number >= last || P::NAME == Lmdb::NAME, "an update was taken back");
            last = number;
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    assert_counted(peers[0], THREADS as u64 * updates);
}

fn all<P: Peer>(durabilities: &[Durability], updates: u64) {
    for &durability in durabilities {
        let folder = tempfile::tempdir().unwrap();
        let peer = P::create(folder.path(), BLOCKS, durability).unwrap();
        one_thread_sees_hits_and_miscompares(&peer);
        let updates = if durability == Durability::Power { FEW } else { updates };
        threads_lose_no_update(&[&peer], updates);
    }
}

/// Which contestant a process of these tests counts in, and in which folder.
const ERRAND: [&str; 2] = ["CASBLOCK_PEERS_TEST_PEER", "CASBLOCK_PEERS_TEST_FOLDER"];

/// Processes count in one block.
fn processes_lose_no_update<P: SharedPeer>(updates: u64) {
    let folder = tempfile::tempdir().unwrap();
    let peer = P::create(folder.path(), BLOCKS, Durability::Process).unwrap();
    let spawn = |_| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "peers::tests::a_process_that_counts", "--ignored"]);
        command.env(ERRAND[0], P::NAME).env(ERRAND[1], folder.path());
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let processes: Vec<_> = (0..PROCESSES).map(spawn).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_counted(&peer, PROCESSES * updates);
}

#[test]
#[ignore = "others run it in processes"]
fn a_process_that_counts() {
    let [Ok(name), Ok(folder)] = ERRAND.map(env::var) else { return };
    let folder = Path::new(&folder);
    match name.as_str() {
        Casblock::NAME => count_together::<Casblock>(folder, MANY),
        Robust::NAME => count_together::<Robust>(folder, MANY),
        Ofd::NAME => count_together::<Ofd>(folder, SOME),
        OfdWhole::NAME => count_together::<OfdWhole>(folder, SOME),
        Lmdb::NAME => count_together::<Lmdb>(folder, SOME),
        Sqlite::NAME => count_together::<Sqlite>(folder, FEW),
        other => panic!("{other} is not shared by processes"),
    }
}

/// Counts in block 0 once all processes are there, which they tell each other in block 1.
fn count_together<P: SharedPeer>(folder: &Path, updates: u64) {
    let peer = P::open(folder, BLOCKS, Durability::Process).unwrap();
    let (mut handle, mut block, start) = (peer.handle().unwrap(), FIRST, Instant::now());
    count(&mut handle, 1, 1);
    while whole(&block) != 1 + PROCESSES {
        assert!(start.elapsed() < Duration::from_secs(60), "the others do not come");
        thread::yield_now();
        handle.read(1, &mut block);
    }
    count(&mut handle, 0, updates);
}

const BOTH: [Durability; 2] = [Durability::Process, Durability::Power];

#[test]
fn casblock_does() {
    all::<Casblock>(&BOTH, MANY);
    processes_lose_no_update::<Casblock>(MANY);
}

#[test]
fn locks_do() {
    all::<Mutexes>(&[Durability::Process], MANY);
    all::<RwLocks>(&[Durability::Process], MANY);
    all::<Whole>(&[Durability::Process], MANY);
    all::<Robust>(&[Durability::Process], MANY);
    processes_lose_no_update::<Robust>(MANY);
}

#[test]
fn those_without_locks_do() {
    all::<AtomicCells>(&[Durability::Process], MANY);
    all::<SeqLocks>(&[Durability::Process], MANY);
    all::<ArcSwapped>(&[Durability::Process], MANY);
}

#[test]
fn files_do() {
    all::<Ofd>(&BOTH, SOME);
    all::<OfdWhole>(&BOTH, SOME);
    processes_lose_no_update::<Ofd>(SOME);
    processes_lose_no_update::<OfdWhole>(SOME);
}

#[test]
fn databases_do() {
    all::<Lmdb>(&BOTH, SOME);
    all::<Redb>(&BOTH, SOME);
    all::<Sqlite>(&BOTH, FEW);
    processes_lose_no_update::<Lmdb>(SOME);
    processes_lose_no_update::<Sqlite>(FEW);
}

#[test]
fn two_stores_of_one_file_share_it() {
    fn share<P: SharedPeer>(updates: u64) {
        let folder = tempfile::tempdir().unwrap();
        let peer = P::create(folder.path(), BLOCKS, Durability::Process).unwrap();
        let other = P::open(folder.path(), BLOCKS, Durability::Process).unwrap();
        threads_lose_no_update(&[&peer, &other], updates);
    }
    // LMDB must not be opened twice in a process.
    share::<Casblock>(MANY);
    share::<Robust>(MANY);
    share::<Ofd>(SOME);
    share::<OfdWhole>(SOME);
    share::<Sqlite>(FEW);
}
