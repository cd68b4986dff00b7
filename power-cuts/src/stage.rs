//! A stage: a run of some processes from one state of the disk to the next cut.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use casblock::{BlockSize, Durability, Geometry};
use fastrand::Rng;

use crate::contents::mixed;
use crate::layout::{BOOT, FILE, Layout, boot_id, number_at, put_number};
use crate::recording::Recording;
use crate::workload::{Habits, Operation, Workload};
use crate::world::{Death, Meddle, Pace, When, World};

/// What a stage begins with.
pub enum Start<'a> {
    /// No file.
    Nothing,
    /// A file, as found when the machine has started anew.
    Cut {
        /// The file.
        image: &'a [u8],
        /// What its blocks hold once it is recovered.
        contents: &'a [Arc<[u8]>],
    },
    /// A file that has been recovered.
    Recovered {
        /// The file.
        image: &'a [u8],
        /// What its blocks hold.
        contents: &'a [Arc<[u8]>],
    },
}

/// A stage, as chosen by a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all else.
    pub seed: u64,
    /// The store.
    pub geometry: Geometry,
    /// The process of each thread.
    pub threads: Vec<usize>,
    /// How they take turns.
    pub pace: Pace,
    /// Which processes end before their time.
    pub deaths: Vec<Death>,
    /// What they do.
    pub habits: Habits,
}

/// What may be in a plan.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Whether there are durable operations.
    pub durable: bool,
    /// Whether flushes may fail.
    pub failures: bool,
    /// See [`Pace::unnoticed_failures`].
    pub unnoticed_failures: bool,
    /// Whether few different contents are written, in some plans or in all.
    pub alphabet: Option<bool>,
}

impl Scope {
    /// All there is.
    pub const ALL: Self = Self { durable: true, failures: true, unnoticed_failures: false, alphabet: Some(false) };
}

/// One of these.
fn one_of<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}

impl Plan {
    /// A random plan for a new store.
    pub fn random(seed: u64, scope: Scope) -> Self {
        let mut rng = Rng::with_seed(seed);
        let crowd = rng.u32(0..6) == 0;
        let threads = if crowd { vec![0, 1, 2, 3] } else { threads(&mut rng) };
        let tight = rng.u32(0..3) > 0;
        let geometry = geometry(&mut rng, threads.len() as u64, tight);
        let mut plan = Self {
            seed,
            geometry,
            pace: pace(&mut rng, scope),
            deaths: Vec::new(),
            habits: habits(&mut rng, &geometry, scope, tight),
            threads,
        };
        plan.habits.failures = plan.pace.flushes_per_failure > 0;
        if crowd {
            plan.crowd();
        }
        plan.deaths = deaths(&mut rng, &plan);
        plan
    }

    /// Makes it one in which several threads, resting often, are after the same block.
    fn crowd(&mut self) {
        self.pace = Pace { turn: 4, exchanges_per_rest: 2, turns_per_rest: 8, ..self.pace };
        self.habits.favourites = 1;
        self.habits.weights = [0; Operation::ALL.len()];
        for operation in [Operation::Write, Operation::CompareAndWrite, Operation::Sync] {
            self.habits.weights[operation as usize] = 1;
        }
    }

    /// A plan for what follows a cut, with the same store and as many threads.
    pub fn after(&self, seed: u64, scope: Scope) -> Self {
        let mut next = Self { geometry: self.geometry, threads: self.threads.clone(), ..Self::random(seed, scope) };
        next.habits.tight = self.habits.tight;
        next.habits.operations = next.habits.operations.div_ceil(2);
        next.deaths.retain(|death| self.threads.contains(&death.process));
        next
    }

    /// Runs it, on the file at `path`; `meddle` is a fault that is planted.
    pub fn run(&self, path: &Path, start: &Start<'_>, meddle: Option<Meddle>) -> Recording {
        let layout = Layout::of(self.geometry);
        let ending = path.to_path_buf();
        let world =
            World::new(self.seed, self.pace, &self.threads, self.deaths.clone(), move |log| {
                match std::fs::read(ending) {
                    Ok(last) => log.last = last,
                    Err(error) => log.troubles.push(format!("reading the file: {error}")),
                }
            });
        let (create, first) = match start {
            Start::Nothing => {
                let _ = std::fs::remove_file(path);
                (Some(self.geometry), None)
            }
            Start::Cut { image, contents } => {
                world.set_inode(place(image, path, true));
                (None, Some(*contents))
            }
            Start::Recovered { image, contents } => {
                world.set_inode(place(image, path, false));
                (None, Some(*contents))
            }
        };
        if let Some(meddle) = meddle {
            world.meddle(meddle);
        }
        let processes = self.threads.len();
        let workload = Workload::new(path, create, self.habits.clone(), mixed(self.seed), processes);
        let is_first = |thread: usize| !self.threads[..thread].contains(&self.threads[thread]);
        let log = world.run(|seat| workload.act(seat, is_first(seat.thread)));
        let inode = std::fs::metadata(path).expect("the file is there").ino();
        Recording::of(log, layout, inode, first)
    }
}

/// The processes of 1 to 4 threads; some have two.
fn threads(rng: &mut Rng) -> Vec<usize> {
    one_of(rng, &[&[0][..], &[0, 1], &[0, 1], &[0, 0], &[0, 1, 2], &[0, 0, 1], &[0, 1, 2, 3], &[0, 0, 1, 1]]).to_vec()
}

