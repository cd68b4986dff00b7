//! `casblock torture`: many processes increment counters in a store's blocks and words while some of them are killed,
//! and afterwards the sums must be right.
//!
//! The parent starts children, which are this program with a hidden argument. Each of their threads reads a block,
//! and replaces it, by compare-and-write, by the block of the next higher counter; now and then it goes through the
//! store instead of its own writer, or only reads, or exchanges a heartbeat word, or gives its writer back and claims
//! one. All that they do stands in a ledger that the parent shares with them (see `ledger`).
//!
//! A thread notes "one increment under way" before it calls the store, and "done" or "not done" after. So at the end,
//! for each counter: `done <= value <= done + died inside`. What is missing below is lost, what is above is extra.
//!
//! The hidden argument `--plant lost|torn|stuck` makes children commit that fault (see `plant`), for the tests of this
//! command: each must be found. `--patience-ms` shortens for them how long a thread may stand still, or wait for a
//! writer slot or a frame (10 s).

mod dice;
mod image;
mod latency;
mod ledger;
mod plant;
mod report;
mod supervisor;
mod worker;

use std::num::NonZeroU16;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use casblock::{Geometry, OpenError, Store};

use crate::durable::DurabilityArg;
use crate::output::Output;
use crate::signals::Interruptible;
use crate::target::store_file;
use latency::Latency;
use ledger::{Header, Ledger, Note, Shape};
use plant::Plant;
use report::Report;
use supervisor::{Events, Plan, Supervisor};

/// Most heartbeat words that are counted in.
const WORDS_MAX: u64 = 4;

/// Increments counters from many processes while killing them, and shows that nothing is lost or torn
///
/// Each thread reads a block and replaces it, by compare-and-write, by one whose counter is one higher; it does the same
/// with heartbeat words. Processes are killed with SIGKILL at random moments and replaced. Then the sums of what was
/// reported done are compared with the counters.
///
/// STORE is made to fit if it does not exist, and kept. In one that exists, the first blocks must be unwritten or left
/// there by an earlier torture, which is then continued; --force overwrites others, and heartbeat words 0 to 3.
///
/// Exit status: 0 only if nothing was lost, doubled, torn or stuck, and the store's check is clean.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The store's file
    #[arg(value_parser = store_file())]
    store: PathBuf,

    /// Processes
    #[arg(long, value_name = "P", default_value = "2")]
    processes: NonZeroU16,

    /// Threads of each process
    #[arg(long, value_name = "T", default_value = "2")]
    threads: NonZeroU16,

    /// Blocks to count in
    #[arg(long, value_name = "B", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    blocks: u64,

    /// For how long
    #[arg(long, value_name = "S", default_value = "5")]
    seconds: u64,

    /// Milliseconds from one kill to the next, on average; 0 for no kills
    #[arg(long, value_name = "MS", default_value = "100")]
    kill_every: u64,

    /// What a store that is made here survives; in one of durability power, now and then a thread syncs
    #[arg(long, value_name = "WHAT", default_value = "process")]
    durability: DurabilityArg,

    /// Repeats the random choices of an earlier run (not its timing)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Overwrites blocks and words that hold something else
    #[arg(long)]
    force: bool,

    #[arg(long, hide = true)]
    plant: Option<Plant>,

    #[arg(long, hide = true, default_value = "10000")]
    patience_ms: u64,

    #[arg(long, hide = true, requires = "generation")]
    child: Option<usize>,

    #[arg(long, hide = true, requires = "child")]
    generation: Option<u64>,
}

/// Runs it.
pub fn run(args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    if let (Some(process), Some(generation)) = (args.child, args.generation) {
        worker::run(&args.store, worker::Identity { process, generation })?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Interruptible::new().context("catching signals")?;
    let prepared = Prepared::new(args)?;
    let file = tempfile::tempfile().context("making the ledger's temporary file")?;
    let ledger = Ledger::create(&file, prepared.shape).context("mapping the ledger")?;
    ledger.set(Header::Seed, prepared.seed);
    ledger.set(Header::Plant, Plant::number(args.plant));
    ledger.set(Header::PatienceMs, args.patience_ms);
    ledger.set(Header::Roomy, u64::from(prepared.roomy));

    let plan = Plan {
        run: Duration::from_secs(args.seconds),
        kill_every: (args.kill_every > 0).then(|| Duration::from_millis(args.kill_every)),
        patience: Duration::from_millis(args.patience_ms),
        seed: prepared.seed,
    };
    let progress = output.progress("torturing", args.seconds * 1000);
    let begun = Instant::now();
    let events = Supervisor::start(&args.store, &file, &ledger)?
        .run(&plan, &signals, |passed| progress.set(passed.as_millis() as u64))?;
    let elapsed = begun.elapsed();
    drop(progress);

    let report = judge(args, &prepared, &ledger, &events, elapsed)?;
    for failure in &events.failed {
        eprintln!("casblock: {failure}");
    }
    output.result(&report)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The store, ready, and what it holds.
struct Prepared {
    shape: Shape,
    seed: u64,
    roomy: bool,
    /// What each counter holds before anybody counts.
    base: Vec<u64>,
}

impl Prepared {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let (processes, threads) = (u64::from(args.processes.get()), u64::from(args.threads.get()));
        let writers = processes * threads;
        let store = open_or_create(args, writers)?;
        let geometry = store.geometry();
        if geometry.block_count() < args.blocks || u64::from(geometry.writer_count()) < writers {
            bail!(
                "{}: has {} blocks and {} writer slots; this needs {} blocks, and a slot for each of {writers} threads",
                args.store.display(),
                geometry.block_count(),
                geometry.writer_count(),
                args.blocks
            );
        }
        let words = geometry.word_count().min(WORDS_MAX);
        let shape = Shape {
            processes: processes as usize,
            threads: threads as usize,
            blocks: usize::try_from(args.blocks)?,
            words: words as usize,
        };
        let mut base = Vec::with_capacity(shape.counters());
        for lba in 0..args.blocks {
            base.push(first_count(&store, lba, args.force)?);
        }
        for index in 0..words {
            base.push(first_beat(&store, index, args.force)?);
        }
        let seed = args.seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            now.as_nanos() as u64 & u64::from(u32::MAX)
        });
        Ok(Self { shape, seed, roomy: u64::from(geometry.writer_count()) >= 2 * writers, base })
    }
}

