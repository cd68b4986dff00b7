//! The cache's engine over the real crossbeam-epoch: readers, fills, updates and evictions beside each other.
//!
//! A device is one number a block, which only grows. Blocks are eight bytes: that number.
#![cfg(all(loom, crossbeam_loom))]

use std::cell::Cell;

use casblock::cache_engine::parts::pin;
use casblock::cache_engine::{Begun, BlockGuard, Counted, Engine, How, Stamp};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use loom_tests::{Flaws, Tally, daily_or_long, run_model_bounded};

/// A cache of one block, or of more, in front of a device of two.
struct Cached {
    engine: Engine<u64>,
    device: [AtomicU64; 2],
    fetches: AtomicU64,
}

impl Cached {
    fn new(capacity: u32) -> Arc<Self> {
        let engine = Engine::new(capacity, 8).expect("memory");
        Arc::new(Self { engine, device: [AtomicU64::new(1), AtomicU64::new(1)], fetches: AtomicU64::new(0) })
    }

    /// What a device's answer is worth: who is answered sees what was done before, and that is all.
    fn ask(&self, lba: u64) -> u64 {
        self.device[lba as usize].load(Ordering::Acquire)
    }

    fn fetch(&self, lba: u64, out: &mut [u8]) -> Result<u64, u64> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let number = self.ask(lba);
        out.copy_from_slice(&number.to_le_bytes());
        Ok(number)
    }

    /// Another host's update.
    fn change_behind(&self, lba: u64) {
        self.device[lba as usize].fetch_add(1, Ordering::AcqRel);
    }

    fn contents(&self, lba: u64) -> BlockGuard<'_> {
        let stamped = Cell::new(0);
        let is_fresh = |stamp: Stamp<'_>| {
            stamped.set(stamp.get());
            true
        };
        let read = self.engine.read_through(lba, is_fresh, |out| self.fetch(lba, out));
        let (contents, how) = read.expect("it never fails");
        if how == How::Hit {
            assert_eq!(stamped.get(), number(&contents), "the stamp of other contents");
        }
        contents
    }

    /// What the cache says of a block.
    fn read(&self, lba: u64) -> u64 {
        number(&self.contents(lba))
    }

    /// An update through the cache; what it made.
    fn update(&self, lba: u64) -> u64 {
        let ticket = self.engine.begin(lba);
        let new = self.device[lba as usize].fetch_add(1, Ordering::AcqRel) + 1;
        let mut buffer = self.engine.buffer();
        buffer.copy_from_slice(&new.to_le_bytes());
        drop(self.engine.end(&ticket, buffer, new));
        new
    }

    /// The twin of [`update`](Self::update), which publishes whatever happened since it began.
    fn update_anyway(&self, lba: u64) -> u64 {
        let new = self.device[lba as usize].fetch_add(1, Ordering::AcqRel) + 1;
        let ticket = self.engine.begin(lba);
        let mut buffer = self.engine.buffer();
        buffer.copy_from_slice(&new.to_le_bytes());
        drop(self.engine.end(&ticket, buffer, new));
        new
    }

    /// The twin of [`read`](Self::read), which reads for nobody but itself.
    fn read_alone(&self, lba: u64) -> u64 {
        if let Some(Ok(contents)) = self.engine.look(lba, |_| true) {
            return number(&contents);
        }
        let ticket = self.engine.begin(lba);
        let mut buffer = self.engine.buffer();
        let stamp = self.fetch(lba, &mut buffer).expect("it never fails");
        number(&self.engine.end(&ticket, buffer, stamp))
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// Explores a model of two threads beside each other on one block, which the cache may have from the start. `f` is the model's end.
struct Model {
    name: &'static str,
    tally: Tally,
    flaws: Flaws,
}

type Act = fn(&Cached, &Tally, &Flaws);

impl Model {
    /// A twin: one preemption is enough for its fault.
    fn control(name: &'static str, prepare: fn() -> Arc<Cached>, acts: [Act; 2], end: fn(&Cached, &Flaws)) {
        Self::explore(1, name, prepare, acts, end);
    }

    fn explore(
        preemptions: usize,
        name: &'static str,
        prepare: fn() -> Arc<Cached>,
        acts: [Act; 2],
        end: fn(&Cached, &Flaws),
    ) -> Self {
        let model = Self { name, tally: Tally::new(), flaws: Flaws::new() };
        let (tally, flaws) = (model.tally.clone(), model.flaws.clone());
        run_model_bounded(model.name, preemptions, move || {
            let cached = prepare();
            let threads = acts.map(|act| {
                let (cached, tally, flaws) = (Arc::clone(&cached), tally.clone(), flaws.clone());
                thread::spawn(move || act(&cached, &tally, &flaws))
            });
            for thread in threads {
                thread.join().expect("flaws are noted");
            }
            end(&cached, &flaws);
        });
        model.flaws.assert_none();
        model
    }
}

/// A cache that has a place for block 0, with nothing in it.
fn empty() -> Arc<Cached> {
    let cached = warm();
    cached.engine.invalidate(0);
    cached.fetches.store(0, Ordering::Relaxed);
    cached
}

/// A cache of one block that has block 0.
fn warm() -> Arc<Cached> {
    let cached = Cached::new(1);
    cached.read(0);
    cached
}

/// Reads a block twice, and sees no older contents the second time.
fn read_twice(cached: &Cached, tally: &Tally, flaws: &Flaws) {
    let (first, second) = (cached.read(0), cached.read(0));
    flaws.expect(first <= second, "contents went back");
    tally.count(format!("{first} {second}"));
}

fn read_once(cached: &Cached, tally: &Tally, _: &Flaws) {
    tally.count(cached.read(0).to_string());
}

/// Updates a block, and sees no older contents afterwards.
fn update(cached: &Cached, _: &Tally, flaws: &Flaws) {
    let new = cached.update(0);
    flaws.expect(cached.read(0) >= new, "an update is not seen");
}

/// Updates a block, and does not look back.
fn update_only(cached: &Cached, _: &Tally, _: &Flaws) {
    cached.update(0);
}

fn update_anyway(cached: &Cached, _: &Tally, flaws: &Flaws) {
    let new = cached.update_anyway(0);
    flaws.expect(cached.read(0) >= new, "an update is not seen");
}

/// In the end the cache has what the device has: nobody else has changed it.
fn is_current(cached: &Cached, flaws: &Flaws) {
    flaws.expect(cached.read(0) == cached.ask(0), "stale for good");
}

#[test]
fn a_reader_sees_a_block_replaced_once_and_for_all() {
    let (name, preemptions) = ("a reader beside an update", daily_or_long(1, 2));
    let model = Model::explore(preemptions, name, warm, [update_only, read_twice], is_current);
    model.tally.assert_reached(&["1 1", "1 2", "2 2"]);
}

#[test]
fn an_old_fill_never_replaces_a_newer_block() {
    let model = Model::explore(1, "a fill beside an update", empty, [update, read_once], is_current);
    model.tally.assert_reached(&["1", "2"]);
}

#[test]
fn the_later_of_two_updates_stays() {
    Model::explore(1, "two updates beside each other", empty, [update, update], is_current);
}

#[test]
#[should_panic(expected = "stale for good")]
fn control_updates_that_publish_whatever_happened() {
    Model::control("two updates that publish", empty, [update_anyway, update_anyway], is_current);
}

fn asked_once(cached: &Cached, flaws: &Flaws) {
    flaws.expect(cached.fetches.load(Ordering::Relaxed) == 1, "the device was asked twice");
}

#[test]
fn two_who_miss_a_block_ask_the_device_once() {
    let model = Model::explore(1, "two misses of a block", empty, [read_once, read_once], asked_once);
    model.tally.assert_reached(&["1"]);
}

#[test]
#[should_panic(expected = "the device was asked twice")]
fn control_two_who_read_for_themselves() {
    let read: Act = |cached, tally, _| tally.count(cached.read_alone(0).to_string());
    Model::control("two misses of a block, each alone", empty, [read, read], asked_once);
}

/// Another host changes a block, and tells us so.
fn hear_of_a_change(cached: &Cached, _: &Tally, flaws: &Flaws) {
    cached.change_behind(0);
    cached.engine.invalidate(0);
    flaws.expect(cached.read(0) == 2, "stale");
}

/// The twin: it is not told to the cache.
fn keep_a_change_secret(cached: &Cached, _: &Tally, flaws: &Flaws) {
    cached.change_behind(0);
    flaws.expect(cached.read(0) == 2, "stale");
}

#[test]
fn what_is_being_read_is_forgotten_too() {
    let model = Model::explore(1, "an invalidation beside a fill", empty, [hear_of_a_change, read_once], is_current);
    model.tally.assert_reached(&["1", "2"]);
}

#[test]
#[should_panic(expected = "stale")]
fn control_a_change_that_the_cache_does_not_hear_of() {
    Model::control("a change beside a fill", empty, [keep_a_change_secret, read_once], is_current);
}

/// An update whose block has no place in the cache when it begins, beside a reader who gets one and reads what the device had.
fn an_update_without_a_place(preemptions: usize, end: fn(&Cached)) {
    let flaws = Flaws::new();
    let noted = flaws.clone();
    run_model_bounded("an update without a place beside a fill", preemptions, move || {
        // The only place is a block's that is being read, and stays so as long as it is.
        let cached = Cached::new(1);
        let Begun::Read(reading) = cached.engine.begin_reading(1, |_| true) else { panic!("nobody else is here") };
        let ticket = cached.engine.begin(0);
        drop(reading);
        let writer = Arc::clone(&cached);
        let writer = thread::spawn(move || {
            // It holds some contents: then no fence of the epochs' comes between what follows.
            let _held = pin();
            writer.device[0].fetch_add(1, Ordering::AcqRel);
            drop(ticket);
            end(&writer);
        });
        let reader = Arc::clone(&cached);
        let reader = thread::spawn(move || {
            reader.read(0);
        });
        writer.join().unwrap();
        reader.join().unwrap();
        is_current(&cached, &noted);
    });
    flaws.assert_none();
}

#[test]
fn an_update_without_a_place_is_seen_by_who_gets_one() {
    an_update_without_a_place(1, |cached| cached.engine.invalidate(0));
}

/// More blocks than the cache has places for: then it looks through the places.
#[test]
fn an_update_of_many_without_a_place_is_seen_by_who_gets_one() {
    an_update_without_a_place(1, |cached| cached.engine.invalidate_all(0..2));
}

#[test]
#[should_panic(expected = "stale for good")]
fn control_an_update_without_a_place_that_ends_unseen() {
    an_update_without_a_place(1, |_| {});
}

/// A reader has a block, the one before it, which is replaced till the frames have gone round, and looks at it twice; what it saw.
fn a_block_replaced_under_its_reader(preemptions: usize, look_twice: fn(&Cached) -> [u64; 2]) {
    let (flaws, tally) = (Flaws::new(), Tally::new());
    let (noted, counts) = (flaws.clone(), tally.clone());
    run_model_bounded("a block replaced under its reader", preemptions, move || {
        let cached = warm();
        let (reader, flaws) = (Arc::clone(&cached), noted.clone());
        let reader = thread::spawn(move || {
            let [first, second] = look_twice(&reader);
            flaws.expect(first == second, "a block changed under its reader");
        });
        // Each takes a frame, of which there are three, and leaves one.
        for _ in 0..3 {
            cached.update(0);
        }
        counts.count(if cached.engine.counters().sum(Counted::Reclaimed) > 0 { "reused" } else { "kept" });
        reader.join().unwrap();
    });
    flaws.assert_none();
    tally.assert_reached(&["kept", "reused"]);
}

#[test]
fn a_block_stays_as_long_as_it_is_read() {
    a_block_replaced_under_its_reader(1, |cached| {
        // As long as it exists, loom sees to it that nobody writes to it.
        let block = cached.contents(0);
        let first = number(&block);
        thread::yield_now();
        [first, number(&block)]
    });
}

#[test]
#[should_panic(expected = "a block changed under its reader")]
fn control_a_reader_that_has_let_go() {
    a_block_replaced_under_its_reader(1, |cached| {
        let block = cached.contents(0);
        let (first, bytes) = (number(&block), block.as_ptr().cast::<u64>());
        drop(block);
        thread::yield_now();
        // SAFETY: the frame is as old as the cache, and loom runs one thread at a time.
        [first, unsafe { bytes.read_unaligned() }]
    });
}

/// A reader has a block while others take its place, and its entry and frame with it; what it saw of it at two looks.
fn a_block_evicted_under_its_reader(preemptions: usize, look_twice: fn(&Cached) -> Option<[u64; 2]>) {
    let (flaws, tally) = (Flaws::new(), Tally::new());
    let (noted, counts) = (flaws.clone(), tally.clone());
    run_model_bounded("a block evicted under its reader", preemptions, move || {
        let cached = warm();
        cached.device[1].store(100, Ordering::Relaxed);
        let (reader, flaws) = (Arc::clone(&cached), noted.clone());
        let reader = thread::spawn(move || {
            let seen = look_twice(&reader);
            flaws.expect(seen.is_none_or(|[first, second]| first == second), "a block changed under its reader");
            flaws.expect(seen.is_none_or(|[first, _]| first < 100), "another block");
            seen.is_some()
        });
        // Each takes the only place from the other; entries and frames there are three of.
        for lba in [1, 0, 1] {
            cached.update(lba);
        }
        let hit = if reader.join().unwrap() { "hit" } else { "miss" };
        let reused = cached.engine.counters().sum(Counted::Reclaimed) > 0;
        counts.count(format!("{hit}, {}", if reused { "reused" } else { "kept" }));
    });
    flaws.assert_none();
    tally.assert_reached(&["hit, kept", "hit, reused", "miss, kept", "miss, reused"]);
}

/// A block as the cache has it, if it does.
fn cached_block(cached: &Cached) -> Option<BlockGuard<'_>> {
    cached.engine.look(0, |_| true)?.ok()
}

