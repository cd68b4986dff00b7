//! Reads, writes and compare-and-writes of blocks against each other.
//!
//! Writers are spawned first and the reader last: loom can miss interleavings in which a thread that loads and then
//! exchanges an atomic meets one that is already past it.
#![cfg(loom)]

use casblock::protocol::block::Writer;
use casblock::steps_taken;
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Heap, Tally, piece, run_model, weakened};

/// Steps of a read that found what it wanted at once: cell, two words, fence, cell.
const STEPS_OF_A_READ: usize = 5;

/// A store of `blocks` blocks and `frames` frames whose first blocks hold `values`, and two writers.
fn store(blocks: usize, frames: usize, values: &[u8]) -> (Arc<Heap>, Writer, Writer) {
    let heap = Heap::new(blocks, frames, 2);
    let (mut a, b) = (heap.writer(0), heap.writer(1));
    for (block, &value) in (0..).zip(values) {
        heap.write(&mut a, block, value).expect("a frame is free");
    }
    (Arc::new(heap), a, b)
}

/// Reads block 0 and counts what it was, and whether the read had to be repeated.
fn read_and_count(heap: &Heap, tally: &Tally) {
    let before = steps_taken();
    let value = heap.read(0);
    let again = if steps_taken() - before > STEPS_OF_A_READ { ", repeated" } else { "" };
    tally.count(format!("read {value}{again}"));
}

#[test]
fn two_writers_compare_and_write_one_block_with_a_reader() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("two writers and a reader", move || {
        let (heap, a, b) = store(1, 3, &[1]);
        let writers = [(a, 2), (b, 3)].map(|(mut writer, new)| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || heap.compare_and_write(&mut writer, 0, 1, new).expect("no fault"))
        });
        let (shared, counted_too) = (Arc::clone(&heap), counted.clone());
        let reader = thread::spawn(move || read_and_count(&shared, &counted_too));
        let [a, b] = writers.map(|writer| writer.join().expect("no panic"));
        reader.join().expect("no panic");
        match (a, b) {
            (Ok(()), Err(2)) => counted.count("first wins"),
            (Err(3), Ok(())) => counted.count("second wins"),
            both => panic!("not one winner whose block the other found: {both:?}"),
        }
        heap.assert_clean();
    });
    tally.assert_reached(&[
        "first wins",
        "second wins",
        "read 1",
        "read 2",
        "read 2, repeated",
        "read 3",
        "read 3, repeated",
    ]);
}

#[test]
#[should_panic(expected = "not one winner")]
fn control_two_writers_one_of_which_stores_the_cell() {
    run_model("control: a store for an exchange", || {
        let (heap, mut a, _b) = store(1, 3, &[1]);
        let shared = Arc::clone(&heap);
        let other = thread::spawn(move || {
            let won = shared.read(0) == 1;
            if won {
                // Frame 2 is the spare of the other writer, whose slot this thread borrows.
                weakened::write_without_exchange(&shared, 0, 2, 3);
            }
            won
        });
        let won = heap.compare_and_write(&mut a, 0, 1, 2).expect("no fault").is_ok();
        assert_ne!(won, other.join().expect("no panic"), "not one winner");
    });
}

/// One writer replaces the block twice; with one spare frame, the second time it stages in the frame that a slow
/// reader is copying.
fn recycle_under_a_reader(name: &str, read: impl Fn(&Heap) + Clone + Send + Sync + 'static) {
    run_model(name, move || {
        let (heap, mut writer, _) = store(1, 3, &[1]);
        let (shared, read) = (Arc::clone(&heap), read.clone());
        let writing = thread::spawn(move || {
            heap.write(&mut writer, 0, 2).expect("no fault");
            heap.write(&mut writer, 0, 3).expect("no fault");
        });
        let reading = thread::spawn(move || read(&shared));
        writing.join().expect("no panic");
        reading.join().expect("no panic");
    });
}

