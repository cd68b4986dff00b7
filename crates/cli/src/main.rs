//! The command `casblock`: makes, reads, changes, checks and exercises block stores.

mod blocks;
mod caw;
mod check;
mod cluster;
mod conformance;
mod create_info;
mod demo;
mod durable;
mod events;
mod exit;
mod export;
mod hexdump;
mod image;
mod lease;
mod number;
mod output;
mod probe;
mod progress;
mod replay;
mod run;
mod same_file;
mod signals;
mod target;
mod torture;
mod words;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::Output;

/// A block store whose one primitive is compare-and-write
///
/// If block N still holds these bytes, replace them by those; else show what is there. casblock does this in a
/// memory-mapped file that any number of threads and processes share, without locks, and on disks that hosts share.
///
/// A TARGET is a store's file (PATH) or a disk with COMPARE AND WRITE (scsi:/dev/sdX).
///
/// Numbers are decimal or 0x…; K, M, G and T multiply a size, a count or a block's number by 1024, 1024² and so on.
///
/// Exit status: 0 done, 14 miscompare (caw, word cas), 3 outcome not known (caw on a disk), 1 another error, 2 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "casblock", version, max_term_width = 80)]
struct Cli {
    /// Print results as JSON, one object a line
    #[arg(long, global = true, display_order = 100)]
    json: bool,

    /// Log to stderr: off, error, warn, info, debug, trace, or target=level,…; with `json,` before it, or alone, one JSON
    /// object a line (docs/events.md) [default: RUST_LOG, or else warnings; those
    /// of stores and clusters only as JSON]
    #[arg(long, global = true, value_name = "[json,]LEVEL", display_order = 101, value_parser = Log::parse)]
    log: Option<Log>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Create(create_info::CreateArgs),
    Info(create_info::InfoArgs),
    Read(blocks::ReadArgs),
    Write(blocks::WriteArgs),
    Caw(caw::CawArgs),
    Word(words::WordArgs),
    Import(image::ImportArgs),
    Export(export::ExportArgs),
    Sync(durable::SyncArgs),
    Check(check::CheckArgs),
    Events(events::EventsArgs),
    Probe(probe::ProbeArgs),
    Conformance(conformance::ConformanceArgs),
    Cluster(cluster::ClusterArgs),
    Lease(lease::LeaseArgs),
    Run(run::RunArgs),
    Replay(replay::ReplayArgs),
    /// Increments counters from many processes while killing them, and shows that nothing is lost or torn
    Torture(torture::Args),
    /// Shows in a few seconds, in a temporary folder, what casblock does
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    signals::turn_faults_into_errors();
    cli.log.clone().unwrap_or_default().start();
    tracing::debug!(command = ?cli.command, json = cli.json);
    let output = Output::new(cli.json);
    let result = match &cli.command {
        Command::Create(args) => create_info::create(args, &output),
        Command::Info(args) => create_info::info(args, &output),
        Command::Read(args) => blocks::read(args, &output),
        Command::Write(args) => blocks::write(args, &output),
        Command::Caw(args) => caw::caw(args, &output),
        Command::Word(args) => words::run(args, &output),
        Command::Import(args) => image::import(args, &output),
        Command::Export(args) => export::export(args, &output),
        Command::Sync(args) => durable::sync(args, &output),
        Command::Check(args) => check::check(args, &output),
        Command::Events(args) => events::events(args, &output),
        Command::Probe(args) => probe::probe(args, &output),
        Command::Conformance(args) => conformance::conformance(args, &output),
        Command::Cluster(args) => cluster::run(args, &output),
        Command::Lease(args) => lease::run(args, &output),
        Command::Run(args) => run::run(args, &output),
        Command::Replay(args) => replay::replay(args, &output),
        Command::Torture(args) => torture::run(args, &output),
        Command::Demo(args) => demo::run(args, &output),
    };
    result.unwrap_or_else(|error| exit::report(&error))
}

/// What `--log` asks for.
#[derive(Clone, Debug, PartialEq, Default)]
struct Log {
    json: bool,
    /// As RUST_LOG says, if it does not.
    levels: Option<Targets>,
}

impl Log {
    /// What the argument means. A word alone is a level; `Targets` would take another one for a target.
    fn parse(text: &str) -> Result<Self, String> {
        let (json, levels) = match text.strip_prefix("json") {
            Some("") => return Ok(Self { json: true, levels: None }),
            Some(rest) if rest.starts_with(',') => (true, &rest[1..]),
            _ => (false, text),
        };
        let level = || levels.parse::<LevelFilter>().map(|level| Targets::new().with_default(level)).ok();
        let targets = || levels.contains('=').then(|| levels.parse().ok()).flatten();
        match level().or_else(targets) {
            Some(levels) if !text.is_empty() && !text.ends_with(',') => Ok(Self { json, levels: Some(levels) }),
            _ => Err("off, error, warn, info, debug, trace, target=level or json is needed".into()),
        }
    }

    /// What is logged if nobody says.
    fn default_levels(json: bool) -> Targets {
        let warnings = Targets::new().with_default(LevelFilter::WARN);
        // What befalls a store or a cluster, the commands tell people themselves, in better words. Programs, which cannot
        // read those, get the events.
        let told = ["casblock::store", "casblock::heartbeat", "casblock::lease"];
        if json { warnings } else { warnings.with_targets(told.map(|target| (target, LevelFilter::OFF))) }
    }

    /// Sends the log to stderr.
    fn start(self) {
        // A RUST_LOG meant for something else, which this cannot read, is no reason to refuse work.
        let from_environment = || std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
        let levels = self.levels.or_else(from_environment).unwrap_or_else(|| Self::default_levels(self.json));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let registry = tracing_subscriber::registry();
        if self.json {
            registry.with(lines.json().flatten_event(true).with_filter(levels)).init();
        } else {
            registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_filter(levels)).init();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_log_asks_for() {
        let level = |level| Some(Targets::new().with_default(level));
        assert_eq!(Log::parse("json"), Ok(Log { json: true, levels: None }));
        assert_eq!(Log::parse("info"), Ok(Log { json: false, levels: level(LevelFilter::INFO) }));
        assert_eq!(Log::parse("json,info"), Ok(Log { json: true, levels: level(LevelFilter::INFO) }));
        assert_eq!(Log::parse("json,casblock::ats=debug").unwrap().levels, "casblock::ats=debug".parse().ok());
        for wrong in ["", "json,", "jsonl", "loud", "json,loud"] {
            assert!(Log::parse(wrong).is_err(), "{wrong}");
        }
    }
}
