//! Hit ratios of policies, by the size of the cache.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use casblock_traces::Facts;
use serde::Serialize;

use super::policy::{Kind, Workload};
use crate::output::Output;
use crate::signals::Interruptible;

/// A size of a cache.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Size {
    /// So many blocks.
    Blocks(u64),
    /// So much of the trace's footprint, in percent.
    Percent(f64),
}

impl Size {
    /// What an argument means: a number of blocks, or a number and `%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return crate::number::positive(text).map(Self::Blocks);
        };
        match percent.parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
            _ => Err("a percentage is more than 0, and 100 at most".into()),
        }
    }

    /// How many blocks that is, at least 1 and at most the footprint.
    pub fn blocks(self, footprint: u64) -> u32 {
        let blocks = match self {
            Self::Blocks(blocks) => blocks,
            Self::Percent(percent) => (footprint as f64 * percent / 100.0).round() as u64,
        };
        u32::try_from(blocks.clamp(1, footprint.max(1))).unwrap_or(u32::MAX)
    }
}

/// The sizes of a curve: from a thousandth of the footprint to all of it.
pub fn curve_sizes() -> Vec<Size> {
    (0..=24).map(|step| Size::Percent(0.1 * 10f64.powf(f64::from(step) / 8.0))).collect()
}

/// One policy's hit ratio with one size.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Point {
    /// The policy.
    pub policy: Kind,
    /// Blocks of the cache.
    pub cache_blocks: u32,
    /// Hits, of all accesses.
    pub hits: u64,
    /// The same as a part of 1.
    pub hit_ratio: f64,
    /// Hits of the blocks read, as a part of these.
    pub read_hit_ratio: f64,
}

/// Simulates policies with caches of these sizes, on as many cores as there are; `None` if it was interrupted.
pub fn simulate(
    workload: &Workload,
    facts: &Facts,
    policies: &[Kind],
    sizes: &[u32],
    output: &Output,
    interrupt: &Interruptible,
) -> Option<Vec<Point>> {
    let work: Vec<(u32, Kind)> = sizes.iter().flat_map(|size| policies.iter().map(|kind| (*size, *kind))).collect();
    let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let progress = output.progress("simulating", facts.accesses * work.len() as u64);
    let ratio = |hits: u64, of: u64| hits as f64 / of.max(1) as f64;
    let simulate = || {
        let mut points = Vec::new();
        while let Some(&(size, policy)) = work.get(next.fetch_add(1, Relaxed)) {
            let tick = |count| {
                done.fetch_add(count, Relaxed);
                !stop.load(Relaxed)
            };
            let Some(hits) = policy.hits(workload, size, tick) else { break };
            points.push(Point {
                policy,
                cache_blocks: size,
                hits: hits.all,
                hit_ratio: ratio(hits.all, facts.accesses),
                read_hit_ratio: ratio(hits.reads, facts.blocks_read),
            });
        }
        points
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(work.len());
    let mut points: Vec<Point> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(simulate)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(10));
            progress.set(done.load(Relaxed));
            stop.store(interrupt.check().is_err(), Relaxed);
        }
        workers.into_iter().flat_map(|worker| worker.join().expect("it does not panic")).collect()
    });
    let order = |point: &Point| work.iter().position(|it| *it == (point.cache_blocks, point.policy));
    points.sort_by_key(order);
    (points.len() == work.len()).then_some(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_blocks_or_percent() {
        assert_eq!(Size::parse("4K"), Ok(Size::Blocks(4096)));
        assert_eq!(Size::parse("0.1%"), Ok(Size::Percent(0.1)));
        for wrong in ["0", "0%", "101%", "-1%", "NaN%", "x", ""] {
            assert!(Size::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Size::Percent(0.1).blocks(100_000), 100);
        assert_eq!((Size::Percent(0.1).blocks(10), Size::Blocks(99).blocks(10), Size::Blocks(9).blocks(0)), (1, 10, 1));
        let sizes: Vec<u32> = curve_sizes().iter().map(|size| size.blocks(100_000)).collect();
        assert_eq!((sizes[0], sizes[8], sizes[16], sizes[24]), (100, 1000, 10_000, 100_000));
    }
}
