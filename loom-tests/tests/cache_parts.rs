//! The parts of the cache's engine by themselves: without epochs, whose fences would hide what an ordering of theirs is for.
#![cfg(all(loom, crossbeam_loom))]

use casblock::cache_engine::parts::{Index, Limbo, Queue, Retired, Stack};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;
use loom_tests::{Flaws, Tally, run_model};

/// An entry that was another block's comes back: whoever finds it finds the new block, and what was linked before it is still there.
#[test]
fn who_finds_an_entry_finds_its_block() {
    let (tally, flaws) = (Tally::new(), Flaws::new());
    let (counts, seen) = (tally.clone(), flaws.clone());
    run_model("link beside find", move || {
        let index = Arc::new(Index::new(1, 2).expect("memory"));
        let [stays, again] = [(); 2].map(|()| index.take().expect("two are free"));
        index.link(stays, 1).expect("no other");
        index.link(again, 2).expect("no other");
        let state = index.entry(again).state();
        index.entry(again).exchange(state, state.dead()).expect("nobody else");
        index.unlink(again);
        let linker = thread::spawn({
            let index = Arc::clone(&index);
            move || index.link(again, 3).expect("no other")
        });
        let finder = thread::spawn({
            let (index, counts, seen) = (Arc::clone(&index), counts.clone(), seen.clone());
            move || {
                match index.find(3) {
                    Some(entry) => {
                        let entry = index.entry(entry);
                        seen.expect(entry.lba() == 3 && !entry.state().is_dead(), "half an entry");
                        counts.count("found");
                    }
                    None => counts.count("not yet"),
                }
                seen.expect(index.find(2).is_none(), "what was unlinked is found");
                seen.expect(index.find(1) == Some(stays), "what was linked before is not found");
            }
        });
        linker.join().expect("flaws are noted");
        finder.join().expect("flaws are noted");
        seen.expect(index.find(3) == Some(again), "what is linked is not found");
    });
    flaws.assert_none();
    tally.assert_reached(&["found", "not yet"]);
}

/// Two neighbours are unlinked, and one is linked, at the same time: what stays is found.
#[test]
fn neighbours_go_and_come() {
    let flaws = Flaws::new();
    let seen = flaws.clone();
    run_model("unlink beside unlink", move || {
        let index = Arc::new(Index::new(1, 4).expect("memory"));
        let entries = [(); 4].map(|()| index.take().expect("four are free"));
        for (entry, lba) in entries.into_iter().zip(0..3) {
            index.link(entry, lba).expect("no other");
        }
        let unlinks = |entry: u32| {
            let index = Arc::clone(&index);
            move || {
                let state = index.entry(entry).state();
                index.entry(entry).exchange(state, state.dead()).expect("nobody else");
                index.unlink(entry);
            }
        };
        let first = thread::spawn(unlinks(entries[1]));
        let second = thread::spawn({
            let (index, seen, unlink) = (Arc::clone(&index), seen.clone(), unlinks(entries[2]));
            move || {
                unlink();
                seen.expect(index.find(2).is_none(), "what was unlinked is found");
                index.link(entries[3], 3).expect("no other");
                seen.expect(index.find(0) == Some(entries[0]), "what stays is not found");
            }
        });
        first.join().expect("flaws are noted");
        second.join().expect("flaws are noted");
        let found = [0, 1, 2, 3].map(|lba| index.find(lba));
        seen.expect(found == [Some(entries[0]), None, None, Some(entries[3])], "not what is linked");
    });
    flaws.assert_none();
}

