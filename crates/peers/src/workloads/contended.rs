//! Threads that want the same blocks.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use hdrhistogram::Histogram;

use super::alone::{FOOTPRINTS, SEED};
use super::team::{All, Contended, Nearest, Rounds, Workload};
use super::{Ground, folder, section};
use crate::block::{FIRST, next, number};
use crate::cores::Cores;
use crate::measure::compete;
use crate::peers::{ArcSwapped, Durability, Handle, Peer};
use crate::results::{Axis, Section, Unit};

/// When the threads of a round begin, and when it is over for them.
pub struct Round {
    ready: Barrier,
    began: OnceLock<Instant>,
    over: AtomicBool,
}

impl Round {
    /// Waits until all threads are ready.
    pub fn begin(&self) {
        self.ready.wait();
        // Not all run at once: it begins with the first that does.
        self.began.get_or_init(Instant::now);
    }

    /// Whether to go on no more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}

/// Runs `work`, which calls [`Round::begin`] once it is ready, on so many threads for about so long. What each gave, and
/// how long it was.
pub fn on_threads<T: Send>(
    threads: usize,
    cores: &Cores,
    time: Duration,
    work: impl Fn(usize, &Round) -> Result<T> + Sync,
) -> Result<(Vec<T>, Duration)> {
    let round = Round { ready: Barrier::new(threads + 1), began: OnceLock::new(), over: AtomicBool::new(false) };
    let results: Result<Vec<_>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                let (round, work) = (&round, &work);
                scope.spawn(move || {
                    cores.pin(index);
                    work(index, round)
                })
            })
            .collect();
        round.begin();
        thread::sleep(time);
        round.over.store(true, Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    let began = round.began.get().context("nobody began")?;
    Ok((results?, began.elapsed()))
}

/// The sum of the numbers of all blocks.
fn sum(peer: &impl Peer, blocks: u64) -> Result<u64> {
    let (mut handle, mut block) = (peer.handle()?, FIRST);
    let numbers = (0..blocks).map(|index| {
        handle.read(index, &mut block);
        number(&block).context("a block is torn")
    });
    numbers.sum()
}

/// Two threads count in random blocks of `blocks`: each takes for known what it last saw of a block, and tries until it
/// succeeds.
#[derive(Clone)]
struct Updates {
    blocks: u64,
    slice: Duration,
    cores: Cores,
}

impl Updates {
    /// Works until it is over; how many updates that made.
    fn work(&self, index: usize, mut handle: impl Handle, round: &Round) -> u64 {
        let mut random = Rng::with_seed(SEED + index as u64);
        let mut known = vec![FIRST; self.blocks as usize];
        (0..).zip(&mut known).for_each(|(block, known)| handle.read(block, known));
        round.begin();
        let mut updates = 0;
        while !round.is_over() {
            let block = random.u64(..self.blocks);
            let known = &mut known[block as usize];
            let mut new = next(known);
            while !handle.compare_and_write(block, known, &new) {
                new = next(known);
            }
            *known = new;
            updates += 1;
        }
        updates
    }
}

impl Workload for Updates {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        let this = self.clone();
        Ok(Box::new(move || {
            let before = sum(peer, this.blocks)?;
            let (updates, took) =
                on_threads(2, &this.cores, this.slice, |index, round| Ok(this.work(index, peer.handle()?, round)))?;
            let updates: u64 = updates.iter().sum();
            ensure!(sum(peer, this.blocks)? == before + updates, "updates were lost");
            Ok(vec![updates as f64 / took.as_secs_f64()])
        }))
    }
}

/// Two threads over many blocks: they seldom want the same, but each other's caches.
pub fn two_threads(ground: &Ground) -> Result<Vec<Section>> {
    let temporary = folder(&ground.memory)?;
    let team = All::create(temporary.path(), 1024, Durability::Process)?;
    let workload = Updates { blocks: 1024, slice: 3 * ground.effort.slice, cores: ground.cores.clone() };
    let rows = compete(team.enter(&workload)?, ground.effort.rounds, None)?;
    let about = "Two threads count in random blocks of 512 KiB. Each expects what it last saw of a block, and tries again \
                 with what it found until it succeeds. The sum is verified.";
    let measures = [("updates", Unit::PerSecond, false, true)];
    let mut sections = vec![section("caw-2-threads", "Two threads, random over 1,024 blocks", about, &measures, rows)];
    sections.push(two_threads_against_footprint(ground)?);
    Ok(sections)
}

