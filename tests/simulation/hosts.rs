//! Hosts in a world of faults, and what must hold there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casblock::ats::Ats;
use casblock::ats::record::payload;
use casblock::device::{BlockDevice, DeviceError, Faults, Faulty, Link};
use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostError, HostName};
use casblock::lease::{Lease, LeaseError, Mode};
use casblock::{Geometry, Store};

use super::world::{HostTime, World, WorldTime};

/// Leases that the hosts fight for.
const LEASES: u64 = 3;

/// A fault that is planted, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// Hearts beat without comparing: whoever was fenced goes on.
    BeatWithoutCompare,
    /// Leases are taken from the dead without shutting them out first.
    BreakWithoutFencing,
    /// Hosts judge by clocks that people set.
    ClocksThatAreSet,
}

/// What happens in a world.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub hosts: usize,
    pub length: Duration,
    pub faults: Faults,
    /// Chance of a pause at each sleep, and the longest.
    pub pause: (f64, Duration),
    /// Whether hosts crash and come back, and are cut off.
    pub trouble: bool,
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
        self.steps += other.steps;
    }
}

type Disk = PlantedIn<Faulty<Store, WorldTime>>;
type Member = Host<Arc<Disk>, HostTime>;
type Held = Lease<Arc<Disk>, HostTime>;

/// A device in which a fault is planted.
pub struct PlantedIn<D> {
    device: D,
    planted: Option<Planted>,
}

/// The state in a host's record: bits 40 and 41 of its beat.
fn state_of(block: &[u8]) -> Option<u64> {
    let is_host = block.get(4..8)? == b"host";
    let beat = u64::from_le_bytes(payload(block).get(..8)?.try_into().ok()?);
    is_host.then_some(beat >> 40 & 3)
}

impl<D: BlockDevice> BlockDevice for PlantedIn<D> {
    fn name(&self) -> Cow<'_, str> {
        self.device.name()
    }

    fn block_bytes(&self) -> usize {
        self.device.block_bytes()
    }

    fn block_count(&self) -> u64 {
        self.device.block_count()
    }

    fn compare_and_write_blocks_max(&self) -> u32 {
        self.device.compare_and_write_blocks_max()
    }

    fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read(lba, out)
    }

    fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.device.write(lba, data)
    }

    fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        const TAKEN: Option<u64> = Some(1);
        const FENCED: Option<u64> = Some(2);
        match self.planted {
            Some(Planted::BeatWithoutCompare) if state_of(expected) == TAKEN && state_of(new) == TAKEN => {
                self.device.write(lba, new)
            }
            Some(Planted::BreakWithoutFencing) if state_of(new) == FENCED => Ok(()),
            _ => self.device.compare_and_write(lba, expected, new),
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}

/// What all that happens is held against.
#[derive(Default)]
struct Judge {
    /// Leases in somebody's hands, by lease: who, and whether he may act.
    held: Mutex<HashMap<u64, Vec<Arc<Mutex<Option<Held>>>>>>,
    /// The greatest token of each lease that was got alone.
    tokens: Mutex<HashMap<u64, u64>>,
    seen: Mutex<Seen>,
}

impl Judge {
    fn count(&self, how: impl FnOnce(&mut Seen)) {
        how(&mut self.seen.lock().unwrap());
    }

    /// Takes note of a lease that was acquired, or upgraded.
    fn acquired(&self, lease: Held) -> Arc<Mutex<Option<Held>>> {
        let (number, mode, token) = (lease.number(), lease.mode(), lease.token());
        let mut held = self.held.lock().unwrap();
        let others = held.entry(number).or_default();
        for other in others.iter() {
            let other = other.lock().unwrap();
            let Some(other) = &*other else { continue };
            // By their own view, at this instant.
            if lease.is_valid() && other.is_valid() && (mode, other.mode()) != (Mode::Shared, Mode::Shared) {
                panic!("two hosts hold lease {number}: {lease:?} and {other:?}");
            }
        }
        if mode == Mode::Exclusive {
            let mut tokens = self.tokens.lock().unwrap();
            let greatest = tokens.entry(number).or_default();
            assert!(token > *greatest, "lease {number}: token {token} after {greatest}");
            *greatest = token;
        }
        self.count(|seen| {
            seen.acquired += 1;
            seen.shared += u64::from(mode == Mode::Shared);
        });
        let place = Arc::new(Mutex::new(Some(lease)));
        others.retain(|other| other.lock().unwrap().as_ref().is_some_and(Lease::is_valid));
        others.push(Arc::clone(&place));
        place
    }
}

