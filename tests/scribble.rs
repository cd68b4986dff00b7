//! A hostile process that scribbles over the live mapping of a store, while other processes use it: these are answered by
//! errors or by data. They do not crash, and they do not hang.
//!
//! | variable | what it does |
//! | --- | --- |
//! | `CASBLOCK_TEST_SEED` | the scribbler's seed: otherwise a new one each time, which is printed |
//! | `CASBLOCK_TEST_OPERATIONS` | how many operations each thread makes: more for a night |
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

use casblock::{Durability, Error, Event, EventKind, Geometry, OpenError, OpenOptions, Store, Writer};
use memmap2::{MmapOptions, MmapRaw};

#[path = "common/children.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod children;
#[path = "common/damage.rs"]
mod damage;
#[path = "common/dice.rs"]
mod dice;

use children::Child;
use damage::{SUPERBLOCK_BYTES, Sections, quick_folder};
use dice::Dice;

const BLOCKS: u64 = 16;
const WORKERS: usize = 3;
const THREADS: u64 = 2;
const OPERATIONS: u64 = 100_000;

/// A worker gives a sign of life after so many operations of a thread, and within this time.
const BATCH: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Says something that is not for the harness to keep.
fn say_aloud(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn operations() -> u64 {
    variable("CASBLOCK_TEST_OPERATIONS").unwrap_or(OPERATIONS)
}

fn geometry(durability: Durability) -> Geometry {
    Geometry::blocks(BLOCKS).words(4).writers(8).durability(durability).events(8)
}

/// A store's file, mapped by somebody who respects nothing.
struct Scribbler {
    map: MmapRaw,
    sound: Vec<u8>,
    at: Sections,
    frames: u64,
}

impl Scribbler {
    fn new(path: &Path, geometry: &Geometry) -> Self {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let map = MmapOptions::new().map_raw(&file).unwrap();
        let at = Sections::of(geometry);
        assert_eq!(map.len() as u64, at.end);
        Self { map, sound: std::fs::read(path).unwrap(), at, frames: geometry.frame_count() }
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(index < self.at.end / 8);
        // SAFETY: the mapping has that many words, is aligned to pages, and is accessed only as atomics.
        let word = unsafe { self.map.as_mut_ptr().cast::<AtomicU64>().add(index as usize) };
        // SAFETY: as above.
        unsafe { &*word }
    }

    /// Changes some words.
    fn scribble(&self, dice: &mut Dice<'_>) {
        let sections = self.at.named();
        for _ in 0..=dice.below(16) {
            let section = dice.below(9) as usize;
            let (start, end) = (sections[section].1, sections[section + 1].1);
            // What is used of a section is at its beginning.
            let words = (end - start) / 8 / [1, 16][dice.below(2) as usize];
            let word = self.word(start / 8 + dice.below(words.max(1)).min(self.at.end / 8 - 1));
            let value = match dice.below(4) {
                0 => word.load(Relaxed) ^ 1 << dice.below(64),
                1 => self.word(dice.below(self.at.end / 8)).load(Relaxed),
                _ => dice.nasty(self.frames + 1),
            };
            word.store(value, Relaxed);
        }
    }

    /// Puts a section back as it was, or all of them: otherwise there would soon be nothing but errors.
    fn heal(&self, dice: &mut Dice<'_>) {
        let sections = self.at.named();
        let some = dice.below(16) as usize;
        let range = sections.get(some).zip(sections.get(some + 1)).map_or(0..self.at.end, |(a, b)| a.1..b.1);
        for index in range.start / 8..range.end / 8 {
            let bytes = self.sound[index as usize * 8..][..8].try_into().unwrap();
            self.word(index).store(u64::from_le_bytes(bytes), Relaxed);
        }
        self.heal_superblock();
    }

    fn heal_superblock(&self) {
        for index in 0..SUPERBLOCK_BYTES / 8 {
            let bytes = self.sound[index * 8..][..8].try_into().unwrap();
            self.word(index as u64).store(u64::from_le_bytes(bytes), Relaxed);
        }
    }
}

/// What a worker saw since it said so last.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    operations: u64,
    data: u64,
    errors: u64,
    opened: u64,
    refused: u64,
}

