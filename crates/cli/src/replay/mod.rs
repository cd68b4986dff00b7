//! `casblock replay`: what a cache makes of the requests that a disk once had.

mod curve;
mod device;
mod html;
mod policy;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use casblock::Store;
use casblock::device::BlockDevice;
use casblock_traces::{Accesses, Facts, Format, Mapping, Trace};
use clap::{Args, ValueEnum as _};
use rustix::fs::Access;
use serde::Serialize;

use crate::number::{self, grouped};
use crate::output::Output;
use crate::same_file::refuse_same_file;
use crate::signals::Interruptible;
use crate::target::{Consent, Device, Target};
use curve::{Point, Size};
use device::{Latency, Replayed};
use policy::{Kind, Workload};

/// Replays a trace of a disk's requests, and tells what a cache makes of it
///
/// Without a target it simulates caching policies: the hit ratio of each, by the size of the cache. With one, a store's file or
/// scsi:/dev/sdX, it also does the requests there, through a cache of --cache blocks, and tells how long they took. That OVERWRITES
/// the target's blocks: a store that holds anything, and every disk, is refused without --i-know-what-is-on-it. With --read-only
/// writes are left out.
///
/// A trace is in VMware's vscsi format (version 1 or 2), or CSV whose first line names the columns: op (r or w), lba (of 512 bytes; or
/// offset_bytes), length_bytes. Either may be packed by gzip or Zstandard; - is stdin. docs/replay.md tells more.
///
/// The trace's blocks are put side by side on the target, in their order, so that any trace fits; --raw-lba leaves them where they were.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The trace
    trace: PathBuf,
    /// The store, or scsi:/dev/sdX, on which it is replayed
    target: Option<Target>,
    /// Blocks that the cache before the target keeps; 0 for no cache
    #[arg(long, value_name = "BLOCKS", default_value = "0", value_parser = number::count_u32)]
    cache: u32,
    /// A policy to simulate; may be given several times [default: all]
    #[arg(long, value_name = "POLICY", value_enum)]
    policy: Vec<Kind>,
    /// Sizes of the simulated caches: in blocks, or in percent of the blocks that the trace uses
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', default_value = "0.1%,1%,10%", value_parser = Size::parse)]
    sizes: Vec<Size>,
    /// Write a page with the curve of hit ratios to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How the trace is written, where that cannot be told from its beginning
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Bytes of a block, where there is no target
    #[arg(long, value_name = "BYTES", default_value = "512", value_parser = block_bytes)]
    block_size: u64,
    /// Leave blocks where they were; requests beyond the target's end are counted, and left out
    #[arg(long)]
    raw_lba: bool,
    /// Do not write to the target
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    consent: Consent,
}

fn block_bytes(text: &str) -> Result<u64, String> {
    match number::count(text)? {
        bytes if bytes.is_power_of_two() && (512..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => Err("a power of two from 512 to 1M is needed".into()),
    }
}

/// `casblock replay`.
pub fn replay(args: &ReplayArgs, output: &Output) -> anyhow::Result<ExitCode> {
    if args.target.is_none() && args.cache > 0 {
        bail!("--cache {} is for a target, on which the trace is replayed; --sizes says what is simulated", args.cache);
    }
    refuse_without_consent(args)?;
    if let Some(page) = &args.html {
        refuse_unwritable(page)?;
        let mut others = args.target.iter().map(Target::path).chain([args.trace.as_path()]);
        others.try_for_each(|path| refuse_same_file(page, path))?;
    }
    // So far a signal may end the process: nothing is there yet to clean up, and stdin may never end.
    let trace = Trace::open(&args.trace, args.format)?;
    let interrupt = Interruptible::new()?;
    let target = open_target(args, output, &interrupt)?;
    let device = target.as_ref().map(Device::as_device);
    let mapping = if args.raw_lba { Mapping::Raw } else { Mapping::Dense };
    let bytes = device.map_or(args.block_size, |device| device.block_bytes() as u64);
    let accesses = Accesses::of(&trace, bytes, mapping, device.map(BlockDevice::block_count))
        .with_context(|| args.trace.display().to_string())?;
    drop(trace);
    let simulated = simulate(args, &accesses, output, &interrupt)?;
    let replayed =
        device.map(|device| device::replay(device, &accesses, args.cache, args.read_only, output, &interrupt));
    let report = Report {
        trace: args.trace.display().to_string(),
        block_bytes: bytes,
        facts: accesses.facts,
        points: simulated.table,
        as_cached: simulated.as_cached,
        target: args.target.as_ref().map(ToString::to_string),
        replayed: replayed.transpose()?,
    };
    // Before the page, which may fail: what took long is shown.
    output.result(&report)?;
    if let (Some(path), Some(curve)) = (&args.html, &simulated.curve) {
        let page = html::page(&report, curve);
        std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))?;
    }
    interrupt.check()?;
    Ok(ExitCode::SUCCESS)
}