#[test]
fn a_frame_is_recycled_under_its_reader() {
    let tally = Tally::new();
    let counted = tally.clone();
    recycle_under_a_reader("frame recycled under a reader", move |heap| read_and_count(heap, &counted));
    tally.assert_reached(&["read 1", "read 2", "read 2, repeated", "read 3", "read 3, repeated"]);
}

#[test]
#[should_panic(expected = "torn")]
fn control_a_frame_is_recycled_under_a_reader_that_does_not_validate() {
    recycle_under_a_reader("control: read without validation", |heap| {
        piece(&weakened::read_without_validation(heap, 0));
    });
}

#[test]
#[should_panic(expected = "torn")]
fn control_a_block_is_overwritten_in_place_under_its_reader() {
    run_model("control: write in place", || {
        let (heap, _, _) = store(1, 3, &[1]);
        let shared = Arc::clone(&heap);
        let writing = thread::spawn(move || weakened::write_in_place(&shared, 0, 2));
        let reading = thread::spawn(move || heap.read(0));
        writing.join().expect("no panic");
        reading.join().expect("no panic");
    });
}

/// One thread makes two writes while another compares. The blocks hold `values` at first.
fn compare_beside_writes(
    name: &str,
    values: &'static [u8],
    writes: [(u64, u8); 2],
    compare: impl Fn(&Heap, &mut Writer) + Clone + Send + Sync + 'static,
) {
    run_model(name, move || {
        let (heap, mut a, mut b) = store(values.len(), values.len() + 2, values);
        let (shared, compare) = (Arc::clone(&heap), compare.clone());
        let writing = thread::spawn(move || {
            for (block, value) in writes {
                shared.write(&mut a, block, value).expect("no fault");
            }
        });
        let shared = Arc::clone(&heap);
        let comparing = thread::spawn(move || compare(&shared, &mut b));
        writing.join().expect("no panic");
        comparing.join().expect("no panic");
        heap.assert_clean();
    });
}

/// Block 0 is replaced by the same contents; the frame that held it goes on to hold block 1's, which differ. Whoever
/// compares block 0 meanwhile must not take block 1's bytes for it.
const FRAME_MOVES_ON: [(u64, u8); 2] = [(0, 1), (1, 7)];

/// Block 0 changes twice.
const BLOCK_CHANGES: [(u64, u8); 2] = [(0, 2), (0, 3)];

#[test]
fn a_recycled_frame_is_no_miscompare() {
    let tally = Tally::new();
    let counted = tally.clone();
    compare_beside_writes("no false miscompare", &[1, 1], FRAME_MOVES_ON, move |heap, writer| {
        let before = steps_taken();
        assert_eq!(heap.compare_and_write(writer, 0, 1, 5).expect("no fault"), Ok(()), "a false miscompare");
        counted.count(format!("written in {} steps", steps_taken() - before));
    });
    // The fewest are those of an undisturbed operation; one that lost an exchange, or found a recycled frame, took more.
    assert!(tally.kinds() >= 3, "the operation was never disturbed");
}

#[test]
#[should_panic(expected = "a false miscompare")]
fn control_a_recycled_frame_is_a_miscompare_without_validation() {
    compare_beside_writes("control: miscompare without validation", &[1, 1], FRAME_MOVES_ON, |heap, _| {
        assert_eq!(weakened::miscompare_without_validation(heap, 0, 1), None, "a false miscompare");
    });
}

#[test]
fn a_miscompare_finds_the_block_as_it_was_at_one_moment() {
    let tally = Tally::new();
    let counted = tally.clone();
    compare_beside_writes("miscompare while the block changes", &[1], BLOCK_CHANGES, move |heap, writer| {
        let found = heap.compare_and_write(writer, 0, 9, 4).expect("no fault").expect_err("it never was 9");
        counted.count(format!("found {found}"));
    });
    tally.assert_reached(&["found 1", "found 2", "found 3"]);
}

#[test]
#[should_panic(expected = "torn")]
fn control_a_miscompare_without_validation_finds_a_torn_block() {
    compare_beside_writes("control: torn miscompare", &[1], BLOCK_CHANGES, |heap, _| {
        piece(&weakened::miscompare_without_validation(heap, 0, 9).expect("it never was 9"));
    });
}

