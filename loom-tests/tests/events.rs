//! The flight recorder's ring: recorders that lap each other, or die, and those who read meanwhile.
//!
//! The ring has room for one record of two words, or for two: so recorders meet in one place at once.
#![cfg(loom)]

use casblock::AtomicU64;
use casblock::Ordering::Relaxed;
use casblock::protocol::events::{Found, Record, Ring, extent, raise_head, read, record};
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Tally, run_model, run_model_at_each_stop, run_model_bounded, stop_after, weakened};

struct Small {
    head: AtomicU64,
    records: Vec<Record<2>>,
}

impl Small {
    /// A ring in which as many events were recorded as it has room for: [`OLD`].
    fn used(capacity: u64) -> Self {
        let record = |_| Record([AtomicU64::new(0), AtomicU64::new(0)]);
        let ring = Self { head: AtomicU64::new(0), records: (0..capacity).map(record).collect() };
        (0..capacity).for_each(|_| note(&ring, OLD));
        ring
    }

    /// The newest event, once nobody is at work: it is whole, whoever was lapped.
    fn assert_last_is_whole(&self) {
        let last = extent(self).end - 1;
        let Found::Whole(parts) = read(self, last) else { panic!("the last event is not whole") };
        value(last, parts);
    }
}

impl Ring<2> for Small {
    fn head(&self) -> &AtomicU64 {
        &self.head
    }

    fn capacity(&self) -> u64 {
        self.records.len() as u64
    }

    fn record(&self, index: u64) -> Option<&Record<2>> {
        self.records.get(index as usize)
    }
}

/// What was recorded before a model begins.
const OLD: u64 = 9;

/// The parts of a record prove whose they are: the value with the ticket, twice.
fn parts(value: u64) -> impl Fn(u64) -> [u64; 2] {
    move |ticket| [value << 8 | ticket, value << 16 | ticket]
}

/// The value of a record that was accepted, which is all of one that was recorded.
fn value(ticket: u64, [first, second]: [u64; 2]) -> u64 {
    assert_eq!((first & 0xff, second & 0xff), (ticket, ticket), "another's record");
    assert_eq!(first >> 8, second >> 16, "of two records");
    first >> 8
}

/// Records a value.
fn note(ring: &Small, value: u64) {
    record(ring, parts(value));
}

type Recorder = fn(&Small, u64);
type Reader = fn(&Small, u64) -> Option<[u64; 2]>;

/// The record of a ticket, if it is whole.
fn read_whole(ring: &Small, ticket: u64) -> Option<[u64; 2]> {
    match read(ring, ticket) {
        Found::Whole(parts) => Some(parts),
        Found::Unfinished | Found::Overwritten => None,
    }
}

/// Reads all that the ring may have, and counts what was there.
fn look(ring: &Small, tally: &Tally, reader: Reader) {
    for ticket in extent(ring) {
        match reader(ring, ticket) {
            Some(parts) if value(ticket, parts) == OLD => tally.count("an old one"),
            Some(_) => tally.count("a new one"),
            None => tally.count("none"),
        }
    }
}

/// Two record in a full ring, while another reads.
fn two_record(name: &str, capacity: u64, tally: &Tally, recorder: Recorder, reader: Reader) {
    let tally = tally.clone();
    run_model_bounded(name, 2, move || {
        let ring = Arc::new(Small::used(capacity));
        let recorders = [1, 2].map(|value| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || recorder(&ring, value))
        });
        let reading = {
            let (ring, tally) = (Arc::clone(&ring), tally.clone());
            thread::spawn(move || look(&ring, &tally, reader))
        };
        recorders.into_iter().for_each(|recorder| recorder.join().expect("no panic"));
        reading.join().expect("no panic");
        ring.assert_last_is_whole();
    });
}

const ALL: [&str; 3] = ["a new one", "an old one", "none"];

#[test]
fn two_a_lap_apart_leave_whole_records_or_none() {
    let tally = Tally::new();
    two_record("two record in one place", 1, &tally, note, read_whole);
    tally.assert_reached(&ALL);
}

#[test]
fn two_beside_each_other_leave_whole_records_or_none() {
    let tally = Tally::new();
    two_record("two record side by side", 2, &tally, note, read_whole);
    tally.assert_reached(&ALL);
}

