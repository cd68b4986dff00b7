//! Durability `power`: what a sync puts on the disk while others update, and what a recovery would find there.
//!
//! After each execution all that the syncs put on the disk is verified, and all that it may have become since.
#![cfg(loom)]

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use casblock::Ordering::Relaxed;
use casblock::protocol::block::Writer;
use casblock::protocol::durable::commit;
use casblock::protocol::memory::Memory;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use loom_tests::weakened::{DurableWriter, Weakness};
use loom_tests::{
    Heap, History, Tally, daily_or_long, epochs, run_model, run_model_at_each_stop, run_model_bounded, sequence,
    stop_after,
};

/// A store whose blocks hold 1, with as many writers as `N`.
fn store<const N: usize>(blocks: usize, frames: usize) -> (Heap, History, [Writer; N]) {
    let (heap, history) = (Heap::durable(blocks, frames, N), History::default());
    let mut writers = std::array::from_fn(|index| heap.writer(index as u16));
    for block in 0..blocks as u64 {
        history.write(&heap, &mut writers[0], block, 1).expect("a frame is free");
    }
    (heap, history, writers)
}

/// Runs `work` in a thread of its own.
fn spawn<T: 'static>(
    heap: &Arc<Heap>,
    history: &History,
    work: impl FnOnce(&Heap, &History) -> T + 'static,
) -> JoinHandle<T> {
    let (heap, history) = (Arc::clone(heap), history.clone());
    thread::spawn(move || work(&heap, &history))
}

/// What writes a value to a block, one way or another.
type Write = Box<dyn FnMut(&Heap, &History, u64, u8)>;

/// The writer of a slot as it is, or one that leaves something out and has these frames.
fn writer_of(mut writer: Writer, frames: Range<u64>, weakness: Option<Weakness>) -> Write {
    let Some(weakness) = weakness else {
        return Box::new(move |heap, history, block, value| {
            history.write_or_sync(heap, &mut writer, block, value);
        });
    };
    let mut writer = DurableWriter::new(writer.index(), frames, weakness);
    Box::new(move |heap, history, block, value| writer.write(heap, history, block, value))
}

/// Replaces block 0 by each of `values`.
fn replace(mut write: Write, values: [u8; 2]) -> impl FnOnce(&Heap, &History) {
    move |heap, history| values.into_iter().for_each(|value| write(heap, history, 0, value))
}

/// A block is replaced twice while a sync begins and goes on.
fn replace_while_a_sync_begins(name: &str, frames: usize, weakness: Option<Weakness>) -> Tally {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded(name, daily_or_long(2, 3), move || {
        let (heap, history, [writer]) = store(1, frames);
        let write = writer_of(writer, 1..heap.frames(), weakness);
        let heap = Arc::new(heap);
        let writing = spawn(&heap, &history, replace(write, [2, 3]));
        let syncing = spawn(&heap, &history, |heap, history| history.sync(heap).newest(0).1);
        writing.join().expect("no panic");
        counted.count(format!("{} on the disk", syncing.join().expect("no panic")));
        history.verify(&heap);
    });
    tally
}

#[test]
fn a_block_is_replaced_twice_while_a_sync_begins() {
    let tally = replace_while_a_sync_begins("replaced twice", 4, None);
    tally.assert_reached(&["1 on the disk", "2 on the disk", "3 on the disk"]);
}

#[test]
fn the_writer_that_the_twins_weaken_is_whole() {
    let tally = replace_while_a_sync_begins("twin as it is", 4, Some(Weakness::Nothing));
    tally.assert_reached(&["1 on the disk", "2 on the disk", "3 on the disk"]);
}

#[test]
#[should_panic(expected = "sync 1 lost block 0")]
fn control_a_writer_looks_at_the_epoch_before_its_exchange() {
    replace_while_a_sync_begins("control: epoch before", 4, Some(Weakness::LooksAtEpochBefore));
}

#[test]
#[should_panic(expected = "sync 1 lost block 0")]
fn control_a_writer_looks_at_the_epoch_without_a_fence() {
    replace_while_a_sync_begins("control: no fence", 4, Some(Weakness::LooksAtEpochWithoutFence));
}

/// The frame that a block had when somebody set out to commit it is staged in again for the block's next but one update.
#[test]
fn who_commits_a_block_takes_no_later_stamp_for_damage() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model("commits beside updates", move || {
        let (heap, history, [writer]) = store(1, 2);
        let heap = Arc::new(heap);
        let write = writer_of(writer, 1..heap.frames(), None);
        let writing = spawn(&heap, &history, replace(write, [2, 3]));
        let committing = spawn(&heap, &history, |heap, _| {
            let before = sequence(heap, 0);
            commit(heap, 0).expect("no damage");
            (before, sequence(heap, 0))
        });
        writing.join().expect("no panic");
        let (before, after) = committing.join().expect("no panic");
        counted.count(format!("{before} to {after}"));
        history.verify(&heap);
    });
    tally.assert_reached(&["1 to 1", "1 to 2", "1 to 3", "2 to 2", "2 to 3", "3 to 3"]);
}

