//! The scheduler: threads that take turns, one step after the other, as a seed decides.
//!
//! Only one thread runs at a time. It passes the turn on before some of its atomic operations, and wherever it would wait.
//! So a run is the same whenever it has the same seed; and what one thread stores is what the next one finds.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};

use casblock::{Stored, Watch};
use fastrand::Rng;

use crate::log::{Flush, Log, Outcome};
use crate::mappings::{Mappings, Place, drop_locks, separate_descriptors};

/// A step after which a run that does not end is given up.
const STEPS_MAX: u64 = 20_000_000;

/// How often threads may wait one after the other without a step in between.
const IDLE_MAX: u32 = 10_000;

/// What takes the place of a store: a fault that is planted. Asked after each store; what it gives is stored over it.
pub type Meddle = Box<dyn FnMut(Place, &Stored) -> Option<u64> + Send>;

/// How threads take turns.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A turn takes twice as many steps at the most.
    pub turn: u32,
    /// A flush takes as many steps of others at the most.
    pub flush: u64,
    /// One flush of so many fails; 0 for none.
    pub flushes_per_failure: u32,
    /// Whether a flush may fail whose process is stopped or killed in it while others have the store open. Nobody tells
    /// those who open it later.
    pub unnoticed_failures: bool,
    /// After one exchange of so many the thread rests while others go on; 0 for none.
    pub exchanges_per_rest: u32,
    /// And after one turn of so many.
    pub turns_per_rest: u32,
}

/// When a process ends before its time.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// The process.
    pub process: usize,
    /// When that is.
    pub when: When,
    /// Whether its locks go, as a killed process's do, or stay, as those of one that was stopped.
    pub killed: bool,
}

/// A moment of a process: as many steps later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// All steps of its threads count.
    Steps(u64),
    /// Those in which it opens or closes the store.
    StepsAtDoor(u64),
    /// Only exchanges of theirs; the moment is one to three steps after the last.
    Exchanges(u64),
    /// Only their flushes; the moment is in the last.
    Flushes(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Runs,
    /// Stopped for good.
    Stopped,
    Done,
}

/// What is known of a thread.
#[derive(Clone, Copy, Debug)]
struct Thread {
    process: usize,
    state: State,
    /// It rests up to this step, if another can go on.
    rests_until: u64,
}

/// What is known of a process.
#[derive(Clone, Default, Debug)]
struct Process {
    /// Whether it is opening or closing the store.
    at_door: bool,
    /// Whether it has the store open.
    open: bool,
    /// Whether it was killed.
    killed: bool,
    /// Whether it may not be stopped now.
    sheltered: bool,
    /// The flush that it is in: when that began, and of which file.
    flushing: Option<(u64, u64)>,
    /// How many of the failed flushes its open file has been told of, or were before it was opened.
    told: u32,
}

/// What changes from step to step. Whoever has the turn has it alone.
struct Course {
    rng: Rng,
    pace: Pace,
    log: Log,
    mappings: Mappings,
    threads: Vec<Thread>,
    deaths: Vec<Death>,
    turn: usize,
    /// Steps left of this turn.
    left: u32,
    idle: u32,
    /// How many flushes have failed to write something.
    failures: u32,
    over: bool,
    /// The file, once it is known.
    inode: Option<u64>,
    /// Whether the store has been made.
    made: bool,
    processes: Vec<Process>,
    meddle: Option<Meddle>,
    /// What happens at the end, before the threads are let go.
    at_end: Option<AtEnd>,
}

type AtEnd = Box<dyn FnOnce(&mut Log) + Send>;

/// Threads that take turns.
pub struct World {
    course: Mutex<Course>,
    turns: Vec<Condvar>,
}

/// A thread's place in the world.
pub struct Seat {
    world: Arc<World>,
    /// The thread's number.
    pub thread: usize,
    /// The process's number.
    pub process: usize,
}