/// What is retired is passed on once, by one who comes after whoever retired it.
#[test]
fn what_is_retired_is_passed_on_once() {
    let tally = Tally::new();
    let counts = tally.clone();
    run_model("a pile", move || {
        let limbo = Arc::new(Limbo::default());
        let done = Arc::new([UnsafeCell::new(0u32), UnsafeCell::new(0)]);
        let add = |done: &[UnsafeCell<u32>; 2], frame: u32, addend| {
            // SAFETY: loom panics if another is at it at the same time.
            done[frame as usize].with_mut(|done| unsafe { *done += addend });
        };
        let retires = |frame: u32| {
            let (limbo, done, counts) = (Arc::clone(&limbo), Arc::clone(&done), counts.clone());
            move || {
                add(&done, frame, 1);
                let taken = limbo.put(Retired::new(None, Some(frame)));
                for taken in taken.into_iter().flatten().filter_map(Retired::frame) {
                    counts.count(if taken == frame { "its own" } else { "the other's" });
                    add(&done, taken, 10);
                }
            }
        };
        let other = thread::spawn(retires(1));
        retires(0)();
        other.join().expect("loom has told of it");
        let left = limbo.take(Retired::new(None, None));
        assert_eq!(left.into_iter().find_map(Retired::frame), None, "each takes what it finds");
        // SAFETY: nobody else is there.
        assert!(done.iter().all(|done| done.with(|done| unsafe { *done == 11 })), "not once");
    });
    tally.assert_reached(&["its own", "the other's"]);
}

/// Whoever takes a number from the stack comes after all that was done with it before.
#[test]
fn a_free_number_is_its_takers_alone() {
    run_model("a stack of two", || {
        let stack = Arc::new(Stack::default());
        let below = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let owned = Arc::new([UnsafeCell::new(0u32), UnsafeCell::new(0)]);
        let push = |number: u32| stack.push(number, |under| below[number as usize].store(under, Relaxed));
        push(0);
        push(1);
        let takes_and_gives_back = || {
            let (stack, below, owned) = (Arc::clone(&stack), Arc::clone(&below), Arc::clone(&owned));
            move || {
                let number = stack.pop(|number| below[number as usize].load(Relaxed)).expect("two for two");
                // SAFETY: it is ours alone; loom looks.
                owned[number as usize].with_mut(|it| unsafe { *it += 1 });
                stack.push(number, |under| below[number as usize].store(under, Relaxed));
            }
        };
        let threads = [(); 2].map(|()| thread::spawn(takes_and_gives_back()));
        for thread in threads {
            thread.join().expect("nothing fails");
        }
        let both = [(); 2].map(|()| stack.pop(|number| below[number as usize].load(Relaxed)).expect("both are back"));
        assert_ne!(both[0], both[1]);
        // SAFETY: the other thread has ended.
        let uses: u32 = both.iter().map(|number| owned[*number as usize].with(|it| unsafe { *it })).sum();
        assert_eq!(uses, 2);
    });
}

/// Whoever takes an entry from a queue comes after all that was done with it before.
#[test]
fn a_queued_entry_is_its_takers_alone() {
    let tally = Tally::new();
    let counts = tally.clone();
    run_model("a queue of two", move || {
        let queue = Arc::new(Queue::new(2).expect("memory"));
        let owned = Arc::new(UnsafeCell::new(0u32));
        queue.push(0);
        let takes_and_gives_back = || {
            let (queue, owned) = (Arc::clone(&queue), Arc::clone(&owned));
            move || {
                // While it is being put back it may not be there.
                let Some(entry) = queue.pop() else { return 0 };
                // SAFETY: it is ours alone; loom looks.
                owned.with_mut(|it| unsafe { *it += 1 });
                queue.push(entry);
                1
            }
        };
        let threads = [(); 2].map(|()| thread::spawn(takes_and_gives_back()));
        let taken: u32 = threads.map(|thread| thread.join().expect("nothing fails")).iter().sum();
        assert_eq!((queue.pop(), queue.pop()), (Some(0), None));
        // SAFETY: the others have ended.
        assert_eq!(owned.with(|it| unsafe { *it }), taken);
        counts.count(taken.to_string());
    });
    tally.assert_reached(&["1", "2"]);
}