/// A block was replaced since a sync began, and is replaced twice more while it goes on: all in one epoch.
fn replace_in_one_epoch(name: &str, weakness: Option<Weakness>) -> Tally {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded(name, 2, move || {
        let (heap, history, [writer]) = store(1, 3);
        let mut write = writer_of(writer, 1..heap.frames(), weakness);
        let sync = history.begin(&heap);
        write(&heap, &history, 0, 2);
        let heap = Arc::new(heap);
        let writing = spawn(&heap, &history, replace(write, [3, 4]));
        let syncing = spawn(&heap, &history, |heap, history| sync.finish(history, heap).newest(0).1);
        writing.join().expect("no panic");
        counted.count(format!("{} on the disk", syncing.join().expect("no panic")));
        history.verify(&heap);
    });
    tally
}

#[test]
fn a_block_is_replaced_again_and_again_in_one_epoch() {
    let tally = replace_in_one_epoch("in one epoch", None);
    // 1: neither of the two frames that are replaced by turns was whole.
    tally.assert_reached(&["1 on the disk", "2 on the disk", "3 on the disk", "4 on the disk"]);
}

#[test]
#[should_panic(expected = "sync 1 lost block 0")]
fn control_a_writer_knows_no_limbo() {
    replace_in_one_epoch("control: no limbo", Some(Weakness::KnowsNoLimbo));
}

/// The first writer has stopped between its exchange and its commit. A sync that begins then must have its update, while
/// another replaces the block again and again, so that the sync does not find the update in the cell.
fn replace_what_is_not_committed(name: &str, weakness: Option<Weakness>) -> Tally {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_at_each_stop(name, 2, 10, move |steps| {
        let (heap, history, [mut victim, writer]) = store(1, 4);
        let ended = stop_after(steps, || heap.write(&mut victim, 0, 2).expect("no fault"));
        let victims = heap.stamp(1).expect("durable");
        if sequence(&heap, 0) == 1 || victims.committed().is_some() {
            return ended;
        }
        history.note_of_the_dead(0, 2, 2);
        let mut write = writer_of(writer, 2..heap.frames(), weakness);
        let sync = history.begin(&heap);
        write(&heap, &history, 0, 3);
        let heap = Arc::new(heap);
        let writing = spawn(&heap, &history, replace(write, [4, 5]));
        let syncing = spawn(&heap, &history, |heap, history| sync.finish(history, heap).newest(0).1);
        writing.join().expect("no panic");
        counted.count(format!("{} on the disk", syncing.join().expect("no panic")));
        history.verify(&heap);
        ended
    });
    tally
}

#[test]
fn what_is_not_committed_is_replaced_during_a_sync() {
    let tally = replace_what_is_not_committed("not committed", None);
    tally.assert_reached(&["2 on the disk", "3 on the disk", "4 on the disk", "5 on the disk"]);
}

#[test]
#[should_panic(expected = "sync 1 lost block 0")]
fn control_a_writer_leaves_what_it_replaces_uncommitted() {
    replace_what_is_not_committed("control: left uncommitted", Some(Weakness::LeavesReplacedUncommitted));
}

/// Two compare-and-writes of a block, of which one succeeds, while a sync is under way. The other never took place.
#[test]
fn two_writers_compare_and_write_a_block_during_a_sync() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded("two writers", 1, move || {
        let (heap, history, [a, b]) = store(1, 3);
        let sync = history.begin(&heap);
        let heap = Arc::new(heap);
        let writing = [(a, 2), (b, 3)].map(|(mut writer, new)| {
            spawn(&heap, &history, move |heap, history| {
                history.compare_and_write(heap, &mut writer, 0, 1, new).expect("no fault")
            })
        });
        let syncing = spawn(&heap, &history, |heap, history| sync.finish(history, heap).newest(0).1);
        let written = writing.map(|thread| thread.join().expect("no panic"));
        assert!(written[0] != written[1], "not one winner");
        counted.count(format!("{} on the disk", syncing.join().expect("no panic")));
        history.verify(&heap);
        heap.assert_clean();
    });
    tally.assert_reached(&["1 on the disk", "2 on the disk", "3 on the disk"]);
}

