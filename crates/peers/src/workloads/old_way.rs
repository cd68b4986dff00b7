//! One lock for the whole store, which is what a SCSI reservation is, beside compare-and-write of one block.

use anyhow::Result;

use super::durable::OwnBlocks;
use super::team::{OneLock, OneLockOnDisk};
use super::{Ground, folder, section};
use crate::measure::compete;
use crate::peers::Durability;
use crate::results::{Axis, Row, Section, Unit};

/// How many writers there are, each with a block of its own.
const WRITERS: [usize; 6] = [1, 2, 4, 8, 16, 32];

fn over_writers(id: &str, title: &str, about: &str, rows: Vec<Row>) -> Section {
    let mut section = section(id, title, about, &[("updates", Unit::PerSecond, false, true)], rows);
    section.axis = Some(Axis { label: "writers".to_owned(), doubles: true });
    section
}

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    let (in_memory, on_disk) = (folder(&ground.memory)?, folder(&ground.disk)?);
    let one_lock = OneLock::create(in_memory.path(), 32, Durability::Process)?;
    let one_lock_on_disk = OneLockOnDisk::create(on_disk.path(), 32, Durability::Power)?;
    let (mut rows, mut rows_on_disk) = (Vec::new(), Vec::new());
    for writers in WRITERS {
        let (slice, rounds, at) = (ground.effort.long_slice, ground.effort.long_rounds, Some(writers as f64));
        let workload = OwnBlocks { threads: writers, slice, cores: ground.cores.clone() };
        rows.extend(compete(one_lock.enter(&workload)?, rounds, at)?);
        rows_on_disk.extend(compete(one_lock_on_disk.enter(&workload)?, rounds, at)?);
    }
    Ok(vec![
        over_writers(
            "old-way",
            "One lock for the whole store, in memory",
            "Writers update blocks of their own. Whoever must reserve the whole store for that waits for all others; \
             compare-and-write of a block waits for nobody.",
            rows,
        ),
        over_writers(
            "old-way-durable",
            "One lock for the whole store, on a disk",
            "The same, and an update returns once it is on the disk. With a lock around it no two updates share a flush.",
            rows_on_disk,
        ),
    ])
}
