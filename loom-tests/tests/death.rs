//! A writer dies after each of its atomic steps in turn, while others go on; then its slot is adopted.
//!
//! Whatever the step: the others are neither delayed nor disturbed, the block is whole, the heir of the slot works, and
//! every frame is in one place.
#![cfg(loom)]

use casblock::protocol::block::Writer;
use casblock::protocol::slot::resolve;
use casblock::{kill_this_thread_after, run_until_killed};
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Heap, Tally, run_model, run_model_bounded, weakened};

/// The slot of the writer that dies.
const VICTIM: u16 = 0;
/// The slot of the writer that goes on.
const PEER: u16 = 1;

/// What a victim or a peer does, with its slot.
type Work = fn(&Heap, Writer);

/// A store, what the victim does in it and what the peer does meanwhile.
#[derive(Clone, Copy)]
struct Scene {
    frames: usize,
    /// Which of the two blocks hold 1 at first; the others were never written.
    written: &'static [u64],
    victim: Work,
    peer: Work,
    /// Whether the peer works beside the victim and its heir; else beside the heir only, when the victim is dead.
    beside_victim: bool,
    /// The most preemptions explored, where all take over a minute.
    preemptions: Option<usize>,
}

impl Scene {
    fn store(&self) -> (Heap, Writer, Writer) {
        let heap = Heap::new(2, self.frames, 2);
        let (mut victim, peer) = (heap.writer(VICTIM), heap.writer(PEER));
        for &block in self.written {
            heap.write(&mut victim, block, 1).expect("a frame is free");
        }
        (heap, victim, peer)
    }

    /// The victim's first `steps` steps; whether it survived them.
    fn run_victim(&self, heap: &Heap, writer: Writer, steps: usize) -> bool {
        kill_this_thread_after(steps);
        let survived = run_until_killed(|| (self.victim)(heap, writer)).is_ok();
        kill_this_thread_after(usize::MAX);
        survived
    }
}

fn replace(heap: &Heap, mut writer: Writer) {
    let _ = heap.compare_and_write(&mut writer, 0, 1, 2).expect("no fault");
}

fn first_write(heap: &Heap, mut writer: Writer) {
    let _ = heap.compare_and_write(&mut writer, 0, 0, 2).expect("a frame is free");
}

fn replace_and_release(heap: &Heap, mut writer: Writer) {
    heap.write(&mut writer, 0, 2).expect("no fault");
    writer.release(heap).expect("no fault");
}

/// Two updates of the victim's block, then one of another: by then the first frame displaced holds other contents.
fn update_twice_and_move_on(heap: &Heap, mut writer: Writer) {
    for (block, value) in [(0, 3), (0, 4), (1, 5)] {
        heap.write(&mut writer, block, value).expect("a frame is free");
    }
}

fn update(heap: &Heap, mut writer: Writer) {
    heap.write(&mut writer, 0, 3).expect("a frame is free");
}

fn update_and_release(heap: &Heap, mut writer: Writer) {
    heap.write(&mut writer, 0, 3).expect("a frame is free");
    writer.release(heap).expect("no fault");
}

/// An update of the victim's block, then the first write of another.
fn update_and_write_anew(heap: &Heap, mut writer: Writer) {
    for (block, value) in [(0, 3), (1, 5)] {
        heap.write(&mut writer, block, value).expect("a frame is free");
    }
}

fn update_twice(heap: &Heap, mut writer: Writer) {
    for value in [3, 4] {
        heap.write(&mut writer, 0, value).expect("a frame is free");
    }
}

fn release_and_claim(heap: &Heap, writer: Writer) {
    writer.release(heap).expect("no fault");
    let mut writer = heap.writer(PEER);
    heap.write(&mut writer, 0, 3).expect("a frame is free");
}

/// The frame that the victim's slot owns as its spare.
fn spare(heap: &Heap) -> Option<u64> {
    resolve(heap, VICTIM).expect("no damage").spare
}

