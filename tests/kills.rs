//! Processes killed, and processes stopped, at each machine instruction of each operation.
//!
//! For every operation, and every instruction of it, a process is taken there and killed. Those who have the store open
//! go on at once: they read and update the same block, and take over the dead writer's slot. Then all close the store,
//! and each frame must have one place. The same with processes that are stopped there, and go on later.
//!
//! `cargo test --release --test kills -- --ignored --nocapture`: in a debug build each operation has many more
//! instructions. Needs a machine on which a process may trace its descendants (ptrace).
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

use casblock::Durability;

#[path = "kills/operations.rs"]
mod operations;
#[path = "common/ptrace.rs"]
mod ptrace;
#[path = "kills/survivors.rs"]
mod survivors;

use operations::{Answer, Effect, OPERATIONS, Operation};
use ptrace::{Trace, Victim, Zygote};
use survivors::{Contents, Meanwhile, Survivor};

/// Memory, if there is a file system in it: nothing here needs a disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
#[ignore = "the zygote of the tests here"]
fn zygote() {
    ptrace::serve(|operation, folder| (OPERATIONS[usize::from(operation)].victim)(&folder.join("store")));
}

/// How long nothing may happen before that is called a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the process when nobody has called it for a while: then a survivor waits, which it must not.
struct Watchdog(mpsc::Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let (sender, calls) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                match calls.recv_timeout(PATIENCE) {
                    Ok(()) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        eprintln!("nothing has happened for {PATIENCE:?}: a survivor waits for the victim");
                        std::process::abort();
                    }
                }
            }
        });
        Self(sender)
    }

    fn call(&self) {
        self.0.send(()).unwrap();
    }
}

/// What becomes of victims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Killed,
    /// Stopped, while others go on, and then resumed.
    Stopped,
}

/// Held to read while a store is open, and to write while a child is started: until it executes, it has all descriptors
/// of its parent, and with them the locks of stores that another test may believe it has closed.
static STORES_OPEN: RwLock<()> = RwLock::new(());

/// An operation, and victims for it.
struct Stage {
    fate: Fate,
    number: u8,
    operation: &'static Operation,
    zygote: Zygote,
    path: PathBuf,
}

/// Who sees what becomes of the victim.
enum Survivors {
    /// One who had the store open before.
    There(Box<Survivor>),
    /// Those who open it afterwards.
    ToCome(Contents),
}

impl Stage {
    fn set(fate: Fate, number: usize, folder: &Path) -> Self {
        let (operation, path) = (&OPERATIONS[number], folder.join("store"));
        let _nobody_else = STORES_OPEN.write().unwrap_or_else(PoisonError::into_inner);
        Self { fate, number: number as u8, operation, zygote: Zygote::start("zygote", folder), path }
    }

    /// A new store.
    fn survivors(&self) -> Survivors {
        // All slots but one are the survivor's and the victim's, so that who claims all has the victim's.
        let geometry = match self.fate {
            Fate::Killed => self.operation.geometry(2, true),
            Fate::Stopped => self.operation.geometry(3, false),
        };
        let survivor = Survivor::create(&self.path, geometry);
        if self.operation.alone { Survivors::ToCome(survivor.leave()) } else { Survivors::There(survivor.into()) }
    }

    fn trace(&mut self) -> nix::Result<Trace> {
        let _open = STORES_OPEN.read().unwrap_or_else(PoisonError::into_inner);
        let _survivors = self.survivors();
        self.zygote.trace(self.number)
    }

    /// One victim, at one place. Whether its operation had taken effect there, unless it went another way than others.
    fn meet_fate(&mut self, trace: &Trace, place: usize, meanwhile: Meanwhile) -> nix::Result<Option<bool>> {
        let _open = STORES_OPEN.read().unwrap_or_else(PoisonError::into_inner);
        let mut survivors = self.survivors();
        let followed = self.zygote.fork_at(self.number, trace, place)?;
        let went_its_own_way = followed.is_none();
        let victim = match followed {
            Some(victim) => victim,
            None => {
                // What it did is in the store.
                drop(survivors);
                survivors = self.survivors();
                self.zygote.fork_and_step(self.number, place)?
            }
        };
        let took_effect = match self.fate {
            Fate::Killed => {
                victim.kill();
                self.outlive(survivors, meanwhile)
            }
            Fate::Stopped => self.pass_by(victim, survivors, meanwhile),
        };
        Ok((!went_its_own_way).then_some(took_effect))
    }

    /// The first place at which the operation has taken effect, if it is one that does.
    fn place_of_effect(&mut self, trace: &Trace) -> nix::Result<Option<usize>> {
        if self.operation.effect == Effect::Nothing {
            return Ok(None);
        }
        let (mut before, mut after) = (0, trace.len());
        while before < after {
            let middle = before.midpoint(after);
            match self.meet_fate(trace, middle, Meanwhile::Updates(0))? {
                Some(true) => after = middle,
                Some(false) | None => before = middle + 1,
            }
        }
        Ok(Some(after))
    }

    /// Goes on after the victim's death.
    fn outlive(&self, survivors: Survivors, meanwhile: Meanwhile) -> bool {
        let mut survivor = match survivors {
            Survivors::There(survivor) => *survivor,
            Survivors::ToCome(contents) => Survivor::open(&self.path, contents),
        };
        let took_effect = survivor.look(self.operation);
        survivor.cut(self.operation);
        survivor.go_on(self.operation, meanwhile);
        assert_eq!(survivor.use_all_slots(self.operation), 1, "the dead have no slot");
        survivor.sync();
        survivor.close(self.operation);
        took_effect
    }