impl World {
    /// A world of as many threads as `processes` is long, each of the process named there. `at_end` is called when all
    /// have ended or were stopped.
    pub fn new(
        seed: u64,
        pace: Pace,
        processes: &[usize],
        deaths: Vec<Death>,
        at_end: impl FnOnce(&mut Log) + Send + 'static,
    ) -> Arc<Self> {
        let course = Course {
            rng: Rng::with_seed(seed),
            pace,
            log: Log::default(),
            mappings: Mappings::default(),
            threads: processes.iter().map(|&process| Thread { process, state: State::Runs, rests_until: 0 }).collect(),
            deaths,
            turn: 0,
            left: 1,
            idle: 0,
            failures: 0,
            over: false,
            inode: None,
            made: false,
            processes: vec![Process::default(); processes.len()],
            meddle: None,
            at_end: Some(Box::new(at_end)),
        };
        Arc::new(Self { course: Mutex::new(course), turns: processes.iter().map(|_| Condvar::new()).collect() })
    }

    /// Has `meddle` asked after each store.
    pub fn meddle(&self, meddle: Meddle) {
        self.course().meddle = Some(meddle);
    }

    /// The file that the processes open. It has been made.
    pub fn set_inode(&self, inode: u64) {
        let mut course = self.course();
        (course.inode, course.made) = (Some(inode), true);
    }

    /// Runs `thread` in each of the threads; gives what was logged.
    pub fn run(self: Arc<Self>, thread: impl Fn(&Seat) + Sync) -> Log {
        let threads: Vec<usize> = self.course().threads.iter().map(|thread| thread.process).collect();
        let processes = threads.iter().max().map_or(0, |last| last + 1);
        let all_separate = Barrier::new(processes);
        let seats = threads.iter().enumerate().map(|(thread, &process)| (thread, process));
        std::thread::scope(|scope| {
            for process in 0..processes {
                let mut seats = seats.clone().filter(|(_, of)| *of == process).map(|(thread, process)| Seat {
                    world: Arc::clone(&self),
                    thread,
                    process,
                });
                let first = seats.next().expect("a process has a thread");
                let (others, thread, all_separate): (Vec<Seat>, _, _) = (seats.collect(), &thread, &all_separate);
                scope.spawn(move || {
                    // The threads of a process share their descriptors, and have none of other processes'. Those of
                    // the first are this one's, which has no other store: /proc/self/fd shows them.
                    if process > 0 {
                        separate_descriptors();
                    }
                    all_separate.wait();
                    std::thread::scope(|scope| {
                        for other in others {
                            scope.spawn(move || other.live(thread));
                        }
                        first.live(thread);
                    });
                });
            }
        });
        std::mem::take(&mut self.course().log)
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Course {
    /// Passes the turn on, to another thread if there is one and `yields` says so; or ends the run.
    fn pass(&mut self, yields: bool) {
        let runs = |thread: &usize| self.threads[*thread].state == State::Runs;
        let rests_until = |thread: &usize| self.threads[*thread].rests_until;
        let mut choice: Vec<usize> = (0..self.threads.len()).filter(runs).collect();
        let up = choice.iter().map(rests_until).min().unwrap_or(0).max(self.log.time);
        choice.retain(|thread| rests_until(thread) <= up);
        if yields && choice.len() > 1 {
            choice.retain(|thread| *thread != self.turn);
        }
        let Some(next) = self.rng.choice(choice) else { return self.end() };
        self.turn = next;
        self.left = 1 + self.rng.u32(0..2 * self.pace.turn);
    }

    /// What a flush of this process comes to. The kernel tells of each failure once by every file that was open then.
    fn outcome(&mut self, process: usize, one_in: u32) -> Outcome {
        // While the store is made the disk is well.
        let lost = self.made && one_in > 0 && self.rng.u32(0..one_in) == 0;
        self.failures += u32::from(lost);
        let told = std::mem::replace(&mut self.processes[process].told, self.failures);
        match (lost, told < self.failures) {
            (true, _) => Outcome::Lost,
            (false, true) => Outcome::Told,
            (false, false) => Outcome::Done,
        }
    }

    /// A process that ends in a flush may have been told by the kernel of a failure, and not come to tell others.
    fn dies_in_flush(&mut self, process: usize) {
        let Some((begin, inode)) = self.processes[process].flushing.take() else { return };
        let others_stay =
            self.processes.iter().enumerate().any(|(other, it)| other != process && it.open && !it.killed);
        let noticed = self.processes[process].killed && !others_stay;
        if (noticed || self.pace.unnoticed_failures)
            && self.outcome(process, self.pace.flushes_per_failure.min(2)) == Outcome::Lost
        {
            let end = self.log.time;
            self.log.flushes.push(Flush { begin, end, inode, outcome: Outcome::Lost, process });
        }
    }

    /// After an exchange of a thread.
    fn exchanged(&mut self, thread: usize) {
        let process = self.threads[thread].process;
        for death in self.deaths.iter_mut().filter(|death| death.process == process) {
            if let When::Exchanges(left) = &mut death.when {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    death.when = When::Steps(self.rng.u64(1..=3));
                }
            }
        }
        self.rest(thread, self.pace.exchanges_per_rest);
    }

    /// A process begins to flush.
    fn flush_begins(&mut self, process: usize) {
        for death in self.deaths.iter_mut().filter(|death| death.process == process) {
            if let When::Flushes(left) = &mut death.when {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    // The step that ends the flush is the last that is sure to come.
                    death.when = When::Steps(1);
                }
            }
        }
    }

