//! A world with its own time, in which one actor runs at a time: the same course for the same seed.
//!
//! Actors are threads that hand a baton on: who sleeps, lets the one run whose time comes next. So blocking code runs as it is.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use casblock::environment::Environment;

/// What an actor unwinds with when the world ends.
struct TheEnd;

/// The world.
pub struct World {
    state: Mutex<State>,
    /// Whether it has ended. Set while `state` is held.
    ended: AtomicBool,
    /// Told when it has.
    end: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct State {
    now: Duration,
    end: Duration,
    /// Who runs next, and when: by time, then by who came first.
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    queued: u64,
    actors: Vec<Actor>,
    /// The first panic of an actor.
    failure: Option<Box<dyn std::any::Any + Send>>,
    dice: fastrand::Rng,
    steps: u64,
}

struct Actor {
    thread: Thread,
    /// Whether it was given the baton, and has not taken it yet.
    turn: Arc<AtomicBool>,
    crashed: bool,
}

impl Actor {
    fn wake(&self) {
        self.turn.store(true, SeqCst);
        self.thread.unpark();
    }
}

thread_local! {
    /// The actor that this thread is, and whether its turn has come.
    static ACTOR: RefCell<Option<(usize, Arc<AtomicBool>)>> = const { RefCell::new(None) };
}

/// Whether this thread is an actor: what it panics with is told by [`World::run`].
pub fn is_actor() -> bool {
    ACTOR.with_borrow(Option::is_some)
}

impl World {
    /// A world that ends after `length`.
    pub fn new(seed: u64, length: Duration) -> Arc<Self> {
        let state = State {
            now: Duration::ZERO,
            end: length,
            queue: BinaryHeap::new(),
            queued: 0,
            actors: Vec::new(),
            failure: None,
            dice: fastrand::Rng::with_seed(seed),
            steps: 0,
        };
        let (ended, end) = (AtomicBool::new(false), Condvar::new());
        Arc::new(Self { state: Mutex::new(state), ended, end, threads: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The world's time.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// How often the baton was handed on.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// A throw of the world's dice.
    pub fn throw<T>(&self, how: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        how(&mut self.state().dice)
    }

    /// Adds an actor, who begins now; its number.
    pub fn spawn(self: &Arc<Self>, act: impl FnOnce() + Send + 'static) -> usize {
        // Nobody gives it the baton before it is one of the actors.
        let mut state = self.state();
        let (actor, turn) = (state.actors.len(), Arc::new(AtomicBool::new(false)));
        let (world, its_turn) = (Arc::clone(self), Arc::clone(&turn));
        let thread = thread::spawn(move || {
            ACTOR.set(Some((actor, Arc::clone(&its_turn))));
            let done = catch_unwind(AssertUnwindSafe(|| {
                world.wait_for(&its_turn);
                act();
            }));
            let mut state = world.state();
            if let Err(panic) = done
                && !panic.is::<TheEnd>()
            {
                state.failure.get_or_insert(panic);
                world.end(&state);
            }
            world.hand_on(state, None);
        });
        state.actors.push(Actor { thread: thread.thread().clone(), turn, crashed: false });
        state.enqueue(actor, Duration::ZERO);
        drop(state);
        self.threads.lock().unwrap().push(thread);
        actor
    }

    /// The actor never runs again: as if killed, wherever it is.
    pub fn crash(&self, actor: usize) {
        self.state().actors[actor].crashed = true;
    }

    /// Lets the world run until it ends, and panics if an actor has.
    pub fn run(&self) {
        self.hand_on(self.state(), None);
        let mut state = self.state();
        while !self.ended.load(SeqCst) {
            state = self.end.wait(state).unwrap();
        }
        drop(state);
        loop {
            let Some(thread) = self.threads.lock().unwrap().pop() else { break };
            thread.join().expect("an actor's panic is caught");
        }
        if let Some(failure) = self.state().failure.take() {
            resume_unwind(failure);
        }
    }

    fn end(&self, state: &State) {
        self.ended.store(true, SeqCst);
        state.actors.iter().for_each(Actor::wake);
        self.end.notify_all();
    }

    /// Gives the baton to whoever is next; whether that is `me`.
    fn hand_on(&self, mut state: MutexGuard<'_, State>, me: Option<usize>) -> bool {
        state.steps += 1;
        let next = if self.ended.load(SeqCst) { None } else { state.next() };
        let Some(next) = next else {
            self.end(&state);
            return false;
        };
        if Some(next) == me {
            return true;
        }
        let Actor { thread, turn, .. } = &state.actors[next];
        turn.store(true, SeqCst);
        // Woken after the world is let go, which it wants next.
        let thread = thread.clone();
        drop(state);
        thread.unpark();
        false
    }

    fn wait_for(&self, turn: &AtomicBool) {
        while !turn.swap(false, SeqCst) {
            thread::park();
        }
        if self.ended.load(SeqCst) && !thread::panicking() {
            resume_unwind(Box::new(TheEnd));
        }
    }

    /// Lets the others run until that time has passed.
    pub fn sleep(&self, time: Duration) {
        let mut state = self.state();
        if self.ended.load(SeqCst) {
            // Of what is dropped now some waits; it has nobody to wait for.
            state.now += time;
            return;
        }
        let (me, turn) = ACTOR.with_borrow(Clone::clone).expect("only actors sleep");
        state.enqueue(me, time);
        if !self.hand_on(state, Some(me)) {
            self.wait_for(&turn);
        }
    }
}

impl State {
    fn enqueue(&mut self, actor: usize, after: Duration) {
        self.queued += 1;
        self.queue.push(Reverse((self.now + after, self.queued, actor)));
    }

    /// Who is next, at whose time it is then; nobody at the end.
    fn next(&mut self) -> Option<usize> {
        while let Some(Reverse((time, _, actor))) = self.queue.pop() {
            if !self.actors[actor].crashed {
                self.now = if time <= self.end { time } else { self.now };
                return (time <= self.end).then_some(actor);
            }
        }
        None
    }
}

/// The world's own time: what networks and disks live in.
#[derive(Clone)]
pub struct WorldTime(pub Arc<World>);

impl Environment for WorldTime {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time);
    }

    fn random(&self) -> u128 {
        self.0.throw(|dice| dice.u128(..))
    }
}

/// A host's own time: its clock began when it liked, and runs faster or slower than others.
pub struct HostTime {
    /// The world.
    pub world: Arc<World>,
    /// What its clock showed at the world's beginning.
    pub epoch: Duration,
    /// How much faster than the world's its clock runs: 0.9 to 1.1.
    pub rate: f64,
    /// Chance that a sleep, or a moment before or after a request, takes much longer, and how long at most: the machine was
    /// suspended, or swapping.
    pub pause: (f64, Duration),
    /// A fault: its clock is one that people set. When, and by how much.
    pub jump: Option<(Duration, Duration)>,
    /// When the machine and its clock stand still, from and to: a virtual machine that is stopped, and not told.
    pub frozen: Option<(Duration, Duration)>,
}

impl HostTime {
    /// Whether the machine stands still.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some_and(|(from, to)| (from..to).contains(&self.world.now()))
    }

    /// Stands still for a while, if the machine does.
    pub fn pause_perhaps(&self) {
        let (chance, most) = self.pause;
        let pause = self.world.throw(|dice| (dice.f64() < chance).then(|| most.mul_f64(dice.f64())));
        if let Some(pause) = pause {
            self.world.sleep(pause);
        }
        if self.is_frozen() {
            let (_, to) = self.frozen.expect("it is");
            self.world.sleep(to - self.world.now());
        }
    }
}

impl Environment for HostTime {
    fn now(&self) -> Duration {
        let now = self.world.now();
        let jumped = self.jump.filter(|(when, _)| *when <= now).map_or(Duration::ZERO, |(_, by)| by);
        let stood = self.frozen.map_or(Duration::ZERO, |(from, to)| now.clamp(from, to) - from);
        self.epoch + (now - stood).mul_f64(self.rate) + jumped
    }

    fn sleep(&self, time: Duration) {
        self.world.sleep(time.div_f64(self.rate));
        self.pause_perhaps();
    }

    fn random(&self) -> u128 {
        self.world.throw(|dice| dice.u128(..))
    }
}
