//! Durability `power`: a writer stops for ever after each of its atomic steps. A sync has what was seen of its update,
//! and every frame is in one place.
#![cfg(loom)]

use casblock::protocol::Fault;
use casblock::protocol::block::Writer;
use loom::sync::Arc;
use loom::thread;
use loom_tests::weakened::{DurableWriter, Weakness};
use loom_tests::{Heap, History, Tally, run_model, run_model_at_each_stop, sequence, stop_after};

/// The slot of the writer that dies.
const VICTIM: u16 = 0;
/// The slot of the writer that goes on.
const PEER: u16 = 1;

/// A store of two blocks, and what the victim does in it: all to block 0.
#[derive(Clone, Copy)]
struct Scene {
    frames: usize,
    /// What the blocks hold; those that hold 0 were never written.
    values: [u8; 2],
    /// Whether the spares of both writers wait for a sync, so that each takes another frame before its next update.
    spares_wait: bool,
    victim: fn(&Heap, Writer),
}

impl Scene {
    fn store(&self) -> (Heap, History, [Writer; 2]) {
        let (heap, history) = (Heap::durable(2, self.frames, 2), History::default());
        let mut writers = [VICTIM, PEER].map(|slot| heap.writer(slot));
        let written = (0..).zip(self.values).filter(|(_, value)| *value != 0);
        for ((block, value), writer) in written.clone().zip(&mut writers) {
            history.write(&heap, writer, block, value).expect("a frame is free");
        }
        if self.spares_wait {
            // What is replaced since a sync began waits for the next.
            history.sync(&heap);
            for ((block, value), writer) in written.zip(&mut writers) {
                history.write(&heap, writer, block, value).expect("a frame is free");
            }
        }
        (heap, history, writers)
    }

    /// The victim's first `steps` steps; whether it came to its end.
    fn run_victim(&self, heap: &Heap, writer: Writer, steps: usize) -> bool {
        stop_after(steps, || (self.victim)(heap, writer))
    }
}

fn update(heap: &Heap, mut writer: Writer) {
    heap.write(&mut writer, 0, 7).expect("a frame is free");
}

fn update_and_release(heap: &Heap, mut writer: Writer) {
    heap.write(&mut writer, 0, 7).expect("a frame is free");
    writer.release(heap).expect("no fault");
}

const REPLACES: Scene = Scene { frames: 6, values: [1, 2], spares_wait: false, victim: update };
const TAKES_ANOTHER_SPARE: Scene = Scene { frames: 8, spares_wait: true, ..REPLACES };
const RELEASES: Scene = Scene { victim: update_and_release, ..TAKES_ANOTHER_SPARE };
const WRITES_ANEW: Scene = Scene { frames: 6, values: [0, 2], spares_wait: false, victim: update };

/// Notes the update of one who stopped, if it took place; whether it did.
fn note_if_in_place(heap: &Heap, history: &History, block: u64, sequence_before: u64, value: u8) -> bool {
    let is_in_place = sequence(heap, block) > sequence_before;
    if is_in_place {
        history.note_of_the_dead(block, sequence_before + 1, value);
    }
    is_in_place
}

/// Adopts the victim's slot, updates both blocks and syncs: the sync has it, and every frame is in one place.
fn go_on(heap: &Heap, history: &History, peer: &mut Writer) {
    heap.assert_clean();
    let mut heir = loop {
        match Writer::claim(heap, VICTIM) {
            Ok(heir) => break heir,
            Err(Fault::AllInLimbo) => drop(history.sync(heap)),
            Err(fault) => panic!("{fault:?}"),
        }
    };
    heap.assert_clean();
    history.write_or_sync(heap, &mut heir, 0, 8);
    history.write_or_sync(heap, peer, 1, 9);
    let image = history.sync(heap);
    assert_eq!([0, 1].map(|block| image.newest(block).1), [8, 9]);
    heir.release(heap).expect("no fault");
    heap.assert_clean();
    history.verify(heap);
}