fn scribble_over(durability: Durability) {
    let seed = variable("CASBLOCK_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    say_aloud(&format!("CASBLOCK_TEST_SEED={seed} (scribbling, {durability:?})"));
    let folder = tempfile::tempdir_in(quick_folder()).unwrap();
    let path = folder.path().join("store");
    let geometry = geometry(durability);
    let store = Store::create(&path, geometry).unwrap();
    (0..BLOCKS - 2).for_each(|lba| store.write(lba, &[1; 512]).unwrap());
    drop(store);
    let scribbler = Scribbler::new(&path, &geometry);

    let mut dice = Dice::seeded(seed);
    let (send, heard) = mpsc::channel();
    let children: Vec<Child> = (0..WORKERS)
        .map(|worker| {
            let seed = seed.wrapping_add(1 + worker as u64).to_string();
            Child::start("child_works", &[(WORK, &seed)], folder.path())
        })
        .collect();
    let ids: Vec<u32> = children.iter().map(|child| child.process.id()).collect();
    let (mut seen, mut scribbles, mut hung) = (Seen::default(), 0u64, false);
    let statuses = std::thread::scope(|scope| {
        let listening: Vec<_> =
            (0..).zip(children).map(|(worker, child)| scope.spawn(listen(worker, child, &send))).collect();
        let mut last = [std::time::Instant::now(); WORKERS];
        while listening.iter().any(|thread| !thread.is_finished()) {
            scribbler.scribble(&mut dice);
            scribbles += 1;
            match dice.below(16) {
                0 => scribbler.heal(&mut dice),
                1 => std::thread::sleep(Duration::from_micros(200)),
                2..8 => scribbler.heal_superblock(),
                _ => {}
            }
            for (worker, counts) in heard.try_iter() {
                last[worker] = std::time::Instant::now();
                seen.add(counts);
            }
            let hangs = |worker: usize| !listening[worker].is_finished() && last[worker].elapsed() > PATIENCE;
            for worker in (0..WORKERS).filter(|worker| hangs(*worker)) {
                hung = true;
                // SAFETY: a signal to a child that nobody has waited for yet.
                unsafe { libc::kill(ids[worker] as libc::pid_t, libc::SIGKILL) };
            }
        }
        listening.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    heard.try_iter().for_each(|(_, counts)| seen.add(counts));
    assert!(!hung, "a worker hangs");
    assert!(statuses.iter().all(|status| status.success()), "a worker ended with {statuses:?}");
    say_aloud(&format!("{durability:?}: {scribbles} scribbles, {seen:?}"));
    assert_eq!(seen.operations, WORKERS as u64 * THREADS * operations());
    let least = seen.operations / 100;
    assert!(scribbles > 1000 && seen.data > least && seen.errors > least, "too little was seen: {seen:?}");
    assert!(seen.opened > least / 10 && seen.refused > least / 100, "too little was seen: {seen:?}");

    // It is a store again with the bytes it had.
    scribbler.heal_superblock();
    drop(OpenOptions::new().recover().open(&path).unwrap());
    std::fs::write(&path, &scribbler.sound).unwrap();
    assert!(Store::open(&path).unwrap().check().is_clean());
}

impl Seen {
    fn counts(self) -> [u64; 5] {
        let Self { operations, data, errors, opened, refused } = self;
        [operations, data, errors, opened, refused]
    }

    fn add(&mut self, counts: [u64; 5]) {
        let mut sums = self.counts();
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        let [operations, data, errors, opened, refused] = sums;
        *self = Self { operations, data, errors, opened, refused };
    }

    fn note<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(it) => {
                self.data += 1;
                Some(it)
            }
            Err(Error::Miscompare(_)) => {
                self.data += 1;
                None
            }
            Err(Error::Corrupt { .. } | Error::NoSpace { .. } | Error::TooManyWriters { .. } | Error::ReadOnly) => {
                self.errors += 1;
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// As [`note`](Self::note), of what there is nothing to do with.
    fn done<T>(&mut self, result: Result<T, Error>) {
        self.note(result);
    }
}

/// Passes on what a worker says until it ends; gives how.
fn listen(
    worker: usize,
    mut child: Child,
    send: &mpsc::Sender<(usize, [u64; 5])>,
) -> impl FnOnce() -> std::process::ExitStatus + use<> {
    let send = send.clone();
    move || {
        while let Some(line) = child.hear() {
            let counts: Vec<u64> = line.split(' ').map(|count| count.parse().unwrap()).collect();
            send.send((worker, counts.try_into().unwrap())).unwrap();
        }
        child.process.wait().unwrap()
    }
}

#[test]
fn those_who_use_a_store_that_is_scribbled_over_get_errors_or_data() {
    scribble_over(Durability::Process);
}

#[test]
fn those_who_use_a_store_of_durability_power_that_is_scribbled_over_get_errors_or_data() {
    scribble_over(Durability::Power);
}

/// The seed of a child that works.
const WORK: &str = "CASBLOCK_TEST_WORK";

#[test]
#[ignore = "run in processes of their own, by the tests above"]
fn child_works() {
    let Some((folder, seed)) = children::settings(WORK) else { return };
    let seed: u64 = seed.parse().unwrap();
    let path = folder.join("store");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (path, dice) = (&path, Dice::seeded(seed << 8 | thread));
            scope.spawn(move || Worker { path, dice, store: None, writers: Vec::new(), seen: Seen::default() }.work());
        }
    });
}

struct Worker<'a> {
    path: &'a Path,
    dice: Dice<'static>,
    store: Option<Store>,
    writers: Vec<Writer>,
    seen: Seen,
}