    /// Lets a thread rest, one time of so many.
    fn rest(&mut self, thread: usize, one_in: u32) {
        if one_in > 0 && self.rng.u32(0..one_in) == 0 {
            let most = [20, 200, 2000][self.rng.usize(0..3)];
            self.threads[thread].rests_until = self.log.time + self.rng.u64(1..=most);
            self.left = 0;
        }
    }

    fn end(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            self.over = true;
            at_end(&mut self.log);
        }
    }

    fn give_up(&mut self, why: &str) {
        self.log.troubles.push(why.into());
        self.end();
    }

    /// Whether a step of this process was its last.
    fn dies(&mut self, process: usize) -> bool {
        if self.processes[process].sheltered {
            return false;
        }
        let at_door = self.processes[process].at_door;
        let counted = |death: &mut Death| match &mut death.when {
            _ if death.process != process => false,
            When::Steps(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            When::StepsAtDoor(left) => {
                *left = left.saturating_sub(u64::from(at_door));
                *left == 0
            }
            When::Exchanges(_) | When::Flushes(_) => false,
        };
        let Some(at) = self.deaths.iter_mut().position(counted) else { return false };
        let death = self.deaths.swap_remove(at);
        for thread in self.threads.iter_mut().filter(|it| it.process == process && it.state == State::Runs) {
            thread.state = State::Stopped;
        }
        let killed = death.killed && self.inode.is_some();
        if let Some(inode) = self.inode.filter(|_| killed) {
            drop_locks(inode);
        }
        self.processes[process].killed = killed;
        self.dies_in_flush(process);
        self.log.deaths.push((self.log.time, process, killed));
        true
    }
}

impl Seat {
    fn live(self, thread: impl Fn(&Self)) {
        let seat = Rc::new(self);
        seat.await_turn(seat.world.course());
        let run = || casblock::watched(Rc::clone(&seat) as Rc<dyn Watch>, || thread(&seat));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err();
        let mut course = seat.world.course();
        if course.over {
            return;
        }
        if panicked {
            let (thread, time) = (seat.thread, course.log.time);
            course.log.troubles.push(format!("thread {thread} panicked at step {time}"));
        }
        course.threads[seat.thread].state = State::Done;
        course.pass(false);
        seat.wake(&course);
    }

    fn wake(&self, course: &Course) {
        if course.over {
            self.world.turns.iter().for_each(Condvar::notify_all);
        } else {
            self.world.turns[course.turn].notify_all();
        }
    }

    fn await_turn(&self, course: MutexGuard<'_, Course>) {
        let not_yet = |course: &mut Course| {
            let runs = course.threads[self.thread].state == State::Runs;
            !(course.over || runs && course.turn == self.thread)
        };
        let turn = &self.world.turns[self.thread];
        drop(turn.wait_while(course, not_yet).unwrap_or_else(PoisonError::into_inner));
    }

    /// One step, or a wait; ends this thread's turn when it is up.
    fn advance(&self, waits: bool) {
        let mut course = self.world.course();
        if course.over {
            return;
        }
        course.log.time += 1;
        course.idle = if waits { course.idle + 1 } else { 0 };
        if course.log.time > STEPS_MAX {
            course.give_up("the run does not end");
        } else if course.idle > IDLE_MAX {
            course.give_up("all threads wait for each other");
        }
        let dies = course.dies(self.process);
        course.left = course.left.saturating_sub(1);
        if dies || waits || course.left == 0 {
            let one_in = course.pace.turns_per_rest;
            course.rest(self.thread, one_in);
            course.pass(waits || dies);
        }
        if course.over || course.turn != self.thread {
            self.wake(&course);
            self.await_turn(course);
        }
    }

