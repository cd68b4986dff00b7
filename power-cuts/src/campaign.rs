//! Runs, and cuts of them, one after the other until there were enough.

use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;
use tempfile::TempDir;

use crate::contents::mixed;
use crate::disk::Mix;
use crate::fault::Fault;
use crate::judge::{Verdict, judge};
use crate::layout::{PHASE, number_at};
use crate::oracle::{Danger, danger};
use crate::recording::Recording;
use crate::stage::{Plan, Scope, Start};
use crate::tally::Tally;

/// Cuts of the first stage of a run, of the second, of the third.
const CUTS: [u32; 3] = [16, 8, 4];

/// Cuts at a moment that is dangerous.
const DANGER_CUTS: u32 = 200;

/// What a cut showed to be wrong, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of its run.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
    /// Whether a cut showed it, not the run before.
    pub by_cut: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nto see it again: POWER_CUTS_REPLAY={:#018x}", self.what, self.seed)
    }
}

/// What runs are made of.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// What the plans may hold.
    pub scope: Scope,
    /// What is planted.
    pub fault: Fault,
}

/// A run: the stages that follow one another, each from a cut of the one before.
struct Run<'a> {
    campaign: Campaign,
    seed: u64,
    rng: Rng,
    folder: &'a TempDir,
    tally: Tally,
    /// The cuts that led here, for messages.
    cuts: Vec<String>,
}

impl Campaign {
    /// Goes through runs, by two threads, until `enough` says so; gives what there was, and the first failure.
    pub fn go(self, seed: u64, enough: impl Fn(&Tally) -> bool + Sync) -> (Tally, Option<Failure>) {
        warm_up();
        let sum = Mutex::new((Tally::default(), None::<Failure>, 0u64));
        let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            let folder = folder();
            loop {
                let number = {
                    let mut sum = lock();
                    if sum.1.is_some() || enough(&sum.0) {
                        return;
                    }
                    sum.2 += 1;
                    sum.2
                };
                let (tally, failure) = self.run(mixed(seed ^ number << 40), &folder);
                let mut sum = lock();
                sum.0.add(&tally);
                sum.1 = sum.1.take().or(failure);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        let (tally, failure, _) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        (tally, failure)
    }

    /// One run, in `folder`.
    pub fn run(self, seed: u64, folder: &TempDir) -> (Tally, Option<Failure>) {
        let rng = Rng::with_seed(mixed(seed));
        let mut run = Run { campaign: self, seed, rng, folder, tally: Tally::default(), cuts: Vec::new() };
        let plan = Plan::random(seed, self.scope);
        let stage = AssertUnwindSafe(|| run.stage(&plan, &Start::Nothing));
        let failure = std::panic::catch_unwind(stage).map_or_else(
            |_| Some(Failure { seed, what: "a panic, which stands above".into(), by_cut: false }),
            Result::err,
        );
        run.tally.runs += 1;
        (run.tally, failure)
    }
}

/// What a process does once, so that each run has the same steps.
pub fn warm_up() {
    let store = casblock::Store::in_memory(casblock::Geometry::blocks(1)).expect("there is memory");
    store.write(0, &[1; 512]).expect("there is a frame");
}

/// Where files take no disk's time, if there is such a place.
pub fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("power-cuts-").tempdir_in("/dev/shm");
    folder.or_else(|_| tempfile::tempdir()).expect("a temporary folder can be made")
}