/// The victim stops after each of its steps while another reads and syncs: what was read is on the disk. `sync` does it.
fn stop_beside_a_sync(name: &str, scene: Scene, sync: fn(&Heap, &History)) -> Tally {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_at_each_stop(name, 3, 12, move |steps| {
        let (heap, history, [victim, mut peer]) = scene.store();
        let at_first = sequence(&heap, 0);
        let heap = Arc::new(heap);
        let stopping = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || scene.run_victim(&heap, victim, steps))
        };
        let syncing = {
            let (heap, history, counted) = (Arc::clone(&heap), history.clone(), counted.clone());
            thread::spawn(move || {
                counted.count(format!("read {}", heap.read(0)));
                sync(&heap, &history);
            })
        };
        let ended = stopping.join().expect("no panic");
        syncing.join().expect("no panic");
        let is_in_place = note_if_in_place(&heap, &history, 0, at_first, 7);
        history.verify(&heap);
        counted.count(match (is_in_place, ended) {
            (true, true) => "updated",
            (true, false) => "stopped after the exchange",
            (false, _) => "stopped before the exchange",
        });
        go_on(&heap, &history, &mut peer);
        ended
    });
    tally
}

const STOPPED: [&str; 4] = ["read 7", "stopped after the exchange", "stopped before the exchange", "updated"];

#[test]
fn a_sync_has_what_was_seen_of_a_writer_that_stopped_replacing_a_block() {
    let tally = stop_beside_a_sync("replaces", REPLACES, |heap, history| drop(history.sync(heap)));
    tally.assert_reached(&[&["read 1"], &STOPPED[..]].concat());
}

#[test]
fn a_sync_has_what_was_seen_of_a_writer_that_stopped_in_a_first_write() {
    let tally = stop_beside_a_sync("writes anew", WRITES_ANEW, |heap, history| drop(history.sync(heap)));
    tally.assert_reached(&[&["read 0"], &STOPPED[..]].concat());
}

#[test]
#[should_panic(expected = "sync 1 lost block 0")]
fn control_a_sync_that_commits_nothing_loses_a_stopped_writers_update() {
    stop_beside_a_sync("control: no commits", REPLACES, |heap, history| {
        history.begin(heap).finish_without_commits(history, heap);
    });
}

#[test]
#[should_panic(expected = "which never took place")]
fn control_a_stamp_that_is_committed_before_the_exchange() {
    let update = |heap: &Heap, writer: Writer| {
        DurableWriter::new(writer.index(), [2], Weakness::CommitsAtOnce).write(heap, &History::default(), 0, 7);
    };
    let scene = Scene { victim: update, ..REPLACES };
    stop_beside_a_sync("control: committed at once", scene, |heap, history| drop(history.sync(heap)));
}

/// The victim stops after each of its steps beside a peer that takes frames as well, and syncs; its slot is adopted
/// meanwhile.
fn stop_beside_a_peer(name: &str, scene: Scene) {
    let tally = Tally::new();
    let counted = tally.clone();
    run_model_at_each_stop(name, 2, 20, move |steps| {
        let (heap, history, [victim, mut peer]) = scene.store();
        let at_first = sequence(&heap, 0);
        let heap = Arc::new(heap);
        let stopping = {
            let heap = Arc::clone(&heap);
            thread::spawn(move || scene.run_victim(&heap, victim, steps))
        };
        let working = {
            let (heap, history) = (Arc::clone(&heap), history.clone());
            thread::spawn(move || {
                history.write_or_sync(&heap, &mut peer, 1, 3);
                peer
            })
        };
        let adopting = {
            let (heap, history) = (Arc::clone(&heap), history.clone());
            thread::spawn(move || {
                let ended = stopping.join().expect("no panic");
                let is_in_place = note_if_in_place(&heap, &history, 0, at_first, 7);
                Writer::clear(&*heap, VICTIM).expect("no fault");
                (ended, is_in_place)
            })
        };
        let mut peer = working.join().expect("no panic");
        let (ended, is_in_place) = adopting.join().expect("no panic");
        counted.count(if is_in_place { "updated" } else { "not updated" });
        go_on(&heap, &history, &mut peer);
        ended
    });
    tally.assert_reached(&["not updated", "updated"]);
}

