//! Replaying a trace on a device: each request as one, timed.

use std::time::{Duration, Instant};

use casblock::cache::{BlockCache, Config};
use casblock::device::{BlockDevice, DeviceError};
use casblock_traces::{Accesses, Extent, Op};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::output::Output;
use crate::signals::Interruptible;

/// How long requests took, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Latency {
    pub requests: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub max_ns: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let (requests, max_ns) = (histogram.len(), histogram.max());
        Self { requests, p50_ns: at(0.5), p90_ns: at(0.9), p99_ns: at(0.99), p99_9_ns: at(0.999), max_ns }
    }
}

/// What a replay came to.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Replayed {
    /// Blocks of the cache before the device; 0 for none.
    pub cache_blocks: u32,
    /// Requests that were done: not those left out, nor those that come after an interruption.
    pub requests: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Blocks that were read, and were in the cache.
    pub hits: u64,
    /// Blocks that were read from the device.
    pub misses: u64,
    /// Blocks that went to make room.
    pub evictions: u64,
    /// Requests that read.
    pub reads: Latency,
    /// Requests that write.
    pub writes: Latency,
    /// Writes that were left out, as the target is only read.
    pub writes_left_out: u64,
}

/// Replays on a device, through a cache of so many blocks if there is to be one.
pub fn replay(
    device: &dyn BlockDevice,
    accesses: &Accesses,
    cache_blocks: u32,
    read_only: bool,
    output: &Output,
    interrupt: &Interruptible,
) -> anyhow::Result<Replayed> {
    let mut run = Run::new(accesses, read_only);
    if cache_blocks == 0 {
        run.go(&device, output, interrupt)?;
        return Ok(run.end(cache_blocks));
    }
    // What it has is current: nobody else is asked, and a store is asked each time whether a block has changed.
    let cache = BlockCache::new(device, Config::blocks(cache_blocks))?;
    run.go(&cache, output, interrupt)?;
    let counts = cache.statistics();
    Ok(Replayed { hits: counts.hits, misses: counts.misses, evictions: counts.evictions, ..run.end(cache_blocks) })
}

struct Run<'a> {
    accesses: &'a Accesses,
    read_only: bool,
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    requests: u64,
    blocks_read: u64,
    writes_left_out: u64,
    took: Duration,
}

/// Three digits, of anything up to an hour.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds")
}

impl<'a> Run<'a> {
    fn new(accesses: &'a Accesses, read_only: bool) -> Self {
        let (reads, writes, took) = (histogram(), histogram(), Duration::ZERO);
        Self { accesses, read_only, reads, writes, requests: 0, blocks_read: 0, writes_left_out: 0, took }
    }

    fn go(&mut self, device: &impl BlockDevice, output: &Output, interrupt: &Interruptible) -> Result<(), DeviceError> {
        let block_bytes = device.block_bytes();
        let progress = output.progress("replaying", self.accesses.extents.len() as u64);
        let began = Instant::now();
        let mut buffer = Vec::new();
        for (number, Extent { op, blocks }) in (1..).zip(&self.accesses.extents) {
            // A request may take long, so each asks.
            if interrupt.check().is_err() {
                break;
            }
            if number % 64 == 0 {
                progress.set(number);
            }
            let histogram = match op {
                Op::Read => &mut self.reads,
                Op::Write if self.read_only => {
                    self.writes_left_out += 1;
                    continue;
                }
                Op::Write => &mut self.writes,
            };
            buffer.resize((blocks.end - blocks.start) as usize * block_bytes, 0);
            if *op == Op::Write {
                stamp(&mut buffer, block_bytes, blocks.start, number);
            }
            let asked = Instant::now();
            match op {
                Op::Read => device.read(blocks.start, &mut buffer)?,
                Op::Write => device.write(blocks.start, &buffer)?,
            }
            let took_ns = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
            histogram.saturating_record(took_ns.max(1));
            self.requests += 1;
            if *op == Op::Read {
                self.blocks_read += blocks.end - blocks.start;
            }
        }
        self.took = began.elapsed();
        Ok(())
    }

    fn end(&self, cache_blocks: u32) -> Replayed {
        Replayed {
            cache_blocks,
            requests: self.requests,
            seconds: self.took.as_secs_f64(),
            hits: 0,
            misses: self.blocks_read,
            evictions: 0,
            reads: Latency::of(&self.reads),
            writes: Latency::of(&self.writes),
            writes_left_out: self.writes_left_out,
        }
    }
}

/// What is written: in each block its number and the request's, again and again, so that whoever finds it knows where it is from.
fn stamp(buffer: &mut [u8], block_bytes: usize, first: u64, request: u64) {
    for (lba, block) in (first..).zip(buffer.chunks_exact_mut(block_bytes)) {
        for pair in block.chunks_exact_mut(16) {
            pair[..8].copy_from_slice(&lba.to_le_bytes());
            pair[8..].copy_from_slice(&request.to_le_bytes());
        }
    }
}
