//! Hosts in a world of faults, and what must hold there.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casblock::ats::Ats;
use casblock::device::{Faults, Faulty, Link};
use casblock::environment::Environment as _;
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostError, HostName};
use casblock::lease::{Lease, LeaseError, Mode};
use casblock::{Geometry, Store};

use super::machine::Machine;
use super::world::{HostTime, World, WorldTime};

/// A fault that is planted, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// Hearts beat without comparing: whoever was fenced goes on.
    BeatWithoutCompare,
    /// Leases are taken from the dead without shutting them out first.
    BreakWithoutFencing,
    /// Hosts judge by clocks that people set.
    ClocksThatAreSet,
    /// Hosts take another for dead by the time that it wrote itself, compared with their own.
    RemoteClocksCompared,
}

/// What happens in a world.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub hosts: usize,
    /// Leases that the hosts fight for.
    pub leases: u64,
    pub length: Duration,
    pub faults: Faults,
    /// Chance of a pause at each sleep, and the longest.
    pub pause: (f64, Duration),
    /// Whether hosts crash and come back, and are cut off.
    pub trouble: bool,
    /// Hosts only crash, and wait for leases without end: how long a dead one's lease may be out of their hands.
    pub bound: Option<Duration>,
    /// Whether each machine stands still for a while, with its clock: no host can know that by itself, and so cannot stop in
    /// time. It must have stopped one beat later.
    pub frozen: bool,
    pub planted: Option<Planted>,
}

/// What was seen in one or more worlds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    pub acquired: u64,
    pub shared: u64,
    pub broken: u64,
    pub losses: u64,
    pub crashes: u64,
    pub cuts: u64,
    pub upgrades: u64,
    /// Leases of the dead that were had in time.
    pub inherited: u64,
    pub steps: u64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.acquired += other.acquired;
        self.shared += other.shared;
        self.broken += other.broken;
        self.losses += other.losses;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.upgrades += other.upgrades;
        self.inherited += other.inherited;
        self.steps += other.steps;
    }
}

type Disk = Machine<Faulty<Store, WorldTime>>;
type Member = Host<Arc<Disk>, Arc<HostTime>>;
type Held = Lease<Arc<Disk>, Arc<HostTime>>;

/// What somebody has in his hands.
enum InHand {
    Lease(Held),
    /// It is being upgraded or downgraded: till that is answered he may share it, no more.
    Changing,
    Nothing,
}

/// A lease in somebody's hands, until he lets it go.
#[derive(Clone)]
struct Hand(Arc<Mutex<InHand>>, Arc<Member>);

impl Hand {
    fn take(&self, leave: InHand) -> Option<Held> {
        match std::mem::replace(&mut *self.0.lock().unwrap(), leave) {
            InHand::Lease(lease) => Some(lease),
            InHand::Changing | InHand::Nothing => None,
        }
    }

    /// Lets a lease be changed, and has it again afterwards, whatever came of it.
    fn change<T>(&self, how: impl FnOnce(&mut Held) -> T) -> Option<T> {
        let mut lease = self.take(InHand::Changing)?;
        let done = how(&mut lease);
        *self.0.lock().unwrap() = InHand::Lease(lease);
        Some(done)
    }

    /// How its holder has it, if he may act as such by his own view.
    fn valid(&self) -> Option<Mode> {
        match &*self.0.lock().unwrap() {
            InHand::Lease(lease) => lease.is_valid().then(|| lease.mode()),
            InHand::Changing => self.1.is_current().then_some(Mode::Shared),
            InHand::Nothing => None,
        }
    }

    /// The same at this instant: one whose machine stands still does nothing.
    fn claim(&self) -> Option<Mode> {
        if self.1.environment().is_frozen() { None } else { self.valid() }
    }

    /// For messages.
    fn name(&self) -> String {
        match &*self.0.lock().unwrap() {
            InHand::Lease(lease) => format!("{lease:?}"),
            InHand::Changing => format!("being changed by {:?}", self.1),
            InHand::Nothing => "given back".into(),
        }
    }
}

/// What all that happens is held against.
#[derive(Default)]
struct Judge {
    /// Whether two may claim a lease for as long as a beat takes.
    lenient: bool,
    /// All that are held, by lease.
    held: Mutex<HashMap<u64, Vec<Hand>>>,
    /// Since when two claim a lease.
    doubled: Mutex<HashMap<u64, Duration>>,
    /// All tokens that were given, by lease.
    tokens: Mutex<HashMap<u64, BTreeSet<u64>>>,
    /// Since when a lease's holder is dead.
    dead: Mutex<HashMap<u64, Duration>>,
    /// Who waits for which lease, and since when.
    waiting: Mutex<HashMap<(usize, u64), Duration>>,
    seen: Mutex<Seen>,
}