#[test]
fn a_writer_stops_putting_its_spare_into_limbo_and_taking_another() {
    stop_beside_a_peer("takes another spare", TAKES_ANOTHER_SPARE);
}

#[test]
fn a_writer_stops_putting_its_spare_into_limbo_at_its_end() {
    stop_beside_a_peer("releases", RELEASES);
}

#[test]
fn a_writer_stops_in_a_first_write_beside_another() {
    stop_beside_a_peer("writes anew", WRITES_ANEW);
}
/// What the two did in one pair of stops: whether each came to its end, and whether the victim's update took place.
fn stop_both(
    scene: Scene,
    steps: usize,
    updates: &'static [u8],
    syncs: bool,
    heir_steps: usize,
    adopt: fn(&Heap),
) -> (bool, bool) {
    let result = std::sync::Arc::new(std::sync::Mutex::new((false, false)));
    let ended = std::sync::Arc::clone(&result);
    run_model("a pair of stops", move || {
        let (heap, history, [victim, mut peer]) = scene.store();
        let at_first = sequence(&heap, 0);
        let victim_ended = scene.run_victim(&heap, victim, steps);
        note_if_in_place(&heap, &history, 0, at_first, 7);
        for &value in updates {
            history.write_or_sync(&heap, &mut peer, 0, value);
        }
        if syncs {
            history.sync(&heap);
        }
        let before = sequence(&heap, 1);
        let heir_ended = stop_after(heir_steps, || adopt(&heap));
        note_if_in_place(&heap, &history, 1, before, 6);
        go_on(&heap, &history, &mut peer);
        *ended.lock().expect("not poisoned") = (victim_ended, heir_ended);
    });
    *result.lock().expect("not poisoned")
}

/// The victim stops after each of its steps; then its heir after each of those of `adopt`. In between the peer has made
/// none to three updates of the victim's block, and has synced or not.
fn stop_twice(name: &str, scene: Scene, adopt: fn(&Heap)) {
    let (mut steps, mut pairs) = (0, 0);
    loop {
        let mut ended = false;
        for (updates, syncs) in [(0, false), (0, true), (1, false), (1, true), (3, false), (3, true)] {
            for heir_steps in 0.. {
                let heir_ended;
                (ended, heir_ended) = stop_both(scene, steps, &[3, 4, 5][..updates], syncs, heir_steps, adopt);
                if heir_ended {
                    break;
                }
                pairs += 1;
            }
        }
        if ended {
            break;
        }
        steps += 1;
    }
    println!("{name}: {steps} steps, {pairs} pairs of stops");
    assert!(steps >= 20 && pairs >= 1000, "{steps} steps and {pairs} pairs of stops only");
}

/// Adopts the victim's slot and updates block 1, for which it may take another spare.
fn adopt_and_update(heap: &Heap) {
    if let Ok(mut heir) = Writer::claim(heap, VICTIM) {
        match heap.write(&mut heir, 1, 6) {
            Ok(()) | Err(Fault::AllInLimbo) => {}
            Err(fault) => panic!("{fault:?}"),
        }
    }
}

#[test]
fn the_heir_of_a_writer_that_takes_another_spare_stops_too() {
    stop_twice("heir of one that takes another spare", TAKES_ANOTHER_SPARE, adopt_and_update);
}

#[test]
fn the_heir_of_a_first_writer_stops_too() {
    stop_twice("heir of a first writer", WRITES_ANEW, adopt_and_update);
}