/// Runs a model for each step at which the victim can die: it works beside the peer or before it, and when it is dead
/// its slot is adopted while the peer still works.
fn die_at_each_step(name: &str, scene: Scene, outcomes: &[&str]) {
    let tally = Tally::new();
    let mut steps = 0;
    loop {
        let survivals = Tally::new();
        let (counted, survived) = (tally.clone(), survivals.clone());
        let name = format!("{name}, death after {steps} steps");
        let model = move || {
            let (heap, victim, peer) = scene.store();
            let spare_at_first = spare(&heap);
            let heap = Arc::new(heap);
            let survived = survived.clone();
            let dying = {
                let heap = Arc::clone(&heap);
                move || survived.count(if scene.run_victim(&heap, victim, steps) { "survived" } else { "died" })
            };
            let dying = if scene.beside_victim { Some(thread::spawn(dying)) } else { (dying(), None).1 };
            let working = {
                let heap = Arc::clone(&heap);
                thread::spawn(move || (scene.peer)(&heap, peer))
            };
            let adopting = {
                let heap = Arc::clone(&heap);
                thread::spawn(move || {
                    if let Some(dying) = dying {
                        dying.join().expect("no panic");
                    }
                    heap.writer(VICTIM)
                })
            };
            working.join().expect("no panic");
            let mut heir = adopting.join().expect("no panic");
            counted.count(if spare(&heap) == spare_at_first { "its spare is inherited" } else { "another is" });
            heap.assert_clean();
            assert!([2, 3, 4].contains(&heap.read(0)), "the peer wrote last, or the victim");
            heap.write(&mut heir, 0, 6).expect("no fault");
            assert_eq!(heap.read(0), 6);
            heap.assert_clean();
        };
        match scene.preemptions {
            Some(most) => run_model_bounded(&name, most, model),
            None => run_model(&name, model),
        }
        if survivals.never("died") {
            break;
        }
        steps += 1;
    }
    println!("{name}: {steps} steps");
    assert!(steps >= 10, "the victim died at {steps} steps only");
    tally.assert_reached(outcomes);
}

#[test]
fn a_writer_dies_replacing_a_block() {
    let scene = Scene {
        frames: 3,
        written: &[0],
        victim: replace,
        peer: update_twice,
        beside_victim: true,
        preemptions: Some(3),
    };
    die_at_each_step("replace", scene, &["another is", "its spare is inherited"]);
}

#[test]
fn a_writer_dies_replacing_a_block_before_the_frames_move_on() {
    let scene = Scene {
        frames: 4,
        written: &[0, 1],
        victim: replace,
        peer: update_twice_and_move_on,
        beside_victim: false,
        preemptions: None,
    };
    die_at_each_step("replace, frames move on", scene, &["another is", "its spare is inherited"]);
}

#[test]
fn a_writer_dies_replacing_a_block_before_the_peer_releases_the_frame() {
    let scene = Scene {
        frames: 3,
        written: &[0],
        victim: replace,
        peer: update_and_release,
        beside_victim: false,
        preemptions: None,
    };
    die_at_each_step("replace, peer releases", scene, &["another is", "its spare is inherited"]);
}

#[test]
fn a_writer_dies_replacing_a_block_before_the_peer_writes_a_new_one() {
    let scene = Scene {
        frames: 4,
        written: &[0],
        victim: replace,
        peer: update_and_write_anew,
        beside_victim: false,
        preemptions: None,
    };
    die_at_each_step("replace, peer writes anew", scene, &["another is", "its spare is inherited"]);
}

#[test]
fn a_writer_dies_in_a_first_write() {
    let scene =
        Scene { frames: 4, written: &[], victim: first_write, peer: update, beside_victim: true, preemptions: None };
    die_at_each_step("first write", scene, &["its spare is inherited"]);
}

#[test]
fn a_writer_dies_in_a_first_write_before_the_frames_move_on() {
    let scene = Scene {
        frames: 5,
        written: &[1],
        victim: first_write,
        peer: update_twice_and_move_on,
        beside_victim: false,
        preemptions: None,
    };
    die_at_each_step("first write, frames move on", scene, &["its spare is inherited"]);
}

