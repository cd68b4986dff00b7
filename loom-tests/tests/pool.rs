//! Free frames: taking the last one, and giving one back while somebody still reads it.
#![cfg(loom)]

use casblock::protocol::Fault;
use casblock::protocol::block::Writer;
use casblock::protocol::slot::resolve;
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Heap, Tally, daily_or_long, epochs, run_model, run_model_bounded, weakened};

#[test]
fn two_writers_want_the_last_free_frame() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("the last free frame", move || {
        let heap = Heap::new(2, 3, 2);
        let writers = [(heap.writer(0), 0), (heap.writer(1), 1)];
        let heap = Arc::new(heap);
        let writers = writers.map(|(mut writer, block)| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || heap.write(&mut writer, block, 7))
        });
        let results = writers.map(|writer| writer.join().expect("no panic"));
        for (block, result) in (0..).zip(results) {
            assert_eq!(heap.read(block), if result.is_ok() { 7 } else { 0 }, "NoSpace changed the block");
        }
        match results {
            [Ok(()), Err(Fault::NoSpace)] => counted.count("first gets it"),
            [Err(Fault::NoSpace), Ok(())] => counted.count("second gets it"),
            both => panic!("not one of two got it: {both:?}"),
        }
        heap.assert_clean();
    });
    tally.assert_reached(&["first gets it", "second gets it"]);
}

#[test]
#[should_panic(expected = "both got it")]
fn control_both_writers_get_the_last_free_frame_by_a_store() {
    run_model("control: taking without exchange", || {
        let heap = Arc::new(Heap::new(2, 1, 2));
        let takers = [0, 1].map(|writer| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || weakened::take_without_exchange(&heap, writer))
        });
        let taken = takers.map(|taker| taker.join().expect("no panic"));
        assert_ne!(taken, [Some(0), Some(0)], "both got it");
    });
}

#[test]
fn two_writers_want_the_last_free_frame_for_one_block() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("the last free frame, one block", move || {
        let heap = Heap::new(1, 3, 2);
        let writers = [(heap.writer(0), 2), (heap.writer(1), 3)];
        let heap = Arc::new(heap);
        let writers = writers.map(|(mut writer, new)| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || heap.compare_and_write(&mut writer, 0, 0, new))
        });
        for result in writers.map(|writer| writer.join().expect("no panic")) {
            counted.count(match result {
                Ok(Ok(())) => "written",
                Ok(Err(_)) => "miscompare",
                Err(Fault::NoSpace) => "no space",
                Err(fault) => panic!("{fault:?}"),
            });
        }
        assert_ne!(heap.read(0), 0, "one of them had a frame");
        heap.assert_clean();
    });
    tally.assert_reached(&["miscompare", "no space", "written"]);
}

/// A frame that a slow reader of block 0 still copies passes through the pool to a writer that stages block 1 in it.
#[test]
fn a_frame_passes_through_the_pool_under_its_reader() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded("a frame through the pool", daily_or_long(2, 3), move || {
        let heap = Heap::new(2, 3, 2);
        let mut first = heap.writer(0);
        heap.write(&mut first, 0, 1).expect("a frame is free");
        // One frame is left, and the second writer has it as its spare; what the first gives back is the only free one.
        let mut second = heap.writer(1);
        let heap = Arc::new(heap);
        let giving = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || {
                heap.write(&mut first, 0, 2).expect("no fault");
                first.release(&*heap).expect("no fault");
            })
        };
        let taking = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || heap.write(&mut second, 1, 7).is_ok())
        };
        let reading = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || heap.read(0))
        };
        giving.join().expect("no panic");
        let taken = if taking.join().expect("no panic") { "taken" } else { "no space" };
        counted.count(format!("{taken}, read {}", reading.join().expect("no panic")));
        heap.assert_clean();
    });
    tally.assert_reached(&["no space, read 1", "no space, read 2", "taken, read 1", "taken, read 2"]);
}

/// As many frames as writers: whoever claims one finds one, however the frames change hands meanwhile.
#[test]
fn no_writer_is_refused_while_a_frame_is_free() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("claims with as many frames as writers", move || {
        // These two of three slots ask for the same frame first.
        let heap = Arc::new(Heap::new(1, 2, 3));
        let threads = [0, 2].map(|slot| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || {
                let writer = Writer::claim(&*heap, slot).expect("a frame is free");
                writer.release(&*heap).expect("no fault");
                Writer::claim(&*heap, slot).expect("a frame is free");
            })
        });
        for thread in threads {
            thread.join().expect("no panic");
        }
        counted.count(format!("the first has {:?}", resolve(&*heap, 0).expect("no damage").spare));
        heap.assert_clean();
    });
    tally.assert_reached(&["the first has Some(0)", "the first has Some(1)"]);
}

