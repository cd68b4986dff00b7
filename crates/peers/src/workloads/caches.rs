//! Caches: hits, updates beside them, and how many of the accesses hit.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use casblock_traces::{Access, Accesses, Mapping};
use fastrand::Rng;
use hdrhistogram::Histogram;

use super::alone::SEED;
use super::contended::{Round, on_threads};
use super::team::Rounds;
use super::{Ground, section};
use crate::block::{BLOCK, middle_byte, number, numbered};
use crate::caches::{Cache, Casblock, Disk, Foyer, Moka, QuickCache};
use crate::cores::Cores;
use crate::measure::{Entrant, compete, once};
use crate::results::{Axis, Contestant, Kind, Section, Unit};

/// Blocks that are read: 8 MiB. All caches have room for twice as many, so that those that are cut into shards keep them all.
const BLOCKS: u64 = 1 << 14;

const THREADS: [usize; 3] = [1, 2, 8];

/// What contestants do.
trait Workload {
    /// Makes one ready.
    fn enter<C: Cache + 'static>(&self) -> Result<Rounds<'static>>;
}

fn entrant<C: Cache + 'static>(workload: &impl Workload) -> Result<Entrant<'static>> {
    let kind = if C::NAME == Casblock::NAME { Kind::Casblock } else { Kind::Peer };
    Ok(Entrant { who: C::NAME.to_owned(), kind, run: workload.enter::<C>()? })
}

fn all(workload: &impl Workload) -> Result<Vec<Entrant<'static>>> {
    Ok(vec![
        entrant::<Casblock>(workload)?,
        entrant::<Moka>(workload)?,
        entrant::<QuickCache>(workload)?,
        entrant::<Foyer>(workload)?,
    ])
}

/// How each contestant is used.
pub fn contestants() -> Vec<Contestant> {
    fn of<C: Cache>() -> Contestant {
        let survives = "nothing: it is the memory of one process".to_owned();
        Contestant { name: C::NAME.to_owned(), used: C::USE.to_owned(), survives }
    }
    vec![of::<Moka>(), of::<QuickCache>(), of::<Foyer>()]
}

/// A cache that has all blocks of a disk.
fn filled<C: Cache>(blocks: u64) -> C {
    let cache = C::new(Disk::of(blocks), 2 * blocks as u32);
    // Some take in what they are told to only later.
    for _ in 0..3 {
        (0..blocks).for_each(|lba| assert_eq!(cache.read(lba, number), Some(lba)));
    }
    cache
}

/// Which blocks a thread reads, one after the other.
#[derive(Clone, Copy)]
enum Draw {
    /// Each as often as any other.
    Uniform,
    /// Some much more often: the n-th in proportion to n⁻⁰·⁹⁹ (Zipf).
    Skewed,
}

/// So many draws of blocks below `blocks`.
fn draws(draw: Draw, random: &mut Rng, blocks: u64, count: usize) -> Vec<u32> {
    const EXPONENT: f64 = 0.99;
    // What all ranks before each one weigh together.
    let mut below = 0.0;
    let mut before = Vec::new();
    for rank in 1..=blocks {
        before.push(below);
        below += (rank as f64).powf(-EXPONENT);
    }
    // What is read often does not lie together.
    let scattered = |rank: u64| (rank.wrapping_mul(0x9E37_79B1) % blocks) as u32;
    let mut one = || match draw {
        Draw::Uniform => random.u32(..blocks as u32),
        Draw::Skewed => {
            let at = random.f64() * below;
            scattered(before.partition_point(|before| *before <= at) as u64 - 1)
        }
    };
    (0..count).map(|_| one()).collect()
}

/// Draws of a thread, again and again: few enough to stay in a core's cache beside the blocks.
const DRAWS: usize = 1 << 13;

/// Between looks at whether a round is over.
const BATCH: usize = 64;

/// All reads hit.
struct Hits {
    draw: Draw,
    blocks: u64,
    threads: usize,
    slice: Duration,
    cores: Cores,
}

impl Workload for Hits {
    fn enter<C: Cache + 'static>(&self) -> Result<Rounds<'static>> {
        let (cache, cores) = (filled::<C>(self.blocks), self.cores.clone());
        let (draw, blocks, threads, slice) = (self.draw, self.blocks, self.threads, self.slice);
        Ok(Box::new(move || {
            let before = cache.disk().reads();
            let work = |index: usize, round: &Round| {
                let draws = draws(draw, &mut Rng::with_seed(SEED + index as u64), blocks, DRAWS);
                round.begin();
                let mut reads = 0;
                for batch in draws.chunks_exact(BATCH).cycle() {
                    for lba in batch.iter().copied().map(u64::from) {
                        ensure!(cache.read(lba, |block| middle_byte(block, lba)) == lba as u8, "another block");
                    }
                    reads += batch.len() as u64;
                    if round.is_over() {
                        break;
                    }
                }
                Ok(reads)
            };
            let (reads, took) = on_threads(threads, &cores, slice, work)?;
            ensure!(cache.disk().reads() == before, "{}: not all were hits", C::NAME);
            Ok(vec![reads.iter().sum::<u64>() as f64 / took.as_secs_f64()])
        }))
    }
}