#[test]
fn a_writer_dies_giving_its_frame_back() {
    let scene = Scene {
        frames: 3,
        written: &[0],
        victim: replace_and_release,
        peer: release_and_claim,
        beside_victim: false,
        preemptions: None,
    };
    die_at_each_step("replace and release", scene, &["another is", "its spare is inherited"]);
}

/// One pair of deaths, one thread after the other: the victim's after `steps` steps, then, when the peer has made some
/// updates, its heir's after `heir_steps` steps of adopting the slot. Whether each survived its steps.
fn die_twice(scene: Scene, steps: usize, updates: usize, heir_steps: usize, adopt: fn(&Heap)) -> (bool, bool) {
    let result = std::sync::Arc::new(std::sync::Mutex::new((false, false)));
    let survived = std::sync::Arc::clone(&result);
    run_model("a pair of deaths", move || {
        let (heap, victim, mut peer) = scene.store();
        let victim_survived = scene.run_victim(&heap, victim, steps);
        for &(block, value) in &[(0, 3), (0, 4), (1, 5), (0, 7)][..updates] {
            heap.write(&mut peer, block, value).expect("a frame is free");
        }
        kill_this_thread_after(heir_steps);
        let heir_survived = run_until_killed(|| adopt(&heap)).is_ok();
        kill_this_thread_after(usize::MAX);
        let mut heir = heap.writer(VICTIM);
        heap.write(&mut heir, 0, 6).expect("a frame is free");
        assert_eq!(heap.read(0), 6);
        heap.assert_clean();
        *survived.lock().expect("not poisoned") = (victim_survived, heir_survived);
    });
    *result.lock().expect("not poisoned")
}

/// Every pair of deaths, with 0 to 4 updates by the peer in between.
fn die_twice_at_each_step(name: &str, scene: Scene, adopt: fn(&Heap)) {
    let (mut steps, mut pairs) = (0, 0);
    loop {
        let mut victim_survived = false;
        for updates in 0..=4 {
            for heir_steps in 0.. {
                let heir_survived;
                (victim_survived, heir_survived) = die_twice(scene, steps, updates, heir_steps, adopt);
                if heir_survived {
                    break;
                }
                pairs += 1;
            }
        }
        if victim_survived {
            break;
        }
        steps += 1;
    }
    println!("{name}: {steps} steps, {pairs} pairs of deaths");
    assert!(steps >= 10 && pairs >= 100, "{steps} steps and {pairs} pairs of deaths only");
}

fn adopt_by_the_protocol(heap: &Heap) {
    let _ = heap.writer(VICTIM);
}

#[test]
fn the_heir_of_a_replacing_writer_dies_too() {
    let scene = Scene {
        frames: 4,
        written: &[0],
        victim: replace,
        peer: update_twice,
        beside_victim: false,
        preemptions: None,
    };
    die_twice_at_each_step("heir of a replace", scene, adopt_by_the_protocol);
}

#[test]
fn the_heir_of_a_first_writer_dies_too() {
    let scene = Scene {
        frames: 5,
        written: &[],
        victim: first_write,
        peer: update_twice,
        beside_victim: false,
        preemptions: None,
    };
    die_twice_at_each_step("heir of a first write", scene, adopt_by_the_protocol);
}

#[test]
fn the_heir_of_a_releasing_writer_dies_too() {
    let scene = Scene {
        frames: 4,
        written: &[0],
        victim: replace_and_release,
        peer: update_twice,
        beside_victim: false,
        preemptions: None,
    };
    die_twice_at_each_step("heir of a release", scene, adopt_by_the_protocol);
}

#[test]
#[should_panic(expected = "frames_doubly_owned: 1")]
fn control_an_heir_that_takes_the_slot_at_its_word() {
    let scene = Scene {
        frames: 4,
        written: &[0],
        victim: replace,
        peer: update_twice,
        beside_victim: false,
        preemptions: None,
    };
    die_twice_at_each_step("control", scene, |heap| weakened::adopt_without_resolving(heap, VICTIM));
}
