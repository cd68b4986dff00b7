//! Updates that a cut of the power does not take back, on a disk.

use std::time::Duration;

use anyhow::Result;

use super::contended::on_threads;
use super::team::{OnDisk, Rounds, Workload};
use super::{Ground, folder, limits, section};
use crate::block::{FIRST, next};
use crate::cores::Cores;
use crate::measure::{Entrant, compete};
use crate::peers::{Durability, Handle, Peer};
use crate::results::{Axis, Section, Unit};

/// Each of some threads updates a block of its own.
#[derive(Clone)]
pub struct OwnBlocks {
    /// How many threads.
    pub threads: usize,
    /// How long a round is.
    pub slice: Duration,
    /// Where they run.
    pub cores: Cores,
}

impl Workload for OwnBlocks {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        let this = self.clone();
        Ok(Box::new(move || {
            let (updates, took) = on_threads(this.threads, &this.cores, this.slice, |index, round| {
                let (mut handle, mut known) = (peer.handle()?, FIRST);
                handle.read(index as u64, &mut known);
                round.begin();
                let mut updates = 0;
                while !round.is_over() {
                    let new = next(&known);
                    assert!(handle.compare_and_write(index as u64, &mut known, &new), "nobody else's");
                    known = new;
                    updates += 1;
                }
                Ok(updates)
            })?;
            let updates: u64 = updates.iter().sum();
            Ok(vec![updates as f64 / took.as_secs_f64()])
        }))
    }
}

/// How many threads update durably.
const THREADS: [usize; 4] = [1, 2, 8, 32];

/// The flush alone, as a rate.
fn flushes(ground: &Ground, within: &std::path::Path) -> Result<Entrant<'static>> {
    let Entrant { who, kind, mut run } = limits::flush(within, ground.effort.long_slice)?;
    Ok(Entrant { who, kind, run: Box::new(move || Ok(vec![1e9 / run()?[0]])) })
}

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    let temporary = folder(&ground.disk)?;
    let team = OnDisk::create(temporary.path(), 32, Durability::Power)?;
    let mut rows = Vec::new();
    for threads in THREADS {
        let workload = OwnBlocks { threads, slice: ground.effort.long_slice, cores: ground.cores.clone() };
        let mut entrants = team.enter(&workload)?;
        if threads == 1 {
            entrants.push(flushes(ground, temporary.path())?);
        }
        rows.extend(compete(entrants, ground.effort.long_rounds, Some(threads as f64))?);
    }
    let about = "Each thread updates a block of its own, and an update returns only once it is on the disk. Those that wait \
                 at the same time may share a flush.";
    let mut section = section("durable", "Durable updates", about, &[("updates", Unit::PerSecond, false, true)], rows);
    section.axis = Some(Axis { label: "threads".to_owned(), doubles: true });
    Ok(vec![section])
}