/// One world.
struct Stage {
    scenario: Scenario,
    world: Arc<World>,
    network: Faulty<Store, WorldTime>,
    judge: Judge,
}

/// Runs a world, and panics if anything in it is wrong.
pub fn run(scenario: &Scenario) -> Seen {
    let world = World::new(scenario.seed, scenario.length);
    let store = Store::in_memory(Geometry::blocks(64)).unwrap();
    // The network between hosts and disk has no words: hearts beat in blocks.
    let options = ClusterOptions { leases: LEASES, ..ClusterOptions::hosts(scenario.hosts as u32 + 2) };
    let bare = PlantedIn { device: store.clone(), planted: None };
    Cluster::create(&Ats::new(bare), options, false).unwrap();
    let network = Faulty::in_environment(store, scenario.faults.clone(), WorldTime(Arc::clone(&world)));
    let stage =
        Arc::new(Stage { scenario: scenario.clone(), world: Arc::clone(&world), network, judge: Judge::default() });
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
        let time = HostTime {
            world: Arc::clone(world),
            epoch: Duration::from_secs(86_400 * 365).mul_f64(40.0 * throw(fastrand::Rng::f64)),
            rate: 0.9 + 0.2 * throw(fastrand::Rng::f64),
            pause: stage.scenario.pause,
            jump,
        };
        let disk = Arc::new(PlantedIn { device: stage.network.another_host(), planted: stage.scenario.planted });
        let name = HostName::new(format!("host-{number}")).unwrap();
        let joined = Host::join_by_hand(Arc::clone(&disk), HostConfig::new(name), time);
        let Ok(host) = joined else {
            // The device did not answer, or the host of before still seems to live.
            world.sleep(Duration::from_secs(2));
            continue;
        };
        let host = Arc::new(host);
        let mut actors = Vec::new();
        for work in [beat as fn(&Arc<Stage>, &Arc<Member>), work] {
            let (stage, host) = (Arc::clone(stage), Arc::clone(&host));
            actors.push(world.spawn(move || work(&stage, &host)));
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
                    stage.judge.count(|seen| seen.crashes += 1);
                    std::mem::forget(host);
                    break;
                }
                1..4 => {
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
fn beat(stage: &Arc<Stage>, host: &Arc<Member>) {
    loop {
        if let Err(HostError::Lost(_)) = host.beat() {
            return;
        }
        stage.world.sleep(host.cluster().timing().interval);
    }
}

/// What a host is there for.
fn work(stage: &Arc<Stage>, host: &Arc<Member>) {
    let world = &stage.world;
    while host.loss().is_none() {
        let (number, shared, patience) =
            world.throw(|dice| (dice.u64(..LEASES), dice.u32(..3) == 0, Duration::from_secs(dice.u64(..40))));
        let mode = if shared { Mode::Shared } else { Mode::Exclusive };
        let before = host.lease(number).ok();
        match host.acquire(number, mode, patience) {
            Ok(lease) => {
                let took_over = before.is_some_and(|view| view.token + 1 == lease.token() && view.mode.is_some());
                stage.judge.count(|seen| seen.broken += u64::from(took_over && mode == Mode::Exclusive));
                hold(stage, lease);
            }
            Err(LeaseError::Host(_)) => return,
            Err(_) => {}
        }
        world.sleep(world.throw(|dice| Duration::from_millis(dice.u64(..3000))));
    }
}

/// Holds a lease for a while, and lets it go in one way or another.
fn hold(stage: &Arc<Stage>, lease: Held) {
    let world = &stage.world;
    let place = stage.judge.acquired(lease);
    world.sleep(world.throw(|dice| Duration::from_millis(dice.u64(..20_000))));
    let take = || place.lock().unwrap().take();
    let Some(mut lease) = take() else { return };
    match world.throw(|dice| dice.u32(..10)) {
        0..3 => drop(lease),
        3 if lease.mode() == Mode::Shared => {
            if lease.try_upgrade().is_ok() {
                stage.judge.count(|seen| seen.upgrades += 1);
                let place = stage.judge.acquired(lease);
                world.sleep(Duration::from_secs(2));
                let lease = place.lock().unwrap().take();
                drop(lease);
            }
        }
        4 if lease.mode() == Mode::Exclusive => {
            if lease.downgrade().is_ok() {
                let place = stage.judge.acquired(lease);
                world.sleep(Duration::from_secs(2));
                let lease = place.lock().unwrap().take();
                drop(lease);
            }
        }
        _ => {
            let _ = lease.release();
        }
    }
}
