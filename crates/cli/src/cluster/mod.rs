//! `casblock cluster`: hosts and their heartbeats.

mod table;
mod watch;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use casblock::ats::Ats;
use casblock::device::BlockDevice;
use casblock::heartbeat::{Cluster, ClusterOptions, Liveness, Observer, SlotView, Timing};
use casblock::{CreateOptions, Geometry, Store};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::number::{self, grouped};
use crate::output::Output;
use crate::signals::Interruptible;
use crate::target::{Consent, Device, Target};

/// Hosts that share a store or a disk: who is there, and who lives
#[derive(Args, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    Init(InitArgs),
    /// Lists the hosts
    ///
    /// Watches their hearts for as long as two beats take, so as to tell who lives.
    Hosts(LookArgs),
    Watch(watch::WatchArgs),
}

/// Makes a cluster: a header, a block for each host, a block for each lease
///
/// A store that does not exist is made, with room for it. Blocks that hold something are refused, unless --force is
/// given, which also makes a cluster anew: hosts of the old one find themselves fenced, with their next beat, and tokens go on
/// from where they were. A store's words serve one cluster: a second one on it needs --force, and ends the first.
///
/// A host that cannot beat must stop before others may take what it had: the stale time must be at least 1.23 times the
/// interval and the I/O timeout together.
#[derive(Args, Debug)]
struct InitArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// How many hosts there can be at the same time [default: 2048, or as many as an existing store has words]
    #[arg(long, value_name = "N", value_parser = number::positive)]
    hosts: Option<u64>,
    /// How many leases there are
    #[arg(long, value_name = "N", default_value = "1024", value_parser = number::count)]
    leases: u64,
    /// From one beat to the next
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = number::time)]
    interval: Duration,
    /// How long a beat may take
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = number::time)]
    io_timeout: Duration,
    /// How long a heart must stand still until its host is taken for dead
    #[arg(long, value_name = "TIME", default_value = "16s", value_parser = number::time)]
    stale: Duration,
    /// The block to begin at
    #[arg(long, value_name = "LBA", default_value = "0", value_parser = number::count)]
    at: u64,
    /// Overwrite blocks that hold something
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct LookArgs {
    /// The store, or scsi:/dev/sdX
    pub target: Target,
    /// The cluster's first block
    #[arg(long, value_name = "LBA", default_value = "0", value_parser = number::count)]
    pub at: u64,
}

/// `casblock cluster`.
pub fn run(args: &ClusterArgs, output: &Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        ClusterCommand::Init(args) => init(args, output),
        ClusterCommand::Hosts(args) => hosts(args, output),
        ClusterCommand::Watch(args) => watch::watch(args, output),
    }
}

/// The most hosts unless told otherwise, as VMFS has.
const HOSTS: u64 = 2048;

fn init(args: &InitArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let timing = Timing { interval: args.interval, io_timeout: args.io_timeout, stale: args.stale };
    timing.check()?;
    let (opened, made) = match &args.target {
        Target::Store(path) if !path.exists() => {
            let hosts = args.hosts.unwrap_or(HOSTS);
            let blocks = args.at.saturating_add(1).saturating_add(hosts).saturating_add(args.leases);
            // Each host may update from several threads.
            let writers = u16::try_from(hosts.saturating_mul(2).max(128)).unwrap_or(u16::MAX);
            let geometry = Geometry::blocks(blocks).words(hosts).writers(writers);
            (Device::Store(CreateOptions::new(geometry).create(path)?), true)
        }
        target => (target.open_to_write(args.consent, output)?, false),
    };
    let words = opened.as_store().map(|store| store.geometry().word_count());
    let hosts = args.hosts.unwrap_or_else(|| words.map_or(HOSTS, |words| words.min(HOSTS)));
    let options = ClusterOptions {
        first_lba: args.at,
        hosts: u32::try_from(hosts).unwrap_or(u32::MAX),
        leases: args.leases,
        timing,
    };
    let ats = Ats::new(opened.as_device());
    let cluster = Cluster::create(&ats, options, args.force).with_context(|| args.target.to_string())?;
    if let Some(store) = opened.as_store().filter(|_| !made) {
        require_writers(store);
    }
    if let Some(caution) = opened.caution() {
        eprintln!("casblock: CAUTION: {}: {caution}", args.target);
    }
    output.result(&Initialized::of(&cluster, args))?;
    Ok(ExitCode::SUCCESS)
}

/// Says if a store has fewer writer slots than hosts.
fn require_writers(store: &Store) {
    let writers = store.geometry().writer_count();
    if writers < 64 {
        eprintln!(
            "casblock: the store has {writers} writer slots: no more processes than that can take leases at once"
        );
    }
}