/// What was simulated: nothing, if it was interrupted.
struct Simulated {
    table: Vec<Point>,
    curve: Option<Vec<Point>>,
    /// The cache before the target, as it would be without one.
    as_cached: Option<Point>,
}

fn simulate(
    args: &ReplayArgs,
    accesses: &Accesses,
    output: &Output,
    interrupt: &Interruptible,
) -> anyhow::Result<Simulated> {
    let (facts, footprint) = (&accesses.facts, accesses.facts.footprint_blocks);
    let workload = Workload::new(accesses.spans()?, footprint as u32);
    let policies = policies(&args.policy);
    let in_blocks = |sizes: &[Size]| {
        let mut blocks: Vec<u32> = sizes.iter().map(|size| size.blocks(footprint)).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    };
    let run = |policies: &[Kind], sizes: &[Size]| {
        curve::simulate(&workload, facts, policies, &in_blocks(sizes), output, interrupt)
    };
    let table = run(&policies, &args.sizes).unwrap_or_default();
    let as_cached = (args.cache > 0).then(|| run(&[Kind::S3Fifo], &[Size::Blocks(args.cache.into())])).flatten();
    let curve = args.html.is_some().then(|| run(&policies, &curve::curve_sizes())).flatten();
    Ok(Simulated { table, curve, as_cached: as_cached.and_then(|points| points.first().copied()) })
}

/// The policies that were asked for, each once; all if none was.
fn policies(asked: &[Kind]) -> Vec<Kind> {
    let mut policies = Vec::new();
    for kind in if asked.is_empty() { Kind::value_variants() } else { asked } {
        if !policies.contains(kind) {
            policies.push(*kind);
        }
    }
    policies
}

/// Whether a disk is to be written of which nobody has said that it may be: it always holds something, if only zeros that somebody
/// needs. Told before the trace is read, which may take long.
fn refuse_without_consent(args: &ReplayArgs) -> anyhow::Result<()> {
    match &args.target {
        Some(target @ Target::Scsi(_)) if !args.read_only && !args.consent.is_given() => {
            bail!("{target}: the disk's blocks would be overwritten ({HOW_TO_GO_ON})")
        }
        _ => Ok(()),
    }
}

/// Whether the page cannot be written, as far as can be told before there is one.
fn refuse_unwritable(page: &Path) -> anyhow::Result<()> {
    let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = if page.exists() { page } else { folder };
    rustix::fs::access(written, Access::WRITE_OK).with_context(|| format!("writing {}", page.display()))?;
    if page.is_dir() {
        bail!("writing {}: it is a directory", page.display());
    }
    Ok(())
}

/// Opens the target; a store that is to be written must hold nothing, unless it was said that it may be overwritten.
fn open_target(args: &ReplayArgs, output: &Output, interrupt: &Interruptible) -> anyhow::Result<Option<Device>> {
    let Some(target) = &args.target else { return Ok(None) };
    if args.read_only {
        return target.open_to_read().map(Some);
    }
    if matches!(target, Target::Scsi(_)) && !args.consent.is_given() {
        bail!("{target}: a disk is overwritten only with --i-know-what-is-on-it; --read-only does without");
    }
    let device = target.open_to_write(args.consent, output)?;
    if let Some(store) = device.as_store().filter(|_| !args.consent.is_given())
        && let Some(lba) = first_written(store, interrupt)?
    {
        bail!("{target}: block {lba} holds something, and may be overwritten ({HOW_TO_GO_ON})");
    }
    Ok(Some(device))
}

const HOW_TO_GO_ON: &str = "--i-know-what-is-on-it allows it; --read-only does without";

/// The first block of a store that is not zeros.
fn first_written(store: &Store, interrupt: &Interruptible) -> anyhow::Result<Option<u64>> {
    let mut block = vec![0; store.block_bytes()];
    for lba in 0..store.block_count() {
        interrupt.check()?;
        store.read(lba, &mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(lba));
        }
    }
    Ok(None)
}