impl Judge {
    fn count(&self, how: impl FnOnce(&mut Seen)) {
        how(&mut self.seen.lock().unwrap());
    }

    /// Takes note of a lease that was acquired, or upgraded.
    fn acquired(&self, host: &Arc<Member>, lease: Held, greatest: u64) -> Hand {
        let (number, mode) = (lease.number(), lease.mode());
        self.note_token(&lease, greatest);
        if self.dead.lock().unwrap().remove(&number).is_some() {
            self.count(|seen| seen.inherited += 1);
        }
        self.count(|seen| {
            seen.acquired += 1;
            seen.shared += u64::from(mode == Mode::Shared);
        });
        let hand = Hand(Arc::new(Mutex::new(InHand::Lease(lease))), Arc::clone(host));
        let mut held = self.held.lock().unwrap();
        let hands = held.entry(number).or_default();
        // A host whose last hand this is leaves, which takes time: not while others wait for the lock.
        let past: Vec<Hand> = hands.extract_if(.., |hand| hand.valid().is_none()).collect();
        hands.push(hand.clone());
        drop(held);
        drop(past);
        self.look_at(number);
        hand
    }

    /// The greatest token of a lease so far.
    fn greatest(&self, number: u64) -> u64 {
        self.tokens.lock().unwrap().get(&number).and_then(|given| given.last().copied()).unwrap_or(0)
    }

    /// Takes note of a token that was given by what began when `greatest` was the greatest. Several who share a lease may hear of
    /// theirs in another order; one who has it alone has the greatest.
    fn note_token(&self, lease: &Held, greatest: u64) {
        let (number, token) = (lease.number(), lease.token());
        let all = if lease.mode() == Mode::Exclusive { self.greatest(number) } else { greatest };
        assert!(token > greatest.max(all), "lease {number}: token {token} after {greatest}, {all}");
        let is_new = self.tokens.lock().unwrap().entry(number).or_default().insert(token);
        assert!(is_new, "lease {number}: token {token} was given twice");
    }

    /// A host is dead: its leases are to be had by those who wait.
    fn died(&self, id: usize, host: &Arc<Member>, now: Duration) {
        for (number, hands) in &*self.held.lock().unwrap() {
            if hands.iter().any(|hand| Arc::ptr_eq(&hand.1, host) && hand.valid() == Some(Mode::Exclusive)) {
                self.dead.lock().unwrap().insert(*number, now);
            }
        }
        self.waiting.lock().unwrap().retain(|(waiter, _), _| *waiter != id);
    }

    /// Whoever waits for a lease of the dead must not do so for longer than `bound`.
    fn look_at_the_dead(&self, now: Duration, bound: Duration) {
        for (number, died) in &*self.dead.lock().unwrap() {
            for ((waiter, _), since) in self.waiting.lock().unwrap().iter().filter(|((_, lease), _)| lease == number) {
                let waited = now - *died.max(since);
                assert!(waited <= bound, "host {waiter} waits for lease {number} of a dead host for {waited:?}");
            }
        }
    }

    /// Looks at a lease: it must not be claimed by two.
    fn look_at(&self, number: u64) {
        let held = self.held.lock().unwrap();
        let wrong = held.get(&number).filter(|hands| !self.lenient && is_doubled(hands)).map(|hands| names(hands));
        drop(held);
        assert!(wrong.is_none(), "two hosts hold lease {number}: {wrong:?}");
    }

    /// Looks at all leases: none may be claimed by two for longer than a beat takes.
    fn look(&self, now: Duration, most: Duration) {
        for (number, hands) in &*self.held.lock().unwrap() {
            let mut doubled = self.doubled.lock().unwrap();
            if !is_doubled(hands) {
                doubled.remove(number);
                continue;
            }
            let since = *doubled.entry(*number).or_insert(now);
            // The locks are poisoned then; it is the end of the world.
            assert!(now - since <= most, "two hosts hold lease {number} for longer than a beat: {:?}", names(hands));
        }
    }
}

/// Whether two claim a lease that one must have alone.
fn is_doubled(hands: &[Hand]) -> bool {
    let claims: Vec<Mode> = hands.iter().filter_map(Hand::claim).collect();
    claims.len() > 1 && claims.contains(&Mode::Exclusive)
}