impl Run<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-{}.casb", self.cuts.len()))
    }

    fn failure(&self, what: impl std::fmt::Display, by_cut: bool) -> Failure {
        let history = self.cuts.join("; ");
        Failure { seed: self.seed, what: format!("{what}\n[{history}]"), by_cut }
    }

    /// Runs a stage and cuts it, again and again.
    fn stage(&mut self, plan: &Plan, start: &Start<'_>) -> Result<(), Failure> {
        let recording = plan.run(&self.path("stage"), start, self.campaign.fault.meddle());
        self.tally.count_stage(&recording);
        if let Some(trouble) = recording.troubles.first() {
            let (threads, geometry) = (&plan.threads, plan.geometry);
            return Err(self.failure(format_args!("{trouble}\nthreads {threads:?}, {geometry:?}"), false));
        }
        let recovers = match start {
            Start::Nothing | Start::Recovered { .. } => false,
            Start::Cut { image, .. } => number_at(image, PHASE) != 0,
        };
        let depth = self.cuts.len();
        if let Some(danger) = danger(&recording, self.campaign.fault.disk()) {
            for _ in 0..DANGER_CUTS {
                self.cut(plan, &recording, danger.time..=danger.time)?;
            }
            let Danger { time, what } = danger;
            return Err(self.failure(format_args!("step {time}: {what}"), false));
        }
        for number in 0..CUTS[depth] {
            let from = match (recovers, number % 2) {
                (true, 0) => 0..=recording.entered.min(recording.end),
                _ => recording.entered.min(recording.end)..=recording.end,
            };
            self.cut(plan, &recording, from)?;
        }
        Ok(())
    }

    fn cut(&mut self, plan: &Plan, recording: &Recording, range: RangeInclusive<u64>) -> Result<(), Failure> {
        let fault = self.campaign.fault;
        let time = moment(&mut self.rng, recording, range);
        let on_disk = fault.disk().on_disk(recording, time);
        let flushed = on_disk.iter().copied().max().unwrap_or(0);
        let mix = Mix::random(&mut self.rng, recording, flushed..=time);
        let mut image = fault.disk().cut(recording, time, &mix, &mut self.rng);
        fault.damage(&mut image, &recording.layout);
        self.cuts.push(format!(
            "cut at {time} of {}, flushed up to {flushed}, {}; entered {} deaths {:?} flushes {:?}",
            recording.end,
            mix.name,
            recording.entered,
            recording.deaths,
            recording
                .flushes
                .iter()
                .filter(|f| f.end <= time + 100)
                .map(|f| (f.process, f.begin, f.end, f.outcome))
                .collect::<Vec<_>>()
        ));
        let depth = self.cuts.len();
        let path = self.path("cut");
        let verdict = match judge(&image, &path, recording, time) {
            Ok(verdict) => verdict,
            Err(violation) => {
                keep(&image);
                if std::env::var_os("POWER_CUTS_REPLAY").is_some() {
                    println!("plan {plan:#?}");
                    println!("promises {:?}", recording.promises);
                    for (b, v) in recording.blocks.iter().enumerate() {
                        println!("block {b}: {:?}", v.iter().map(|v| (v.time, v.thread)).collect::<Vec<_>>());
                    }
                    for c in recording
                        .changes
                        .iter()
                        .filter(|c| recording.layout.section(c.offset as usize) == crate::layout::Section::State)
                    {
                        println!("{c:?}");
                    }
                    use crate::layout::*;
                    for (name, im) in [("base", &recording.base), ("cut", &image)] {
                        println!(
                            "{name}: started {} completed {} phase {}",
                            number_at(im, STARTED),
                            number_at(im, COMPLETED),
                            number_at(im, PHASE)
                        );
                        for f in 0..recording.layout.frames() {
                            let at = recording.layout.stamp(f);
                            let u = number_at(im, at);
                            println!(
                                "  frame {f}: block {} seq {} committed {} epoch {} id {:?}",
                                u >> 32,
                                (u & 0xffffffff) >> 1,
                                u & 1,
                                number_at(im, at + 16),
                                crate::contents::id_of(&im[recording.layout.frame(f)])
                            );
                        }
                    }
                }
                return Err(self.failure(violation, true));
            }
        };
        self.tally.count_cut(recording, time, depth, &verdict);
        if depth < CUTS.len() && self.rng.u32(0..4) == 0 {
            self.next_stage(plan, image, &verdict)?;
        }
        self.cuts.pop();
        Ok(())
    }

    /// What follows a cut.
    fn next_stage(&mut self, plan: &Plan, image: Vec<u8>, verdict: &Verdict) -> Result<(), Failure> {
        let next = plan.after(self.rng.u64(..), self.campaign.scope);
        let contents = &verdict.contents;
        match self.campaign.fault.leaves(&image, verdict, plan.geometry) {
            Some(image) => self.stage(&next, &Start::Recovered { image: &image, contents }),
            None => self.stage(&next, &Start::Cut { image: &image, contents }),
        }
    }
}

/// A random step in this range; most often one just before or after something that matters.
fn moment(rng: &mut Rng, recording: &Recording, range: RangeInclusive<u64>) -> u64 {
    let flushes = &recording.flushes;
    let near = match rng.u32(0..4) {
        0 if !flushes.is_empty() => flushes[rng.usize(0..flushes.len())].begin,
        1 if !flushes.is_empty() => flushes[rng.usize(0..flushes.len())].end,
        2 => {
            let versions = &recording.blocks[rng.usize(0..recording.blocks.len())];
            versions[rng.usize(0..versions.len())].time
        }
        _ => return rng.u64(range),
    };
    let near = (near + rng.u64(0..8)).saturating_sub(3);
    if range.contains(&near) { near } else { rng.u64(range) }
}

/// Keeps the file of a cut that showed something to be wrong, if there is a place for it.
fn keep(image: &[u8]) {
    if let Some(path) = std::env::var_os("POWER_CUTS_KEEP") {
        std::fs::write(path, image).expect("POWER_CUTS_KEEP is a file that can be written");
    }
}

/// The contents of blocks.
pub type Contents = Vec<Arc<[u8]>>;