    /// Steps done so far.
    pub fn now(&self) -> u64 {
        self.world.course().log.time
    }

    /// Whether the run is over; a thread that was stopped goes on then, and finds out here.
    pub fn is_over(&self) -> bool {
        self.world.course().over
    }

    /// Notes something in the log; not after the run.
    pub fn note(&self, note: impl FnOnce(&mut Log)) {
        let mut course = self.world.course();
        if !course.over {
            note(&mut course.log);
        }
    }

    /// Runs `f`, in which this thread's process is not stopped.
    pub fn sheltered<T>(&self, f: impl FnOnce() -> T) -> T {
        self.world.course().processes[self.process].sheltered = true;
        let result = f();
        self.world.course().processes[self.process].sheltered = false;
        result
    }

    /// Whether a process was killed: its locks are gone.
    pub fn was_killed(&self, process: usize) -> bool {
        self.world.course().processes[process].killed
    }

    /// Runs `f`, which makes or opens the store.
    pub fn opens<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.pass_door(|process, failures| (process.at_door, process.told) = (true, failures));
        let result = f();
        self.pass_door(|process, _| (process.at_door, process.open) = (false, result.is_ok()));
        result
    }

    /// Runs `f`, which closes it.
    pub fn closes(&self, f: impl FnOnce()) {
        self.pass_door(|process, _| process.at_door = true);
        f();
        self.pass_door(|process, _| (process.at_door, process.open) = (false, false));
    }

    /// What is mapped changes here, or has changed.
    fn pass_door(&self, pass: impl FnOnce(&mut Process, u32)) {
        let mut course = self.world.course();
        course.mappings.forget();
        let failures = course.failures;
        pass(&mut course.processes[self.process], failures);
    }

    /// The world has a file now.
    pub fn made(&self, inode: u64) {
        self.world.set_inode(inode);
    }
}

impl Watch for Seat {
    fn step(&self) {
        self.advance(false);
    }

    fn stored(&self, stored: Stored) {
        let mut course = self.world.course();
        if course.over {
            return;
        }
        let Course { mappings, log, meddle, .. } = &mut *course;
        let Some(place) = mappings.find(stored.address) else { return };
        log.store(place, stored, self.thread);
        if let Some(new) = meddle.as_mut().and_then(|meddle| meddle(place, &stored)) {
            put(stored, new);
            log.store(place, Stored { old: stored.new, new, exchanged: false, ..stored }, self.thread);
        }
        if stored.exchanged {
            course.exchanged(self.thread);
        }
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        self.advance(false);
        let inode = file.metadata()?.ino();
        let begin = {
            let mut course = self.world.course();
            let (begin, most) = (course.log.time, course.pace.flush);
            course.processes[self.process].flushing = Some((begin, inode));
            course.flush_begins(self.process);
            course.threads[self.thread].rests_until = begin + course.rng.u64(0..=most);
            begin
        };
        self.advance(true);
        self.advance(false);
        let mut course = self.world.course();
        if course.over {
            return Ok(());
        }
        course.processes[self.process].flushing = None;
        let one_in = course.pace.flushes_per_failure;
        let outcome = course.outcome(self.process, one_in);
        let end = course.log.time;
        course.log.flushes.push(Flush { begin, end, inode, outcome, process: self.process });
        if outcome == Outcome::Done { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
    }

    fn wait(&self) {
        self.advance(true);
    }
}

/// Stores over what was stored.
fn put(stored: Stored, new: u64) {
    use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
    match stored.bytes {
        2 => {
            let place = std::ptr::with_exposed_provenance_mut::<u16>(stored.address);
            // SAFETY: an atomic of this size was stored to there just now, and whoever did so is not done with it.
            unsafe { AtomicU16::from_ptr(place) }.store(new as u16, Relaxed);
        }
        8 => {
            let place = std::ptr::with_exposed_provenance_mut::<u64>(stored.address);
            // SAFETY: as above.
            unsafe { AtomicU64::from_ptr(place) }.store(new, Relaxed);
        }
        bytes => panic!("a store of {bytes} bytes"),
    }
}