/// What the command tells.
#[derive(Serialize)]
struct Report {
    trace: String,
    block_bytes: u64,
    #[serde(flatten)]
    facts: Facts,
    #[serde(rename = "hit_ratios")]
    points: Vec<Point>,
    /// What the cache before the target is expected to hit.
    #[serde(rename = "simulated_cache")]
    as_cached: Option<Point>,
    target: Option<String>,
    replayed: Option<Replayed>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { requests, writes, accesses, footprint_blocks, .. } = self.facts;
        writeln!(f, "requests           {}, of which {} write", grouped(requests), grouped(writes))?;
        writeln!(f, "accesses           {} of {} bytes each", grouped(accesses), grouped(self.block_bytes))?;
        let footprint = number::bytes(footprint_blocks.saturating_mul(self.block_bytes));
        write!(f, "footprint          {} blocks, {footprint}", grouped(footprint_blocks))?;
        for (count, what) in [
            (self.facts.unaligned, "not of whole blocks: all that they touch are taken"),
            (self.facts.oversized_or_empty, "longer than 64 MiB or empty: left out"),
            (self.facts.out_of_range, "beyond the target's end, or beyond any disk's: left out"),
            (self.facts.other_commands, "neither read nor write: left out"),
        ] {
            if count > 0 {
                write!(f, "\n  {:>16} {what}", grouped(count))?;
            }
        }
        if !self.points.is_empty() {
            self.write_ratios(f)?;
        }
        if let (Some(target), Some(replayed)) = (&self.target, &self.replayed) {
            write_replayed(f, target, replayed, self.as_cached)?;
        }
        Ok(())
    }
}

impl Report {
    /// A table: a line a size, a column a policy.
    fn write_ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut policies: Vec<Kind> = Vec::new();
        for point in &self.points {
            if !policies.contains(&point.policy) {
                policies.push(point.policy);
            }
        }
        write!(f, "\n\nhits in %, by the blocks of a simulated cache\n{:>20}", "blocks")?;
        policies.iter().try_for_each(|policy| write!(f, "{:>9}", policy.name()))?;
        for line in self.points.chunks(policies.len()) {
            let blocks = line[0].cache_blocks;
            let percent = 100.0 * f64::from(blocks) / self.facts.footprint_blocks.max(1) as f64;
            write!(f, "\n{:>12} {:>5.1} %", grouped(blocks.into()), percent)?;
            line.iter().try_for_each(|point| write!(f, "{:>9.2}", 100.0 * point.hit_ratio))?;
        }
        Ok(())
    }
}

fn write_replayed(
    f: &mut fmt::Formatter<'_>,
    target: &str,
    replayed: &Replayed,
    simulated: Option<Point>,
) -> fmt::Result {
    let Replayed { cache_blocks, requests, seconds, hits, misses, reads, writes, .. } = replayed;
    write!(f, "\n\nreplayed on {target}: {} requests in {seconds:.1} s", grouped(*requests))?;
    if *cache_blocks > 0 {
        let ratio = 100.0 * *hits as f64 / (hits + misses).max(1) as f64;
        write!(f, "\ncache              {} blocks", grouped((*cache_blocks).into()))?;
        write!(f, "\nblocks read        {}, of which {ratio:.2} % were in the cache", grouped(hits + misses))?;
        if let Some(simulated) = simulated {
            write!(f, ", {:.2} % as simulated", 100.0 * simulated.read_hit_ratio)?;
        }
    }
    if replayed.writes_left_out > 0 {
        write!(f, "\nwrites left out    {}", grouped(replayed.writes_left_out))?;
    }
    write!(f, "\n{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}", "us", "requests", "p50", "p90", "p99", "p99.9", "max")?;
    [("reads", reads), ("writes", writes)].into_iter().try_for_each(|(name, latency)| write_latency(f, name, latency))
}

fn write_latency(f: &mut fmt::Formatter<'_>, name: &str, latency: &Latency) -> fmt::Result {
    write!(f, "\n{name:>12}{:>12}", grouped(latency.requests))?;
    let all = [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p99_9_ns, latency.max_ns];
    all.into_iter().try_for_each(|ns| write!(f, "{:>10.2}", ns as f64 / 1000.0))
}