fn names(hands: &[Hand]) -> Vec<String> {
    hands.iter().map(Hand::name).collect()
}

/// One world.
struct Stage {
    scenario: Scenario,
    world: Arc<World>,
    network: Faulty<Store, WorldTime>,
    judge: Judge,
}

/// How long a beat takes at most, from the last one's end, in a world whose disk answers at once: by the slowest clock.
const BEAT_MOST: Duration = Duration::from_secs(4);

/// Runs a world, and panics if anything in it is wrong.
pub fn run(scenario: &Scenario) -> Seen {
    let world = World::new(scenario.seed, scenario.length);
    let store = Store::in_memory(Geometry::blocks(64)).unwrap();
    // The network between hosts and disk has no words: hearts beat in blocks.
    let options = ClusterOptions { leases: scenario.leases, ..ClusterOptions::hosts(scenario.hosts as u32 + 2) };
    // As a disk has none.
    let bare = Faulty::in_environment(store.clone(), Faults::none(0), WorldTime(Arc::clone(&world)));
    Cluster::create(&Ats::new(bare), options, false).unwrap();
    let network = Faulty::in_environment(store, scenario.faults.clone(), WorldTime(Arc::clone(&world)));
    let judge = Judge { lenient: scenario.frozen, ..Judge::default() };
    let stage = Arc::new(Stage { scenario: scenario.clone(), world: Arc::clone(&world), network, judge });
    if scenario.frozen {
        let stage = Arc::clone(&stage);
        world.spawn(move || {
            loop {
                stage.world.sleep(Duration::from_millis(500));
                stage.judge.look(stage.world.now(), BEAT_MOST);
            }
        });
    }
    if let Some(bound) = scenario.bound {
        let stage = Arc::clone(&stage);
        world.spawn(move || {
            loop {
                stage.world.sleep(Duration::from_millis(500));
                stage.judge.look_at_the_dead(stage.world.now(), bound);
            }
        });
    }
    for number in 0..scenario.hosts {
        let stage = Arc::clone(&stage);
        world.spawn(move || live(&stage, number));
    }
    world.run();
    stage.judge.held.lock().unwrap().clear();
    let mut seen = *stage.judge.seen.lock().unwrap();
    seen.steps = world.steps();
    seen
}

/// A machine: it boots, joins, works, is lost or crashes, and boots again.
fn live(stage: &Arc<Stage>, number: usize) {
    let world = &stage.world;
    let throw = |how: fn(&mut fastrand::Rng) -> f64| world.throw(how);
    world.sleep(Duration::from_secs(3).mul_f64(throw(fastrand::Rng::f64)));
    loop {
        let jump = (stage.scenario.planted == Some(Planted::ClocksThatAreSet))
            .then(|| (stage.scenario.length.mul_f64(throw(fastrand::Rng::f64)), Duration::from_secs(3600)));
        let frozen = stage.scenario.frozen.then(|| {
            let from = world.now() + Duration::from_secs(60).mul_f64(throw(fastrand::Rng::f64));
            (from, from + Duration::from_secs(20) + Duration::from_secs(40).mul_f64(throw(fastrand::Rng::f64)))
        });
        let time = Arc::new(HostTime {
            world: Arc::clone(world),
            epoch: Duration::from_secs(86_400 * 365).mul_f64(40.0 * throw(fastrand::Rng::f64)),
            rate: 0.9 + 0.2 * throw(fastrand::Rng::f64),
            pause: stage.scenario.pause,
            jump,
            frozen,
        });
        let device = stage.network.another_host();
        let disk = Arc::new(Machine { device, planted: stage.scenario.planted, time: Arc::clone(&time) });
        let name = HostName::new(format!("host-{number}")).unwrap();
        let joined = Host::join_by_hand(Arc::clone(&disk), HostConfig::new(name), time);
        let Ok(host) = joined else {
            // The device did not answer, or the host of before still seems to live.
            world.sleep(Duration::from_secs(2));
            continue;
        };
        let host = Arc::new(host);
        let mut actors = Vec::new();
        for work in [beat as fn(usize, &Arc<Stage>, &Arc<Member>), tidy, work] {
            let (stage, host) = (Arc::clone(stage), Arc::clone(&host));
            actors.push(world.spawn(move || work(number, &stage, &host)));
        }
        // The machine's fate.
        loop {
            world.sleep(Duration::from_secs(1));
            if host.loss().is_some() {
                stage.judge.count(|seen| seen.losses += 1);
                break;
            }
            if !stage.scenario.trouble {
                continue;
            }
            match world.throw(|dice| dice.u32(..400)) {
                0 => {
                    // Whatever it is doing, it never does anything again; what it sent may still arrive.
                    actors.iter().for_each(|actor| world.crash(*actor));
                    stage.judge.died(number, &host, world.now());
                    stage.judge.count(|seen| seen.crashes += 1);
                    std::mem::forget(host);
                    break;
                }
                1..4 if stage.scenario.bound.is_none() => {
                    let link = if world.throw(|dice| dice.bool()) { Link::Down } else { Link::AnswersLost };
                    disk.device.set_link(link);
                    stage.judge.count(|seen| seen.cuts += 1);
                }
                4..40 => disk.device.set_link(Link::Up),
                _ => {}
            }
        }
        world.sleep(Duration::from_secs(5).mul_f64(throw(fastrand::Rng::f64)));
    }
}

