//! A heartbeat word: joining, beating, fencing and leaving against each other.
#![cfg(loom)]

use casblock::AtomicU64;
use casblock::Ordering::Relaxed;
use casblock::beat::{Beat, State};
use casblock::protocol::word::Word;
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Tally, run_model, weakened};

type Exchange = fn(&Word, u64, u64) -> Result<(), u64>;

/// A slot's word, and what its owner writes before each beat.
struct Slot {
    word: Word,
    work: AtomicU64,
}

impl Slot {
    fn new(beat: Beat) -> Arc<Self> {
        Arc::new(Self { word: Word(AtomicU64::new(beat.bits())), work: AtomicU64::new(0) })
    }

    fn seen(&self) -> Beat {
        Beat::from_bits(self.word.load())
    }
}

/// The first beat of generation 1.
fn taken() -> Beat {
    Beat::default().taken()
}

fn exchange_by(exchange: Exchange, slot: &Slot, seen: Beat, beat: Beat) -> Result<Beat, Beat> {
    exchange(&slot.word, seen.bits(), beat.bits()).map(|()| beat).map_err(Beat::from_bits)
}

#[test]
fn one_of_two_joins_a_slot() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("two join a slot", move || {
        let slot = Slot::new(Beat::default());
        let joining = [0, 1].map(|_| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let seen = slot.seen();
                let free = seen.state() == State::Free;
                free && exchange_by(Word::compare_exchange, &slot, seen, seen.taken()).is_ok()
            })
        });
        let joined = joining.map(|thread| thread.join().expect("no panic"));
        assert_eq!(joined.iter().filter(|joined| **joined).count(), 1, "one of two must have it: {joined:?}");
        assert_eq!(slot.seen(), taken());
        counted.count(if joined[0] { "first" } else { "second" });
    });
    tally.assert_reached(&["first", "second"]);
}

/// A host beats twice while another, who has seen its heart stand still, fences it.
fn a_host_is_fenced_while_it_beats(name: &str, tally: &Tally, fence: Exchange) {
    let tally = tally.clone();
    run_model(name, move || {
        let slot = Slot::new(taken());
        let host = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let mut beat = taken();
                for work in 1..=2 {
                    slot.work.store(work, Relaxed);
                    let next = beat.next().expect("beats are left");
                    match exchange_by(Word::compare_exchange, &slot, beat, next) {
                        Ok(now) => beat = now,
                        Err(found) => return (beat, Some(found)),
                    }
                }
                (beat, None)
            })
        };
        let fencer = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let seen = slot.seen();
                let fenced = exchange_by(fence, &slot, seen, seen.fenced()).is_ok();
                // Whoever shuts a host out sees what it had done with its last beat.
                let work = slot.work.load(Relaxed);
                assert!(!fenced || work >= seen.count(), "fenced at beat {}, work {work} is seen", seen.count());
                fenced.then_some(seen)
            })
        };
        let fenced = fencer.join().expect("no panic");
        let (last, lost) = host.join().expect("no panic");
        match fenced {
            Some(seen) => {
                assert_eq!(last, seen, "a beat was done after the host was shut out, or lost");
                let found = lost.map_or(slot.seen(), |found| found);
                assert_eq!(found, seen.fenced());
                tally.count(format!("fenced at beat {}", seen.count()));
            }
            None => {
                assert_eq!((last.count(), lost, slot.seen()), (2, None, last), "a host that lives goes on");
                tally.count("alive");
            }
        }
    });
}

#[test]
fn who_is_fenced_does_not_beat() {
    let tally = Tally::new();
    a_host_is_fenced_while_it_beats("a host is fenced", &tally, Word::compare_exchange);
    tally.assert_reached(&["alive", "fenced at beat 0", "fenced at beat 1", "fenced at beat 2"]);
}

#[test]
#[should_panic(expected = "after the host was shut out, or lost")]
fn control_fencing_without_comparing_loses_a_beat() {
    a_host_is_fenced_while_it_beats("control: fencing is a store", &Tally::new(), weakened::word_without_exchange);
}

#[test]
fn a_slot_is_fenced_or_left_and_taken_by_one() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("a slot is fenced, left and taken", move || {
        let slot = Slot::new(taken());
        let in_thread = |act: fn(&Slot) -> Option<Beat>| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || act(&slot))
        };
        let leaves = in_thread(|slot| exchange_by(Word::compare_exchange, slot, taken(), taken().freed()).ok());
        let fences = in_thread(|slot| exchange_by(Word::compare_exchange, slot, taken(), taken().fenced()).ok());
        let joins = in_thread(|slot| {
            let seen = slot.seen();
            let free = seen.state() != State::Taken;
            free.then(|| exchange_by(Word::compare_exchange, slot, seen, seen.taken()).ok()).flatten()
        });
        let [left, fenced, joined] = [leaves, fences, joins].map(|thread| thread.join().expect("no panic"));
        assert!(left.is_some() != fenced.is_some(), "one of the two: {left:?}, {fenced:?}");
        let last = joined.or(left).or(fenced).expect("one of them");
        assert_eq!(slot.seen(), last);
        assert_eq!(last.generation(), 1 + u32::from(joined.is_some()));
        counted.count(match (left, joined) {
            (Some(_), None) => "left",
            (None, None) => "fenced",
            (Some(_), Some(_)) => "left and taken",
            (None, Some(_)) => "fenced and taken",
        });
    });
    tally.assert_reached(&["fenced", "fenced and taken", "left", "left and taken"]);
}
