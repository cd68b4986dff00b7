//! A world with its own time, in which one actor runs at a time: the same course for the same seed.
//!
//! Actors are threads that hand a baton on: who sleeps, lets the one run whose time comes next. So blocking code runs as it is.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use casblock::environment::Environment;

/// What an actor unwinds with when the world ends.
struct TheEnd;

/// The world.
pub struct World {
    state: Mutex<State>,
    /// Told when the world has ended.
    ended: Condvar,
    actors: Mutex<Vec<JoinHandle<()>>>,
}

struct State {
    now: Duration,
    end: Duration,
    /// Who runs next, and when: by time, then by who came first.
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    queued: u64,
    /// Who has the baton.
    running: Option<usize>,
    ended: bool,
    crashed: Vec<bool>,
    wakers: Vec<Arc<Condvar>>,
    /// The first panic of an actor.
    failure: Option<Box<dyn std::any::Any + Send>>,
    dice: fastrand::Rng,
    steps: u64,
}

thread_local! {
    /// The actor that this thread is.
    static ACTOR: RefCell<Option<usize>> = const { RefCell::new(None) };
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
            running: None,
            ended: false,
            crashed: Vec::new(),
            wakers: Vec::new(),
            failure: None,
            dice: fastrand::Rng::with_seed(seed),
            steps: 0,
        };
        Arc::new(Self { state: Mutex::new(state), ended: Condvar::new(), actors: Mutex::default() })
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
        let mut state = self.state();
        let actor = state.wakers.len();
        state.wakers.push(Arc::default());
        state.crashed.push(false);
        state.enqueue(actor, Duration::ZERO);
        drop(state);
        let world = Arc::clone(self);
        let thread = thread::spawn(move || {
            ACTOR.set(Some(actor));
            let done = catch_unwind(AssertUnwindSafe(|| {
                world.wait_for_turn(world.state(), actor);
                act();
            }));
            let mut state = world.state();
            if let Err(panic) = done
                && !panic.is::<TheEnd>()
            {
                state.failure.get_or_insert(panic);
                state.ended = true;
            }
            world.hand_on(&mut state);
        });
        self.actors.lock().unwrap().push(thread);
        actor
    }

    /// The actor never runs again: as if killed, wherever it is.
    pub fn crash(&self, actor: usize) {
        self.state().crashed[actor] = true;
    }

    /// Lets the world run until it ends, and panics if an actor has.
    pub fn run(&self) {
        let mut state = self.state();
        self.hand_on(&mut state);
        while !state.ended {
            state = self.ended.wait(state).unwrap();
        }
        drop(state);
        loop {
            let Some(actor) = self.actors.lock().unwrap().pop() else { break };
            actor.join().expect("an actor's panic is caught");
        }
        if let Some(failure) = self.state().failure.take() {
            resume_unwind(failure);
        }
    }

    /// Gives the baton to whoever is next.
    fn hand_on(&self, state: &mut State) {
        state.steps += 1;
        state.running = None;
        while let Some(Reverse((time, _, actor))) = state.queue.pop() {
            if state.crashed[actor] {
                continue;
            }
            if time > state.end {
                break;
            }
            state.now = time;
            state.running = Some(actor);
            state.wakers[actor].notify_all();
            break;
        }
        if state.running.is_none() || state.ended {
            state.ended = true;
            state.wakers.iter().for_each(|waker| waker.notify_all());
            self.ended.notify_all();
        }
    }

    fn wait_for_turn(&self, mut state: MutexGuard<'_, State>, actor: usize) {
        let waker = Arc::clone(&state.wakers[actor]);
        while state.running != Some(actor) && !state.ended {
            state = waker.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.ended && !thread::panicking() {
            drop(state);
            resume_unwind(Box::new(TheEnd));
        }
    }

    /// Lets the others run until that time has passed.
    pub fn sleep(&self, time: Duration) {
        let mut state = self.state();
        if state.ended {
            // Of what is dropped now some waits; it has nobody to wait for.
            state.now += time;
            return;
        }
        let actor = ACTOR.with_borrow(|actor| *actor).expect("only actors sleep");
        state.enqueue(actor, time);
        self.hand_on(&mut state);
        self.wait_for_turn(state, actor);
    }
}

impl State {
    fn enqueue(&mut self, actor: usize, after: Duration) {
        self.queued += 1;
        self.queue.push(Reverse((self.now + after, self.queued, actor)));
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