/// Two syncs at once, which may be done in either order. The frame that is replaced after the first has begun may be
/// staged in again once the second is done, even if the first is not.
#[test]
fn two_sync_at_once_while_a_block_is_replaced() {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded("two syncs", 1, move || {
        let (heap, history, [writer]) = store(1, 3);
        let mut write = writer_of(writer, 0..0, None);
        let first = history.begin(&heap);
        write(&heap, &history, 0, 2);
        let second = history.begin(&heap);
        let heap = Arc::new(heap);
        let writing = spawn(&heap, &history, move |heap, history| write(heap, history, 0, 3));
        let syncing =
            [first, second].map(|sync| spawn(&heap, &history, |heap, history| sync.finish(history, heap).newest(0).1));
        writing.join().expect("no panic");
        let found = syncing.map(|thread| thread.join().expect("no panic"));
        counted.count(format!("{found:?} on the disk"));
        let order = history.syncs();
        counted.count(if order.is_sorted() { "done as they began" } else { "done the other way round" });
        history.verify(&heap);
        heap.assert_clean();
    });
    assert!(tally.kinds() == 2 + 4, "an outcome is missing");
}

/// A frame that was replaced leaves limbo when a sync is done: that is when its writer stages in it, and not before.
fn leave_limbo(name: &str, completed_at_first: u64) -> Tally {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_bounded(name, 2, move || {
        let (heap, history, [mut writer]) = store(1, 3);
        let first = history.begin(&heap);
        history.write(&heap, &mut writer, 0, 2).expect("a frame is free");
        first.finish(&history, &heap);
        epochs(&heap).complete(completed_at_first);
        let second = history.begin(&heap);
        let heap = Arc::new(heap);
        let writing = spawn(&heap, &history, move |heap, history| {
            [3, 4].map(|value| history.write_or_sync(heap, &mut writer, 0, value))
        });
        let syncing = spawn(&heap, &history, |heap, history| second.finish(history, heap).newest(0).1);
        counted.count(format!("the writer syncs {:?} times", writing.join().expect("no panic")));
        counted.count(format!("{} on the disk", syncing.join().expect("no panic")));
        history.verify(&heap);
        heap.assert_clean();
    });
    tally
}

#[test]
fn a_frame_leaves_limbo_when_a_sync_is_done() {
    let tally = leave_limbo("leaves limbo", 0);
    tally.assert_reached(&[
        "2 on the disk",
        "3 on the disk",
        "4 on the disk",
        "the writer syncs [0, 0] times",
        "the writer syncs [0, 1] times",
    ]);
}

#[test]
#[should_panic(expected = "lost block 0")]
fn control_a_frame_leaves_limbo_before_the_sync_is_done() {
    leave_limbo("control: completed too early", u64::MAX);
}

/// A writer is slow to commit: by then another has committed for it, replaced the block, and taken the frame, when it had
/// left limbo, for an update of another block, in which it stops for ever.
fn commit_late(name: &str, weakness: Option<Weakness>) -> Tally {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_at_each_stop(name, 2, 12, move |steps| {
        let (heap, history, [owner, mut taker]) = store(2, 4);
        // Frame 2 is the owner's spare.
        let mut write = writer_of(owner, 2..3, weakness);
        let heap = Arc::new(heap);
        let is_taken = std::sync::Arc::new(AtomicBool::new(false));
        let (takes, counted) = (std::sync::Arc::clone(&is_taken), counted.clone());
        let owning = spawn(&heap, &history, move |heap, history| {
            write(heap, history, 0, 2);
            counted.count(if is_taken.load(Relaxed) { "committed late" } else { "committed in time" });
        });
        let taking = spawn(&heap, &history, move |heap, history| {
            if sequence(heap, 0) == 1 {
                return true;
            }
            history.sync(heap);
            history.write(heap, &mut taker, 0, 3).expect("no fault");
            history.sync(heap);
            takes.store(true, Relaxed);
            stop_after(steps, || history.write(heap, &mut taker, 1, 4).expect("no fault"))
        });
        owning.join().expect("no panic");
        let ended = taking.join().expect("no panic");
        if sequence(&heap, 1) == 2 {
            history.note_of_the_dead(1, 2, 4);
        }
        history.verify(&heap);
        history.sync(&heap);
        history.verify(&heap);
        ended
    });
    tally
}

#[test]
fn a_late_commit_leaves_the_stamp_of_another_update_alone() {
    commit_late("late commit", None).assert_reached(&["committed in time", "committed late"]);
}

#[test]
#[should_panic(expected = "DamagedStamp")]
fn control_a_late_commit_by_a_store() {
    commit_late("control: late commit", Some(Weakness::CommitsWithoutComparing));
}