/// Nine reads and a write.
struct Mixed {
    blocks: u64,
    threads: usize,
    slice: Duration,
    cores: Cores,
}

/// One operation of so many is timed.
const SAMPLE: u64 = 8;

impl Workload for Mixed {
    fn enter<C: Cache + 'static>(&self) -> Result<Rounds<'static>> {
        let (cache, cores) = (filled::<C>(self.blocks), self.cores.clone());
        let (blocks, threads, slice) = (self.blocks, self.threads, self.slice);
        Ok(Box::new(move || {
            let work = |index: usize, round: &Round| {
                let mut random = Rng::with_seed(SEED + index as u64);
                let draws = draws(Draw::Skewed, &mut random, blocks, DRAWS);
                let mut took = Histogram::<u64>::new(3)?;
                round.begin();
                let mut operations = 0u64;
                for &lba in draws.iter().cycle() {
                    let lba = u64::from(lba);
                    let is_write = random.u32(..10) == 0;
                    let asked = operations.is_multiple_of(SAMPLE).then(Instant::now);
                    if is_write {
                        cache.write(lba, &numbered(lba));
                    } else {
                        ensure!(cache.read(lba, |block| middle_byte(block, lba)) == lba as u8, "another block");
                    }
                    if let Some(asked) = asked {
                        took.saturating_record(asked.elapsed().as_nanos() as u64);
                    }
                    operations += 1;
                    if operations.is_multiple_of(BATCH as u64) && round.is_over() {
                        break;
                    }
                }
                Ok((operations, took))
            };
            let (of_threads, took) = on_threads(threads, &cores, slice, work)?;
            let (mut operations, mut latencies) = (0, Histogram::<u64>::new(3)?);
            for (of_one, took) in &of_threads {
                operations += of_one;
                latencies.add(took)?;
            }
            let at = |share| latencies.value_at_quantile(share) as f64;
            Ok(vec![operations as f64 / took.as_secs_f64(), at(0.999), at(0.5), at(0.99)])
        }))
    }
}

/// Accesses, one after the other, to a cache that has not room for all.
struct Replay<'a> {
    accesses: &'a [Access],
    footprint: u64,
    capacity: u32,
}

impl Workload for Replay<'_> {
    fn enter<C: Cache + 'static>(&self) -> Result<Rounds<'static>> {
        let (accesses, footprint, capacity) = (self.accesses.to_vec(), self.footprint, self.capacity);
        Ok(Box::new(move || {
            let cache = C::new(Disk::of(footprint), capacity);
            let began = Instant::now();
            for access in &accesses {
                let lba = u64::from(access.block);
                if access.is_read {
                    ensure!(cache.read(lba, number) == Some(lba), "another block");
                } else {
                    cache.write(lba, &numbered(lba));
                }
            }
            let took = began.elapsed().as_secs_f64();
            let reads = accesses.iter().filter(|access| access.is_read).count() as u64;
            let hits = reads - cache.disk().reads();
            Ok(vec![100.0 * hits as f64 / reads.max(1) as f64, accesses.len() as f64 / took])
        }))
    }
}

/// Sizes of caches, in percent of the blocks that are used.
const SIZES_PERCENT: [f64; 3] = [0.1, 1.0, 10.0];

fn hit_ratios(id: &str, title: &str, about: &str, accesses: &[Access], footprint: u64) -> Result<Section> {
    let mut rows = Vec::new();
    for percent in SIZES_PERCENT {
        let capacity = ((footprint as f64 * percent / 100.0).round() as u32).max(1);
        // The same accesses hit the same each time, or nearly.
        rows.extend(once(all(&Replay { accesses, footprint, capacity })?, Some(percent))?);
    }
    let measures = [("hits of reads", Unit::Percent, false, true), ("accesses", Unit::PerSecond, false, false)];
    let mut section = section(id, title, about, &measures, rows);
    section.axis = Some(Axis { label: "cache, % of blocks".to_owned(), doubles: false });
    Ok(section)
}