#[test]
fn two_writers_write_an_unwritten_block() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("first write by two", move || {
        let (heap, a, b) = store(1, 4, &[]);
        let writers = [(a, 2), (b, 3)].map(|(mut writer, new)| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || heap.compare_and_write(&mut writer, 0, 0, new).expect("a frame is free"))
        });
        let [a, b] = writers.map(|writer| writer.join().expect("no panic"));
        match (a, b) {
            (Ok(()), Err(2)) => counted.count("first wins"),
            (Err(3), Ok(())) => counted.count("second wins"),
            both => panic!("not one winner whose block the other found: {both:?}"),
        }
        heap.assert_clean();
    });
    tally.assert_reached(&["first wins", "second wins"]);
}

#[test]
fn a_reader_sees_an_unwritten_block_as_zeros_or_whole() {
    let tally = Tally::new();
    run_model("first write under a reader", {
        let tally = tally.clone();
        move || {
            let (heap, mut writer, _) = store(1, 3, &[]);
            let shared = Arc::clone(&heap);
            let writing = thread::spawn(move || shared.compare_and_write(&mut writer, 0, 0, 2));
            let (shared, counted) = (Arc::clone(&heap), tally.clone());
            let reading = thread::spawn(move || counted.count(format!("read {}", shared.read(0))));
            assert_eq!(writing.join().expect("no panic"), Ok(Ok(())));
            reading.join().expect("no panic");
        }
    });
    tally.assert_reached(&["read 0", "read 2"]);
}

/// The contents of block 0 move through frames that hold block 1 in between, and the other way round.
fn two_blocks_exchange_frames(name: &str, read: impl Fn(&Heap) + Clone + Send + Sync + 'static) {
    run_model(name, move || {
        let (heap, mut writer, _) = store(2, 4, &[1, 5]);
        let (shared, read) = (Arc::clone(&heap), read.clone());
        let writing = thread::spawn(move || {
            for (block, value) in [(0, 2), (1, 6), (0, 3)] {
                shared.write(&mut writer, block, value).expect("no fault");
            }
        });
        let shared = Arc::clone(&heap);
        let reading = thread::spawn(move || read(&shared));
        writing.join().expect("no panic");
        reading.join().expect("no panic");
        heap.assert_clean();
    });
}

#[test]
fn two_blocks_exchange_their_frames_under_a_reader() {
    let tally = Tally::new();
    let counted = tally.clone();
    two_blocks_exchange_frames("two blocks exchange frames", move |heap| read_and_count(heap, &counted));
    tally.assert_reached(&["read 1", "read 2", "read 2, repeated", "read 3", "read 3, repeated"]);
}

#[test]
#[should_panic(expected = "another block's contents")]
fn control_two_blocks_exchange_frames_under_a_reader_that_does_not_validate() {
    two_blocks_exchange_frames("control: exchange without validation", |heap| {
        let read = weakened::read_without_validation(heap, 0);
        assert!(!read.contains(&6), "another block's contents");
    });
}

#[test]
fn two_writers_pass_each_other_the_frames_of_two_blocks() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("two writers on two blocks", move || {
        let (heap, a, b) = store(2, 4, &[1, 5]);
        let writers = [(a, [0, 1], 2), (b, [1, 0], 6)].map(|(mut writer, blocks, value)| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || {
                for block in blocks {
                    heap.write(&mut writer, block, value).expect("no fault");
                }
            })
        });
        for writer in writers {
            writer.join().expect("no panic");
        }
        counted.count(format!("blocks end as {} and {}", heap.read(0), heap.read(1)));
        heap.assert_clean();
    });
    // Not both as the one that each wrote first: whoever wrote its second block first was overwritten by the other's
    // first only if that came later, and then its own second came later still.
    tally.assert_reached(&["blocks end as 2 and 2", "blocks end as 6 and 2", "blocks end as 6 and 6"]);
}