/// A host's heart.
fn beat(_: usize, _: &Arc<Stage>, host: &Arc<Member>) {
    let (time, interval) = (host.environment(), host.cluster().timing().interval);
    loop {
        let started = time.now();
        if let Err(HostError::Lost(_)) = host.beat() {
            return;
        }
        time.sleep(interval.saturating_sub(time.now() - started));
    }
}

/// A host's tidying, apart from its heart.
fn tidy(_: usize, _: &Arc<Stage>, host: &Arc<Member>) {
    while host.loss().is_none() {
        host.tidy();
        host.environment().sleep(host.cluster().timing().interval);
    }
}

/// What a host is there for.
fn work(id: usize, stage: &Arc<Stage>, host: &Arc<Member>) {
    let world = &stage.world;
    while host.loss().is_none() {
        let (number, shared, patience) = world
            .throw(|dice| (dice.u64(..stage.scenario.leases), dice.u32(..3) == 0, Duration::from_secs(dice.u64(..40))));
        let mode = if shared { Mode::Shared } else { Mode::Exclusive };
        let patience = if stage.scenario.bound.is_some() { stage.scenario.length } else { patience };
        let (before, greatest) = (host.lease(number).ok(), stage.judge.greatest(number));
        stage.judge.waiting.lock().unwrap().insert((id, number), world.now());
        let acquired = host.acquire(number, mode, patience);
        stage.judge.waiting.lock().unwrap().remove(&(id, number));
        match acquired {
            Ok(lease) => {
                let took_over = before.is_some_and(|view| view.token + 1 == lease.token() && view.mode.is_some());
                stage.judge.count(|seen| seen.broken += u64::from(took_over && mode == Mode::Exclusive));
                hold(stage, host, lease, greatest);
            }
            Err(LeaseError::Host(_)) => return,
            Err(_) => {}
        }
        world.sleep(world.throw(|dice| Duration::from_millis(dice.u64(..3000))));
    }
}

/// Holds a lease for a while, changes it perhaps, and lets it go in one way or another.
fn hold(stage: &Arc<Stage>, host: &Arc<Member>, lease: Held, greatest: u64) {
    let (world, judge) = (&stage.world, &stage.judge);
    let (number, mode) = (lease.number(), lease.mode());
    let hand = judge.acquired(host, lease, greatest);
    world.sleep(world.throw(|dice| Duration::from_millis(dice.u64(..20_000))));
    let what = world.throw(|dice| dice.u32(..10));
    if what < 3 {
        let greatest = judge.greatest(number);
        let changed = hand.change(|lease| match mode {
            Mode::Shared => lease.try_upgrade(),
            Mode::Exclusive => lease.downgrade(),
        });
        let is_upgraded = mode == Mode::Shared && matches!(changed, Some(Ok(())));
        judge.count(|seen| seen.upgrades += u64::from(is_upgraded));
        if is_upgraded && let InHand::Lease(lease) = &*hand.0.lock().unwrap() {
            judge.note_token(lease, greatest);
        }
        // It is his, shared or not, whatever came of it.
        judge.look_at(number);
        world.sleep(world.throw(|dice| Duration::from_millis(dice.u64(..20_000))));
        judge.look_at(number);
    }
    match hand.take(InHand::Nothing) {
        Some(lease) if what % 2 == 0 => drop(lease),
        Some(lease) => drop(lease.release()),
        None => {}
    }
}