/// Reads of some blocks often, of some once in a while, and of long runs.
fn made_up(blocks: u64, count: usize) -> Vec<Access> {
    let mut random = Rng::with_seed(SEED);
    let mut often = draws(Draw::Skewed, &mut random, blocks, count).into_iter();
    let (mut accesses, blocks) = (Vec::with_capacity(count), blocks as u32);
    while accesses.len() < count {
        if random.u32(..200) == 0 {
            let (first, run) = (random.u32(..blocks), random.u32(64..512));
            accesses.extend((first..blocks.min(first + run)).map(|block| Access { block, is_read: true }));
        } else {
            let block = often.next().unwrap_or_default();
            accesses.push(Access { block, is_read: random.u32(..10) > 0 });
        }
    }
    accesses.truncate(count);
    accesses
}

fn over_threads(
    (id, title, about): (&str, &str, &str),
    measures: &[(&str, Unit, bool, bool)],
    rounds: usize,
    entrants: impl Fn(usize) -> Result<Vec<Entrant<'static>>>,
) -> Result<Section> {
    let mut rows = Vec::new();
    for threads in THREADS {
        rows.extend(compete(entrants(threads)?, rounds, Some(threads as f64))?);
    }
    let mut section = section(id, title, about, measures, rows);
    section.axis = Some(Axis { label: "threads".to_owned(), doubles: false });
    Ok(section)
}

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    let (slice, rounds) = (3 * ground.effort.slice, ground.effort.rounds);
    let (cores, resident) = (&ground.cores, BLOCKS.min(ground.effort.most_blocks));
    let hits = |draw| move |threads| all(&Hits { draw, blocks: resident, threads, slice, cores: cores.clone() });
    let mixed =
        |threads| all(&Mixed { blocks: resident, threads, slice: ground.effort.long_slice, cores: cores.clone() });
    let hits_a_second = [("hits", Unit::PerSecond, false, true)];
    let mixed_measures = [
        ("operations", Unit::PerSecond, false, true),
        ("p99.9", Unit::Nanoseconds, true, true),
        ("p50", Unit::Nanoseconds, true, false),
        ("p99", Unit::Nanoseconds, true, false),
    ];
    let uniform = "Threads read random blocks of 16,384, all of which are cached, and look at a byte of each.";
    let skewed = "As before, but some blocks are read much more often than others (Zipf, 0.99).";
    let both = "Of ten operations one writes its block, in proportion as before. One in eight is timed, with two readings of the clock.";
    let (blocks, count) = if ground.effort.most_blocks < BLOCKS { (1000, 20_000) } else { (100_000, 2_000_000) };
    let about = "2 million accesses to 100,000 blocks, of which one in ten writes: most as in the last two sections, one in 200 begins \
                 a run of some hundred. By how many blocks the cache has, in percent of them. An access is an operation of one thread.";
    let mut sections = vec![
        over_threads(("cache-hits", "Cache: hits", uniform), &hits_a_second, rounds, hits(Draw::Uniform))?,
        over_threads(
            ("cache-hits-skewed", "Cache: hits of some more than of others", skewed),
            &hits_a_second,
            rounds,
            hits(Draw::Skewed),
        )?,
        over_threads(
            ("cache-mixed", "Cache: hits beside updates", both),
            &mixed_measures,
            ground.effort.long_rounds,
            mixed,
        )?,
        hit_ratios("cache-hit-ratio", "Cache: hit ratio", about, &made_up(blocks, count), blocks)?,
    ];
    if let Some((path, trace)) = &ground.trace {
        let accesses = Accesses::of(trace, BLOCK as u64, Mapping::Dense, None)?;
        let (sequence, footprint) = (accesses.sequence()?, accesses.facts.footprint_blocks);
        let about = format!("The same with the accesses of a trace, {}.", path.display());
        sections.push(hit_ratios("cache-trace", "Cache: hit ratio on a trace", &about, &sequence, footprint)?);
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skewed_draws_are_skewed_and_in_range() {
        let mut random = Rng::with_seed(1);
        let mut counts = vec![0; 1000];
        draws(Draw::Skewed, &mut random, 1000, 100_000).iter().for_each(|block| counts[*block as usize] += 1);
        counts.sort_unstable();
        // The first of 1,000 has 1 of 7.7 parts, the second 1 of 15.
        assert!((11_000..15_000).contains(&counts[999]) && (5_000..8_000).contains(&counts[998]), "{counts:?}");
        assert!(draws(Draw::Uniform, &mut random, 3, 100).iter().all(|block| *block < 3));
        assert!(made_up(50, 1000).iter().all(|access| access.block < 50));
    }
}