/// Opens the store, or makes one that fits.
fn open_or_create(args: &Args, writers: u64) -> anyhow::Result<Store> {
    if args.store.symlink_metadata().is_ok() {
        return Ok(Store::open(&args.store)?);
    }
    // Each thread has a writer of its own, and sometimes one of the store's.
    let slots = u16::try_from(2 * writers).context("at most 32,767 threads are possible, of all processes together")?;
    let geometry = Geometry::blocks(args.blocks).writers(slots).durability(args.durability.into());
    Ok(Store::create(&args.store, geometry)?)
}

/// The counter in a block, before anybody counts.
fn first_count(store: &Store, lba: u64, force: bool) -> anyhow::Result<u64> {
    let mut block = vec![0; store.geometry().size_of_block().bytes()];
    store.read(lba, &mut block)?;
    match image::count(&block, lba) {
        Some(count) if count > 0 || !store.is_written(lba)? => Ok(count),
        _ if force => {
            block.fill(0);
            store.write(lba, &block)?;
            Ok(0)
        }
        _ => bail!("block {lba} holds something else than a torture's counter; --force overwrites it"),
    }
}

/// The counter in a heartbeat word, before anybody counts.
fn first_beat(store: &Store, index: u64, force: bool) -> anyhow::Result<u64> {
    let found = store.read_word(index)?;
    match image::beat_count(found) {
        Some(count) => Ok(count),
        None if force => match store.word(index)?.compare_exchange(found, 0) {
            Ok(()) => Ok(0),
            Err(_) => bail!("heartbeat word {index} is in use"),
        },
        None => bail!("heartbeat word {index} holds {found:#x}, which no torture wrote; --force overwrites it"),
    }
}

/// Compares what the store holds with what was done, and verifies its invariants.
fn judge(
    args: &Args,
    prepared: &Prepared,
    ledger: &Ledger,
    events: &Events,
    elapsed: Duration,
) -> anyhow::Result<Report> {
    let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64()) as u64;
    let total = |note| ledger.total(note);
    let confirmed = |counters: Range<usize>| counters.map(|counter| ledger.confirmed(counter)).sum();
    let Shape { blocks, .. } = prepared.shape;
    let (written, miscompares) = (confirmed(0..blocks), total(Note::Miscompares));
    let longest_ns = ledger.rows().map(|row| row.get(Note::LongestNs)).max().unwrap_or(0);
    let latency = Latency::of(ledger.latencies(), longest_ns);
    let mut report = Report {
        store: args.store.clone(),
        processes: prepared.shape.processes as u64,
        threads: prepared.shape.threads as u64,
        blocks: prepared.shape.blocks as u64,
        words: prepared.shape.words as u64,
        seconds: elapsed.as_secs_f64(),
        kill_every_ms: args.kill_every,
        seed: prepared.seed,
        interrupted: events.interrupted,
        attempts: written + miscompares,
        written,
        miscompares,
        attempts_per_second: per_second(written + miscompares),
        written_per_second: per_second(written),
        reads: total(Note::Reads),
        beats: confirmed(blocks..prepared.shape.counters()),
        claims: total(Note::Claims),
        p50_ns: latency.p50_ns,
        p99_ns: latency.p99_ns,
        p99_9_ns: latency.p99_9_ns,
        max_ns: latency.max_ns,
        kills: events.kills,
        unresolved: events.unresolved.iter().sum(),
        confirmed: confirmed(0..prepared.shape.counters()),
        counted: 0,
        lost: 0,
        extra: 0,
        torn: total(Note::Torn),
        stuck: events.stuck,
        refused: total(Note::Refused),
        failed: events.failed.len() as u64,
        check_clean: false,
        frames_leaked: 0,
        frames_doubly_owned: 0,
        cells_out_of_range: 0,
        slots_damaged: 0,
    };
    let store = Store::open_exclusive(&args.store).map_err(|error| match error {
        OpenError::InUse { .. } => anyhow::Error::new(error).context("cannot be checked"),
        error => error.into(),
    })?;
    compare_sums(&store, prepared, ledger, events, &mut report)?;
    report.set_check(&store.check());
    Ok(report)
}

/// Finds what is lost, extra and torn in the counters as they stand.
fn compare_sums(
    store: &Store,
    prepared: &Prepared,
    ledger: &Ledger,
    events: &Events,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut block = vec![0; store.geometry().size_of_block().bytes()];
    for (counter, (&base, &unresolved)) in prepared.base.iter().zip(&events.unresolved).enumerate() {
        let value = if counter < prepared.shape.blocks {
            store.read(counter as u64, &mut block)?;
            image::count(&block, counter as u64)
        } else {
            image::beat_count(store.read_word((counter - prepared.shape.blocks) as u64)?)
        };
        let Some(value) = value else {
            report.torn += 1;
            continue;
        };
        report.counted += value.saturating_sub(base);
        let least = base + ledger.confirmed(counter);
        report.lost += least.saturating_sub(value);
        report.extra += value.saturating_sub(least + unresolved);
    }
    Ok(())
}
