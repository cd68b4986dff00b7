//! How the cost grows with the blocks and the writers of a store.

use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::Result;
use casblock::{CreateOptions, Geometry, Store, Writer};
use fastrand::Rng;

use super::alone::{IMAGES, SEED};
use super::{Ground, folder, section};
use crate::measure::{Entrant, compete, each_operation, figure};
use crate::results::{Axis, Figure, Kind, Row, Section, Unit};

/// From so many blocks to so many, as powers of two.
const BLOCKS: [u32; 5] = [10, 14, 18, 22, 26];

/// How many of a store's blocks are used: as many in each, spread evenly.
const USED: u64 = 1024;

/// The most writers a store of this section has.
const WRITERS: [u16; 6] = [1, 4, 16, 64, 256, 1024];

/// Updates [`USED`] blocks of a store in turn, at random.
fn updates<'s>(store: &'s Store, mut writer: Writer, slice: Duration) -> Box<dyn FnMut() -> Result<Vec<f64>> + 's> {
    let (step, mut random) = (store.geometry().block_count() / USED, Rng::with_seed(SEED));
    let mut is_second = vec![false; USED as usize];
    for block in 0..USED {
        writer.write(block * step, &IMAGES[0]).expect("in range");
    }
    each_operation(slice, move |times| {
        for _ in 0..times {
            let index = random.u64(..USED);
            let second = &mut is_second[index as usize];
            let (known, new) = (&IMAGES[usize::from(*second)], &IMAGES[usize::from(!*second)]);
            writer.compare_and_write(black_box(index * step), known, new).expect("it holds this");
            *second = !*second;
        }
    })
}

fn reads<'s>(store: &'s Store, slice: Duration) -> Box<dyn FnMut() -> Result<Vec<f64>> + 's> {
    let (step, mut random, mut out) = (store.geometry().block_count() / USED, Rng::with_seed(SEED), IMAGES[0]);
    each_operation(slice, move |times| {
        for _ in 0..times {
            store.read(black_box(random.u64(..USED) * step), &mut out).expect("in range");
            black_box(&out);
        }
    })
}

/// The median time of `work` in nanoseconds.
fn time<T>(rounds: usize, mut work: impl FnMut() -> Result<T>) -> Result<Option<Figure>> {
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        let made = work()?;
        let took = start.elapsed();
        drop(made);
        Ok(took.as_nanos() as f64)
    });
    Ok(figure(times.collect::<Result<_>>()?))
}

/// A constant.
fn exactly(value: f64) -> Option<Figure> {
    Some(Figure { median: value, low: value, high: value })
}

fn casblock<'a>(run: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>) -> Vec<Entrant<'a>> {
    vec![Entrant { who: "casblock".to_owned(), kind: Kind::Casblock, run }]
}

/// The one figure of a workload that casblock does alone.
fn alone(ground: &Ground, run: Box<dyn FnMut() -> Result<Vec<f64>> + '_>) -> Result<Option<Figure>> {
    let rows = compete(casblock(run), ground.effort.rounds, None)?;
    Ok(rows[0].figures[0])
}

fn row(at: f64, figures: Vec<Option<Figure>>) -> Row {
    Row { who: "casblock".to_owned(), kind: Kind::Casblock, at: Some(at), figures, ratio: None }
}

fn against_blocks(ground: &Ground) -> Result<Section> {
    let (slice, rounds) = (ground.effort.slice, ground.effort.long_rounds);
    let mut rows = Vec::new();
    for power in BLOCKS {
        let temporary = folder(&ground.memory)?;
        let (path, blocks) = (temporary.path().join("store"), 1u64 << power);
        let options = CreateOptions::new(Geometry::blocks(blocks)).sparse(true);
        let created = Instant::now();
        let store = options.create(&path)?;
        let created = created.elapsed().as_nanos() as f64;
        let update = alone(ground, updates(&store, store.writer()?, slice))?;
        let read = alone(ground, reads(&store, slice))?;
        drop(store);
        let opened = time(rounds.max(5), || Ok(Store::open(&path)?))?;
        let file = path.metadata()?;
        let beside = file.len() as f64 / (blocks * 512) as f64 * 100.0 - 100.0;
        let allocated = exactly(file.blocks() as f64 * 512.0);
        rows.push(row(blocks as f64, vec![update, read, opened, exactly(created), exactly(beside), allocated]));
    }
    let about = "A sparse store of 2¹⁰ to 2²⁶ blocks (32 GiB) in which 1,024 blocks, spread evenly, are updated and read at \
                 random; the time to make it and to open it; what is beside the blocks, and what 1,024 written blocks take.";
    let measures = [
        ("update", Unit::Nanoseconds, true, true),
        ("read", Unit::Nanoseconds, true, true),
        ("open", Unit::Nanoseconds, true, true),
        ("create", Unit::Nanoseconds, true, false),
        ("beside", Unit::Percent, true, false),
        ("allocated", Unit::Bytes, true, false),
    ];
    let mut section = section("growth-blocks", "Cost against the number of blocks", about, &measures, rows);
    section.axis = Some(Axis { label: "blocks".to_owned(), doubles: false });
    Ok(section)
}

fn against_writers(ground: &Ground) -> Result<Section> {
    let (slice, rounds) = (ground.effort.slice, ground.effort.long_rounds);
    let mut rows = Vec::new();
    for writers in WRITERS {
        let temporary = folder(&ground.memory)?;
        let geometry = Geometry::blocks(USED).writers(writers + 1);
        let store = Store::create(temporary.path().join("store"), geometry)?;
        let mut others = (1..writers).map(|_| store.writer()).collect::<Result<Vec<_>, _>>()?;
        let open_another = time(rounds.max(5), || Ok(store.writer()?))?;
        let update = alone(ground, updates(&store, store.writer()?, slice))?;
        others.clear();
        let beside = exactly(store.region_bytes() as f64 - (USED * 512) as f64);
        rows.push(row(f64::from(writers), vec![update, open_another, beside]));
    }
    let about = "A store in which so many writers are open: the time of an update by one of them, the time to open one \
                 more, and what is beside its 1,024 blocks, which grows by a spare frame and a slot for each writer.";
    let measures = [
        ("update", Unit::Nanoseconds, true, true),
        ("open a writer", Unit::Nanoseconds, true, true),
        ("beside", Unit::Bytes, true, false),
    ];
    let mut section = section("growth-writers", "Cost against the number of writers", about, &measures, rows);
    section.axis = Some(Axis { label: "writers".to_owned(), doubles: false });
    Ok(section)
}

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    ground.cores.pin(0);
    let sections = vec![against_blocks(ground)?, against_writers(ground)?];
    ground.cores.unpin();
    Ok(sections)
}
