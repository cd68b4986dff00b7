//! Heirs that find out what a dead writer owned while other slots change hands or are adopted, too.
#![cfg(loom)]

use std::sync::atomic::AtomicBool;

use casblock::Ordering::Relaxed;
use casblock::protocol::block::Writer;
use casblock::protocol::memory::Memory;
use casblock::{kill_this_thread_after, run_until_killed};
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Heap, Tally, run_model_bounded};

/// The slot of the writer that dies.
const VICTIM: u16 = 0;
/// The slot of the writer whose intent the heir reads.
const PEER: u16 = 1;
/// The slot of a writer whose frame the victim inherits.
const OTHER: u16 = 2;
/// The slot of a writer that updates the victim's block after its death.
const UPDATER: u16 = 3;

/// Steps of a write before its exchange: cell, tag, fence, two words, three stores of the intent.
const STEPS_BEFORE_EXCHANGE: usize = 8;

/// Runs `work` for so many atomic steps; whether it survived them.
fn survives(steps: usize, work: impl FnOnce()) -> bool {
    kill_this_thread_after(steps);
    let survived = run_until_killed(work).is_ok();
    kill_this_thread_after(usize::MAX);
    survived
}

/// An heir reads the two words of a peer's intent while the peer goes from block 0 to block 1. In block 1 the peer may see
/// a frame at the very sequence at which the victim, which has that frame later, would put it in block 0. To take the
/// block from one intent and the cell from another would prove an exchange that never was.
///
/// Block 1 is updated `before` and `after` the peer begins, by another, whose frame the victim then gets.
fn half_an_intent(name: &str, before: u8, after: u8, blocks_of_peer: &'static [u64], outcomes: &[&str]) {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded(name, 3, move || {
        let heap = Heap::new(2, 5, 4);
        let [mut peer, mut other] = [PEER, OTHER].map(|slot| heap.writer(slot));
        for value in 1..=before {
            heap.write(&mut other, 1, value).expect("a frame is free");
        }
        for value in 1..=2 {
            heap.write(&mut peer, 0, value).expect("a frame is free");
        }
        // This takes the last free frame, so the victim will get the one that the other gives back.
        let mut updater = heap.writer(UPDATER);
        let heap = Arc::new(heap);
        let working = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || {
                for &block in blocks_of_peer {
                    heap.write(&mut peer, block, 7).expect("no fault");
                }
            })
        };
        let adopting = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || {
                for value in 0..after {
                    heap.write(&mut other, 1, 3 + value).expect("no fault");
                }
                other.release(&*heap).expect("no fault");
                let mut victim = heap.writer(VICTIM);
                let died = !survives(STEPS_BEFORE_EXCHANGE, || {
                    heap.write(&mut victim, 0, 5).expect("no fault");
                });
                assert!(died, "the victim was to die before its exchange");
                for value in [8, 9] {
                    heap.write(&mut updater, 0, value).expect("no fault");
                }
                let spare_at_first = heap.slot(VICTIM).expect("in range").spare.load(Relaxed);
                heap.writer(VICTIM);
                let spare = heap.slot(VICTIM).expect("in range").spare.load(Relaxed);
                assert_eq!(spare, spare_at_first, "the exchange was not made");
            })
        };
        working.join().expect("no panic");
        adopting.join().expect("no panic");
        counted.count(format!("block 0 is {}", heap.read(0)));
        heap.assert_clean();
    });
    tally.assert_reached(outcomes);
}

#[test]
fn an_heir_never_reads_half_an_intent() {
    // Block 1 is at sequence 3 when the peer begins.
    half_an_intent("half an intent", 3, 1, &[1, 0], &["block 0 is 7", "block 0 is 9"]);
}

#[test]
fn an_heir_never_reads_half_an_intent_after_a_lost_exchange() {
    // Block 1 comes to sequence 3 while the peer is at it, so the peer announces that after an exchange it lost.
    half_an_intent("half an intent, lost exchange", 2, 2, &[1], &["block 0 is 9"]);
}

/// Two writers die, each after each of its steps in turn; then their slots are adopted at the same time.
fn two_die(name: &str, written: &'static [u64]) {
    let (mut deaths, mut first_steps) = (0, 0);
    loop {
        let first_survived = std::sync::Arc::new(AtomicBool::new(false));
        for second_steps in 0.. {
            let second_survived = std::sync::Arc::new(AtomicBool::new(false));
            let survived = [first_survived.clone(), second_survived.clone()];
            let name = format!("{name}, deaths after {first_steps} and {second_steps} steps");
            run_model_bounded(&name, 3, move || {
                let heap = Heap::new(2, 8, 3);
                let [mut first, mut second, mut third] = [0, 1, 2].map(|slot| heap.writer(slot));
                for &block in written {
                    heap.write(&mut first, block, 1).expect("a frame is free");
                }
                let write = |writer: &mut Writer, block, value| {
                    heap.write(writer, block, value).expect("a frame is free");
                };
                let first_survived = survives(first_steps, || {
                    [2, 8].into_iter().for_each(|value| write(&mut first, 0, value));
                });
                let second_survived = survives(second_steps, || {
                    [(0, 3), (1, 4)].into_iter().for_each(|(block, value)| write(&mut second, block, value));
                });
                write(&mut third, 0, 5);
                survived[0].store(first_survived, Relaxed);
                survived[1].store(second_survived, Relaxed);
                adopt_two(heap);
            });
            if second_survived.load(Relaxed) {
                break;
            }
            deaths += 1;
        }
        if first_survived.load(Relaxed) {
            break;
        }
        first_steps += 1;
    }
    assert!(deaths >= 300, "{deaths} pairs of deaths only");
}

/// Adopts slots 0 and 1 at the same time; the heir of slot 1 works at once.
fn adopt_two(heap: Heap) {
    let heap = Arc::new(heap);
    let first = {
        let heap = Arc::clone(&heap);
        thread::spawn(move || heap.writer(0))
    };
    let second = {
        let heap = Arc::clone(&heap);
        thread::spawn(move || {
            let mut heir = heap.writer(1);
            heap.write(&mut heir, 1, 6).expect("a frame is free");
            heir
        })
    };
    let [mut first, mut second] = [first, second].map(|heir| heir.join().expect("no panic"));
    heap.assert_clean();
    heap.write(&mut first, 0, 6).expect("a frame is free");
    heap.write(&mut second, 1, 7).expect("a frame is free");
    assert_eq!((heap.read(0), heap.read(1)), (6, 7));
    heap.assert_clean();
}

#[test]
fn two_die_replacing_blocks_and_are_adopted_at_once() {
    two_die("two replace", &[0, 1]);
}

#[test]
fn two_die_writing_new_blocks_and_are_adopted_at_once() {
    two_die("two write anew", &[1]);
}