fn pace(rng: &mut Rng, scope: Scope) -> Pace {
    let fails = scope.failures && rng.u32(0..6) == 0;
    Pace {
        turn: one_of(rng, &[2, 20, 200, 2000]),
        flush: one_of(rng, &[0, 50, 500, 3000]),
        flushes_per_failure: if fails { one_of(rng, &[2, 5, 20]) } else { 0 },
        unnoticed_failures: scope.unnoticed_failures,
        exchanges_per_rest: one_of(rng, &[0, 2, 8, 32]),
        turns_per_rest: one_of(rng, &[0, 0, 4, 16]),
    }
}

fn geometry(rng: &mut Rng, threads: u64, tight: bool) -> Geometry {
    let blocks = one_of(rng, &[1, 2, 4, 5, 8, 12, 16]);
    let mut geometry = Geometry::blocks(blocks).durability(Durability::Power).words(rng.u64(0..4));
    // One without a recorder, and some whose recorder is soon full.
    geometry = geometry.events(if blocks == 8 { 0 } else { 2 * blocks.next_power_of_two() as u32 });
    if rng.u32(0..10) == 0 {
        geometry = geometry.block_size(BlockSize::B4096);
    }
    if tight {
        // One for each block, one for each thread that writes, and a few.
        let frames = (blocks + threads + rng.u64(0..4)).max(2);
        let writers = rng.u16(1..=2 * threads as u16 + 2).max(rng.u16(1..=threads as u16 + 1));
        geometry.writers(writers).frames(frames)
    } else {
        // A thread has a writer of its own and one that its store keeps; so has whoever comes after one that was stopped.
        geometry.writers(4 * threads as u16 + rng.u16(0..3))
    }
}

fn habits(rng: &mut Rng, geometry: &Geometry, scope: Scope, tight: bool) -> Habits {
    let mut weights = [2, 6, 1, 8, 1, 2, 2, 1, 1, 1, 1, 0];
    weights[Operation::Sync as usize] = one_of(rng, &[0, 1, 2, 4, 12]);
    weights[Operation::Reopen as usize] = one_of(rng, &[0, 1, 1, 4, 24]);
    weights[Operation::Recover as usize] = one_of(rng, &[0, 0, 0, 1, 4]);
    weights[Operation::Writer as usize] = one_of(rng, &[1, 1, 4]);
    let durable = if scope.durable { one_of(rng, &[0, 1, 4]) } else { 0 };
    weights[Operation::DurableWrite as usize] = durable;
    weights[Operation::DurableCompareAndWrite as usize] = durable;
    let few = match scope.alphabet {
        Some(always) => always || rng.u32(0..4) == 0,
        None => false,
    };
    let large = geometry.size_of_block() == BlockSize::B4096;
    Habits {
        operations: one_of(rng, &[3, 10, 30, 60]) / if large { 3 } else { 1 },
        weights,
        favourites: if rng.u32(0..3) == 0 { 1 } else { rng.u64(1..=geometry.block_count()) },
        alphabet: if few { 2 } else { 0 },
        tight,
        failures: false,
    }
}

fn deaths(rng: &mut Rng, plan: &Plan) -> Vec<Death> {
    let processes = plan.threads.iter().max().map_or(0, |last| last + 1);
    let steps = 150 * u64::from(plan.habits.operations) * plan.geometry.size_of_block().bytes() as u64 / 512;
    let comes_and_goes = plan.habits.weights[Operation::Reopen as usize] > 4;
    let mut deaths = Vec::new();
    for process in 0..processes {
        let when = match rng.u32(0..11) {
            0 => When::Steps(rng.u64(1..=400)),
            1 => When::Steps(rng.u64(1..=steps)),
            2 => When::Exchanges(rng.u64(1..=2 * u64::from(plan.habits.operations))),
            3 => When::Exchanges(rng.u64(1..=20)),
            4 => When::Flushes(rng.u64(1..=8)),
            5 | 6 if comes_and_goes => When::StepsAtDoor(rng.u64(1..=120)),
            _ => continue,
        };
        // Who is stopped at the door keeps all others out.
        let killed = if let When::StepsAtDoor(_) = when { rng.u32(0..8) > 0 } else { rng.bool() };
        deaths.push(Death { process, when, killed });
    }
    deaths
}

/// Makes `image` the file at `path`, and gives its inode. If the machine has `restarted`, the store was in use under
/// another boot id.
pub fn place(image: &[u8], path: &Path, restarted: bool) -> u64 {
    let file = File::options().create(true).write(true).truncate(false).open(path).expect("the file can be made");
    let metadata = file.metadata().expect("it has metadata");
    let mut image = image.to_vec();
    let boot = boot_id();
    if restarted && [BOOT, BOOT + 8].map(|at| number_at(&image, at)) == boot {
        put_number(&mut image, BOOT, !boot[0]);
    }
    // It is still the same file, not a copy.
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born_ns = born.map_or(0, |born| born.as_nanos() as u64);
    for (number, value) in [metadata.dev(), metadata.ino(), born_ns].into_iter().enumerate() {
        put_number(&mut image, FILE + 8 * number, value);
    }
    file.set_len(image.len() as u64).expect("it can have any length");
    file.write_all_at(&image, 0).expect("it can be written");
    metadata.ino()
}