impl Worker<'_> {
    fn work(mut self) {
        for operation in 1..=operations() {
            match self.store.clone() {
                Some(store) if !self.dice.once_in(200) => self.operate(&store),
                _ => self.open(),
            }
            self.seen.operations += 1;
            if operation % BATCH == 0 || operation == operations() {
                let counts = std::mem::take(&mut self.seen).counts().map(|count| count.to_string());
                children::say(&counts.join(" "));
            }
        }
    }

    /// Lets go of the store, and opens it anew.
    fn open(&mut self) {
        self.writers.clear();
        self.store = None;
        let options = OpenOptions::new();
        let options = match self.dice.below(16) {
            0 => options.read_only(),
            1 => options.exclusive(),
            2 => options.recover(),
            _ => options,
        };
        match options.open(self.path) {
            Ok(store) => {
                self.seen.opened += 1;
                self.store = Some(store);
            }
            // Others are in it, or it looks like something else at the moment.
            Err(
                OpenError::InUse { .. }
                | OpenError::Locked { .. }
                | OpenError::InUseElsewhere { .. }
                | OpenError::NeedsRecovery { .. }
                | OpenError::NotAStore { .. }
                | OpenError::NewerVersion { .. }
                | OpenError::Superblock { .. }
                | OpenError::Truncated { .. },
            ) => self.seen.refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn operate(&mut self, store: &Store) {
        let (dice, seen) = (&mut self.dice, &mut self.seen);
        let lba = dice.below(BLOCKS);
        let mut old = [dice.below(4) as u8; 512];
        let new = [dice.below(4) as u8; 512];
        let choice = dice.below(20);
        if matches!(choice, 11 | 12) {
            match self.writers.len() {
                0 | 1 => self.writers.extend(seen.note(store.writer())),
                _ => drop(self.writers.remove(0)),
            }
            return;
        }
        match (choice, self.writers.last_mut()) {
            (0..3, _) => seen.done(store.read(lba, &mut old)),
            (3, _) => seen.done(store.read(0, &mut [0; BLOCKS as usize * 512])),
            (4, _) => seen.done(store.is_written(lba)),
            (5 | 6, None) => seen.done(store.write(lba, &new)),
            (5 | 6, Some(writer)) => seen.done(writer.write(lba, &new)),
            (7, _) => seen.done(store.write(lba, &new)),
            (8..11, None) => seen.done(store.compare_and_write(lba, &old, &new)),
            (8 | 9, Some(writer)) => seen.done(writer.compare_and_write(lba, &old, &new)),
            (10, Some(writer)) => seen.done(writer.compare_and_write_or_load(lba, &mut old, &new)),
            (13, _) => {
                if let Some(word) = seen.note(store.word(lba % 4)) {
                    let found = word.load();
                    let _ = word.compare_exchange(found, found.wrapping_add(1));
                }
            }
            (14, _) => seen.done(store.sync()),
            (15, _) if store.geometry().durability_class() == Durability::Power => {
                seen.done(store.durable().unwrap().write(lba, &new));
            }
            (17, _) => {
                let _ = (store.record_event(&Event::new(EventKind::HostFenced)), store.miscompares());
                let events = store.event_reader().starting_at(dice.number(8)).read().events;
                assert!(events.iter().all(|event| !matches!(event.kind, EventKind::Unknown(_))), "{events:?}");
            }
            (16, _) => {
                let _ = (store.check(), store.recovery(), store.last_recovery());
            }
            _ => seen.done(store.read(lba, &mut old)),
        }
    }
}