/// Writers that come and go, each for one write: slots opened and dropped while others work.
#[test]
fn writers_come_and_go() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("writers come and go", move || {
        let heap = Arc::new(Heap::new(1, 3, 2));
        let threads = [0, 1].map(|slot| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || {
                let mut writer = Writer::claim(&*heap, slot).expect("a frame is free");
                let result = heap.write(&mut writer, 0, 2 + slot as u8);
                writer.release(&*heap).expect("no fault");
                result
            })
        });
        let results = threads.map(|thread| thread.join().expect("no panic"));
        counted.count(format!("{} written, block is {}", results.iter().flatten().count(), heap.read(0)));
        heap.assert_clean();
        // All spares are back: what is left of three frames is free.
        for slot in [0, 1] {
            Writer::claim(&*heap, slot).expect("a frame is free");
        }
    });
    tally.assert_reached(&[
        "1 written, block is 2",
        "1 written, block is 3",
        "2 written, block is 2",
        "2 written, block is 3",
    ]);
}

/// A store whose one frame has left limbo: a sync is done that began after it was replaced.
fn one_ripe_frame(writers: usize) -> Heap {
    let heap = Heap::durable(1, 1, writers);
    put_into_limbo(&heap, 0);
    assert_eq!(Writer::claim(&heap, 0).expect_err("in limbo"), Fault::AllInLimbo);
    let number = epochs(&heap).begin();
    epochs(&heap).complete(number);
    heap
}

/// Takes a frame and dies; the heir, which cannot know whether it was replaced just now, puts it into limbo.
fn put_into_limbo(heap: &Heap, slot: u16) -> bool {
    let taken = match Writer::claim(heap, slot) {
        Ok(_) => true,
        Err(Fault::AllInLimbo | Fault::NoSpace) => false,
        Err(fault) => panic!("{fault:?}"),
    };
    assert_eq!(Writer::clear(heap, slot).expect("no fault"), taken);
    taken
}

#[test]
fn two_writers_want_a_frame_that_has_left_limbo() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("a ripe frame", move || {
        let heap = Arc::new(one_ripe_frame(2));
        let takers = [0, 1].map(|slot| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || Writer::claim(&*heap, slot).map(|_| ()))
        });
        let results = takers.map(|taker| taker.join().expect("no panic"));
        match results {
            [Ok(()), Err(Fault::NoSpace)] => counted.count("first gets it"),
            [Err(Fault::NoSpace), Ok(())] => counted.count("second gets it"),
            both => panic!("not one of two got it: {both:?}"),
        }
        heap.assert_clean();
    });
    tally.assert_reached(&["first gets it", "second gets it"]);
}

/// A frame that has left limbo is taken and comes back, for a sync that nobody makes. Whoever looked at it before must not
/// take it after.
#[test]
fn a_frame_comes_back_into_limbo_before_the_eyes_of_two() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded("back into limbo", daily_or_long(2, 3), move || {
        let heap = Arc::new(one_ripe_frame(3));
        let coming_back = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || put_into_limbo(&heap, 0))
        };
        let takers = [1, 2].map(|slot| {
            let heap = Arc::clone(&heap);
            thread::spawn(move || Writer::claim(&*heap, slot).map(|_| ()))
        });
        let came_back = coming_back.join().expect("no panic");
        let results = takers.map(|taker| taker.join().expect("no panic"));
        let taken = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(taken + usize::from(came_back), 1, "it was taken once, before it came back: {results:?}");
        for result in results {
            counted.count(format!("{came_back}: {result:?}"));
        }
        heap.assert_clean();
    });
    tally.assert_reached(&["false: Err(NoSpace)", "false: Ok(())", "true: Err(AllInLimbo)", "true: Err(NoSpace)"]);
}

#[test]
#[should_panic(expected = "it was taken once")]
fn control_a_frame_in_limbo_is_looked_at_once() {
    run_model("control: one look", || {
        let heap = Arc::new(one_ripe_frame(2));
        let coming_back = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || put_into_limbo(&heap, 0))
        };
        let taking = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || weakened::take_from_limbo_after_one_look(&heap, 1))
        };
        let came_back = coming_back.join().expect("no panic");
        let taken = taking.join().expect("no panic");
        assert!(!(came_back && taken), "it was taken once, before it came back");
    });
}