#[test]
fn a_block_stays_as_long_as_it_is_read_though_it_is_evicted() {
    a_block_evicted_under_its_reader(1, |cached| {
        let block = cached_block(cached)?;
        let first = number(&block);
        thread::yield_now();
        Some([first, number(&block)])
    });
}

#[test]
#[should_panic(expected = "a block changed under its reader")]
fn control_a_reader_that_has_let_go_of_what_is_evicted() {
    a_block_evicted_under_its_reader(1, |cached| {
        let block = cached_block(cached)?;
        let (first, bytes) = (number(&block), block.as_ptr().cast::<u64>());
        drop(block);
        thread::yield_now();
        // SAFETY: the frame is as old as the cache, and loom runs one thread at a time.
        Some([first, unsafe { bytes.read_unaligned() }])
    });
}

/// Two who want a place for the same block at once.
#[test]
fn a_block_has_one_place() {
    let flaws = Flaws::new();
    let noted = flaws.clone();
    run_model_bounded("two who link a block", 1, move || {
        let cached = Cached::new(2);
        let threads = [(); 2].map(|()| {
            let cached = Arc::clone(&cached);
            thread::spawn(move || {
                let _ = cached.engine.begin(0);
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        noted.expect(cached.engine.occupied() == 1, "two places for one block");
        // Both tickets were of one entry: an end by the first is seen through the second's.
        cached.update(0);
        noted.expect(cached.read(0) == 2, "the wrong place");
    });
    flaws.assert_none();
}

/// A device that fails once, beside two who want the block.
#[test]
fn an_error_reaches_who_waits_and_is_not_cached() {
    let (flaws, tally) = (Flaws::new(), Tally::new());
    let (noted, counts) = (flaws.clone(), tally.clone());
    run_model_bounded("a read that fails", 1, move || {
        let cached = empty();
        let threads = [(); 2].map(|()| {
            let cached = Arc::clone(&cached);
            thread::spawn(move || {
                let fetch = |out: &mut [u8]| match cached.fetches.fetch_add(1, Ordering::AcqRel) {
                    0 => Err(13),
                    _ => {
                        out.copy_from_slice(&1u64.to_le_bytes());
                        Ok(1)
                    }
                };
                match cached.engine.read_through(0, |_| true, fetch) {
                    Ok((block, _)) => number(&block),
                    Err(error) => *error,
                }
            })
        });
        let ends = threads.map(|thread| thread.join().unwrap());
        let fetches = cached.fetches.load(Ordering::Acquire);
        let is_right = match ends {
            // Who waited has the error, and the device was asked once.
            [13, 13] => fetches == 1,
            // Who did not wait asked again.
            [13, 1] | [1, 13] => fetches == 2,
            _ => false,
        };
        noted.expect(is_right, "an error for nobody");
        counts.count(if fetches == 1 { "both" } else { "one" });
        noted.expect(cached.read(0) == 1, "an error was cached");
    });
    flaws.assert_none();
    tally.assert_reached(&["both", "one"]);
}