/// The same over fewer blocks and more.
fn two_threads_against_footprint(ground: &Ground) -> Result<Section> {
    let mut rows = Vec::new();
    for blocks in FOOTPRINTS.into_iter().filter(|blocks| *blocks <= ground.effort.most_blocks) {
        let temporary = folder(&ground.memory)?;
        let team = Nearest::create(temporary.path(), blocks, Durability::Process)?;
        let workload = Updates { blocks, slice: 3 * ground.effort.slice, cores: ground.cores.clone() };
        rows.extend(compete(team.enter(&workload)?, ground.effort.long_rounds, Some(blocks as f64))?);
    }
    let about = "As before, over fewer blocks and more.";
    let measures = [("updates", Unit::PerSecond, false, true)];
    let title = "Two threads against the number of blocks in use";
    let mut section = section("caw-2-threads-footprint", title, about, &measures, rows);
    section.axis = Some(Axis { label: "blocks".to_owned(), doubles: false });
    Ok(section)
}

/// An attempt that takes longer counts as this long.
const LONGEST: Duration = Duration::from_secs(60);

/// What one thread or process saw of its attempts.
pub struct Attempts {
    /// Those that succeeded.
    pub hits: u64,
    /// How long each took, in nanoseconds, two readings of the clock included.
    pub latencies: Histogram<u64>,
}

impl Attempts {
    /// None yet.
    pub fn none() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("three digits are allowed");
        Self { hits: 0, latencies }
    }

    /// Counts in block 0 until it is over.
    pub fn make(mut handle: impl Handle, is_over: impl Fn() -> bool) -> Self {
        let (mut attempts, mut known) = (Self::none(), FIRST);
        handle.read(0, &mut known);
        while !is_over() {
            let new = next(&known);
            let start = Instant::now();
            let hit = handle.compare_and_write(0, &mut known, &new);
            attempts.latencies.saturating_record(start.elapsed().as_nanos() as u64);
            if hit {
                known = new;
                attempts.hits += 1;
            }
        }
        attempts
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.hits += other.hits;
        Ok(self.latencies.add(&other.latencies)?)
    }

    /// A value for each of [`CONTENDED`].
    pub fn values(&self, took: Duration) -> Vec<f64> {
        let at = |share| self.latencies.value_at_quantile(share) as f64;
        let rate = self.latencies.len() as f64 / took.as_secs_f64();
        vec![at(0.999), at(0.5), at(0.99), at(0.9999), self.latencies.max() as f64, rate]
    }
}

/// What is measured where many want one block.
pub const CONTENDED: [(&str, Unit, bool, bool); 6] = [
    ("p99.9", Unit::Nanoseconds, true, true),
    ("p50", Unit::Nanoseconds, true, false),
    ("p99", Unit::Nanoseconds, true, false),
    ("p99.99", Unit::Nanoseconds, true, false),
    ("longest", Unit::Nanoseconds, true, false),
    ("attempts", Unit::PerSecond, false, true),
];

/// Threads count in one block.
#[derive(Clone)]
struct OneBlock {
    threads: usize,
    slice: Duration,
    cores: Cores,
}

impl Workload for OneBlock {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        let this = self.clone();
        Ok(Box::new(move || {
            let before = sum(peer, 1)?;
            let (all, took) = on_threads(this.threads, &this.cores, this.slice, |_, round| {
                let handle = peer.handle()?;
                round.begin();
                Ok(Attempts::make(handle, || round.is_over()))
            })?;
            let mut attempts = Attempts::none();
            all.iter().try_for_each(|of_one| attempts.add(of_one))?;
            ensure!(sum(peer, 1)? == before + attempts.hits, "updates were lost");
            Ok(attempts.values(took))
        }))
    }
}

/// How many threads want one block.
const THREADS: [usize; 5] = [2, 4, 8, 32, 128];

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    let temporary = folder(&ground.memory)?;
    let team = Contended::create(temporary.path(), 1, Durability::Process)?;
    let mut rows = Vec::new();
    for threads in THREADS.into_iter().filter(|threads| *threads <= ground.effort.most_threads) {
        let workload = OneBlock { threads, slice: ground.effort.long_slice, cores: ground.cores.clone() };
        let mut entrants = team.enter(&workload)?;
        // It goes through all threads' readers for each update, and a round of that many does not end for seconds.
        entrants.retain(|entrant| threads < 128 || entrant.who != ArcSwapped::NAME);
        rows.extend(compete(entrants, ground.effort.long_rounds, Some(threads as f64))?);
    }
    let about = "All threads count in one block; each expects what it saw last. The time of an attempt, successful or not, \
                 has two readings of the clock in it. The sum is verified. arc-swap is left out at 128: its rounds \
                 take seconds to end.";
    let mut section = section("contended-threads", "Many threads, one block", about, &CONTENDED, rows);
    section.axis = Some(Axis { label: "threads".to_owned(), doubles: true });
    Ok(vec![section])
}