    /// Goes on while the victim stands still; then it must end well.
    fn pass_by(&self, victim: Victim, survivors: Survivors, meanwhile: Meanwhile) -> bool {
        let Survivors::There(mut survivor) = survivors else { panic!("nobody is there") };
        let took_effect = survivor.look(self.operation);
        survivor.cut(self.operation);
        survivor.go_on(self.operation, meanwhile);
        survivor.use_all_slots(self.operation);
        survivor.sync();
        let answer = victim.resume();
        let found = survivor.target(self.operation);
        let possible: &[u64] = match (self.operation.answer, took_effect) {
            (Answer::Done, _) | (Answer::Compared | Answer::Exchanged, true) => &[0],
            (Answer::Exchanged, false) => &[1],
            (Answer::Compared, false) if self.operation.effect != Effect::Nothing => &[found],
            (Answer::Compared | Answer::Read, _) => &[self.operation.before(), found],
        };
        assert!(possible.contains(&(answer as u64)), "{answer} for {possible:?}");
        if self.operation.answer == Answer::Done && !took_effect {
            survivor.expect_effect(self.operation);
        }
        survivor.close(self.operation);
        took_effect
    }
}

/// Says at which point a test failed.
struct Point {
    name: &'static str,
    place: usize,
    meanwhile: Meanwhile,
}

impl Drop for Point {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, place, meanwhile } = self;
            eprintln!("this was {name}, instruction {place}; others did {meanwhile:?}");
        }
    }
}

/// How many victims there were, and how many of them had to be taken to their place step by step.
#[derive(Default)]
struct Tally {
    victims: usize,
    instructions: usize,
    step_by_step: usize,
}

/// A process that is killed in an operation with so few instructions is so at each of them with all that others may do afterwards; in a
/// longer one only so near the instruction by which it takes effect. Elsewhere they do one of those things in turn; also where it is
/// stopped, unless the environment has `CASBLOCK_TEST_LONG`.
const FEW: usize = 700;
const NEAR: usize = 100;

/// Goes through all instructions of an operation.
fn go_through(fate: Fate, number: usize, watchdog: &Watchdog) -> nix::Result<Tally> {
    let (start, folder) = (Instant::now(), folder());
    let mut stage = Stage::set(fate, number, folder.path());
    let Operation { name, effect, instructions_least, .. } = *stage.operation;
    let trace = stage.trace()?;
    let takes_effect = stage.place_of_effect(&trace)?;
    let tries_all = fate == Fate::Killed || std::env::var_os("CASBLOCK_TEST_LONG").is_some();
    let (mut tally, mut effects) = (Tally { instructions: trace.len(), ..Tally::default() }, Vec::new());
    for place in 0..trace.len() {
        let near = takes_effect.is_some_and(|here| place.abs_diff(here) <= NEAR);
        for &meanwhile in Meanwhile::at(place, tries_all && (near || trace.len() <= FEW)) {
            watchdog.call();
            let _point = Point { name, place, meanwhile };
            match stage.meet_fate(&trace, place, meanwhile)? {
                Some(effect) => effects.push(effect),
                None => tally.step_by_step += 1,
            }
            tally.victims += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{fate:?} {name:<48} {:>6} {:>6} {seconds:>6.1} s", trace.len(), tally.victims);
    assert!(trace.len() >= instructions_least, "{name}: these are not all instructions");
    assert!(effects.is_sorted(), "{name}: took effect, and then did not: {effects:?}");
    let ends = [effects.first(), effects.last()];
    assert_eq!(ends, [Some(&false), Some(&(effect != Effect::Nothing))], "{name}: before the first, after the last");
    Ok(tally)
}

fn go_through_all(fate: Fate, durability: Durability) {
    let watchdog = Watchdog::start();
    // Others may wait for one who is stopped while it opens or closes a store of durability `power`.
    let chosen = |operation: &Operation| {
        operation.durability == durability && (fate == Fate::Killed || !operation.holds_off_others)
    };
    println!("\n{:<56} instr.  times", format!("{fate:?}, durability {durability:?}"));
    let mut total = Tally::default();
    for number in (0..OPERATIONS.len()).filter(|number| chosen(&OPERATIONS[*number])) {
        match go_through(fate, number, &watchdog) {
            Ok(Tally { victims, instructions, step_by_step }) => {
                total.victims += victims;
                total.instructions += instructions;
                total.step_by_step += step_by_step;
            }
            Err(error) => return ptrace::explain(error),
        }
    }
    let Tally { victims, instructions, step_by_step } = total;
    println!("{fate:?} {victims} times at {instructions} instructions, all well; {step_by_step} taken there by steps");
    assert!(instructions >= 5_000 && victims >= 10_000, "only {victims} at {instructions}");
}

#[test]
#[ignore = "takes long in a debug build"]
fn killed_at_each_instruction() {
    go_through_all(Fate::Killed, Durability::Process);
}

#[test]
#[ignore = "takes long in a debug build"]
fn killed_at_each_instruction_with_durability_power() {
    go_through_all(Fate::Killed, Durability::Power);
}

#[test]
#[ignore = "takes long in a debug build"]
fn stopped_at_each_instruction() {
    go_through_all(Fate::Stopped, Durability::Process);
}

#[test]
#[ignore = "takes long in a debug build"]
fn stopped_at_each_instruction_with_durability_power() {
    go_through_all(Fate::Stopped, Durability::Power);
}