#[test]
#[should_panic(expected = "another's record")]
fn control_a_reader_of_the_first_tag_alone_takes_two_for_one() {
    two_record("control: the first tag alone", 1, &Tally::new(), note, |ring, ticket| {
        weakened::read_event_by_its_first_word(ring, ticket)
    });
}

#[test]
#[should_panic(expected = "the last event is not whole")]
fn control_a_recorder_that_stores_spoils_a_later_record() {
    let recorder: Recorder = |ring, value| weakened::record_event_without_exchange(ring, parts(value));
    two_record("control: stores instead of exchanges", 1, &Tally::new(), recorder, read_whole);
}

/// One records while another is stopped for a lap, once: who was lapped records again, behind.
#[test]
fn who_is_lapped_records_again_or_has_recorded() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("who is lapped", move || {
        let ring = Arc::new(Small::used(1));
        let recorders = [1, 2].map(|value| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || record(&*ring, parts(value)).expect("lapped once at most"))
        });
        let tickets = recorders.map(|recorder| recorder.join().expect("no panic"));
        assert_ne!(tickets[0], tickets[1]);
        let last = extent(&*ring).end - 1;
        assert!(tickets.contains(&last), "the last ticket is nobody's");
        counted.count(if last == 3 { "lapped" } else { "in turn" });
        ring.assert_last_is_whole();
    });
    tally.assert_reached(&["in turn", "lapped"]);
}

/// A recorder dies after each of its steps, beside another and a reader; who comes next finds a ring that works.
fn one_dies(name: &str, capacity: u64, tally: &Tally, reader: Reader) {
    let tally = tally.clone();
    run_model_at_each_stop(name, 2, 5, move |steps| {
        let ring = Arc::new(Small::used(capacity));
        let dying = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || stop_after(steps, || note(&ring, 1)))
        };
        let recording = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || note(&ring, 2))
        };
        let reading = {
            let (ring, tally) = (Arc::clone(&ring), tally.clone());
            thread::spawn(move || look(&ring, &tally, reader))
        };
        recording.join().expect("no panic");
        reading.join().expect("no panic");
        let ended = dying.join().expect("no panic");
        // What is there when all are dead.
        look(&ring, &tally, reader);
        (0..capacity).for_each(|_| note(&ring, 3));
        assert!(extent(&*ring).all(|ticket| read_whole(&ring, ticket).is_some_and(|it| value(ticket, it) == 3)));
        ended
    });
}

#[test]
fn one_dies_in_the_middle_of_a_record() {
    let tally = Tally::new();
    one_dies("one dies, in one place", 1, &tally, read_whole);
    tally.assert_reached(&ALL);
}

#[test]
fn one_dies_in_the_middle_of_a_record_beside_another() {
    let tally = Tally::new();
    one_dies("one dies, side by side", 2, &tally, read_whole);
    tally.assert_reached(&ALL);
}

#[test]
#[should_panic(expected = "another's record")]
fn control_half_a_record_of_the_dead_is_taken_by_who_looks_at_its_first_tag() {
    one_dies("control: half a record", 1, &Tally::new(), |ring, ticket| {
        weakened::read_event_by_its_first_word(ring, ticket)
    });
}

/// An old head beside new records, as a cut of the power may leave it: two replace what is there, and none is mixed.
#[test]
fn records_that_the_head_has_not_reached_are_replaced() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("an old head", move || {
        let ring = Small::used(1);
        (0..3).for_each(|_| note(&ring, OLD));
        ring.head.store(1, Relaxed);
        let ring = Arc::new(ring);
        let recorders = [1, 2].map(|value| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || note(&ring, value))
        });
        recorders.into_iter().for_each(|recorder| recorder.join().expect("no panic"));
        ring.assert_last_is_whole();
        let end = extent(&*ring).end;
        raise_head(&*ring, |_, _| true);
        assert_eq!(extent(&*ring).end, end, "nothing is left of what was ahead");
        counted.count(format!("{} tickets", end - 1));
    });
    // Who is lapped takes another ticket, with which it may lap the other.
    tally.assert_reached(&["2 tickets", "3 tickets", "4 tickets"]);
}