#[derive(Serialize)]
struct Initialized {
    target: String,
    id: String,
    first_lba: u64,
    hosts: u32,
    leases: u64,
    beats_in: &'static str,
    interval_ms: u64,
    io_timeout_ms: u64,
    stale_ms: u64,
    deadline_ms: u64,
}

impl Initialized {
    fn of(cluster: &Cluster, args: &InitArgs) -> Self {
        let timing = cluster.timing();
        let ms = |time: Duration| time.as_millis() as u64;
        Self {
            target: args.target.to_string(),
            id: format!("{:032x}", cluster.id()),
            first_lba: args.at,
            hosts: cluster.host_count(),
            leases: cluster.lease_count(),
            beats_in: if cluster.is_in_words() { "words" } else { "blocks" },
            interval_ms: ms(timing.interval),
            io_timeout_ms: ms(timing.io_timeout),
            stale_ms: ms(timing.stale),
            deadline_ms: ms(timing.deadline()),
        }
    }
}

impl fmt::Display for Initialized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster on         {}", self.target)?;
        writeln!(f, "id                 {}", self.id)?;
        writeln!(f, "hosts              {}, their hearts beat in {}", grouped(self.hosts.into()), self.beats_in)?;
        writeln!(f, "leases             {}", grouped(self.leases))?;
        writeln!(f, "a beat             every {} ms, {} ms for its I/O", self.interval_ms, self.io_timeout_ms)?;
        writeln!(f, "taken for dead     after {} ms without one", self.stale_ms)?;
        write!(f, "a host stops       {} ms after its last one, by its own clock", self.deadline_ms)
    }
}

/// Opens a cluster to look at it.
pub fn observe(args: &LookArgs) -> anyhow::Result<Observer<Box<dyn BlockDevice>>> {
    let device: Box<dyn BlockDevice> = match args.target.open_to_read()? {
        Device::Store(store) => Box::new(store),
        Device::Disk(disk) => disk,
    };
    Observer::new(device, args.at).with_context(|| args.target.to_string())
}

/// A host as it is shown.
#[derive(Serialize)]
pub struct HostLine {
    slot: u32,
    name: Option<String>,
    generation: u32,
    state: &'static str,
    still_ms: Option<u64>,
    beats: u64,
    leases: u64,
}

impl HostLine {
    fn of(view: &SlotView, leases: u64) -> Self {
        Self {
            slot: view.slot,
            name: view.name.as_ref().map(|name| name.as_str().to_owned()),
            generation: view.generation,
            state: view.liveness.name(),
            still_ms: view.still.map(|still| still.as_millis() as u64),
            beats: view.beats,
            leases,
        }
    }
}

/// The slots that were ever taken, with the number of leases that each of their owners holds.
pub fn look(observer: &Observer<Box<dyn BlockDevice>>) -> anyhow::Result<Vec<(SlotView, u64)>> {
    let slots = observer.look()?;
    let mut leases = vec![0; slots.len()];
    observer.leases(|_, lease| {
        // Nobody is known to hold one whose block is damaged; `lease list` shows it.
        for holder in lease.into_iter().flat_map(|lease| lease.holders) {
            if slots.get(holder.slot as usize).is_some_and(|slot| slot.generation == holder.generation) {
                leases[holder.slot as usize] += 1;
            }
        }
        Ok(())
    })?;
    Ok(slots
        .into_iter()
        .zip(leases)
        .filter(|(slot, _)| slot.liveness != Liveness::Free || slot.generation > 0)
        .collect())
}

fn hosts(args: &LookArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let observer = observe(args)?;
    let slots = look_for_a_while(&observer, output).with_context(|| args.target.to_string())?;
    show(&slots, output)?;
    Ok(ExitCode::SUCCESS)
}

/// Looks until those who live have beaten: if anybody is there.
fn look_for_a_while(
    observer: &Observer<Box<dyn BlockDevice>>,
    output: &Output,
) -> anyhow::Result<Vec<(SlotView, u64)>> {
    let first = look(observer)?;
    if !first.iter().any(|(slot, _)| slot.liveness.is_taken()) {
        return Ok(first);
    }
    let interrupt = Interruptible::new()?;
    let time = observer.cluster().timing().late() + Duration::from_millis(100);
    let (steps, step) = (100, time / 100);
    let progress = output.progress("watching", steps);
    for done in 0..steps {
        interrupt.check()?;
        progress.set(done);
        std::thread::sleep(step);
    }
    drop(progress);
    look(observer)
}

fn show(slots: &[(SlotView, u64)], output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        for (slot, leases) in slots {
            println!("{}", serde_json::to_string(&HostLine::of(slot, *leases))?);
        }
        return Ok(());
    }
    output.text(table::text(slots))?;
    Ok(())
}
